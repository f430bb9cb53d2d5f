//! Takes streams apart: plain text, and what zlib would have done otherwise.
//!
//! That a stream can be made again is known without making it: its tokens are what is predicted, but
//! where corrections say otherwise, and whoever makes it predicts the same with the same code. Those
//! tokens are written as they will be then, and what is written is compared with the stream.

use std::io::{self, Read};

use protocol::{pack::MAX_RECIPE_BYTES, wire::Writer};

use super::{
    bits::BitWriter,
    damaged,
    huffman::{Frequencies, Lengths},
    parse::{self, Kind, Visitor},
    predict::{MAX_PLAIN_BYTES, Parameters, Predictor},
    token::Token,
    write::{self, Codes},
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

/// Takes streams apart, one after the other: of one file they are mostly made alike.
pub struct Splitter {
    /// How the stream before was made.
    made_with: Option<Parameters>,
    predictor: Predictor,
}

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

impl std::fmt::Debug for Splitter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Splitter").field("made_with", &self.made_with).finish_non_exhaustive()
    }
}

impl Default for Splitter {
    fn default() -> Self {
        Self::new()
    }
}

impl Splitter {
    /// Knows nothing of any stream.
    pub fn new() -> Self {
        Self { made_with: None, predictor: Predictor::new() }
    }

    /// Takes the stream at the beginning of what `open` gives apart; its plain text goes to `sink`.
    /// [`Recreator`](super::Recreator) makes the very same stream of it. `None` where it was made in a
    /// way that is not worth describing; the sink may have got some of its plain text then.
    ///
    /// # Errors
    /// `InvalidData` or `UnexpectedEof` where it is no deflate stream, or has more than `plain_limit`
    /// bytes of plain text; whatever `sink` and what is opened give.
    pub fn split<R: Read>(
        &mut self,
        open: &dyn Fn() -> R,
        plain_limit: u64,
        sink: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<Option<Split>> {
        let mut splitting = Splitting {
            sink,
            echo: Echo { stored: open(), bits: BitWriter::default(), bytes: 0 },
            before: self.made_with,
            made_with: None,
            trial: Trial::new(&mut self.predictor),
            sample: Vec::new(),
            items: Vec::new(),
            frequencies: Frequencies::new(),
            kind: Kind::Fixed,
            is_last: false,
            block: Vec::new(),
            blocks: Writer::new(),
            plain_len: 0,
            gives_up: false,
        };
        let parsed = parse::parse(open(), plain_limit.min(MAX_PLAIN_BYTES), &mut splitting);
        let parsed = parsed.and_then(|end| splitting.finish(end.1).map(|()| end));
        if splitting.gives_up {
            return Ok(None);
        }
        let (stored_len, padding) = parsed?;
        let Some(parameters) = splitting.made_with else { return Ok(None) };
        let (blocks, misses) = (splitting.blocks, splitting.trial.misses);
        let (echoed, plain_len) = (splitting.echo.bytes, splitting.plain_len);
        self.made_with = Some(parameters);
        let mut corrections = Writer::new();
        corrections.byte(parameters.level).byte(parameters.hash_bits).byte(padding);
        corrections.bytes(blocks.as_slice()).raw(misses.as_slice());
        let corrections = corrections.into_bytes();
        let is_worth = corrections.len() as u64 * TOO_MANY as u64 <= stored_len.max(1024);
        let is_whole = echoed == stored_len;
        Ok((is_worth && is_whole).then_some(Split { stored_len, plain_len, corrections }))
    }
}

/// What a stream consists of.
#[derive(Debug, Clone, Copy)]
enum Item {
    Token(Token),
    /// Stored bytes.
    Skipped(u16),
}

/// Items compared with what is predicted.
struct Trial<'a> {
    predictor: &'a mut Predictor,
    parameters: Option<Parameters>,
    /// Items that were compared, and bytes of the next one.
    compared: usize,
    compared_bytes: usize,
    /// Tokens since the last one that was predicted wrongly.
    run: u64,
    /// Those that were, as corrections have them.
    misses: Writer,
    missed: usize,
}

impl<'a> Trial<'a> {
    fn new(predictor: &'a mut Predictor) -> Self {
        Self {
            predictor,
            parameters: None,
            compared: 0,
            compared_bytes: 0,
            run: 0,
            misses: Writer::new(),
            missed: 0,
        }
    }

