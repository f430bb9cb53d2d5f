//! A manifest *is* a generation: the sorted list of everything a tree holds.
//!
//! A tree may have millions of entries of which a thousand change, so a manifest is never one
//! blob. Its entries are cut into [blocks](Block) of about 4,096 entries, and the cut depends on
//! the path alone, so that an insertion changes one block and moves no other cut. The
//! [`BlockList`] names every block by its digest; its own digest names the manifest, and with it
//! the generation. Both are written canonically: equal content has equal bytes, on every machine
//! and in every release of format 1.
//!
//! Owner, group, extended attributes and ACLs are not carried; fifos, sockets and devices are left
//! out by the scan.

mod block;
mod entries;
mod entry;
mod list;
mod part;
mod stored;
mod write;

pub use block::{Block, BlockBuilder, MAX_BLOCK_BYTES, MAX_BLOCK_ENTRIES};
pub use entries::{Chosen, Each, Entries, Positions, SharedEntries};
pub use entry::{Entry, EntryKind, LinkGroup};
pub use list::{BlockList, BlockRef, MAX_BLOCKS};
pub use part::{Numbers, PartList, PartManifest};
pub use stored::{BlockSource, StoredManifest};
pub use write::{BlockWriter, write_blocks};

use std::sync::Arc;

use crate::{digest::Digest, path::TreePath, wire};

/// Most entries of a manifest.
pub const MAX_ENTRIES: u64 = 20_000_000;

/// Why bytes are not a manifest, or entries do not make one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The bytes are damaged, cut short or of another format.
    #[error("the manifest cannot be read: {0}")]
    Malformed(#[from] wire::Malformed),
    /// Entries are not in strictly ascending path order.
    #[error("the manifest names {path} out of order or twice")]
    OutOfOrder {
        /// The entry that comes too late.
        path: TreePath,
    },
    /// An entry lies inside something that is not a directory of the manifest.
    #[error("the manifest has {path}, but not the directory that holds it")]
    NoParent {
        /// The orphan.
        path: TreePath,
    },
    /// A block is not the one that the list names.
    #[error("manifest block {expected} arrived as {actual}: the data is damaged or was replaced")]
    WrongBlock {
        /// Named by the list.
        expected: Digest,
        /// What arrived.
        actual: Digest,
    },
    /// A block has another number of entries than the list says.
    #[error("a manifest block has {actual} entries where its list says {expected}")]
    WrongCount {
        /// Named by the list.
        expected: u64,
        /// In the block.
        actual: u64,
    },
    /// A block of a manifest that is kept cannot be read again.
    #[error("a block of the manifest that is kept here cannot be read: {0}")]
    Unreadable(String),
    /// A block begins or ends where no block does: the same entries have another digest.
    #[error("the manifest's block at {first} is not cut where this format cuts")]
    WrongCut {
        /// The block's first entry.
        first: TreePath,
    },
    /// More than a limit of this format allows.
    #[error("the manifest is larger than this format allows ({0})")]
    TooLarge(&'static str),
}

/// A whole manifest in memory: entries in path order, each inside a directory that is there too.
///
/// A large one takes most of a small program's memory, so a clone is the same entries once more
/// named, and blocks are made and read one by one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Manifest {
    entries: Arc<Vec<Entry>>,
}

impl Manifest {
    /// Takes entries that must already be sorted, and checks order and parents.
    pub fn new(mut entries: Vec<Entry>) -> Result<Self, Error> {
        if entries.len() as u64 > MAX_ENTRIES {
            return Err(Error::TooLarge("20,000,000 entries"));
        }
        let mut parents = ParentCheck::default();
        for entry in &entries {
            parents.admit(entry)?;
        }
        // Room to grow would be half as much again of a large one.
        entries.shrink_to_fit();
        Ok(Self { entries: Arc::new(entries) })
    }

    /// The manifest of an empty tree.
    pub fn empty() -> Self {
        Self::default()
    }

    /// All entries in path order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The entry at `path`.
    pub fn get(&self, path: &TreePath) -> Option<&Entry> {
        self.position(path).map(|at| &self.entries[at])
    }

    /// The number by which packs name the entry at `path`.
    pub fn position(&self, path: &TreePath) -> Option<usize> {
        self.entries.binary_search_by(|entry| entry.path.cmp(path)).ok()
    }

    /// Cuts the entries into blocks.
    pub fn blocks(&self) -> Vec<Block> {
        self.each_block().collect()
    }

