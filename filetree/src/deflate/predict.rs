//! What zlib and gzip would do next.
//!
//! Both look for repetitions in the same way: chains of places with the same hash of three bytes,
//! followed for so many steps, and a look at the next place before a repetition is taken. So with
//! the level and the size of the hash table, which together are a few bits, most of what a stream
//! says beyond its plain text is known. What is predicted depends on plain text and true tokens alone,
//! never on the pieces in which the text comes: so who takes a stream apart and who makes it again
//! predict the same.

#[cfg(test)]
mod tests;

use std::io;

use super::{
    chains::Chains,
    damaged,
    token::{MAX_MATCH, MIN_MATCH, Token, WINDOW_BYTES},
};

/// Plain text that must be at hand behind a place before the token there can be told.
pub(super) const LOOKAHEAD: usize = MAX_MATCH + MIN_MATCH + 1;
/// How far back zlib looks: it wants so many bytes ahead.
const MAX_DISTANCE: usize = WINDOW_BYTES - LOOKAHEAD;
/// Repetitions of three bytes from farther away cost more than the bytes.
const TOO_FAR: usize = 4096;
/// Places that are put into the chains at once, beyond the one that is needed: fewer than the window
/// has more than zlib looks back.
const AHEAD: usize = 250;
/// How far behind a place four bytes may be that are looked for.
const MOST_INTO: usize = 60;
/// Plain text after which the oldest is forgotten.
const BUFFER_BYTES: usize = 256 << 10;
/// Most plain text of a stream.
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
///
/// Takes about 1.5 MiB, for one stream after the other.
pub(super) struct Predictor {
    effort: Effort,
    /// Plain text from `begin` on.
    window: Vec<u8>,
    begin: usize,
    /// The stream's first place.
    origin: usize,
    /// Where the next token is.
    at: usize,
    ended: bool,
    chains: Chains,
    /// What was found at the next place when it was looked at in advance.
    pending: Option<Found>,
    /// Places that were looked at.
    steps: u64,
}

/// How repetitions are looked for.
struct Walk {
    /// In the chain of the four bytes so many behind the place,
    into: usize,
    /// only those farther away than this,
    nearest: usize,
    /// so many steps, unless it is the chain at the place itself.
    left: usize,
}

#[derive(Debug, Clone, Copy)]
struct Found {
    len: usize,
    distance: usize,
}

impl Predictor {
    /// Predicts nothing before a stream [starts](Self::start).
    pub(super) fn new() -> Self {
        Self {
            effort: EFFORTS[0],
            window: Vec::new(),
            begin: 0,
            origin: 0,
            at: 0,
            ended: false,
            chains: Chains::new(),
            pending: None,
            steps: 0,
        }
    }

    /// Begins another stream.
    ///
    /// # Errors
    /// `InvalidData` where no stream is made like this.
    pub(super) fn start(&mut self, parameters: Parameters) -> io::Result<()> {
        let Parameters { level, hash_bits } = parameters;
        let effort = EFFORTS.get(usize::from(level).wrapping_sub(1)).ok_or_else(damaged)?;
        if !(8..=16).contains(&hash_bits) {
            return Err(damaged());
        }
        let origin = self.begin + self.window.len();
        self.effort = *effort;
        self.window.clear();
        (self.begin, self.origin, self.at) = (origin, origin, origin);
        self.ended = false;
        self.chains.start(origin, hash_bits);
        self.pending = None;
        self.steps = 0;
        Ok(())
    }

    /// Takes more plain text.
    pub(super) fn push(&mut self, plain: &[u8]) {
        let unused = (self.at - self.begin).saturating_sub(WINDOW_BYTES + MAX_MATCH);
        if unused >= BUFFER_BYTES {
            self.remember(self.at - 1);
            self.window.drain(..unused);
            self.begin += unused;
        }
        self.window.extend_from_slice(plain);
    }

    /// Plain text at hand behind the next token's place.
    pub(super) fn rest(&self) -> &[u8] {
        &self.window[self.at - self.begin..]
    }

    /// Passes bytes that are at hand and belong to no token.
    pub(super) fn skip(&mut self, bytes: usize) {
        self.pending = None;
        self.at += bytes.min(self.ahead());
        if self.at > self.origin {
            self.remember(self.at - 1);
        }
    }

    /// There is no more plain text.
    pub(super) fn end(&mut self) {
        self.ended = true;
    }

    /// Bytes of plain text behind the next token's place.
    #[inline]
    pub(super) fn ahead(&self) -> usize {
        self.window.len() - (self.at - self.begin)
    }

    /// Whether the next token can be told.
    #[inline]
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
    ///
    /// # Errors
    /// `InvalidData` where there is not as much plain text, or it took too long to come here.
    pub(super) fn accept(&mut self, token: Token, was_predicted: bool) -> io::Result<()> {
        let bytes = token.bytes();
        let most_steps = FIRST_STEPS + (self.at - self.origin) as u64 * STEPS;
        if bytes > self.ahead() || self.steps > most_steps {
            return Err(damaged());
        }
        if !was_predicted {
            self.pending = None;
        }
        let end = self.at + bytes;
        if !self.effort.looks_ahead {
            // Where zlib does look ahead, every place comes into the chains, as soon as it is needed.
            let is_long = !token.is_literal() && bytes > self.effort.lazy;
            self.remember(if is_long { self.at } else { end - 1 });
            if is_long {
                self.chains.pass_over(end);
            }
        }
        self.at = end;
        Ok(())
    }

