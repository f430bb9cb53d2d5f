//! Packs as files: written once at the publisher, read at every mirror.
//!
//! The format and what can be decided from an index alone are [`protocol::pack`]; here is what
//! touches content. Both directions are made for trees that are larger than memory and for peers
//! that cannot be trusted:
//!
//! - [`write`] compares two manifests, makes each changed file small by the best
//!   [encoder](crate::delta) in parallel, and verifies that what it read is what the manifest
//!   says, because live files change;
//! - [`read`] makes files from frames and old content, verifies every frame before it is unpacked
//!   and every file before it is passed on, and reports per file why one could not be made;
//! - [`unpack`] does that for a plain directory, [`inspect`] shows what a pack consists of.

pub mod inspect;
pub mod read;
pub mod unpack;
pub mod write;

use std::{io, path::PathBuf};

use protocol::{manifest::Entry, path::TreePath};

use crate::{
    delta::{self, ReadAt},
    fs::{self, Dir},
    scan,
    signature::StoredSignature,
};

/// Why a pack could not be written, read or unpacked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The pack's own content is at fault, or its limits.
    #[error(transparent)]
    Pack(#[from] protocol::pack::Error),
    /// A file changed between the scan and the packing.
    #[error("{path} was changed while it was being packed; the next scan will take it again")]
    Changed {
        /// Which file.
        path: TreePath,
    },
    /// New content could not be read.
    #[error("{path} cannot be read, so its pack cannot be made")]
    Read {
        /// Which file.
        path: TreePath,
        /// What the system said.
        source: io::Error,
    },
    /// A file could not be made.
    #[error("{path} cannot be written")]
    Write {
        /// Which file.
        path: TreePath,
        /// What the system said.
        source: io::Error,
    },
    /// A delta could not be made.
    #[error("no delta of {path} could be made")]
    Delta {
        /// Which file.
        path: TreePath,
        /// Why.
        source: delta::rsync::Error,
    },
    /// zstd refused to work.
    #[error("content could not be compressed")]
    Compress(#[source] io::Error),
    /// The pack's file could not be written or read.
    #[error("the pack {} cannot be {what}", .file.display())]
    File {
        /// Which file.
        file: PathBuf,
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A directory could not be read or changed.
    #[error(transparent)]
    Tree(#[from] fs::Error),
    /// A directory could not be scanned.
    #[error(transparent)]
    Scan(#[from] scan::Error),
    /// The directory to unpack into holds something.
    #[error("{} is not empty: unpack into a directory that is empty or does not exist", .0.display())]
    OutNotEmpty(PathBuf),
    /// A directory that cannot be unpacked into.
    #[error("{} cannot be unpacked into: it has no name of its own in another directory", .0.display())]
    OutUnusable(PathBuf),
    /// Files could not be made from the pack, so nothing was unpacked.
    #[error(
        "{count} files cannot be made from this pack, the first is {path}: {reason}. Nothing was unpacked"
    )]
    Incomplete {
        /// How many.
        count: u64,
        /// One of them.
        path: TreePath,
        /// Why not.
        reason: protocol::pack::NoDelta,
    },
    /// The pack has no such file, or none made by a librsync delta.
    #[error("the pack has no librsync delta for {path}{hint}")]
    NotADelta {
        /// Which path was asked for.
        path: TreePath,
        /// What it has instead, to end the sentence.
        hint: String,
    },
    /// The caller's flag was set.
    #[error("canceled")]
    Canceled,
}

impl Error {
    /// New content that could not be read: a file that is gone or shorter has changed.
    fn reading(path: &TreePath, source: io::Error) -> Self {
        let path = path.clone();
        match source.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::NotFound => Self::Changed { path },
            _ => Self::Read { path, source },
        }
    }
}

/// New content by manifest entry.
pub trait ContentSource: Sync {
    /// Opens the file at the entry's path.
    fn open(&self, entry: &Entry) -> io::Result<Box<dyn ReadAt>>;
}

/// What is left of old content, by manifest entry. Whatever it gives is verified before use.
pub trait BaseSource: Sync {
    /// The content, if it is held.
    fn content(&self, entry: &Entry) -> Option<Box<dyn ReadAt>>;
    /// The signature, if it is held.
    fn signature(&self, entry: &Entry) -> Option<StoredSignature>;
}

/// Nothing old is held, or there is nothing old.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoBase;

impl BaseSource for NoBase {
    fn content(&self, _entry: &Entry) -> Option<Box<dyn ReadAt>> {
        None
    }

    fn signature(&self, _entry: &Entry) -> Option<StoredSignature> {
        None
    }
}

/// Content of a plain directory, new or old. Symlinks are never followed.
#[derive(Debug)]
pub struct DirSource {
    root: Dir,
}

impl DirSource {
    /// Files below `root`.
    pub fn new(root: Dir) -> Self {
        Self { root }
    }

    /// Opens the file at `path`.
    pub fn open_path(&self, path: &TreePath) -> Result<fs::File, fs::Error> {
        self.root.open_parent(path)?.open_file(path.name())
    }
}

impl ContentSource for DirSource {
    fn open(&self, entry: &Entry) -> io::Result<Box<dyn ReadAt>> {
        Ok(Box::new(self.open_path(&entry.path).map_err(|error| error.source)?))
    }
}

impl BaseSource for DirSource {
    fn content(&self, entry: &Entry) -> Option<Box<dyn ReadAt>> {
        Some(Box::new(self.open_path(&entry.path).ok()?))
    }

    fn signature(&self, _entry: &Entry) -> Option<StoredSignature> {
        None
    }
}

/// An empty file that loses its name at once, for what does not fit into memory.
pub fn nameless(dir: &Dir, name: &[u8]) -> Result<fs::File, fs::Error> {
    // What a killed process left.
    if dir.stat(name)?.is_some() {
        dir.unlink(name)?;
    }
    let file = dir.create_file(name)?;
    dir.unlink(name)?;
    Ok(file)
}

impl ReadAt for fs::File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        fs::File::read_at(self, offset, buffer).map_err(|error| error.source)
    }
}

#[cfg(test)]
mod tests;
