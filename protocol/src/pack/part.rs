//! From the part of a manifest that a site keeps to the same part of the next one, by the part of an
//! index that concerns it.
//!
//! The whole manifest that results cannot be compared with its digest, because most of it is not
//! there. What holds instead: the site's part was right, the offer binds every block of the index,
//! places must agree from block to block and with the numbers of what is held, and content is
//! verified file by file in any case.

use super::{Error, Index, Keeps, Op, Place};
use crate::{
    digest::Digest,
    manifest::{
        self, Block, BlockBuilder, BlockRef, Each, Entries, Entry, EntryKind, Manifest, Numbers,
        ParentCheck, PartList,
    },
};

/// What a pack is applied to, and what is kept of it.
#[derive(Clone, Copy)]
pub struct PartOf<'a> {
    /// The whole manifest of which `from` is at least what `keeps` keeps.
    pub digest: Digest,
    /// What is held of it.
    pub from: &'a dyn Entries,
    /// What is kept: a path, and whether it is a directory.
    pub keeps: Keeps<'a>,
    /// Names what `keeps` says.
    pub filter: Digest,
}

impl std::fmt::Debug for PartOf<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PartOf").field("digest", &self.digest).finish_non_exhaustive()
    }
}

/// Applies the operations of an index that says places, whole or not, to a part of the manifest that
/// it leads from. Every block of the result is given to `put`. Nothing that was put is of use where
/// there is no result.
///
/// # Errors
/// [`Error::Partial`] where a block is missing that concerns what is kept, or the index says no
/// places.
pub fn target_part<E: From<Error>>(
    index: &Index,
    held: PartOf<'_>,
    mut put: impl FnMut(Block) -> Result<(), E>,
) -> Result<PartList, E> {
    let header = index.header();
    let expected = header.from.unwrap_or_else(|| Manifest::empty().digest());
    if held.digest != expected {
        return Err(Error::WrongBase { expected, actual: held.digest }.into());
    }
    if !index.is_placed() {
        return Err(Error::Partial.into());
    }
    let mut old = Old { entries: held.from.each(), held, position: 0, next: None };
    let mut new = New::default();
    let mut shift = 0;
    for (number, (named, is_here)) in index.named_op_blocks().enumerate() {
        // What lies before the block is moved by what the blocks before it say.
        while let Some((at, entry)) = old.next_before(named.from)? {
            new.push(at, shift, &entry, &mut put)?;
        }
        shift = named.shift();
        if !is_here {
            // Its end is not known exactly, so nothing that is kept may lie before the next one.
            let end = index.op_block_from(number + 1).unwrap_or(header.from_entries);
            if old.next_before(end)?.is_some() {
                return Err(Error::Partial.into());
            }
            continue;
        }
        for (op, place) in index.placed_ops(number)? {
            while let Some((at, entry)) = old.next_before(place.from)? {
                if entry.path >= *op.path() {
                    return Err(misplaced(&op).into());
                }
                new.push(at, shift, &entry, &mut put)?;
            }
            let replaced = old.take(&op, place)?;
            // What is kept either way must be there to be changed: else it would silently go.
            let is_kept = || [true, false].iter().all(|is_dir| (held.keeps)(op.path(), *is_dir));
            if replaced.is_none() && matches!(op, Op::Attributes { .. }) && is_kept() {
                return Err(misplaced(&op).into());
            }
            if let Some(entry) = result(&op, replaced)?
                && (held.keeps)(&entry.path, entry.is_dir())
            {
                new.push(place.from, shift, &entry, &mut put)?;
            }
            shift += place.growth(&op);
        }
    }
    while let Some((at, entry)) = old.next_before(u64::MAX)? {
        new.push(at, shift, &entry, &mut put)?;
    }
    new.finish(header.to, header.to_entries, held.filter, put)
}

fn misplaced(op: &Op) -> Error {
    Error::BadReference { path: op.path().clone(), what: "a place" }
}

