//! Puts streams together again.

use std::io;

use protocol::wire::Reader;

use super::{
    bits::BitWriter,
    damaged,
    huffman::Frequencies,
    predict::{Parameters, Predictor},
    split::{DYNAMIC, FIXED, KIND, LAST, MAX_BLOCK_TOKENS, OWN_CODES, PADDED, STORED},
    token::{MAX_MATCH, MIN_MATCH, Token, WINDOW_BYTES},
    write::{self, Codes},
};

/// Most bytes of the codes that a block names.
const MAX_CODES_BYTES: u64 = 1024;

/// Makes streams from their plain text, as that comes, and their corrections, one after the other.
///
/// Takes about 2 MiB, and 4 MiB more for a block of as many tokens as are allowed, whatever the
/// streams are.
pub struct Recreator {
    corrections: Vec<u8>,
    blocks_at: usize,
    blocks_end: usize,
    misses_at: usize,
    /// Tokens before the next that is predicted wrongly; `None` where all are right.
    run: Option<u64>,
    predictor: Predictor,
    block: Option<Block>,
    is_done: bool,
    padding: u8,
    bits: BitWriter,
}

struct Block {
    is_last: bool,
    kind: BlockKind,
}

enum BlockKind {
    Stored { left: usize },
    Tokens { left: u64, tokens: Vec<Token>, frequencies: Box<Frequencies>, codes: Codes },
}

impl std::fmt::Debug for Recreator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recreator").field("is_done", &self.is_done).finish_non_exhaustive()
    }
}

impl Default for Recreator {
    fn default() -> Self {
        Self::new()
    }
}

impl Recreator {
    /// Makes nothing before a stream [starts](Self::start).
    pub fn new() -> Self {
        Self {
            corrections: Vec::new(),
            blocks_at: 0,
            blocks_end: 0,
            misses_at: 0,
            run: None,
            predictor: Predictor::new(),
            block: None,
            is_done: true,
            padding: 0,
            bits: BitWriter::default(),
        }
    }

    /// Begins the stream that has these corrections; whatever was begun before is forgotten.
    ///
    /// # Errors
    /// `InvalidData` where they are none.
    pub fn start(&mut self, corrections: Vec<u8>) -> io::Result<()> {
        let mut reader = Reader::new(&corrections);
        let mut byte = || reader.byte().map_err(|_| damaged());
        let (level, hash_bits, padding) = (byte()?, byte()?, byte()?);
        let blocks = reader.bytes("blocks", u64::MAX).map_err(|_| damaged())?.len();
        let misses_at = reader.position();
        self.predictor.start(Parameters { level, hash_bits })?;
        (self.blocks_at, self.blocks_end) = (misses_at - blocks, misses_at);
        self.misses_at = misses_at;
        self.corrections = corrections;
        (self.block, self.is_done, self.padding) = (None, false, padding);
        self.bits = BitWriter::default();
        self.next_run()
    }

    /// Takes more plain text; appends what can be made of it to `out`.
    ///
    /// # Errors
    /// `InvalidData` where the stream has ended already, or is none.
    pub fn feed(&mut self, plain: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        for piece in plain.chunks(WINDOW_BYTES) {
            if self.is_done {
                // It would be kept for tokens that never come.
                return Err(damaged());
            }
            self.predictor.push(piece);
            self.advance(out)?;
        }
        Ok(())
    }