    /// Begins with other parameters.
    fn start(&mut self, parameters: Parameters) -> io::Result<()> {
        self.predictor.start(parameters)?;
        self.parameters = Some(parameters);
        (self.compared, self.compared_bytes, self.run) = (0, 0, 0);
        (self.misses, self.missed) = (Writer::new(), 0);
        Ok(())
    }

    /// Compares as many items as can be, up to so many that are predicted wrongly.
    ///
    /// # Errors
    /// `InvalidData` where that takes too long.
    fn advance(&mut self, items: &[Item], most_misses: usize) -> io::Result<()> {
        while let Some(item) = items.get(self.compared)
            && self.missed < most_misses
        {
            match *item {
                Item::Skipped(bytes) => {
                    let left = usize::from(bytes) - self.compared_bytes;
                    let now = left.min(self.predictor.ahead());
                    self.predictor.skip(now);
                    if now < left {
                        self.compared_bytes += now;
                        return Ok(());
                    }
                    self.compared_bytes = 0;
                }
                Item::Token(token) => {
                    if !self.predictor.is_ready() {
                        return Ok(());
                    }
                    let is_right = self.predictor.predict() == token;
                    self.predictor.accept(token, is_right)?;
                    self.run += 1;
                    if !is_right {
                        self.misses.varint(self.run - 1).varint(u64::from(token.len));
                        if !token.is_literal() {
                            self.misses.varint(u64::from(token.distance));
                        }
                        self.missed += 1;
                        self.run = 0;
                    }
                }
            }
            self.compared += 1;
        }
        Ok(())
    }
}

/// Compares what is written with what is stored.
struct Echo<R> {
    stored: R,
    bits: BitWriter,
    /// Bytes that are the same.
    bytes: u64,
}

impl<R: Read> Echo<R> {
    /// Whether all whole bytes that were written are those that are stored.
    fn is_heard(&mut self) -> io::Result<bool> {
        let mut written = Vec::new();
        self.bits.drain(&mut written);
        let mut stored = vec![0; written.len()];
        self.stored.read_exact(&mut stored)?;
        self.bytes += written.len() as u64;
        Ok(written == stored)
    }
}

/// A stream that is being taken apart.
struct Splitting<'a, R> {
    sink: &'a mut dyn FnMut(&[u8]) -> io::Result<()>,
    echo: Echo<R>,
    /// How the stream before was made, and this one as soon as that is known.
    before: Option<Parameters>,
    made_with: Option<Parameters>,
    trial: Trial<'a>,
    /// Plain text until it is known.
    sample: Vec<u8>,
    /// What was read and not yet compared: that takes plain text ahead.
    items: Vec<Item>,
    frequencies: Frequencies,
    kind: Kind,
    is_last: bool,
    /// Tokens of the block.
    block: Vec<Token>,
    blocks: Writer,
    plain_len: u64,
    gives_up: bool,
}

