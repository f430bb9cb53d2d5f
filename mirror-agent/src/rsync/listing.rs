//! Reads what `rsync -n` says about a tree at a stock daemon.
//!
//! The server chooses every byte of it, and rsync's own text format has corners: control bytes
//! are written as `\#ooo`, a link's target follows its name after ` -> `, and either may contain
//! that. So the reader is bounded, takes apart only what has exactly one reading, and gives what
//! it could not take by name and reason instead of guessing.
//!
//! A listing is as long as the tree, and comes in an order of its own. So it is sorted in parts, and
//! lies on the disk as a manifest does, of which nothing is known but what a listing says.

mod line;
mod lines;

use std::sync::Arc;

use protocol::{
    digest::{Digest, DigestWriter},
    manifest::{self, Entries, Entry, EntryKind, MAX_ENTRIES, StoredManifest},
    path::TreePath,
    symlinks::Symlinks,
};

pub use self::lines::Lines;
use crate::{fetch::manifest::Error as StoreError, spool::Spool};

/// rsync's `--out-format` that [`Listing`] reads.
pub const OUT_FORMAT: &str = "%i|%B|%l|%M|%n%L";
/// Longest line: the longest path and target with every byte escaped, and the fields before.
pub const MAX_LINE: usize = 5 * (TreePath::MAX_LEN + Entry::MAX_TARGET) + 256;
/// Most entries that could not be taken and are still remembered by name.
const MAX_REFUSED: usize = 1_000;
/// Most bytes of all paths and targets together: 20 million of two hundred bytes.
const MAX_TEXT_BYTES: u64 = 4 << 30;
/// What files hold, as long as nobody has read it.
const UNREAD: Digest = Digest::from_bytes([0; Digest::LEN]);

/// One entry as the server lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Where it is.
    pub path: TreePath,
    /// What it is.
    pub kind: ListedKind,
    /// Permission bits; 0 for symbolic links.
    pub mode: u32,
    /// Modification time in whole seconds since 1970 UTC: rsync prints no more.
    pub mtime: i64,
}

/// What a listed entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListedKind {
    /// A regular file of so many bytes.
    File {
        /// Length in bytes.
        size: u64,
    },
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink {
        /// Where it points.
        target: Box<[u8]>,
    },
}

/// A whole listing in path order, with what was left out of it. Takes the memory of one block of a
/// manifest.
#[derive(Debug, Clone)]
pub struct Listing {
    /// Times are whole seconds, and what files hold is not known.
    entries: StoredManifest,
    spool: Arc<Spool>,
    /// What was left out.
    pub refused: Refused,
}

/// Entries that no tree of ours can hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refused {
    /// A bounded number of them, each with the reason.
    pub named: Vec<String>,
    /// How many there were.
    pub count: u64,
}

impl Refused {
    fn add(&mut self, why: impl FnOnce() -> String) {
        self.count += 1;
        if self.named.len() < MAX_REFUSED {
            self.named.push(why());
        }
    }
}

/// Why a listing cannot be used at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A line that is not in our format.
    #[error("rsync's listing has a line that cannot be read: {line:?}")]
    Unreadable {
        /// The line, escaped and shortened.
        line: String,
    },
    /// A line without end.
    #[error("rsync's listing has a line of more than {MAX_LINE} bytes")]
    LineTooLong,
    /// More entries than any manifest may have.
    #[error("the upstream lists more than {MAX_ENTRIES} entries")]
    TooManyEntries,
    /// Names of more bytes than any tree has.
    #[error("the upstream lists names of more than {MAX_TEXT_BYTES} bytes")]
    TooLong,
    /// The disk does not take it, or does not give it back.
    #[error("rsync's listing cannot be kept on this machine: {0}")]
    NotKept(String),
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        Self::NotKept(crate::chain(&error))
    }
}

impl From<manifest::Error> for Error {
    fn from(error: manifest::Error) -> Self {
        Self::NotKept(crate::chain(&error))
    }
}

impl Listed {
    /// Whether a manifest's entry is, as far as a listing can tell, the same.
    pub fn agrees_with(&self, entry: &Entry) -> bool {
        self.mode == entry.mode && self.agrees_but_for_mode(entry)
    }

    /// The same, whatever the permission bits are.
    pub fn agrees_but_for_mode(&self, entry: &Entry) -> bool {
        let same_kind = match (&self.kind, &entry.kind) {
            (ListedKind::File { size }, EntryKind::File { size: held, .. }) => size == held,
            (ListedKind::Dir, EntryKind::Dir) => true,
            (ListedKind::Symlink { target }, EntryKind::Symlink { target: held }) => target == held,
            _ => false,
        };
        // A link has no time of its own that anyone would miss, and servers differ in giving it.
        let same_time = matches!(self.kind, ListedKind::Symlink { .. })
            || self.mtime == entry.mtime.div_euclid(NANOS);
        same_kind && same_time
    }

    /// Whether this is a directory.
    pub fn is_dir(&self) -> bool {
        self.kind == ListedKind::Dir
    }