    /// All plain text was fed: appends the rest.
    ///
    /// # Errors
    /// `InvalidData` where the stream takes more or less plain text.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        self.predictor.end();
        self.advance(out)?;
        if !self.is_done || self.predictor.ahead() > 0 {
            return Err(damaged());
        }
        self.bits.pad(self.padding);
        self.bits.drain(out);
        Ok(())
    }

    fn advance(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        while !self.is_done {
            let mut block = match self.block.take() {
                Some(block) => block,
                None => self.next_block()?,
            };
            let is_complete = match &mut block.kind {
                BlockKind::Stored { left } => self.pass_stored(left),
                BlockKind::Tokens { left, tokens, frequencies, codes } => {
                    while *left > 0 && self.predictor.is_ready() {
                        let token = self.next_token()?;
                        token.count(frequencies);
                        tokens.push(token);
                        *left -= 1;
                    }
                    if *left == 0 {
                        write::tokens(&mut self.bits, tokens, frequencies, codes)?;
                    }
                    *left == 0
                }
            };
            if !is_complete {
                self.block = Some(block);
                break;
            }
            self.is_done = block.is_last;
        }
        self.bits.drain(out);
        Ok(())
    }

    /// Reads what the next block is, and writes how it begins.
    fn next_block(&mut self) -> io::Result<Block> {
        let mut reader = Reader::starting_at(&self.corrections[..self.blocks_end], self.blocks_at);
        let block = Self::read_block(&mut reader, &mut self.bits).map_err(|_| damaged())?;
        self.blocks_at = reader.position();
        Ok(block)
    }

    fn read_block(
        reader: &mut Reader<'_>,
        bits: &mut BitWriter,
    ) -> Result<Block, protocol::wire::Malformed> {
        let code = reader.byte()?;
        let is_last = code & LAST != 0;
        let kind = code & KIND;
        write::front(bits, is_last, kind);
        if kind == STORED {
            let len = reader.varint_up_to("stored bytes", u64::from(u16::MAX))?;
            let padding = if code & PADDED != 0 { reader.byte()? } else { 0 };
            write::stored_front(bits, padding, len as u16);
            return Ok(Block { is_last, kind: BlockKind::Stored { left: len as usize } });
        }
        let left = reader.varint_up_to("tokens", MAX_BLOCK_TOKENS)?;
        let codes = match kind {
            FIXED => Codes::Fixed,
            DYNAMIC if code & OWN_CODES == 0 => Codes::Usual,
            DYNAMIC => Codes::Own(reader.bytes("codes", MAX_CODES_BYTES)?.to_vec()),
            _ => return Err(reader.invalid("kind of block")),
        };
        let frequencies = Box::new(Frequencies::new());
        let kind = BlockKind::Tokens { left, tokens: Vec::new(), frequencies, codes };
        Ok(Block { is_last, kind })
    }

    /// Passes stored bytes that are at hand; whether none is left.
    fn pass_stored(&mut self, left: &mut usize) -> bool {
        let now = self.predictor.ahead().min(*left);
        self.bits.put_bytes(&self.predictor.rest()[..now]);
        self.predictor.skip(now);
        *left -= now;
        *left == 0
    }

    fn next_token(&mut self) -> io::Result<Token> {
        let predicted = self.predictor.predict();
        let is_right = self.run != Some(0);
        let token = if is_right {
            self.run = self.run.map(|run| run - 1);
            predicted
        } else {
            let byte = self.predictor.rest().first().copied();
            let token = self.read_miss(byte.ok_or_else(damaged)?).map_err(|_| damaged())?;
            self.next_run()?;
            token
        };
        self.predictor.accept(token, is_right)?;
        Ok(token)
    }

    fn read_miss(&mut self, byte: u8) -> Result<Token, protocol::wire::Malformed> {
        let mut reader = Reader::starting_at(&self.corrections, self.misses_at);
        let len = reader.varint_up_to("token's length", MAX_MATCH as u64)?;
        let token = if len == 0 {
            Token::literal(byte)
        } else {
            let distance = reader.varint_up_to("token's distance", WINDOW_BYTES as u64)?;
            if len < MIN_MATCH as u64 || distance == 0 {
                return Err(reader.invalid("token"));
            }
            Token { len: len as u16, distance: distance as u16 }
        };
        self.misses_at = reader.position();
        Ok(token)
    }

    fn next_run(&mut self) -> io::Result<()> {
        let mut reader = Reader::starting_at(&self.corrections, self.misses_at);
        self.run = match reader.is_empty() {
            true => None,
            false => Some(reader.varint().map_err(|_| damaged())?),
        };
        self.misses_at = reader.position();
        Ok(())
    }
}
