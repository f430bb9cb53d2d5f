//! What can be asked of a manifest, wherever it is kept.

use std::{fmt, sync::Arc};

use super::{Entry, EntryKind, Error, LinkGroup, Manifest};
use crate::path::TreePath;

/// Entries one after the other.
pub type Each<'a> = Box<dyn Iterator<Item = Result<Entry, Error>> + 'a>;

/// Some of the entries with their positions, one after the other.
pub type Chosen<'a> = Box<dyn Iterator<Item = Result<(u64, Entry), Error>> + Send + 'a>;

/// Positions among what [`Entries::each`] gives, ascending.
pub type Positions<'a> = Box<dyn Iterator<Item = u64> + Send + 'a>;

/// A manifest that several hold, wherever it is kept.
pub type SharedEntries = Arc<dyn Entries>;

/// The entries of a manifest in path order: in memory, or read block by block as they are asked for.
///
/// A large manifest does not fit into the memory that an agent may take, so whoever goes through one
/// takes entry after entry and keeps only what concerns him.
pub trait Entries: fmt::Debug + Send + Sync {
    /// How many there are.
    fn count(&self) -> u64;

    /// All of them in path order. Ends after the first error.
    fn each(&self) -> Each<'_>;

    /// The entry at `path` and its position among what [`Entries::each`] gives. Cheapest where paths
    /// are asked for in order.
    fn locate(&self, path: &TreePath) -> Result<Option<(u64, Entry)>, Error>;

    /// The entry at `path`.
    fn find(&self, path: &TreePath) -> Result<Option<Entry>, Error> {
        Ok(self.locate(path)?.map(|(_, entry)| entry))
    }

    /// The entry by the number that packs name it by. Cheapest in order.
    fn numbered(&self, number: u64) -> Result<Option<Entry>, Error>;

    /// The number by which packs name what [`Entries::each`] gives at that position: the same, but in
    /// a part of a manifest.
    fn number_at(&self, position: u64) -> u64 {
        position
    }

    /// The entries at these positions, which ascend; positions at which there are none are passed
    /// over. Does not disturb questions that are asked meanwhile. Ends after the first error.
    fn chosen<'a>(&'a self, positions: Positions<'a>) -> Chosen<'a>;

    /// Bytes of content, each hard-link group counted once.
    fn sum_bytes(&self) -> Result<u64, Error> {
        let mut sum = 0u64;
        for entry in self.each() {
            let entry = entry?;
            let is_counted = match entry.kind {
                // The first of a group gives it its name.
                EntryKind::File { link_group: Some(group), .. } => {
                    group == LinkGroup::of_first(&entry.path)
                }
                _ => true,
            };
            if is_counted {
                sum = sum.saturating_add(entry.size());
            }
        }
        Ok(sum)
    }
}

impl Entries for Manifest {
    fn count(&self) -> u64 {
        self.entries().len() as u64
    }

    fn each(&self) -> Each<'_> {
        Box::new(self.entries().iter().cloned().map(Ok))
    }

    fn locate(&self, path: &TreePath) -> Result<Option<(u64, Entry)>, Error> {
        Ok(self.position(path).map(|at| (at as u64, self.entries()[at].clone())))
    }

    fn numbered(&self, number: u64) -> Result<Option<Entry>, Error> {
        Ok(usize::try_from(number).ok().and_then(|at| self.entries().get(at)).cloned())
    }

    fn chosen<'a>(&'a self, positions: Positions<'a>) -> Chosen<'a> {
        let entry = |at| Some((at, self.entries().get(usize::try_from(at).ok()?)?));
        let found = positions.filter_map(entry);
        Box::new(found.map(|(at, entry)| Ok((at, entry.clone()))))
    }
}

impl<E: Entries + ?Sized> Entries for Arc<E> {
    fn count(&self) -> u64 {
        (**self).count()
    }

    fn each(&self) -> Each<'_> {
        (**self).each()
    }

    fn locate(&self, path: &TreePath) -> Result<Option<(u64, Entry)>, Error> {
        (**self).locate(path)
    }

    fn numbered(&self, number: u64) -> Result<Option<Entry>, Error> {
        (**self).numbered(number)
    }

    fn number_at(&self, position: u64) -> u64 {
        (**self).number_at(position)
    }

    fn chosen<'a>(&'a self, positions: Positions<'a>) -> Chosen<'a> {
        (**self).chosen(positions)
    }

    fn sum_bytes(&self) -> Result<u64, Error> {
        (**self).sum_bytes()
    }
}