    /// The blocks, each made when it is asked for.
    pub fn each_block(&self) -> impl Iterator<Item = Block> {
        let mut entries = self.entries.iter();
        let mut builder = Some(BlockBuilder::default());
        std::iter::from_fn(move || {
            let filling = builder.as_mut()?;
            match entries.by_ref().find_map(|entry| filling.push(entry)) {
                Some(block) => Some(block),
                None => builder.take()?.finish(),
            }
        })
    }

    /// The list that names the blocks; its digest is the manifest's.
    pub fn list(&self) -> BlockList {
        self.each_block().map(|block| BlockRef::of(&block)).collect()
    }

    /// The digest that names this manifest and its generation.
    pub fn digest(&self) -> Digest {
        self.list().digest()
    }

    /// Puts a manifest together from its list and every block of it, in order.
    pub fn from_blocks(list: &BlockList, blocks: &[Block]) -> Result<Self, Error> {
        if list.blocks().len() != blocks.len() {
            return Err(Error::TooLarge("as many blocks as its list names"));
        }
        let mut blocks = blocks.iter();
        let none = || Error::TooLarge("as many blocks as its list names");
        Self::read(list, |_| blocks.next().cloned().ok_or_else(none))
    }

    /// The same, where `block` gives them one after the other as they are asked for.
    pub fn read<E: From<Error>>(
        list: &BlockList,
        mut block: impl FnMut(&BlockRef) -> Result<Block, E>,
    ) -> Result<Self, E> {
        let mut entries = Vec::new();
        for (number, expected) in list.blocks().iter().enumerate() {
            let block = block(expected)?;
            if expected.digest != block.digest() {
                let (expected, actual) = (expected.digest, block.digest());
                return Err(Error::WrongBlock { expected, actual }.into());
            }
            let mut cut = CutCheck::default();
            for entry in block.entries()? {
                cut.admit(&entry);
                entries.push(entry);
            }
            cut.finish(expected, number + 1 == list.blocks().len())?;
        }
        Ok(Self::new(entries)?)
    }

    /// Bytes of content, each hard-link group counted once.
    pub fn content_bytes(&self) -> u64 {
        let mut seen = std::collections::HashSet::new();
        let once = |entry: &&Entry| match entry.kind {
            EntryKind::File { link_group: Some(group), .. } => seen.insert(group),
            _ => true,
        };
        self.entries.iter().filter(once).map(Entry::size).sum()
    }
}

/// Checks entries as they pass: ascending, and each inside a directory that passed before it.
#[derive(Debug, Default)]
pub struct ParentCheck {
    last: Option<TreePath>,
    open: Vec<TreePath>,
}

impl ParentCheck {
    /// Begins behind entries that did not pass here, at one whose directories are known to be there.
    pub(crate) fn within(first: &TreePath) -> Self {
        Self { last: None, open: first.ancestors().collect() }
    }

    /// Takes the next entry.
    pub fn admit(&mut self, entry: &Entry) -> Result<(), Error> {
        let path = &entry.path;
        if self.last.as_ref().is_some_and(|last| last >= path) {
            return Err(Error::OutOfOrder { path: path.clone() });
        }
        while self.open.last().is_some_and(|dir| !path.is_inside(dir)) {
            self.open.pop();
        }
        if path.parent().as_ref() != self.open.last() {
            return Err(Error::NoParent { path: path.clone() });
        }
        if entry.is_dir() {
            self.open.push(path.clone());
        }
        self.last = Some(path.clone());
        Ok(())
    }
}

/// Checks the entries of a block as they pass: it has to end where this format cuts, so that the same
/// entries always have the same digest.
#[derive(Debug, Default)]
struct CutCheck {
    builder: BlockBuilder,
    ended: Option<Block>,
    goes_on: bool,
}

impl CutCheck {
    /// Takes the next entry.
    fn admit(&mut self, entry: &Entry) {
        self.goes_on |= self.ended.is_some();
        if let Some(block) = self.builder.push(entry) {
            self.ended = Some(block);
        }
    }

    /// The block is over; only the last one of a manifest may end anywhere.
    fn finish(self, expected: &BlockRef, is_last: bool) -> Result<(), Error> {
        let block = if is_last { self.ended.or_else(|| self.builder.finish()) } else { self.ended };
        let is_right = !self.goes_on && block.is_some_and(|b| BlockRef::of(&b) == *expected);
        is_right.then_some(()).ok_or_else(|| Error::WrongCut { first: expected.first.clone() })
    }
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
