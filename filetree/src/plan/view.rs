//! How a site sees a manifest: what it keeps of it, and with which modes.

use std::fmt;

use protocol::{
    manifest::{self, Entries, Entry, EntryKind},
    path::TreePath,
    symlinks::Symlinks,
};

use super::Item;
use crate::scan::Keep;

/// Permission bits that an assignment adds to and takes from what a manifest says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Modes {
    /// Bits that every file gets.
    pub file_set: u32,
    /// Bits that no file has.
    pub file_clear: u32,
    /// Bits that every directory gets.
    pub dir_set: u32,
    /// Bits that no directory has.
    pub dir_clear: u32,
}

impl Modes {
    /// As the manifest says.
    pub const AS_IS: Self = Self { file_set: 0, file_clear: 0, dir_set: 0, dir_clear: 0 };

    /// As the manifest says, and readable by everyone: the default of an assignment.
    pub const READABLE: Self = Self { file_set: 0o444, dir_set: 0o555, ..Self::AS_IS };

    pub(super) fn of(&self, entry: &Entry) -> u32 {
        match entry.kind {
            EntryKind::File { .. } => (entry.mode & !self.file_clear) | self.file_set,
            EntryKind::Dir => (entry.mode & !self.dir_clear) | self.dir_set,
            EntryKind::Symlink { .. } => 0,
        }
    }
}

/// How a site sees a manifest: what it keeps, and with which modes.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// The assignment's filter.
    pub keep: Keep<'a>,
    /// The assignment's modes.
    pub modes: Modes,
    /// Symbolic links that are kept, as far as `keep` keeps them.
    pub symlinks: Symlinks,
}

impl View<'_> {
    /// Everything, as it is.
    pub const AS_IS: View<'static> =
        View { keep: &crate::scan::keep_all, modes: Modes::AS_IS, symlinks: Symlinks::All };

    /// The entries of a manifest that are kept, with the modes that they get.
    pub(super) fn seen<'m>(
        &'m self,
        manifest: &'m dyn Entries,
    ) -> impl Iterator<Item = Result<Item, manifest::Error>> {
        let mut sieve = Sieve { view: self, hidden: None };
        manifest.each().filter_map(move |entry| match entry {
            Ok(entry) => sieve.keeps(&entry).then(|| Ok(self.item(entry))),
            Err(error) => Some(Err(error)),
        })
    }

    fn item(&self, entry: Entry) -> Item {
        Item { mode: self.modes.of(&entry), entry, number: None }
    }
}

/// Decides which entries are kept, one after the other in path order. What lies inside a directory
/// that is not kept is not kept.
struct Sieve<'v> {
    view: &'v View<'v>,
    hidden: Option<TreePath>,
}

impl Sieve<'_> {
    fn keeps(&mut self, entry: &Entry) -> bool {
        if self.hidden.as_ref().is_some_and(|dir| entry.path.is_inside(dir)) {
            return false;
        }
        if (self.view.keep)(&entry.path, entry.is_dir()) {
            return self.view.carries(entry);
        }
        if entry.is_dir() {
            self.hidden = Some(entry.path.clone());
        }
        false
    }
}

/// Which entries of a manifest are kept: one bit for each, so that it fits into memory beside any
/// manifest.
#[derive(Debug, Clone, Default)]
pub(super) struct Kept {
    bits: Vec<u64>,
    /// How many are kept.
    pub(super) entries: usize,
    /// Files among them.
    pub(super) files: usize,
}

impl Kept {
    pub(super) fn of(manifest: &dyn Entries, view: &View<'_>) -> Result<Self, manifest::Error> {
        let mut sieve = Sieve { view, hidden: None };
        let mut kept = Self::default();
        for (number, entry) in manifest.each().enumerate() {
            let entry = entry?;
            if number.is_multiple_of(64) {
                kept.bits.push(0);
            }
            if sieve.keeps(&entry) {
                kept.bits[number / 64] |= 1 << (number % 64);
                kept.entries += 1;
                kept.files += usize::from(entry.is_file());
            }
        }
        Ok(kept)
    }

    pub(super) fn has(&self, number: u64) -> bool {
        let bits = usize::try_from(number / 64).ok().and_then(|at| self.bits.get(at));
        bits.is_some_and(|bits| bits >> (number % 64) & 1 == 1)
    }
}

impl View<'_> {
    fn carries(&self, entry: &Entry) -> bool {
        match &entry.kind {
            EntryKind::Symlink { target } => self.symlinks.allows(&entry.path, target),
            EntryKind::File { .. } | EntryKind::Dir => true,
        }
    }
}

impl fmt::Debug for View<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "View({:?})", self.modes)
    }
}