/// What an operation makes of what was there; `None` where nothing is, or nothing that is kept.
fn result(op: &Op, replaced: Option<Entry>) -> Result<Option<Entry>, Error> {
    Ok(match op {
        Op::Put { entry, .. } => Some(entry.clone()),
        Op::Delete { .. } => None,
        Op::Attributes { path, mode, mtime, link_group } => {
            let Some(mut entry) = replaced else { return Ok(None) };
            (entry.mode, entry.mtime) = (*mode, *mtime);
            match (&mut entry.kind, link_group) {
                (EntryKind::File { link_group: group, .. }, _) => *group = *link_group,
                (_, None) => {}
                (_, Some(_)) => {
                    return Err(Error::BadReference { path: path.clone(), what: "a file" });
                }
            }
            Some(entry)
        }
    })
}

/// What is held and kept, by its numbers.
struct Old<'a> {
    entries: Each<'a>,
    held: PartOf<'a>,
    position: u64,
    next: Option<(u64, Entry)>,
}

impl Old<'_> {
    /// Takes the next one, if its number is less.
    fn next_before(&mut self, number: u64) -> Result<Option<(u64, Entry)>, Error> {
        while self.next.is_none() {
            let Some(entry) = self.entries.next() else { return Ok(None) };
            let (entry, at) = (entry?, self.held.from.number_at(self.position));
            self.position += 1;
            if (self.held.keeps)(&entry.path, entry.is_dir()) {
                self.next = Some((at, entry));
            }
        }
        Ok(self.next.take_if(|(at, _)| *at < number))
    }

    /// Takes what an operation replaces or takes away; gives what was at its path.
    fn take(&mut self, op: &Op, place: Place) -> Result<Option<Entry>, Error> {
        let mut at_path = None;
        while let Some((at, entry)) = self.next_before(place.end())? {
            let is_at_path = at == place.from;
            let is_right = match is_at_path {
                true => entry.path == *op.path(),
                false => entry.path.is_inside(op.path()),
            };
            if !is_right {
                return Err(misplaced(op));
            }
            if is_at_path {
                at_path = Some(entry);
            }
        }
        // What comes next must come behind the operation.
        match &self.next {
            Some((_, next)) if next.path <= *op.path() => Err(misplaced(op)),
            _ => Ok(at_path),
        }
    }
}

/// What is kept of the new manifest.
#[derive(Default)]
struct New {
    builder: BlockBuilder,
    blocks: Vec<BlockRef>,
    numbers: Numbers,
    parents: ParentCheck,
    last: Option<u64>,
}

impl New {
    /// Adds the next entry, numbered by that of the old manifest and how the new one has shifted.
    fn push<E: From<Error>>(
        &mut self,
        at: u64,
        shift: i64,
        entry: &Entry,
        put: &mut impl FnMut(Block) -> Result<(), E>,
    ) -> Result<(), E> {
        let number =
            at.checked_add_signed(shift).filter(|n| self.last.is_none_or(|last| last < *n));
        let misplaced = || Error::BadReference { path: entry.path.clone(), what: "a place" };
        let number = number.ok_or_else(misplaced)?;
        self.last = Some(number);
        self.numbers.push(number).map_err(Error::from)?;
        self.parents.admit(entry).map_err(Error::from)?;
        match self.builder.push(entry) {
            Some(block) => self.keep(block, put),
            None => Ok(()),
        }
    }

    fn keep<E>(
        &mut self,
        block: Block,
        put: &mut impl FnMut(Block) -> Result<(), E>,
    ) -> Result<(), E> {
        self.blocks.push(BlockRef::of(&block));
        put(block)
    }

    fn finish<E: From<Error>>(
        mut self,
        of: Digest,
        whole_count: u64,
        filter: Digest,
        mut put: impl FnMut(Block) -> Result<(), E>,
    ) -> Result<PartList, E> {
        if self.last.is_some_and(|last| last >= whole_count) {
            return Err(Error::from(manifest::Error::TooLarge("the pack's new entries")).into());
        }
        if let Some(block) = std::mem::take(&mut self.builder).finish() {
            self.keep(block, &mut put)?;
        }
        let list = self.blocks.into_iter().collect();
        Ok(PartList { of, filter, whole_count, list, numbers: self.numbers })
    }
}

#[cfg(test)]
mod tests;
