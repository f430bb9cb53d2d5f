//! From one manifest to the next: a merge of sorted entries with sorted operations.

use std::iter::Peekable;

use super::{Error, Index, Op};
use crate::{
    digest::Digest,
    manifest::{
        self, Block, BlockBuilder, BlockList, BlockRef, Entries, Entry, EntryKind, MAX_ENTRIES,
        Manifest, ParentCheck, StoredManifest,
    },
    path::TreePath,
};

/// Applies a pack's operations to the manifest that it leads from. The result has exactly the
/// digest that the pack's header names, or there is no result.
pub fn target_manifest(index: &Index, from: &Manifest) -> Result<Manifest, Error> {
    let header = index.header();
    check_base(index, from.digest(), from.count())?;
    let ops = index.ops().map(|op| op.map(|(_, op)| op));
    let merge = Merge::new(from.entries().iter().cloned().map(Ok), ops);
    let to = Manifest::new(merge.collect::<Result<_, _>>()?)?;
    let actual = to.digest();
    if actual != header.to || to.entries().len() as u64 != header.to_entries {
        return Err(Error::WrongResult { expected: header.to, actual });
    }
    Ok(to)
}

/// [`target_manifest`] for a manifest that does not fit into memory. A block that no operation
/// concerns is taken over as it is, unread; every other block of the result is given to `put`.
/// Nothing that was put is of use where there is no result.
pub fn target_blocks<E: From<Error>>(
    index: &Index,
    from: &StoredManifest,
    put: impl FnMut(Block) -> Result<(), E>,
) -> Result<BlockList, E> {
    let header = index.header();
    check_base(index, from.digest(), from.count())?;
    let mut ops = index.ops().map(|op| op.map(|(_, op)| op)).peekable();
    let mut out = Output { builder: BlockBuilder::default(), blocks: Vec::new(), count: 0, put };
    // Directories that are open where the result ends so far.
    let mut parents = ParentCheck::default();
    let mut gone: Option<TreePath> = None;
    let old = from.list().blocks();
    // Beside no old block at all, the operations make up the result.
    for number in 0..old.len().max(1) {
        let end = old.get(number + 1).map(|next| &next.first);
        let is_before = |op: &Result<Op, Error>| {
            op.as_ref().map_or(true, |op| end.is_none_or(|end| op.path() < end))
        };
        if let Some(block) = old.get(number) {
            let is_gone = gone.as_ref().is_some_and(|gone| block.first.is_inside(gone));
            let is_changed = ops.peek().is_some_and(is_before);
            if !is_gone && !is_changed && out.builder.is_between_blocks() {
                out.take_over(block)?;
                // Whatever comes after it lies in a directory that holds its end as well.
                parents = end.map(ParentCheck::within).unwrap_or_default();
                continue;
            }
        }
        let block = from.read_block(number).map_err(Error::from)?;
        let entries = block.iter().flat_map(Block::each).map(|entry| Ok(entry?));
        let changes = std::iter::from_fn(|| ops.next_if(is_before));
        let mut merge = Merge { gone: gone.take(), ..Merge::new(entries, changes) };
        for entry in merge.by_ref() {
            let entry = entry?;
            parents.admit(&entry).map_err(Error::from)?;
            out.push(&entry)?;
        }
        gone = merge.gone;
    }
    let list = out.finish()?;
    let actual = list.digest();
    if actual != header.to || list.entry_count() != header.to_entries {
        return Err(Error::WrongResult { expected: header.to, actual }.into());
    }
    Ok(list)
}

fn check_base(index: &Index, actual: Digest, entries: u64) -> Result<(), Error> {
    if !index.is_whole() {
        return Err(Error::Partial);
    }
    let header = index.header();
    let expected = header.from.unwrap_or_else(|| Manifest::empty().digest());
    if actual != expected || entries != header.from_entries {
        return Err(Error::WrongBase { expected, actual });
    }
    Ok(())
}

/// The blocks of a result.
struct Output<P> {
    builder: BlockBuilder,
    blocks: Vec<BlockRef>,
    count: u64,
    put: P,
}

impl<P> Output<P> {
    fn count(&mut self, entries: u64) -> Result<(), Error> {
        self.count += entries;
        match self.count > MAX_ENTRIES {
            true => Err(manifest::Error::TooLarge("20,000,000 entries").into()),
            false => Ok(()),
        }
    }

