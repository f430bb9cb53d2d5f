//! One entry of a manifest.

use crate::{digest::Digest, path::TreePath};

/// Names a set of hard-linked files: all entries with the same group share one inode.
///
/// Derived from the path of the group's first member, so that it does not depend on what else the
/// tree holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkGroup(pub u64);

impl LinkGroup {
    /// The group whose first member, in path order, is `path`.
    pub fn of_first(path: &TreePath) -> Self {
        let mut head = [0; 8];
        head.copy_from_slice(&Digest::of(path.as_bytes()).as_bytes()[..8]);
        Self(u64::from_le_bytes(head))
    }
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// A regular file.
    File {
        /// Length in bytes.
        size: u64,
        /// Digest of the content.
        digest: Digest,
        /// Set where several entries share the inode.
        link_group: Option<LinkGroup>,
    },
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink {
        /// Where it points: raw bytes, 1 to 4095, no NUL.
        target: Box<[u8]>,
    },
}

/// One file, directory or symbolic link of a generation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Entry {
    /// Where it is.
    pub path: TreePath,
    /// Permission bits only (`0o777`): no setuid, setgid or sticky. 0 for symbolic links.
    pub mode: u32,
    /// Modification time, nanoseconds since 1970 UTC.
    pub mtime: i64,
    /// What it is.
    pub kind: EntryKind,
}

impl Entry {
    /// Permission bits that a manifest carries.
    pub const MODE_BITS: u32 = 0o777;
    /// Longest link target, in bytes.
    pub const MAX_TARGET: usize = 4095;

    /// Content bytes: a file's size, else 0.
    pub fn size(&self) -> u64 {
        match self.kind {
            EntryKind::File { size, .. } => size,
            EntryKind::Dir | EntryKind::Symlink { .. } => 0,
        }
    }

    /// Content digest of a file.
    pub fn digest(&self) -> Option<Digest> {
        match self.kind {
            EntryKind::File { digest, .. } => Some(digest),
            EntryKind::Dir | EntryKind::Symlink { .. } => None,
        }
    }

    /// Whether this is a directory.
    pub fn is_dir(&self) -> bool {
        matches!(self.kind, EntryKind::Dir)
    }

    /// Whether this is a regular file.
    pub fn is_file(&self) -> bool {
        matches!(self.kind, EntryKind::File { .. })
    }
}