    /// Puts places into the chains up to and with `last`, and some more where zlib remembers all.
    fn remember(&mut self, last: usize) {
        let last = if self.effort.looks_ahead { last + AHEAD } else { last };
        self.chains.remember(last, &self.window, self.begin);
    }

    /// The best repetition at `at` that is longer than `best`, within so many steps of zlib's.
    fn search(&mut self, at: usize, best: usize, chain: usize) -> Option<Found> {
        if self.chains.remembered() <= at + MOST_INTO {
            self.remember(at);
        }
        let longer = match self.chains.remembered() > at {
            true => self.longer(at, best.max(MIN_MATCH), chain),
            false => None,
        };
        match longer {
            None if best < MIN_MATCH => self.shortest(at, chain),
            longer => longer,
        }
    }

    /// The best repetition at `at`, which is in the chains, that is longer than `best`, three bytes
    /// at least.
    fn longer(&mut self, at: usize, mut best: usize, chain: usize) -> Option<Found> {
        let place = at - self.begin;
        let ahead = self.window.len() - place;
        let most = ahead.min(MAX_MATCH);
        if best >= most {
            return None;
        }
        let nice = self.effort.nice.min(ahead);
        let new = &self.window[place..place + most];
        let front = word(new, 0);
        let farthest = MAX_DISTANCE.min((at - self.origin).saturating_sub(1));
        let mut walk = Walk { into: self.rarest(at, best), nearest: 0, left: chain };
        let mut found = None;
        let mut end = word(new, best - MIN_MATCH);
        let mut old = at + walk.into;
        while let Some(next) = self.chains.four_before(old) {
            old = next;
            let distance = at + walk.into - old;
            if distance > farthest {
                break;
            }
            self.steps += 1;
            let is_over = walk.left == 0;
            walk.left = walk.left.saturating_sub(1);
            if is_over && walk.into > 0 {
                // Not as rare as it seemed. zlib's chain is that of the front, and ends for certain.
                walk = Walk { into: 0, nearest: walk.nearest.max(distance - 1), left: chain };
                old = at;
                continue;
            }
            let candidate = &self.window[place - distance..][..most];
            if (word(candidate, best - MIN_MATCH) != end && !is_over)
                || word(candidate, 0) != front
                || distance <= walk.nearest
            {
                continue;
            }
            let steps = self.chains.steps(at, at - distance);
            if steps > chain || (distance == MAX_DISTANCE && steps > 1) {
                break;
            }
            let len = in_common(candidate, new);
            if len <= best {
                continue;
            }
            found = Some(Found { len, distance });
            best = len;
            if len >= nice {
                break;
            }
            end = word(new, best - MIN_MATCH);
            let into = self.rarest(at, best);
            if into != walk.into {
                walk = Walk { into, nearest: distance, left: chain };
                old = at + into;
            }
        }
        found
    }

    /// Whatever is longer than `best` has the four bytes in common that end with it. Mostly they are
    /// rarer than those at the front: so many bytes behind `at` is what to look for.
    #[inline]
    fn rarest(&self, at: usize, best: usize) -> usize {
        let into = (best - MIN_MATCH).min(MOST_INTO);
        let back = |place| self.chains.four_before(place).map_or(0, |before| place - before);
        let is_rarer = into > 0
            && self.chains.remembered() > at + into
            && back(at + into).wrapping_sub(1) >= back(at).wrapping_sub(1);
        if is_rarer { into } else { 0 }
    }

    /// The nearest repetition of the three bytes at `at`, where there is none of more.
    fn shortest(&mut self, at: usize, chain: usize) -> Option<Found> {
        // Without a look ahead, zlib takes these from anywhere.
        let farthest = if self.effort.looks_ahead { TOO_FAR } else { MAX_DISTANCE };
        let place = at - self.begin;
        let new = self.window.get(place..place + MIN_MATCH)?;
        let mut next = match self.chains.remembered() > at {
            true => self.chains.three_before(at),
            false => self.chains.last_three(at, new),
        };
        for step in 1..=chain {
            let old = next?;
            let distance = at - old;
            if distance > farthest || (distance == MAX_DISTANCE && step > 1) {
                return None;
            }
            self.steps += 1;
            if self.window[place - distance..].starts_with(new) {
                return Some(Found { len: MIN_MATCH, distance });
            }
            next = self.chains.three_before(old);
        }
        None
    }
}

/// Four bytes.
#[inline]
fn word(bytes: &[u8], at: usize) -> u32 {
    bytes[at..].first_chunk().map_or(0, |four| u32::from_le_bytes(*four))
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
