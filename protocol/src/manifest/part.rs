//! The part of a manifest that a filter keeps.
//!
//! A site that keeps a tenth of a large tree has no use for the other entries, and follows packs
//! without ever having fetched them. Packs name old files by the numbers of their entries in the
//! whole manifest, so a part knows these numbers: runs of neighbors, because what is kept mostly
//! lies together.
//!
//! A part is no proof of the whole: nothing here says that the entries that are missing exist. It is
//! complete for the filter that it was made with, and of no use with another one.

use std::sync::Arc;

use super::{
    BlockList, BlockSource, Chosen, Each, Entries, Entry, Error, MAX_ENTRIES, Positions,
    StoredManifest,
};
use crate::{
    digest::Digest,
    path::TreePath,
    wire::{Reader, Writer},
};

const MAGIC: &[u8] = b"MNMP\x01";
const MAX_LIST_BYTES: u64 = 64 << 20;

/// Names what a part has: all of it but the blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartList {
    /// The whole manifest.
    pub of: Digest,
    /// Digest of the filter that keeps the part.
    pub filter: Digest,
    /// Entries of the whole manifest.
    pub whole_count: u64,
    /// The blocks of the part, cut as those of a manifest are.
    pub list: BlockList,
    /// What numbers its entries have.
    pub numbers: Numbers,
}

/// Numbers that ascend, as runs of neighbors.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Numbers {
    /// Position and number of the first of each run.
    runs: Vec<(u64, u64)>,
    count: u64,
}

impl Numbers {
    /// Most runs: a part in more pieces is not worth being one.
    pub const MAX_RUNS: usize = 1_000_000;

    /// Adds the next number, which is greater than those before.
    pub fn push(&mut self, number: u64) -> Result<(), Error> {
        if self.number(self.count) != Some(number) {
            if self.runs.len() >= Self::MAX_RUNS {
                return Err(Error::TooLarge("1,000,000 pieces of a manifest"));
            }
            self.runs.push((self.count, number));
        }
        self.count += 1;
        Ok(())
    }

    /// The number at `position`, or what it would be if the last run went on.
    fn number(&self, position: u64) -> Option<u64> {
        let after = self.runs.partition_point(|(at, _)| *at <= position);
        let (at, number) = self.runs.get(after.checked_sub(1)?)?;
        Some(number + (position - at))
    }

    /// The position of a number.
    fn position(&self, number: u64) -> Option<u64> {
        let after = self.runs.partition_point(|(_, first)| *first <= number);
        let (at, first) = self.runs.get(after.checked_sub(1)?)?;
        let end = self.runs.get(after).map_or(self.count, |(next, _)| *next);
        let position = at + (number - first);
        (position < end).then_some(position)
    }
}

impl PartList {
    /// The bytes that [`PartList::parse`] reads.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.raw(MAGIC).digest(&self.of).digest(&self.filter).varint(self.whole_count);
        writer.bytes(&self.list.encode());
        let mut last = (0, 0);
        for (at, number) in &self.numbers.runs {
            writer.varint(at - last.0).varint(number - last.1);
            last = (*at, *number);
        }
        writer.into_bytes()
    }

    /// Reads what [`PartList::encode`] wrote; every limit is checked before anything is allocated.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let mut reader = Reader::new(bytes);
        reader.magic(MAGIC, "a part of a manifest")?;
        let (of, filter) = (reader.digest()?, reader.digest()?);
        let whole_count = reader.varint_up_to("entries", MAX_ENTRIES)?;
        let list = BlockList::parse(reader.bytes("block list", MAX_LIST_BYTES)?)?;
        let count = list.entry_count();
        let mut runs: Vec<(u64, u64)> = Vec::new();
        while !reader.is_empty() {
            if runs.len() >= Numbers::MAX_RUNS {
                return Err(Error::TooLarge("1,000,000 pieces of a manifest"));
            }
            let (at, number) = runs.last().copied().unwrap_or((0, 0));
            let step = reader.varint_up_to("piece's length", count)?;
            let skipped = reader.varint_up_to("piece's number", whole_count)?;
            let is_first = runs.is_empty();
            if is_first != (step == 0) || !is_first && skipped <= step {
                return Err(reader.invalid("piece of a manifest").into());
            }
            runs.push((at + step, number + skipped));
        }
        let fits = match runs.last() {
            None => count == 0,
            Some((at, number)) => *at < count && number + (count - at) <= whole_count,
        };
        if !fits {
            return Err(reader.invalid("piece of a manifest").into());
        }
        Ok(Self { of, filter, whole_count, list, numbers: Numbers { runs, count } })
    }
}

