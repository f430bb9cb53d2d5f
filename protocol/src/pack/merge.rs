//! From one manifest to the next: a merge of sorted entries with sorted operations.

use std::iter::Peekable;

use super::{Error, Index, Op};
use crate::{
    manifest::{Entry, EntryKind, Manifest},
    path::TreePath,
};

/// Applies a pack's operations to the manifest that it leads from. The result has exactly the
/// digest that the pack's header names, or there is no result.
pub fn target_manifest(index: &Index, from: &Manifest) -> Result<Manifest, Error> {
    let header = index.header();
    let actual = from.digest();
    let expected = header.from.unwrap_or_else(|| Manifest::empty().digest());
    if actual != expected || from.entries().len() as u64 != header.from_entries {
        return Err(Error::WrongBase { expected, actual });
    }
    let ops = index.ops().map(|op| op.map(|(_, op)| op));
    let merge = Merge::new(from.entries().iter().cloned().map(Ok), ops);
    let to = Manifest::new(merge.collect::<Result<_, _>>()?)?;
    let actual = to.digest();
    if actual != header.to || to.entries().len() as u64 != header.to_entries {
        return Err(Error::WrongResult { expected: header.to, actual });
    }
    Ok(to)
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
