//! What zlib and gzip would do next.
//!
//! Both look for repetitions in the same way: chains of places with the same hash of three bytes,
//! followed for so many steps, and a look at the next place before a repetition is taken. So with
//! the level and the size of the hash table, which together are a few bits, most of what a stream
//! says beyond its plain text is known.

use std::io;

use super::{
    damaged,
    token::{MAX_MATCH, MIN_MATCH, Token, WINDOW_BYTES},
};

/// Plain text that must be at hand behind a place before the token there can be told.
pub(super) const LOOKAHEAD: usize = MAX_MATCH + MIN_MATCH + 1;
/// How far back zlib looks: it wants so many bytes ahead.
const MAX_DISTANCE: usize = WINDOW_BYTES - LOOKAHEAD;
/// Repetitions of three bytes from farther away cost more than the bytes.
const TOO_FAR: usize = 4096;
/// Plain text after which the oldest is forgotten.
const BUFFER_BYTES: usize = 256 << 10;
/// Most plain text of a stream: places are counted in 32 bits.
pub(super) const MAX_PLAIN_BYTES: u64 = 1 << 31;

/// Places that are looked at for each byte of plain text, on average, at most: some texts have no
/// long repetitions but thousands of short ones, and would keep a mirror busy for days.
const STEPS: u64 = 400;
/// The same, whatever the plain text.
const FIRST_STEPS: u64 = 1 << 20;

/// How a stream was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Parameters {
    /// From 1 to 9.
    pub(super) level: u8,
    /// From 8 to 16.
    pub(super) hash_bits: u8,
}

/// zlib's table of levels.
#[derive(Debug, Clone, Copy)]
struct Effort {
    /// A repetition of this length makes the look at the next place a short one,
    good: usize,
    /// of this length needless (or, where nothing is looked at twice, the places within it not worth
    /// remembering),
    lazy: usize,
    /// of this length ends every search.
    nice: usize,
    /// Places that are looked at.
    chain: usize,
    /// Whether the next place is looked at before a repetition is taken.
    looks_ahead: bool,
}

const EFFORTS: [Effort; 9] = {
    const fn of(good: usize, lazy: usize, nice: usize, chain: usize, looks_ahead: bool) -> Effort {
        Effort { good, lazy, nice, chain, looks_ahead }
    }
    [
        of(4, 4, 8, 4, false),
        of(4, 5, 16, 8, false),
        of(4, 6, 32, 32, false),
        of(4, 4, 16, 16, true),
        of(8, 16, 32, 32, true),
        of(8, 16, 128, 128, true),
        of(8, 32, 128, 256, true),
        of(32, 128, 258, 1024, true),
        of(32, 258, 258, 4096, true),
    ]
};

/// Tells tokens one after the other, as plain text and the true tokens come to be known.
pub(super) struct Predictor {
    effort: Effort,
    hash_bits: u32,
    hash_shift: u32,
    /// Plain text from `begin` on.
    window: Vec<u8>,
    begin: usize,
    /// Where the next token is.
    at: usize,
    ended: bool,
    /// The last place of each hash; 0 where there is none, so that the first place is never found,
    /// as with zlib.
    heads: Vec<u32>,
    /// For each place of the window, the one before it with the same hash.
    before: Vec<u32>,
    /// The places before this one are in the chains.
    remembered: usize,
    /// What was found at the next place when it was looked at in advance.
    pending: Option<Found>,
    /// Places that may still be looked at.
    steps: u64,
}

#[derive(Debug, Clone, Copy)]
struct Found {
    len: usize,
    distance: usize,
}

impl Predictor {
    pub(super) fn new(parameters: Parameters) -> io::Result<Self> {
        let Parameters { level, hash_bits } = parameters;
        let effort = EFFORTS.get(usize::from(level).wrapping_sub(1)).ok_or_else(damaged)?;
        if !(8..=16).contains(&hash_bits) {
            return Err(damaged());
        }
        let hash_bits = u32::from(hash_bits);
        Ok(Self {
            effort: *effort,
            hash_bits,
            hash_shift: hash_bits.div_ceil(MIN_MATCH as u32),
            window: Vec::new(),
            begin: 0,
            at: 0,
            ended: false,
            heads: vec![0; 1 << hash_bits],
            before: vec![0; WINDOW_BYTES],
            remembered: 0,
            pending: None,
            steps: FIRST_STEPS,
        })
    }

    /// Takes more plain text.
    pub(super) fn push(&mut self, plain: &[u8]) {
        let unused = (self.at - self.begin).saturating_sub(WINDOW_BYTES + MAX_MATCH);
        if unused >= BUFFER_BYTES {
            self.window.drain(..unused);
            self.begin += unused;
        }
        self.window.extend_from_slice(plain);
        self.steps = self.steps.saturating_add(plain.len() as u64 * STEPS);
    }

    /// Plain text at hand behind the next token's place.
    pub(super) fn rest(&self) -> &[u8] {
        &self.window[self.at - self.begin..]
    }