    fn take_over(&mut self, block: &BlockRef) -> Result<(), Error> {
        self.count(block.count)?;
        self.blocks.push(block.clone());
        Ok(())
    }

    fn push<E: From<Error>>(&mut self, entry: &Entry) -> Result<(), E>
    where
        P: FnMut(Block) -> Result<(), E>,
    {
        self.count(1)?;
        match self.builder.push(entry) {
            Some(block) => self.keep(block),
            None => Ok(()),
        }
    }

    fn keep<E>(&mut self, block: Block) -> Result<(), E>
    where
        P: FnMut(Block) -> Result<(), E>,
    {
        self.blocks.push(BlockRef::of(&block));
        (self.put)(block)
    }

    fn finish<E>(mut self) -> Result<BlockList, E>
    where
        P: FnMut(Block) -> Result<(), E>,
    {
        if let Some(block) = std::mem::take(&mut self.builder).finish() {
            self.keep(block)?;
        }
        Ok(self.blocks.into_iter().collect())
    }
}

/// The entries that result from sorted old entries and sorted operations, one by one.
///
/// For whoever holds only a part of a manifest, or has no room for the whole: it checks order and
/// that what is changed or removed was there, and nothing about the result.
pub struct Merge<F: Iterator, O: Iterator> {
    from: Peekable<F>,
    ops: Peekable<O>,
    /// Everything old inside this path is gone.
    gone: Option<TreePath>,
}

impl<F, O> Merge<F, O>
where
    F: Iterator<Item = Result<Entry, Error>>,
    O: Iterator<Item = Result<Op, Error>>,
{
    /// Merges `from` and `ops`, both in path order.
    pub fn new(from: F, ops: O) -> Self {
        Self { from: from.peekable(), ops: ops.peekable(), gone: None }
    }

    /// The next old entry that is not inside something that went.
    fn skip_gone(&mut self) {
        if let Some(gone) = &self.gone {
            while let Some(Ok(entry)) = self.from.peek()
                && entry.path.is_inside(gone)
            {
                self.from.next();
            }
        }
    }

    /// Takes the old entry at `path`, if there is one.
    fn take(&mut self, path: &TreePath) -> Option<Entry> {
        match self.from.peek() {
            Some(Ok(entry)) if entry.path == *path => self.from.next()?.ok(),
            _ => None,
        }
    }

    fn apply(&mut self, op: Op) -> Result<Option<Entry>, Error> {
        match op {
            Op::Put { entry, .. } => {
                let old = self.take(&entry.path);
                if old.is_some_and(|old| old.is_dir()) && !entry.is_dir() {
                    self.gone = Some(entry.path.clone());
                }
                Ok(Some(entry))
            }
            Op::Delete { path } => {
                if self.take(&path).is_none() {
                    return Err(Error::NotInBase { path });
                }
                self.gone = Some(path);
                Ok(None)
            }
            Op::Attributes { path, mode, mtime, link_group } => {
                let Some(mut entry) = self.take(&path) else {
                    return Err(Error::NotInBase { path });
                };
                (entry.mode, entry.mtime) = (mode, mtime);
                match (&mut entry.kind, link_group) {
                    (EntryKind::File { link_group: group, .. }, _) => *group = link_group,
                    (_, None) => {}
                    (_, Some(_)) => {
                        return Err(Error::BadReference { path, what: "a file" });
                    }
                }
                Ok(Some(entry))
            }
        }
    }
}

impl<F, O> Iterator for Merge<F, O>
where
    F: Iterator<Item = Result<Entry, Error>>,
    O: Iterator<Item = Result<Op, Error>>,
{
    type Item = Result<Entry, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            self.skip_gone();
            let op_first = match (self.from.peek(), self.ops.peek()) {
                (_, None) => false,
                (None, Some(_)) | (_, Some(Err(_))) => true,
                (Some(Err(_)), _) => false,
                (Some(Ok(entry)), Some(Ok(op))) => *op.path() <= entry.path,
            };
            if !op_first {
                return self.from.next();
            }
            let op = match self.ops.next()? {
                Ok(op) => op,
                Err(error) => return Some(Err(error)),
            };
            match self.apply(op) {
                Ok(None) => {}
                Ok(Some(entry)) => return Some(Ok(entry)),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

#[cfg(test)]
mod tests;
