//! Prefix codes: decoding, writing, and the ones that zlib would choose.

use std::io::{self, Read};

use super::{
    bits::{BitReader, BitWriter},
    damaged,
};

/// Symbols for literals, the end of a block and lengths.
pub(super) const LITERALS: usize = 286;
/// Symbols for distances.
pub(super) const DISTANCES: usize = 30;
/// Symbols for the lengths of codes.
const LENGTHS: usize = 19;
pub(super) const END_OF_BLOCK: usize = 256;
const MAX_BITS: usize = 15;
const MAX_LENGTH_BITS: usize = 7;
/// In which order lengths of the codes of lengths are written.
const LENGTHS_ORDER: [usize; LENGTHS] =
    [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

/// Lengths of the codes of a block, 0 for symbols without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lengths {
    pub(super) literals: Vec<u8>,
    pub(super) distances: Vec<u8>,
}

impl Lengths {
    /// Those of blocks that name none.
    pub(super) fn fixed() -> Self {
        let mut literals = vec![8; 288];
        literals[144..256].fill(9);
        literals[256..280].fill(7);
        Self { literals, distances: vec![5; 32] }
    }

    /// Reads those that a block names.
    pub(super) fn read(bits: &mut BitReader<impl Read>) -> io::Result<(Self, BitWriter)> {
        let mut seen = BitWriter::default();
        let mut take = |bits: &mut BitReader<_>, count: u32| {
            let value = bits.take(count)?;
            seen.put(value, count);
            Ok::<u32, io::Error>(value)
        };
        let literals = take(bits, 5)? as usize + 257;
        let distances = take(bits, 5)? as usize + 1;
        let named = take(bits, 4)? as usize + 4;
        if literals > LITERALS || distances > DISTANCES {
            return Err(damaged());
        }
        let mut of_lengths = [0; LENGTHS];
        for &symbol in &LENGTHS_ORDER[..named] {
            of_lengths[symbol] = take(bits, 3)? as u8;
        }
        let decoder = Decoder::new(&of_lengths)?;
        let mut lengths: Vec<u8> = Vec::with_capacity(literals + distances);
        while lengths.len() < literals + distances {
            let (symbol, code, code_len) = decoder.symbol(bits)?;
            seen.put(code, code_len);
            let mut take = |count| {
                let value = bits.take(count)?;
                seen.put(value, count);
                Ok::<usize, io::Error>(value as usize)
            };
            let (length, times) = match symbol {
                0..=15 => (symbol as u8, 1),
                16 => (*lengths.last().ok_or_else(damaged)?, 3 + take(2)?),
                17 => (0, 3 + take(3)?),
                _ => (0, 11 + take(7)?),
            };
            lengths.resize(lengths.len() + times, length);
        }
        if lengths.len() > literals + distances {
            return Err(damaged());
        }
        let distances = lengths.split_off(literals);
        Ok((Self { literals: lengths, distances }, seen))
    }

    /// Those that zlib and gzip give a block in which symbols are so frequent.
    pub(super) fn predicted(frequencies: &Frequencies) -> Self {
        Self {
            literals: optimal(&frequencies.literals, MAX_BITS),
            distances: optimal(&frequencies.distances, MAX_BITS),
        }
    }

    /// How zlib and gzip write them.
    pub(super) fn write(&self) -> BitWriter {
        let mut runs = runs(&self.literals);
        runs.extend(self::runs(&self.distances));
        let mut frequencies = [0; LENGTHS];
        runs.iter().for_each(|(symbol, _, _)| frequencies[usize::from(*symbol)] += 1);
        let mut of_lengths = optimal(&frequencies, MAX_LENGTH_BITS);
        of_lengths.resize(LENGTHS, 0);
        let named = LENGTHS_ORDER.iter().rposition(|&symbol| of_lengths[symbol] > 0);
        let named = (named.unwrap_or(0) + 1).max(4);
        let mut bits = BitWriter::default();
        bits.put(self.literals.len() as u32 - 257, 5);
        bits.put(self.distances.len() as u32 - 1, 5);
        bits.put(named as u32 - 4, 4);
        for &symbol in &LENGTHS_ORDER[..named] {
            bits.put(u32::from(of_lengths[symbol]), 3);
        }
        let codes = codes(&of_lengths);
        for (symbol, extra, extra_len) in runs {
            let (code, len) = codes[usize::from(symbol)];
            bits.put(u32::from(code), u32::from(len));
            bits.put(u32::from(extra), extra_len);
        }
        bits
    }
}

/// How often each symbol occurs in a block.
#[derive(Debug, Clone)]
pub(super) struct Frequencies {
    pub(super) literals: [u32; LITERALS],
    pub(super) distances: [u32; DISTANCES],
}

impl Frequencies {
    /// Of a block of nothing but its end.
    pub(super) fn new() -> Self {
        let mut literals = [0; LITERALS];
        literals[END_OF_BLOCK] = 1;
        Self { literals, distances: [0; DISTANCES] }
    }
}

