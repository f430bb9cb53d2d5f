//! Which rules of a list are worth trying on an entry.
//!
//! Most rules say with which byte a name begins or ends. For each byte and place the sieve holds
//! the set of rules that could match, one bit each; for an entry, three sets are laid over each
//! other, and what is left is tried. Of fifty rules that is one or two.

use super::{
    pattern::Subject,
    rule::{Action, SharedRule},
};

/// Bit sets over the positions that it was made for.
#[derive(Default)]
pub(super) struct Sieve {
    files: Table,
    directories: Table,
}

#[derive(Default)]
struct Table {
    words: usize,
    /// `[byte * words + word]`: by the first byte of the path, the first and the last of the name.
    path_first: Vec<u64>,
    name_first: Vec<u64>,
    last: Vec<u64>,
}

impl Sieve {
    /// A sieve for the rules at `positions`; it answers with indexes into `positions`.
    pub(super) fn new(rules: &[SharedRule], positions: &[usize]) -> Self {
        Self {
            files: Table::new(rules, positions, false),
            directories: Table::new(rules, positions, true),
        }
    }

    /// The rules that may match, in order.
    pub(super) fn candidates(&self, subject: Subject<'_>) -> impl Iterator<Item = usize> {
        let table = if subject.is_dir { &self.directories } else { &self.files };
        let row = |byte: Option<&u8>| usize::from(byte.copied().unwrap_or(0)) * table.words;
        let path_first = &table.path_first[row(subject.path.first())..][..table.words];
        let name_first = &table.name_first[row(subject.name().first())..][..table.words];
        let last = &table.last[row(subject.path.last())..][..table.words];
        let sets = path_first.iter().zip(name_first).zip(last).map(|((a, b), c)| a & b & c);
        sets.enumerate().flat_map(|(word, set)| Bits(set).map(move |bit| word * 64 + bit))
    }
}

impl Table {
    fn new(rules: &[SharedRule], positions: &[usize], is_dir: bool) -> Self {
        let words = positions.len().div_ceil(64);
        let empty = vec![0; 256 * words];
        let mut table =
            Self { words, path_first: empty.clone(), name_first: empty.clone(), last: empty };
        for (index, &at) in positions.iter().enumerate() {
            let pattern = match &rules[at].action {
                Action::Choice(choice) if !choice.negated => Some(&choice.pattern),
                _ => None,
            };
            if !is_dir && pattern.is_some_and(|pattern| !pattern.may_be_file()) {
                continue;
            }
            for byte in 0..=255u8 {
                let place = usize::from(byte) * words + index / 64;
                let set = |column: &mut Vec<u64>, may: bool| {
                    column[place] |= u64::from(may) << (index % 64);
                };
                set(&mut table.path_first, pattern.is_none_or(|p| p.may_begin_path_with(byte)));
                set(&mut table.name_first, pattern.is_none_or(|p| p.may_begin_name_with(byte)));
                set(&mut table.last, pattern.is_none_or(|p| p.may_end_with(byte)));
            }
        }
        table
    }
}

/// The positions of the bits that are set.
struct Bits(u64);

impl Iterator for Bits {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        if self.0 == 0 {
            return None;
        }
        let bit = self.0.trailing_zeros() as usize;
        self.0 &= self.0 - 1;
        Some(bit)
    }
}
