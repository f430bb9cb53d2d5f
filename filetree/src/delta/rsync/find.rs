//! Finds the blocks of a signature in new content.
//!
//! fast_rsync does the same, but asks its table of sums at every byte of what is new, which costs more
//! than all else. Nearly all sums are those of no block, and that is known from a table of bits that is
//! small enough to be near. So fast_rsync is only asked about the blocks that have the sum of an old
//! one, and what comes out is the same.

use std::collections::{HashMap, HashSet};

use super::Error;
use crate::{
    delta::librsync::{self, Command},
    signature::Signature,
};

/// Bits of the table for each block.
const BITS_PER_BLOCK: usize = 32;
/// Spreads a sum over the upper bits of a product: 2 to the 32nd by the golden ratio.
const SPREAD: u32 = 0x9e37_79b1;
/// Blocks with a sum that are compared in vain before the sum is taken for none, as fast_rsync has it.
const MOST_IN_VAIN: u32 = 1024;

/// The sums of a signature's blocks.
pub(super) struct Sums {
    block: usize,
    known: HashSet<u32>,
    /// For each sum that is known, the bit of its upper bits once spread.
    bits: Vec<u64>,
    shift: u32,
}

impl Sums {
    pub(super) fn of(signature: &Signature) -> Self {
        let known: HashSet<u32> = signature.rolling_sums().collect();
        let count = (known.len() * BITS_PER_BLOCK).next_power_of_two().max(1 << 10);
        let block = signature.block_size() as usize;
        let shift = u32::BITS - count.ilog2().min(u32::BITS - 1);
        let mut bits = vec![0; (1 << (u32::BITS - shift)) / 64];
        for sum in &known {
            let (word, bit) = place(*sum, shift);
            bits[word] |= bit;
        }
        Self { block, known, bits, shift }
    }

    #[inline]
    fn may_have(&self, sum: u32) -> bool {
        let (word, bit) = place(sum, self.shift);
        self.bits[word] & bit != 0
    }

    /// The commands that make `new`, as fast_rsync would give them with this index of the same signature.
    ///
    /// # Errors
    /// What fast_rsync gives.
    pub(super) fn commands(
        &self,
        index: &fast_rsync::IndexedSignature<'_>,
        new: &[u8],
    ) -> Result<Vec<Command>, Error> {
        let mut commands = Vec::new();
        let mut in_vain = HashMap::<u32, u32>::new();
        let mut diff = Vec::new();
        let (mut at, mut done) = (0, 0);
        while let Some(mut candidate) = self.next(new, at) {
            loop {
                let vain = in_vain.get(&candidate.sum.value()).copied().unwrap_or(0);
                if vain < MOST_IN_VAIN {
                    let block = &new[candidate.at..candidate.at + self.block];
                    let copy = copy_of(index, block, &mut diff)?;
                    if let Some(copy) = copy {
                        push_literal(&mut commands, done, candidate.at);
                        if !commands.last_mut().is_some_and(|last: &mut Command| last.join(copy)) {
                            commands.push(copy);
                        }
                        at = candidate.at + self.block;
                        done = at;
                        break;
                    }
                    in_vain.insert(candidate.sum.value(), vain + 1);
                }
                match self.after(new, candidate) {
                    Some(next) => candidate = next,
                    None => {
                        push_literal(&mut commands, done, new.len());
                        return Ok(commands);
                    }
                }
            }
        }
        push_literal(&mut commands, done, new.len());
        Ok(commands)
    }

    /// The first block from `at` on that has the sum of an old one.
    fn next(&self, new: &[u8], at: usize) -> Option<Candidate> {
        let first = Candidate { at, sum: Sum::of(new.get(at..at.checked_add(self.block)?)?) };
        if self.is_known(first.sum) { Some(first) } else { self.after(new, first) }
    }

    /// The next one behind a block.
    fn after(&self, new: &[u8], candidate: Candidate) -> Option<Candidate> {
        let Candidate { at, mut sum } = candidate;
        let (leaving, entering) = (&new[at..], &new[at + self.block..]);
        for (number, (old, new)) in leaving.iter().zip(entering).enumerate() {
            sum.roll(self.block, *old, *new);
            if self.may_have(sum.value()) && self.is_known(sum) {
                return Some(Candidate { at: at + number + 1, sum });
            }
        }
        None
    }

    fn is_known(&self, sum: Sum) -> bool {
        self.known.contains(&sum.value())
    }
}

/// A block of new content, and its sum.
#[derive(Clone, Copy)]
struct Candidate {
    at: usize,
    sum: Sum,
}

/// The word and the bit that stand for a sum.
#[inline]
fn place(sum: u32, shift: u32) -> (usize, u64) {
    let bit = sum.wrapping_mul(SPREAD) >> shift;
    ((bit / 64) as usize, 1 << (bit % 64))
}

fn push_literal(commands: &mut Vec<Command>, from: usize, to: usize) {
    if from < to {
        commands.push(Command::Literal { offset: from as u64, len: (to - from) as u64 });
    }
}