const PRIMARY_BITS: u32 = 10;

/// Finds symbols by their codes.
#[derive(Debug)]
pub(super) struct Decoder {
    /// By the next ten bits: symbol and length; length 0 where the code is longer, or is none.
    primary: Vec<(u16, u8)>,
    /// Codes of each length.
    counts: [u16; MAX_BITS + 1],
    /// Symbols in the order of their codes.
    symbols: Vec<u16>,
}

impl Decoder {
    pub(super) fn new(lengths: &[u8]) -> io::Result<Self> {
        let mut counts = [0u16; MAX_BITS + 1];
        for &len in lengths {
            counts[usize::from(len)] += 1;
        }
        counts[0] = 0;
        // More codes than bits can tell apart; fewer are allowed, and are missed when they occur.
        let mut left = 1i32;
        for &count in &counts[1..] {
            left = (left << 1) - i32::from(count);
            if left < 0 {
                return Err(damaged());
            }
        }
        let mut symbols: Vec<u16> = (0..lengths.len() as u16).collect();
        symbols.retain(|&symbol| lengths[usize::from(symbol)] > 0);
        symbols.sort_by_key(|&symbol| lengths[usize::from(symbol)]);
        let mut primary = vec![(0, 0); 1 << PRIMARY_BITS];
        for (symbol, (code, len)) in codes(lengths).into_iter().enumerate() {
            let len = u32::from(len);
            if (1..=PRIMARY_BITS).contains(&len) {
                for slot in (usize::from(code)..primary.len()).step_by(1 << len) {
                    primary[slot] = (symbol as u16, len as u8);
                }
            }
        }
        Ok(Self { primary, counts, symbols })
    }

    /// The next symbol, and the code that it was read from.
    #[inline]
    pub(super) fn symbol(&self, bits: &mut BitReader<impl Read>) -> io::Result<(usize, u32, u32)> {
        let next = bits.peek()?;
        let (symbol, len) = self.primary[(next & ((1 << PRIMARY_BITS) - 1)) as usize];
        if len > 0 {
            let len = u32::from(len);
            bits.consume(len)?;
            return Ok((usize::from(symbol), next & ((1 << len) - 1), len));
        }
        self.long_symbol(bits, next)
    }

    #[cold]
    fn long_symbol(
        &self,
        bits: &mut BitReader<impl Read>,
        next: u32,
    ) -> io::Result<(usize, u32, u32)> {
        let (mut code, mut first, mut index) = (0u32, 0u32, 0u32);
        for len in 1..=MAX_BITS as u32 {
            code |= next >> (len - 1) & 1;
            let count = u32::from(self.counts[len as usize]);
            if code < first + count {
                bits.consume(len)?;
                let symbol = self.symbols[(index + code - first) as usize];
                return Ok((usize::from(symbol), next & ((1 << len) - 1), len));
            }
            index += count;
            first = (first + count) << 1;
            code <<= 1;
        }
        Err(damaged())
    }
}

/// The codes of symbols whose codes have these lengths, the first bit lowest.
pub(super) fn codes(lengths: &[u8]) -> Vec<(u16, u8)> {
    let mut counts = [0u32; MAX_BITS + 1];
    lengths.iter().for_each(|&len| counts[usize::from(len)] += 1);
    counts[0] = 0;
    let mut next = [0u32; MAX_BITS + 1];
    for len in 1..=MAX_BITS {
        next[len] = (next[len - 1] + counts[len - 1]) << 1;
    }
    let code = |&len: &u8| {
        let next = &mut next[usize::from(len)];
        let code = *next;
        *next += 1;
        match len {
            0 => (0, 0),
            len => ((code as u16).reverse_bits() >> (16 - len), len),
        }
    };
    lengths.iter().map(code).collect()
}

/// Runs of equal lengths as zlib writes them: symbol, extra bits and their number.
fn runs(lengths: &[u8]) -> Vec<(u8, u8, u32)> {
    let mut runs = Vec::new();
    let mut before = None;
    let mut rest = lengths;
    while let Some(&length) = rest.first() {
        let equal = rest.iter().take_while(|next| **next == length).count();
        let most = match (length, before == Some(length)) {
            (0, _) => 138,
            (_, true) => 6,
            (_, false) => 7,
        };
        let least = if length == 0 || before == Some(length) { 3 } else { 4 };
        let count = equal.min(most);
        if count < least {
            runs.extend(std::iter::repeat_n((length, 0, 0), count));
        } else if length > 0 {
            let mut repeated = count;
            if before != Some(length) {
                runs.push((length, 0, 0));
                repeated -= 1;
            }
            runs.push((16, repeated as u8 - 3, 2));
        } else if count <= 10 {
            runs.push((17, count as u8 - 3, 3));
        } else {
            runs.push((18, count as u8 - 11, 7));
        }
        before = Some(length);
        rest = &rest[count..];
    }
    runs
}

