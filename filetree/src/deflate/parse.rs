//! Reads deflate streams: into plain text, and into the blocks and tokens that they consist of.

use std::io::{self, Read};

use super::{
    bits::{BitReader, BitWriter},
    damaged,
    huffman::{Decoder, END_OF_BLOCK, Lengths},
    token::{DISTANCE_SYMBOLS, LENGTH_SYMBOLS, Token, WINDOW_BYTES},
};

/// Plain text that is passed on at once.
const PASSED_BYTES: usize = 64 << 10;

/// What a block says before its tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// Bytes as they are, after this padding.
    Stored {
        padding: u8,
        len: u16,
    },
    Fixed,
    /// With codes of its own, written with these bits.
    Dynamic(BitWriter),
}

/// Takes what a stream consists of, in its order.
pub(super) trait Visitor {
    /// A block begins; a block of stored bytes has no tokens.
    fn begin(&mut self, kind: Kind, is_last: bool) -> io::Result<()>;
    fn token(&mut self, token: Token) -> io::Result<()>;
    /// The bytes of a block of stored bytes.
    fn stored(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// The block has ended.
    fn end(&mut self) -> io::Result<()>;
    /// The next plain text, also of blocks of stored bytes; some of it comes after the end of the
    /// blocks that it is from.
    fn plain(&mut self, bytes: &[u8]) -> io::Result<()>;
}

/// Reads a stream to its end; returns how many bytes it has, and the padding of the last.
///
/// # Errors
/// `InvalidData` where it is no deflate stream or has more than `limit` bytes of plain text.
pub(super) fn parse(
    source: impl Read,
    limit: u64,
    visitor: &mut impl Visitor,
) -> io::Result<(u64, u8)> {
    let mut bits = BitReader::new(source);
    let mut plain = Plain { bytes: Vec::new(), passed: 0, left: limit };
    loop {
        let is_last = bits.take(1)? == 1;
        match bits.take(2)? {
            0 => stored(&mut bits, is_last, &mut plain, visitor)?,
            1 => {
                visitor.begin(Kind::Fixed, is_last)?;
                let lengths = Lengths::fixed();
                tokens(&mut bits, &lengths, &mut plain, visitor)?;
            }
            2 => {
                let (lengths, written) = Lengths::read(&mut bits)?;
                visitor.begin(Kind::Dynamic(written), is_last)?;
                tokens(&mut bits, &lengths, &mut plain, visitor)?;
            }
            _ => return Err(damaged()),
        }
        visitor.end()?;
        if is_last {
            plain.pass(visitor)?;
            let padding = bits.padding()?;
            return Ok((bits.consumed_bytes(), padding));
        }
    }
}

fn stored(
    bits: &mut BitReader<impl Read>,
    is_last: bool,
    plain: &mut Plain,
    visitor: &mut impl Visitor,
) -> io::Result<()> {
    let padding = bits.padding()?;
    let len = bits.take(16)? as u16;
    if bits.take(16)? as u16 != !len {
        return Err(damaged());
    }
    visitor.begin(Kind::Stored { padding, len }, is_last)?;
    plain.make_room(visitor)?;
    plain.spend(usize::from(len))?;
    for _ in 0..len {
        plain.bytes.push(bits.take(8)? as u8);
    }
    visitor.stored(&plain.bytes[plain.bytes.len() - usize::from(len)..])
}

fn tokens(
    bits: &mut BitReader<impl Read>,
    lengths: &Lengths,
    plain: &mut Plain,
    visitor: &mut impl Visitor,
) -> io::Result<()> {
    let literals = Decoder::new(&lengths.literals)?;
    let distances = Decoder::new(&lengths.distances)?;
    loop {
        plain.make_room(visitor)?;
        let (symbol, _, _) = literals.symbol(bits)?;
        if symbol < END_OF_BLOCK {
            plain.spend(1)?;
            plain.bytes.push(symbol as u8);
            visitor.token(Token::literal(symbol as u8))?;
            continue;
        }
        if symbol == END_OF_BLOCK {
            return Ok(());
        }
        let (base, extra) = *LENGTH_SYMBOLS.get(symbol - END_OF_BLOCK - 1).ok_or_else(damaged)?;
        let len = base + bits.take(u32::from(extra))? as u16;
        let (symbol, _, _) = distances.symbol(bits)?;
        let (base, extra) = *DISTANCE_SYMBOLS.get(symbol).ok_or_else(damaged)?;
        let distance = base + bits.take(u32::from(extra))? as u16;
        plain.repeat(usize::from(len), usize::from(distance))?;
        visitor.token(Token { len, distance })?;
    }
}

/// Plain text, of which the last 32 KiB may be repeated.
struct Plain {
    bytes: Vec<u8>,
    /// Those before were passed on.
    passed: usize,
    left: u64,
}

impl Plain {
    fn spend(&mut self, bytes: usize) -> io::Result<()> {
        self.left = self.left.checked_sub(bytes as u64).ok_or_else(damaged)?;
        Ok(())
    }

    fn repeat(&mut self, len: usize, distance: usize) -> io::Result<()> {
        self.spend(len)?;
        let from = self.bytes.len().checked_sub(distance).ok_or_else(damaged)?;
        if distance >= len {
            self.bytes.extend_from_within(from..from + len);
        } else {
            for at in from..from + len {
                self.bytes.push(self.bytes[at]);
            }
        }
        Ok(())
    }

    #[inline]
    fn make_room(&mut self, visitor: &mut impl Visitor) -> io::Result<()> {
        if self.bytes.len() - self.passed < PASSED_BYTES {
            return Ok(());
        }
        self.pass(visitor)
    }

    fn pass(&mut self, visitor: &mut impl Visitor) -> io::Result<()> {
        visitor.plain(&self.bytes[self.passed..])?;
        let unused = self.bytes.len().saturating_sub(WINDOW_BYTES);
        self.bytes.drain(..unused);
        self.passed = self.bytes.len();
        Ok(())
    }
}

/// Passes on the plain text of a stream; returns the lengths of both.
pub(super) fn inflate(
    source: impl Read,
    limit: u64,
    sink: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<(u64, u64)> {
    struct PlainOnly<'a>(u64, &'a mut dyn FnMut(&[u8]) -> io::Result<()>);
    impl Visitor for PlainOnly<'_> {
        fn begin(&mut self, _kind: Kind, _is_last: bool) -> io::Result<()> {
            Ok(())
        }

        fn token(&mut self, _token: Token) -> io::Result<()> {
            Ok(())
        }

        fn stored(&mut self, _bytes: &[u8]) -> io::Result<()> {
            Ok(())
        }

        fn end(&mut self) -> io::Result<()> {
            Ok(())
        }

        fn plain(&mut self, bytes: &[u8]) -> io::Result<()> {
            self.0 += bytes.len() as u64;
            (self.1)(bytes)
        }
    }
    let mut visitor = PlainOnly(0, sink);
    let (stored_len, _) = parse(source, limit, &mut visitor)?;
    Ok((stored_len, visitor.0))
}