    /// Passes bytes that are at hand and belong to no token.
    pub(super) fn skip(&mut self, bytes: usize) {
        self.pending = None;
        self.at += bytes.min(self.ahead());
        if self.at > 0 {
            self.remember(self.at - 1);
        }
    }

    /// There is no more plain text.
    pub(super) fn end(&mut self) {
        self.ended = true;
    }

    /// Bytes of plain text behind the next token's place.
    pub(super) fn ahead(&self) -> usize {
        self.window.len() - (self.at - self.begin)
    }

    /// Whether the next token can be told.
    pub(super) fn is_ready(&self) -> bool {
        self.ahead() >= LOOKAHEAD || (self.ended && self.ahead() > 0)
    }

    /// The next token as zlib would have it.
    pub(super) fn predict(&mut self) -> Token {
        let literal = Token::literal(self.rest().first().copied().unwrap_or(0));
        let (at, effort) = (self.at, self.effort);
        let found = match self.pending.take() {
            Some(found) => Some(found),
            None => self.search(at, MIN_MATCH - 1, effort.chain),
        };
        let Some(found) = found else { return literal };
        if effort.looks_ahead && found.len < effort.lazy {
            let chain = if found.len >= effort.good { effort.chain >> 2 } else { effort.chain };
            self.pending = self.search(at + 1, found.len, chain);
            if self.pending.is_some() {
                return literal;
            }
        }
        Token { len: found.len as u16, distance: found.distance as u16 }
    }

    /// Goes on behind the token that is there in truth.
    pub(super) fn accept(&mut self, token: Token, was_predicted: bool) -> io::Result<()> {
        let bytes = token.bytes();
        if bytes > self.ahead() || self.steps == 0 {
            return Err(damaged());
        }
        if !was_predicted {
            self.pending = None;
        }
        let end = self.at + bytes;
        if !self.effort.looks_ahead && !token.is_literal() && bytes > self.effort.lazy {
            self.remember(self.at);
            self.remembered = end;
        } else {
            self.remember(end - 1);
        }
        self.at = end;
        Ok(())
    }

    fn hash(&self, at: usize) -> Option<usize> {
        let at = at - self.begin;
        let bytes = self.window.get(at..at + MIN_MATCH)?;
        let shift = self.hash_shift;
        let hash =
            u32::from(bytes[0]) << (2 * shift) ^ u32::from(bytes[1]) << shift ^ u32::from(bytes[2]);
        Some((hash & ((1 << self.hash_bits) - 1)) as usize)
    }

    /// Puts every place up to and with `last` into the chains.
    fn remember(&mut self, last: usize) {
        while self.remembered <= last {
            let Some(hash) = self.hash(self.remembered) else { return };
            self.before[self.remembered % WINDOW_BYTES] = self.heads[hash];
            self.heads[hash] = self.remembered as u32;
            self.remembered += 1;
        }
    }

    /// The best repetition at `at` that is longer than `best`.
    fn search(&mut self, at: usize, mut best: usize, mut chain: usize) -> Option<Found> {
        self.remember(at);
        if self.remembered <= at {
            return None;
        }
        let place = at - self.begin;
        let ahead = self.window.len() - place;
        let most = ahead.min(MAX_MATCH);
        if best >= most {
            return None;
        }
        let nice = self.effort.nice.min(ahead);
        let new = &self.window[place..place + most];
        let mut end = [new[best - 1], new[best]];
        let mut found = None;
        let mut old = self.before[at % WINDOW_BYTES] as usize;
        if old == 0 || at - old > MAX_DISTANCE {
            return None;
        }
        let limit = at.saturating_sub(MAX_DISTANCE);
        let before = chain;
        loop {
            let from = old - self.begin;
            let candidate = &self.window[from..from + most];
            if candidate[best - 1..=best] == end && candidate[..2] == new[..2] {
                let len = in_common(candidate, new);
                if len > best {
                    found = Some(Found { len, distance: at - old });
                    best = len;
                    if len >= nice {
                        break;
                    }
                    end = [new[best - 1], new[best]];
                }
            }
            old = self.before[old % WINDOW_BYTES] as usize;
            chain -= 1;
            if old <= limit || chain == 0 {
                break;
            }
        }
        self.steps = self.steps.saturating_sub((before - chain) as u64);
        // Without a look ahead, zlib takes these too.
        found.filter(|found| {
            !(self.effort.looks_ahead && found.len == MIN_MATCH && found.distance > TOO_FAR)
        })
    }
}

/// Bytes in common at the beginning of two slices of equal length.
fn in_common(a: &[u8], b: &[u8]) -> usize {
    let word = |bytes: &[u8]| {
        let mut word = [0; 8];
        word.copy_from_slice(bytes);
        u64::from_le_bytes(word)
    };
    for (at, (x, y)) in a.chunks_exact(8).zip(b.chunks_exact(8)).enumerate() {
        let differs = word(x) ^ word(y);
        if differs != 0 {
            return at * 8 + differs.trailing_zeros() as usize / 8;
        }
    }
    let whole = a.len() / 8 * 8;
    whole + a[whole..].iter().zip(&b[whole..]).take_while(|(x, y)| x == y).count()
}