/// Lengths of the codes that zlib chooses, up to the last symbol that has one.
///
/// Equally good codes are many, so this follows zlib's heap step by step.
fn optimal(frequencies: &[u32], max_bits: usize) -> Vec<u8> {
    let mut tree = Tree::new(frequencies);
    let last = tree.gather();
    tree.join();
    let lengths = tree.lengths(max_bits, last);
    lengths[..=last].to_vec()
}

struct Tree {
    symbols: usize,
    frequencies: Vec<u32>,
    depths: Vec<u16>,
    parents: Vec<u16>,
    /// From 1 on a heap, the least frequent first.
    heap: Vec<u16>,
    /// Nodes in the order in which they were taken from the heap.
    taken: Vec<u16>,
}

impl Tree {
    fn new(frequencies: &[u32]) -> Self {
        let nodes = 2 * frequencies.len() + 1;
        let mut all = frequencies.to_vec();
        all.resize(nodes, 0);
        Self {
            symbols: frequencies.len(),
            frequencies: all,
            depths: vec![0; nodes],
            parents: vec![0; nodes],
            heap: vec![0],
            taken: Vec::new(),
        }
    }

    /// Puts every symbol that occurs into the heap, two at least; returns the last.
    fn gather(&mut self) -> usize {
        let mut last = None;
        for symbol in (0..self.symbols).filter(|symbol| self.frequencies[*symbol] > 0) {
            self.heap.push(symbol as u16);
            last = Some(symbol);
        }
        while self.heap.len() < 3 {
            let symbol = match last {
                None => 0,
                Some(0) => 1,
                Some(1) => 2,
                Some(_) => 0,
            };
            if last.is_none_or(|last| last < 2) {
                last = Some(symbol);
            }
            self.frequencies[symbol] = 1;
            self.heap.push(symbol as u16);
        }
        for at in (1..=(self.heap.len() - 1) / 2).rev() {
            self.sink(at);
        }
        last.unwrap_or(0)
    }

    fn is_smaller(&self, a: u16, b: u16) -> bool {
        let key = |node: u16| {
            let node = usize::from(node);
            (self.frequencies[node], self.depths[node])
        };
        key(a) <= key(b)
    }

    /// Moves the node at `at` down to where it belongs.
    fn sink(&mut self, mut at: usize) {
        let node = self.heap[at];
        let mut child = at * 2;
        while child < self.heap.len() {
            if child + 1 < self.heap.len()
                && self.is_smaller(self.heap[child + 1], self.heap[child])
            {
                child += 1;
            }
            if self.is_smaller(node, self.heap[child]) {
                break;
            }
            self.heap[at] = self.heap[child];
            at = child;
            child *= 2;
        }
        self.heap[at] = node;
    }

    /// Joins the two least frequent nodes until one is left.
    fn join(&mut self) {
        let mut node = self.symbols;
        loop {
            let least = self.heap[1];
            if let Some(end) = self.heap.pop()
                && self.heap.len() > 1
            {
                self.heap[1] = end;
                self.sink(1);
            }
            let next = self.heap[1];
            self.taken.extend([least, next]);
            let (a, b) = (usize::from(least), usize::from(next));
            self.frequencies[node] = self.frequencies[a].saturating_add(self.frequencies[b]);
            self.depths[node] = self.depths[a].max(self.depths[b]) + 1;
            self.parents[a] = node as u16;
            self.parents[b] = node as u16;
            self.heap[1] = node as u16;
            self.sink(1);
            node += 1;
            if self.heap.len() <= 2 {
                self.taken.push(self.heap[1]);
                return;
            }
        }
    }

    /// Lengths of the symbols' codes, none above `max_bits`.
    fn lengths(&self, max_bits: usize, last: usize) -> Vec<u8> {
        let mut lengths = vec![0u8; self.frequencies.len()];
        let mut counts = [0i32; MAX_BITS + 1];
        let mut overflow = 0i32;
        for &node in self.taken.iter().rev().skip(1) {
            let node = usize::from(node);
            let mut bits = usize::from(lengths[usize::from(self.parents[node])]) + 1;
            if bits > max_bits {
                bits = max_bits;
                overflow += 1;
            }
            lengths[node] = bits as u8;
            if node <= last {
                counts[bits] += 1;
            }
        }
        if overflow == 0 {
            return lengths;
        }
        while overflow > 0 {
            let Some(bits) = (1..max_bits).rev().find(|bits| counts[*bits] > 0) else { break };
            counts[bits] -= 1;
            counts[bits + 1] += 2;
            counts[max_bits] -= 1;
            overflow -= 2;
        }
        let mut symbols = self.taken.iter().map(|node| usize::from(*node));
        for bits in (1..=max_bits).rev() {
            for _ in 0..counts[bits] {
                let Some(symbol) = symbols.find(|node| *node <= last) else { return lengths };
                lengths[symbol] = bits as u8;
            }
        }
        lengths
    }
}