    /// Whether this is a file.
    pub fn is_file(&self) -> bool {
        matches!(self.kind, ListedKind::File { .. })
    }

    /// Bytes of a file; 0 of anything else.
    pub fn size(&self) -> u64 {
        match self.kind {
            ListedKind::File { size } => size,
            ListedKind::Dir | ListedKind::Symlink { .. } => 0,
        }
    }

    /// As a listing keeps it.
    fn to_entry(&self) -> Entry {
        let kind = match &self.kind {
            ListedKind::File { size } => {
                EntryKind::File { size: *size, digest: UNREAD, link_group: None }
            }
            ListedKind::Dir => EntryKind::Dir,
            ListedKind::Symlink { target } => EntryKind::Symlink { target: target.clone() },
        };
        Entry { path: self.path.clone(), mode: self.mode, mtime: self.mtime, kind }
    }

    fn of_entry(Entry { path, mode, mtime, kind }: Entry) -> Self {
        let kind = match kind {
            EntryKind::File { size, .. } => ListedKind::File { size },
            EntryKind::Dir => ListedKind::Dir,
            EntryKind::Symlink { target } => ListedKind::Symlink { target },
        };
        Self { path, kind, mode, mtime }
    }
}

/// Nanoseconds of a second.
pub const NANOS: i64 = 1_000_000_000;

impl Listing {
    /// Names exactly this listing: paths, kinds, sizes, times and modes.
    pub fn digest(&self) -> Result<Digest, manifest::Error> {
        let mut digest = DigestWriter::new();
        for listed in self.each() {
            let Listed { path, mode, mtime, kind } = listed?;
            let (tag, target, size) = match &kind {
                ListedKind::File { size } => (b'f', &b""[..], *size),
                ListedKind::Dir => (b'd', &b""[..], 0),
                ListedKind::Symlink { target } => (b'l', &target[..], 0),
            };
            digest.update(&[tag]);
            for text in [path.as_bytes(), target] {
                digest.update(&(text.len() as u64).to_le_bytes());
                digest.update(text);
            }
            digest.update(&size.to_le_bytes());
            digest.update(&mtime.to_le_bytes());
            digest.update(&mode.to_le_bytes());
        }
        Ok(digest.finish())
    }

    /// The entries in path order. Ends after the first error.
    pub fn each(&self) -> impl Iterator<Item = Result<Listed, manifest::Error>> + Send {
        self.from(0)
    }

    /// The same from a position on.
    fn from(&self, position: u64) -> impl Iterator<Item = Result<Listed, manifest::Error>> + Send {
        let found = self.entries.chosen(Box::new(position..self.entries.count()));
        found.map(|found| found.map(|(_, entry)| Listed::of_entry(entry)))
    }

    /// The entry at `path`. Cheapest where paths are asked for in order.
    pub fn get(&self, path: &TreePath) -> Result<Option<Listed>, manifest::Error> {
        Ok(self.entries.find(path)?.map(Listed::of_entry))
    }

    /// What lies inside the directory `above`, as seen from there.
    pub fn below(&self, above: &TreePath) -> Result<Self, StoreError> {
        let inside = match self.entries.locate(above)? {
            Some((position, _)) => self.from(position + 1),
            None => self.from(self.entries.count()),
        };
        // An error is seen and not passed over.
        let inside = inside.map_while(|listed| match listed {
            Ok(listed) => {
                let path = listed.path.below(above)?;
                Some(Ok(Listed { path, ..listed }.to_entry()))
            }
            Err(error) => Some(Err(StoreError::from(error))),
        });
        let entries = self.spool.keep(inside)?;
        Ok(Self { entries, spool: self.spool.clone(), refused: Refused::default() })
    }

    /// Leaves out the links that a tree may not have.
    pub fn without_links(mut self, symlinks: Symlinks) -> Result<Self, StoreError> {
        let is_allowed = |listed: &Listed| match &listed.kind {
            ListedKind::Symlink { target } => symlinks.allows(&listed.path, target),
            ListedKind::File { .. } | ListedKind::Dir => true,
        };
        let mut refused = std::mem::take(&mut self.refused);
        let before = refused.count;
        for listed in self.each() {
            let listed = listed?;
            if !is_allowed(&listed) {
                refused.add(|| format!("{}: {}", listed.path, symlinks.why()));
            }
        }
        let has_some = refused.count > before;
        self.refused = refused;
        if !has_some {
            return Ok(self);
        }
        let allowed = self.each().filter(|listed| listed.as_ref().map_or(true, is_allowed));
        let entries = allowed.map(|listed| Ok::<_, StoreError>(listed?.to_entry()));
        let entries = self.spool.keep(entries)?;
        Ok(Self { entries, ..self })
    }

    /// Whether the listing shows exactly what `held` says.
    pub fn agrees_with(&self, held: &dyn Entries) -> Result<bool, manifest::Error> {
        if self.entries.count() != held.count() {
            return Ok(false);
        }
        for (listed, entry) in self.each().zip(held.each()) {
            let (listed, entry) = (listed?, entry?);
            if listed.path != entry.path || !listed.agrees_with(&entry) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests;
