//! Takes streams apart: plain text, and what zlib would have done otherwise.

use std::{
    collections::VecDeque,
    io::{self, Read},
};

use protocol::wire::Writer;

use super::{
    damaged,
    huffman::{Frequencies, Lengths},
    parse::{self, Kind, Visitor},
    predict::{MAX_PLAIN_BYTES, Parameters, Predictor},
    token::Token,
};

/// Most tokens of a block: zlib has up to 32,767, others some hundreds of thousands.
pub(super) const MAX_BLOCK_TOKENS: u64 = 1 << 20;

// The first byte of a block in corrections.
pub(super) const KIND: u8 = 0b11;
pub(super) const STORED: u8 = 0;
pub(super) const FIXED: u8 = 1;
pub(super) const DYNAMIC: u8 = 2;
pub(super) const LAST: u8 = 0b100;
/// Its codes are not those that zlib would choose, and follow.
pub(super) const OWN_CODES: u8 = 0b1000;
/// Stored bytes are preceded by other bits than zeros, which follow.
pub(super) const PADDED: u8 = 0b1_0000;

/// Plain text that is looked at to find out how a stream was made.
const SAMPLE_BYTES: usize = 48 << 10;
/// One token of so many may be predicted wrongly.
const TOO_MANY: usize = 8;

/// What is tried to find out how a stream was made, the usual first.
const CANDIDATES: [Parameters; 13] = {
    const fn of(level: u8, hash_bits: u8) -> Parameters {
        Parameters { level, hash_bits }
    }
    [
        of(6, 15),
        of(9, 15),
        of(6, 16),
        of(9, 16),
        of(1, 15),
        of(5, 15),
        of(8, 15),
        of(7, 15),
        of(4, 15),
        of(3, 15),
        of(2, 15),
        of(8, 16),
        of(1, 16),
    ]
};

/// How the stream before was made: the next one of a file is mostly alike.
#[derive(Debug, Clone, Copy, Default)]
pub struct Hint(Option<Parameters>);

/// A stream that was taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// Bytes of the stream.
    pub stored_len: u64,
    /// Bytes of its plain text.
    pub plain_len: u64,
    /// What zlib would have done otherwise.
    pub corrections: Vec<u8>,
}