/// The old block that this one is equal to.
fn copy_of(
    index: &fast_rsync::IndexedSignature<'_>,
    block: &[u8],
    diff: &mut Vec<u8>,
) -> Result<Option<Command>, Error> {
    diff.clear();
    fast_rsync::diff(index, block, &mut *diff).map_err(|error| Error::Diff(error.to_string()))?;
    let commands = librsync::commands(diff).map_err(|error| Error::Diff(error.to_string()))?;
    Ok(commands.into_iter().find(|command| matches!(command, Command::Copy { .. })))
}

/// librsync's rolling sum: of all bytes, and of those sums, each with a number added to its bytes.
#[derive(Clone, Copy)]
struct Sum {
    bytes: u16,
    sums: u16,
}

/// What is added to each byte.
const OFFSET: u16 = 31;

impl Sum {
    fn of(block: &[u8]) -> Self {
        let len = block.len();
        let (mut bytes, mut sums) = (0u16, 0u16);
        for (byte, times) in block.iter().zip((1..=len).rev()) {
            bytes = bytes.wrapping_add(u16::from(*byte));
            sums = sums.wrapping_add(u16::from(*byte).wrapping_mul(times as u16));
        }
        let offsets = |times: usize| (times as u16).wrapping_mul(OFFSET);
        bytes = bytes.wrapping_add(offsets(len));
        sums = sums.wrapping_add(offsets(len * (len + 1) / 2));
        Self { bytes, sums }
    }

    /// Goes on by one byte.
    #[inline]
    fn roll(&mut self, block: usize, old: u8, new: u8) {
        let (old, new) = (u16::from(old), u16::from(new));
        self.bytes = self.bytes.wrapping_add(new).wrapping_sub(old);
        let gone = (block as u16).wrapping_mul(old + OFFSET);
        self.sums = self.sums.wrapping_add(self.bytes).wrapping_sub(gone);
    }

    #[inline]
    fn value(self) -> u32 {
        u32::from(self.bytes) | u32::from(self.sums) << 16
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutate::Random;

    /// Literals of fast_rsync are where they lie in its delta.
    fn without_places(commands: Vec<Command>) -> Vec<Command> {
        let placed = |command| match command {
            Command::Literal { len, .. } => Command::Literal { offset: 0, len },
            Command::Copy { .. } => command,
        };
        commands.into_iter().map(placed).collect()
    }

    /// As fast_rsync finds them.
    fn theirs(signature: &Signature, new: &[u8]) -> Vec<Command> {
        let decoded = signature.decoded().unwrap();
        let mut diff = Vec::new();
        fast_rsync::diff(&decoded.index(), new, &mut diff).unwrap();
        without_places(librsync::commands(&diff).unwrap())
    }

    fn ours(signature: &Signature, new: &[u8]) -> Vec<Command> {
        let decoded = signature.decoded().unwrap();
        without_places(Sums::of(signature).commands(&decoded.index(), new).unwrap())
    }

    #[test]
    fn what_is_found_is_what_fast_rsync_finds() {
        let mut random = Random::new(11);
        let mut copies = 0;
        for round in 0..300 {
            // Few values make sums meet that are of different blocks.
            let values = [2, 3, 256][round % 3];
            let old: Vec<u8> =
                (0..random.below(20_000)).map(|_| random.below(values) as u8).collect();
            let mut new = Vec::new();
            while new.len() < old.len() {
                let from = random.below(old.len());
                let len = random.below(2_000).min(old.len() - from);
                match random.below(4) {
                    0 => new.extend((0..len / 4).map(|_| random.below(values) as u8)),
                    _ => new.extend_from_slice(&old[from..from + len]),
                }
                new.truncate(30_000);
            }
            let block = 128 + random.below(300) as u32;
            let (signature, _) = Signature::calculate_with(&old, old.len() as u64, block).unwrap();
            let found = ours(&signature, &new);
            copies += found.iter().filter(|c| matches!(c, Command::Copy { .. })).count();
            assert_eq!(found, theirs(&signature, &new), "round {round}");
        }
        assert!(copies > 300, "{copies}");
    }

    #[test]
    fn sums_that_meet_too_often_are_given_up() {
        // Every block of the new content has the sum of an old one, and none is equal to it.
        let mut old = vec![7u8; 128];
        (old[60], old[61], old[62]) = (8, 5, 8);
        let mut new = vec![7u8; 5_000];
        new.extend_from_slice(&old);
        let (signature, _) = Signature::calculate_with(&old, 128, 128).unwrap();
        let sum = |block: &[u8]| Sum::of(block).value();
        assert_eq!(sum(&old), sum(&new[..128]));
        let found = ours(&signature, &new);
        assert_eq!(found, [Command::Literal { offset: 0, len: new.len() as u64 }]);
        assert_eq!(found, theirs(&signature, &new));
        // Few of them are not.
        let new = &new[4_500..];
        let copy = Command::Copy { offset: 0, len: 128 };
        assert_eq!(ours(&signature, new), [Command::Literal { offset: 0, len: 500 }, copy]);
    }
}