/// The entries of a manifest that a filter keeps.
#[derive(Debug, Clone)]
pub struct PartManifest {
    named: Arc<PartList>,
    kept: StoredManifest,
}

impl PartManifest {
    /// The part that `named` names, with its blocks in `source`. They are not looked at yet.
    pub fn new(named: PartList, source: Arc<dyn BlockSource>) -> Self {
        let kept = StoredManifest::new(named.list.clone(), source);
        Self { named: Arc::new(named), kept }
    }

    /// What it has.
    pub fn named(&self) -> &PartList {
        &self.named
    }

    /// The entries, as a manifest of their own.
    pub fn kept(&self) -> &StoredManifest {
        &self.kept
    }
}

/// Packs' numbers are those of the whole manifest; everything else is about what is kept.
impl Entries for PartManifest {
    fn count(&self) -> u64 {
        self.kept.count()
    }

    fn each(&self) -> Each<'_> {
        self.kept.each()
    }

    fn locate(&self, path: &TreePath) -> Result<Option<(u64, Entry)>, Error> {
        self.kept.locate(path)
    }

    fn numbered(&self, number: u64) -> Result<Option<Entry>, Error> {
        match self.named.numbers.position(number) {
            Some(position) => self.kept.numbered(position),
            None => Ok(None),
        }
    }

    fn chosen<'a>(&'a self, positions: Positions<'a>) -> Chosen<'a> {
        self.kept.chosen(positions)
    }

    fn number_at(&self, position: u64) -> u64 {
        self.named.numbers.number(position).unwrap_or(position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{manifest::Manifest, mutate::try_many};

    fn numbers(all: &[u64]) -> Numbers {
        let mut numbers = Numbers::default();
        all.iter().for_each(|number| numbers.push(*number).unwrap());
        numbers
    }

    fn sample() -> PartList {
        let paths = (0..6).map(|n| format!("f{n}"));
        let entries = paths.map(|path| Entry {
            path: TreePath::parse(path.as_bytes()).unwrap(),
            mode: 0o755,
            mtime: 0,
            kind: crate::manifest::EntryKind::Dir,
        });
        let kept = StoredManifest::from(Manifest::new(entries.collect()).unwrap());
        PartList {
            of: Digest::of(b"whole"),
            filter: Digest::of(b"filter"),
            whole_count: 40,
            list: kept.list().clone(),
            numbers: numbers(&[0, 1, 7, 20, 21, 39]),
        }
    }

    #[test]
    fn numbers_are_found_both_ways() {
        let all = [2, 3, 4, 9, 10, 30];
        let numbers = numbers(&all);
        assert_eq!(numbers.runs, [(0, 2), (3, 9), (5, 30)]);
        for number in 0..40 {
            let expected = all.iter().position(|n| *n == number).map(|at| at as u64);
            assert_eq!(numbers.position(number), expected, "{number}");
        }
        for (at, number) in all.iter().enumerate() {
            assert_eq!(numbers.number(at as u64), Some(*number));
        }
    }

    #[test]
    fn what_is_written_is_read_and_nothing_else_panics_or_is_read_twice_in_two_ways() {
        let part = sample();
        let bytes = part.encode();
        assert_eq!(PartList::parse(&bytes).as_ref(), Ok(&part));
        for cut in 0..bytes.len() {
            assert!(PartList::parse(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        try_many("part of a manifest", 20_000, |random| {
            let mut bytes = bytes.clone();
            random.damage(&mut bytes);
            if let Ok(part) = PartList::parse(&bytes) {
                assert_eq!(part.encode(), bytes);
                let count = part.list.entry_count();
                for position in 0..count.min(100) {
                    let number = part.numbers.number(position).unwrap();
                    assert!(number < part.whole_count);
                    assert_eq!(part.numbers.position(number), Some(position));
                }
            }
        });
    }
}