/// Takes the stream at the beginning of what `open` gives apart; its plain text goes to `sink`.
/// `None` where it was made in a way that is not worth describing; the sink may have got some of its
/// plain text then.
///
/// # Errors
/// `InvalidData` or `UnexpectedEof` where it is no deflate stream, or has more than `plain_limit`
/// bytes of plain text; whatever `sink` and what is opened give.
pub fn split<R: Read>(
    open: &dyn Fn() -> R,
    plain_limit: u64,
    hint: &mut Hint,
    sink: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<Option<Split>> {
    let plain_limit = plain_limit.min(MAX_PLAIN_BYTES);
    let mut sample = Sample::default();
    match parse::parse(open(), plain_limit, &mut sample) {
        Err(error) if !sample.is_full() => return Err(error),
        _ => {}
    }
    let Some(parameters) = sample.made_with(hint.0)? else { return Ok(None) };
    let mut splitter = Splitter {
        sink,
        predictor: Predictor::new(parameters)?,
        queue: VecDeque::new(),
        frequencies: Frequencies::new(),
        kind: Kind::Fixed,
        is_last: false,
        block_tokens: 0,
        blocks: Writer::new(),
        misses: Writer::new(),
        run: 0,
        plain_len: 0,
        gives_up: false,
    };
    let parsed = parse::parse(open(), plain_limit, &mut splitter);
    if splitter.gives_up {
        return Ok(None);
    }
    let (stored_len, padding) = parsed?;
    splitter.predictor.end();
    splitter.advance()?;
    if !splitter.queue.is_empty() {
        return Err(damaged());
    }
    hint.0 = Some(parameters);
    let mut corrections = Writer::new();
    corrections.byte(parameters.level).byte(parameters.hash_bits).byte(padding);
    corrections.bytes(splitter.blocks.as_slice()).raw(splitter.misses.as_slice());
    let corrections = corrections.into_bytes();
    if corrections.len() as u64 * TOO_MANY as u64 > stored_len.max(1024) {
        return Ok(None);
    }
    Ok(Some(Split { stored_len, plain_len: splitter.plain_len, corrections }))
}

/// The first tokens of a stream.
#[derive(Default)]
struct Sample {
    tokens: Vec<Item>,
    plain: Vec<u8>,
    covered: usize,
}

#[derive(Debug, Clone, Copy)]
enum Item {
    Token(Token),
    Skipped(u16),
}

impl Sample {
    fn is_full(&self) -> bool {
        self.plain.len() >= SAMPLE_BYTES
    }

    fn add(&mut self, item: Item, bytes: usize) {
        if self.covered < SAMPLE_BYTES {
            self.tokens.push(item);
            self.covered += bytes;
        }
    }

    /// What would have made most of the sample.
    fn made_with(&self, hint: Option<Parameters>) -> io::Result<Option<Parameters>> {
        let tokens = self.tokens.len();
        let mut best = (tokens + 1, None);
        for parameters in hint.into_iter().chain(CANDIDATES) {
            let misses = self.misses(parameters, best.0)?;
            if misses < best.0 {
                best = (misses, Some(parameters));
            }
            if misses == 0 {
                break;
            }
        }
        Ok(best.1.filter(|_| best.0 * TOO_MANY <= tokens.max(64)))
    }

    /// Tokens that are predicted wrongly, as far as they are fewer than `most`.
    fn misses(&self, parameters: Parameters, most: usize) -> io::Result<usize> {
        let mut predictor = Predictor::new(parameters)?;
        predictor.push(&self.plain);
        predictor.end();
        let mut misses = 0;
        for item in &self.tokens {
            match *item {
                Item::Skipped(bytes) => predictor.skip(usize::from(bytes)),
                Item::Token(token) => {
                    let is_right = predictor.predict() == token;
                    misses += usize::from(!is_right);
                    // What lies beyond the sample is not known.
                    if misses >= most || predictor.accept(token, is_right).is_err() {
                        break;
                    }
                }
            }
        }
        Ok(misses)
    }
}

impl Visitor for Sample {
    fn begin(&mut self, kind: Kind, _is_last: bool) -> io::Result<()> {
        if let Kind::Stored { len, .. } = kind {
            self.add(Item::Skipped(len), usize::from(len));
        }
        Ok(())
    }

    fn token(&mut self, token: Token) -> io::Result<()> {
        self.add(Item::Token(token), token.bytes());
        Ok(())
    }

    fn end(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn plain(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.plain.extend_from_slice(bytes);
        // Enough was seen: this ends the parsing.
        if self.is_full() { Err(damaged()) } else { Ok(()) }
    }
}

/// Compares a stream with what is predicted.
struct Splitter<'a> {
    sink: &'a mut dyn FnMut(&[u8]) -> io::Result<()>,
    predictor: Predictor,
    /// What was read and not yet compared: that takes plain text ahead.
    queue: VecDeque<Item>,
    frequencies: Frequencies,
    kind: Kind,
    is_last: bool,
    block_tokens: u64,
    blocks: Writer,
    misses: Writer,
    /// Tokens since the last one that was predicted wrongly.
    run: u64,
    plain_len: u64,
    gives_up: bool,
}

impl Splitter<'_> {
    fn advance(&mut self) -> io::Result<()> {
        while let Some(item) = self.queue.front().copied() {
            match item {
                Item::Skipped(bytes) => {
                    let now = usize::from(bytes).min(self.predictor.ahead());
                    self.predictor.skip(now);
                    if now < usize::from(bytes) {
                        self.queue[0] = Item::Skipped(bytes - now as u16);
                        return Ok(());
                    }
                }
                Item::Token(token) => {
                    if !self.predictor.is_ready() {
                        return Ok(());
                    }
                    let is_right = self.predictor.predict() == token;
                    if is_right {
                        self.run += 1;
                    } else {
                        self.misses.varint(self.run).varint(u64::from(token.len));
                        if !token.is_literal() {
                            self.misses.varint(u64::from(token.distance));
                        }
                        self.run = 0;
                    }
                    if let Err(error) = self.predictor.accept(token, is_right) {
                        self.gives_up = true;
                        return Err(error);
                    }
                }
            }
            self.queue.pop_front();
        }
        Ok(())
    }
}

impl Visitor for Splitter<'_> {
    fn begin(&mut self, kind: Kind, is_last: bool) -> io::Result<()> {
        if let Kind::Stored { len, .. } = kind {
            self.queue.push_back(Item::Skipped(len));
        }
        (self.kind, self.is_last) = (kind, is_last);
        (self.frequencies, self.block_tokens) = (Frequencies::new(), 0);
        Ok(())
    }

    fn token(&mut self, token: Token) -> io::Result<()> {
        self.block_tokens += 1;
        if self.block_tokens > MAX_BLOCK_TOKENS {
            self.gives_up = true;
            return Err(damaged());
        }
        token.count(&mut self.frequencies);
        self.queue.push_back(Item::Token(token));
        Ok(())
    }

    fn end(&mut self) -> io::Result<()> {
        let last = if self.is_last { LAST } else { 0 };
        match &self.kind {
            Kind::Stored { padding, len } => {
                let padded = if *padding == 0 { 0 } else { PADDED };
                self.blocks.byte(STORED | last | padded).varint(u64::from(*len));
                if *padding != 0 {
                    self.blocks.byte(*padding);
                }
            }
            Kind::Fixed => {
                self.blocks.byte(FIXED | last).varint(self.block_tokens);
            }
            Kind::Dynamic(written) => {
                let is_usual = Lengths::predicted(&self.frequencies).write() == *written;
                let own = if is_usual { 0 } else { OWN_CODES };
                self.blocks.byte(DYNAMIC | last | own).varint(self.block_tokens);
                if !is_usual {
                    self.blocks.bytes(&written.clone().into_bytes());
                }
            }
        }
        Ok(())
    }

    fn plain(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.plain_len += bytes.len() as u64;
        (self.sink)(bytes)?;
        self.predictor.push(bytes);
        self.advance()
    }
}
