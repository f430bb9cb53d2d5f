//! Writes blocks. The same code makes a stream again and makes sure, when it is taken apart, that it
//! can be made again.

use std::io;

use super::{
    bits::{BitReader, BitWriter},
    damaged,
    huffman::{END_OF_BLOCK, Frequencies, Lengths, codes},
    token::{Token, distance_symbol, length_symbol},
};

/// The codes of a block with tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Codes {
    /// Those of blocks that name none.
    Fixed,
    /// Those that zlib would choose.
    Usual,
    /// Named with these bits.
    Own(Vec<u8>),
}

/// Begins a block.
pub(super) fn front(bits: &mut BitWriter, is_last: bool, kind: u8) {
    bits.put(u32::from(is_last), 1);
    bits.put(u32::from(kind), 2);
}

/// Says how many stored bytes follow.
pub(super) fn stored_front(bits: &mut BitWriter, padding: u8, len: u16) {
    bits.pad(padding);
    bits.put(u32::from(len), 16);
    bits.put(u32::from(!len), 16);
}

/// Writes a block's codes and tokens, up to its end.
///
/// # Errors
/// `InvalidData` where the codes are none, or lack one that is needed.
pub(super) fn tokens(
    bits: &mut BitWriter,
    tokens: &[Token],
    frequencies: &Frequencies,
    named: &Codes,
) -> io::Result<()> {
    let lengths = match named {
        Codes::Fixed => Lengths::fixed(),
        Codes::Usual => {
            let lengths = Lengths::predicted(frequencies);
            bits.append(&lengths.write());
            lengths
        }
        Codes::Own(bytes) => {
            let (lengths, written) = Lengths::read(&mut BitReader::new(&bytes[..]))?;
            bits.append(&written);
            lengths
        }
    };
    let (literals, distances) = (codes(&lengths.literals), codes(&lengths.distances));
    // Own codes may lack a symbol; zlib's have every one.
    let mut put = |codes: &[(u16, u8)], symbol: usize, extra: (u32, u32)| {
        let &(code, len) = codes.get(symbol).filter(|code| code.1 > 0).ok_or_else(damaged)?;
        bits.put(u32::from(code) | extra.0 << len, u32::from(len) + extra.1);
        Ok::<(), io::Error>(())
    };
    for token in tokens {
        if token.is_literal() {
            put(&literals, usize::from(token.distance), (0, 0))?;
            continue;
        }
        let (symbol, extra, extra_len) = length_symbol(token.len);
        put(&literals, symbol, (extra, extra_len))?;
        let (symbol, extra, extra_len) = distance_symbol(token.distance);
        put(&distances, symbol, (extra, extra_len))?;
    }
    put(&literals, END_OF_BLOCK, (0, 0))
}
