//! Tokens: what a deflate stream consists of.

use super::huffman::{END_OF_BLOCK, Frequencies};

pub(super) const MIN_MATCH: usize = 3;
pub(super) const MAX_MATCH: usize = 258;
pub(super) const WINDOW_BYTES: usize = 32 << 10;

/// A byte, or a repetition of what was before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token {
    /// Bytes that are repeated; 0 for a byte.
    pub(super) len: u16,
    /// How far back they lie; or the byte.
    pub(super) distance: u16,
}

impl Token {
    pub(super) fn literal(byte: u8) -> Self {
        Self { len: 0, distance: u16::from(byte) }
    }

    pub(super) fn is_literal(self) -> bool {
        self.len == 0
    }

    /// Bytes of plain text.
    pub(super) fn bytes(self) -> usize {
        usize::from(self.len.max(1))
    }

    pub(super) fn count(self, frequencies: &mut Frequencies) {
        if self.is_literal() {
            frequencies.literals[usize::from(self.distance) & 0xff] += 1;
        } else {
            frequencies.literals[length_symbol(self.len).0] += 1;
            frequencies.distances[distance_symbol(self.distance).0] += 1;
        }
    }
}

/// Least length and extra bits of each symbol above the end of a block.
pub(super) const LENGTH_SYMBOLS: [(u16, u8); 29] = {
    let mut table = [(0, 0); 29];
    let (mut at, mut base) = (0, 3);
    while at < 28 {
        let extra = if at < 8 { 0 } else { at as u8 / 4 - 1 };
        table[at] = (base, extra);
        base += 1 << extra;
        at += 1;
    }
    table[28] = (258, 0);
    table
};

/// Least distance and extra bits of each symbol.
pub(super) const DISTANCE_SYMBOLS: [(u16, u8); 30] = {
    let mut table = [(0, 0); 30];
    let (mut at, mut base) = (0, 1u16);
    while at < 30 {
        let extra = if at < 4 { 0 } else { at as u8 / 2 - 1 };
        table[at] = (base, extra);
        base = base.wrapping_add(1 << extra);
        at += 1;
    }
    table
};

/// Which of the lengths' symbols a length has, by the length less 3.
const LENGTH_INDEX: [u8; 256] = {
    let mut table = [0; 256];
    let (mut at, mut symbol) = (0, 0);
    while at < 256 {
        while symbol < 28 && at + 3 >= LENGTH_SYMBOLS[symbol + 1].0 as usize {
            symbol += 1;
        }
        table[at] = symbol as u8;
        at += 1;
    }
    table
};

/// Which symbol a distance has: by the distance less 1 below 256, else by its 128th.
const DISTANCE_INDEX: [u8; 512] = {
    let mut table = [0; 512];
    let mut at = 0;
    while at < 512 {
        let distance = if at < 256 { at + 1 } else { (at - 256) * 128 + 1 };
        let mut symbol = 0;
        while symbol < 29 && distance >= DISTANCE_SYMBOLS[symbol + 1].0 as usize {
            symbol += 1;
        }
        table[at] = symbol as u8;
        at += 1;
    }
    table
};

/// Symbol, extra bits and their number, of a length from 3 to 258.
#[inline]
pub(super) fn length_symbol(len: u16) -> (usize, u32, u32) {
    let at = usize::from(LENGTH_INDEX[usize::from(len.saturating_sub(3).min(255))]);
    let (base, extra) = LENGTH_SYMBOLS[at];
    (END_OF_BLOCK + 1 + at, u32::from(len.saturating_sub(base)), u32::from(extra))
}

/// Symbol, extra bits and their number, of a distance from 1 to 32,768.
#[inline]
pub(super) fn distance_symbol(distance: u16) -> (usize, u32, u32) {
    let less = usize::from(distance.saturating_sub(1));
    let slot = if less < 256 { less } else { 256 + (less >> 7) };
    let at = usize::from(DISTANCE_INDEX[slot.min(511)]);
    let (base, extra) = DISTANCE_SYMBOLS[at];
    (at, u32::from(distance.saturating_sub(base)), u32::from(extra))
}