impl<R: Read> Splitting<'_, R> {
    /// The stream has ended, with this padding.
    fn finish(&mut self, padding: u8) -> io::Result<()> {
        if self.made_with.is_none() {
            self.find_out(true)?;
        }
        self.trial.predictor.end();
        self.advance()?;
        self.echo.bits.pad(padding);
        if !self.echo.is_heard()? || !self.items.is_empty() || self.trial.predictor.ahead() > 0 {
            return self.give_up();
        }
        Ok(())
    }

    fn give_up(&mut self) -> io::Result<()> {
        self.gives_up = true;
        Err(damaged())
    }

    /// Finds out how the stream was made, by the sample, which may be all.
    fn find_out(&mut self, is_all: bool) -> io::Result<()> {
        let (mut least, mut best) = (usize::MAX, None);
        for parameters in self.before.into_iter().chain(CANDIDATES) {
            if self.try_out(parameters, is_all, least)? && self.trial.missed < least {
                (least, best) = (self.trial.missed, Some(parameters));
            }
            if least == 0 {
                break;
            }
        }
        let Some(parameters) = best else { return self.give_up() };
        if least.saturating_mul(TOO_MANY) > self.items.len().max(64) {
            return self.give_up();
        }
        if self.trial.parameters != Some(parameters) || self.trial.missed != least {
            self.try_out(parameters, is_all, usize::MAX)?;
        }
        (self.made_with, self.sample) = (Some(parameters), Vec::new());
        Ok(())
    }

    /// Whether the sample can be compared with what is predicted with these parameters.
    fn try_out(&mut self, with: Parameters, is_all: bool, most: usize) -> io::Result<bool> {
        self.trial.start(with)?;
        self.trial.predictor.push(&self.sample);
        if is_all {
            self.trial.predictor.end();
        }
        Ok(self.trial.advance(&self.items, most).is_ok())
    }

    fn advance(&mut self) -> io::Result<()> {
        if self.trial.advance(&self.items, usize::MAX).is_err() {
            return self.give_up();
        }
        self.items.drain(..self.trial.compared);
        self.trial.compared = 0;
        Ok(())
    }

    /// Writes the block that has ended as it will be made again.
    fn echo(&mut self, kind: u8, codes: &Codes) -> io::Result<()> {
        write::front(&mut self.echo.bits, self.is_last, kind);
        let written = write::tokens(&mut self.echo.bits, &self.block, &self.frequencies, codes);
        if written.is_err() || !self.echo.is_heard()? {
            return self.give_up();
        }
        Ok(())
    }
}

impl<R: Read> Visitor for Splitting<'_, R> {
    fn begin(&mut self, kind: Kind, is_last: bool) -> io::Result<()> {
        if let Kind::Stored { len, .. } = kind
            && len > 0
        {
            self.items.push(Item::Skipped(len));
        }
        (self.kind, self.is_last) = (kind, is_last);
        self.frequencies = Frequencies::new();
        self.block.clear();
        Ok(())
    }

    #[inline]
    fn token(&mut self, token: Token) -> io::Result<()> {
        if self.block.len() as u64 >= MAX_BLOCK_TOKENS {
            return self.give_up();
        }
        token.count(&mut self.frequencies);
        self.block.push(token);
        self.items.push(Item::Token(token));
        Ok(())
    }

    fn stored(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Kind::Stored { padding, len } = self.kind else { return self.give_up() };
        let bits = &mut self.echo.bits;
        write::front(bits, self.is_last, STORED);
        write::stored_front(bits, padding, len);
        bits.put_bytes(bytes);
        if self.echo.is_heard()? { Ok(()) } else { self.give_up() }
    }

    fn end(&mut self) -> io::Result<()> {
        let last = if self.is_last { LAST } else { 0 };
        let tokens = self.block.len() as u64;
        match std::mem::replace(&mut self.kind, Kind::Fixed) {
            Kind::Stored { padding, len } => {
                let padded = if padding == 0 { 0 } else { PADDED };
                self.blocks.byte(STORED | last | padded).varint(u64::from(len));
                if padding != 0 {
                    self.blocks.byte(padding);
                }
            }
            Kind::Fixed => {
                self.blocks.byte(FIXED | last).varint(tokens);
                self.echo(FIXED, &Codes::Fixed)?;
            }
            Kind::Dynamic(written) => {
                let is_usual = Lengths::predicted(&self.frequencies).write() == written;
                let own = if is_usual { 0 } else { OWN_CODES };
                self.blocks.byte(DYNAMIC | last | own).varint(tokens);
                let codes = match is_usual {
                    true => Codes::Usual,
                    false => Codes::Own(written.into_bytes()),
                };
                if let Codes::Own(bytes) = &codes {
                    self.blocks.bytes(bytes);
                }
                self.echo(DYNAMIC, &codes)?;
            }
        }
        let described = self.blocks.as_slice().len() + self.trial.misses.as_slice().len();
        if described as u64 > MAX_RECIPE_BYTES { self.give_up() } else { Ok(()) }
    }

    fn plain(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.plain_len += bytes.len() as u64;
        (self.sink)(bytes)?;
        if self.made_with.is_some() {
            self.trial.predictor.push(bytes);
            return self.advance();
        }
        self.sample.extend_from_slice(bytes);
        if self.sample.len() < SAMPLE_BYTES {
            return Ok(());
        }
        self.find_out(false)?;
        self.advance()
    }
}
