//! A publication point in a directory: the publisher's own store, or one that a web server serves.
//!
//! `ROOT/trees/T/{manifests,blocks,packs,objects}/HEX` and `ROOT/trees/T/latest`. Objects appear by rename
//! after their bytes are durable, so that whoever serves the directory never sees half of one.

use std::{
    io::{self, Read},
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use filetree::fs::{Dir, Fs};
use protocol::{digest::Digest, name::TreeName};

use super::{Kind, Object, Point};
use crate::durable;

/// A publication point in a directory.
#[derive(Debug)]
pub struct Directory {
    root: Dir,
    /// Makes names of unfinished files unique within this process.
    counter: AtomicU64,
    moving: Mutex<()>,
}

/// Longest pointer that is read.
const MAX_LATEST: u64 = 1 << 20;

impl Directory {
    /// Opens the directory, and makes it where it is missing.
    pub fn open(fs: &Fs, path: &Path) -> io::Result<Self> {
        let root = fs.create_root(path).map_err(durable::io)?;
        Ok(Self { root, counter: AtomicU64::new(0), moving: Mutex::new(()) })
    }

    /// The directory of one tree, made where it is missing.
    pub fn tree(&self, tree: &TreeName) -> io::Result<Dir> {
        let trees = self.root.ensure_dir(b"trees", 0o755).map_err(durable::io)?;
        trees.ensure_dir(tree.as_str().as_bytes(), 0o755).map_err(durable::io)
    }

    /// The directory of a tree's objects of one kind, made where it is missing.
    pub fn kind(&self, tree: &TreeName, kind: Kind) -> io::Result<Dir> {
        self.tree(tree)?.ensure_dir(kind.dir().as_bytes(), 0o755).map_err(durable::io)
    }

    /// Opens an object as a file, and says how long it is.
    pub fn open_file(&self, object: &Object) -> io::Result<(std::fs::File, u64)> {
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        let dir = child(&self.existing(&object.tree)?, object.kind.dir())?;
        let file = dir.open_file(object.name.hex().as_bytes()).map_err(durable::io)?;
        let length = file.meta().map_err(durable::io)?.size;
        Ok((file.into_std().ok_or_else(missing)?, length))
    }

    /// Gives a finished, durable file of the object's directory its name.
    pub fn adopt(&self, object: &Object, unfinished: &[u8]) -> io::Result<()> {
        let dir = self.kind(&object.tree, object.kind)?;
        dir.rename(unfinished, &dir, object.name.hex().as_bytes()).map_err(durable::io)?;
        dir.sync().map_err(durable::io)
    }

    /// A new name for a file that is not finished.
    pub fn unfinished_name(&self) -> Vec<u8> {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        format!("{}{}-{number}", durable::UNFINISHED, std::process::id()).into_bytes()
    }

    /// Removes what a crash left unfinished. Nothing may be writing to the tree.
    pub fn remove_unfinished(&self, tree: &TreeName) -> io::Result<()> {
        for kind in Kind::ALL {
            let dir = self.kind(tree, kind)?;
            for entry in dir.entries().map_err(durable::io)? {
                if entry.name.starts_with(durable::UNFINISHED.as_bytes()) {
                    dir.unlink(&entry.name).map_err(durable::io)?;
                }
            }
        }
        Ok(())
    }

    fn existing(&self, tree: &TreeName) -> io::Result<Dir> {
        child(&child(&self.root, "trees")?, tree.as_str())
    }
}

fn child(dir: &Dir, name: &str) -> io::Result<Dir> {
    dir.open_child(name.as_bytes()).map_err(durable::io)
}

impl Point for Directory {
    fn describe(&self) -> String {
        format!("the directory {}", self.root.path().display())
    }

    fn put(&self, object: &Object, content: &mut dyn Read, length: u64) -> io::Result<()> {
        let dir = self.kind(&object.tree, object.kind)?;
        let name = object.name.hex();
        if dir.stat(name.as_bytes()).map_err(durable::io)?.is_some() {
            return Ok(());
        }
        let unfinished = self.unfinished_name();
        durable::create(&dir, &unfinished, &mut content.take(length + 1))?;
        let written = dir.stat(&unfinished).map_err(durable::io)?.map(|meta| meta.size);
        if written != Some(length) {
            dir.unlink(&unfinished).map_err(durable::io)?;
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        dir.rename(&unfinished, &dir, name.as_bytes()).map_err(durable::io)?;
        dir.sync().map_err(durable::io)
    }

    fn open(&self, object: &Object) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(self.open_file(object)?.0))
    }

    fn list(&self, tree: &TreeName, kind: Kind) -> io::Result<Vec<Digest>> {
        // Whoever looks leaves no trace: the name of a private tree must not appear.
        let dir = match self.existing(tree).and_then(|tree| child(&tree, kind.dir())) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            found => found?,
        };
        let entries = dir.entries().map_err(durable::io)?;
        let name = |name: &[u8]| Digest::from_hex(std::str::from_utf8(name).ok()?).ok();
        Ok(entries.iter().filter_map(|entry| name(&entry.name)).collect())
    }

    fn remove(&self, object: &Object) -> io::Result<()> {
        let dir = self.kind(&object.tree, object.kind)?;
        match dir.unlink(object.name.hex().as_bytes()) {
            Err(error) if !error.is_not_found() => Err(durable::io(error)),
            _ => Ok(()),
        }
    }

    fn latest(&self, tree: &TreeName) -> io::Result<Option<Vec<u8>>> {
        let tree = self.existing(tree);
        match tree.and_then(|tree| durable::read(&tree, b"latest", MAX_LATEST)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            read => read.map(Some),
        }
    }

    fn move_latest(
        &self,
        tree: &TreeName,
        statement: &[u8],
        may_replace: &dyn Fn(&[u8]) -> bool,
    ) -> io::Result<bool> {
        let _one_at_a_time = self.moving.lock().unwrap_or_else(PoisonError::into_inner);
        if self.latest(tree)?.is_some_and(|there| !may_replace(&there)) {
            return Ok(false);
        }
        durable::replace(&self.tree(tree)?, b"latest", statement).map(|()| true)
    }

    fn end_tree(&self, tree: &TreeName) -> io::Result<()> {
        let _one_at_a_time = self.moving.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = match self.existing(tree) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            found => found?,
        };
        if let Err(error) = dir.unlink(b"latest")
            && !error.is_not_found()
        {
            return Err(durable::io(error));
        }
        // What is not empty stays: it is not ours.
        for kind in Kind::ALL {
            drop(dir.remove_dir(kind.dir().as_bytes()));
        }
        let trees = child(&self.root, "trees")?;
        drop(trees.remove_dir(tree.as_str().as_bytes()));
        trees.sync().map_err(durable::io)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_keeps_the_contract_of_points() {
        let dir = tempfile::tempdir().unwrap();
        let point = Directory::open(&Fs::disk(), &dir.path().join("public")).unwrap();
        super::super::contract::check(&point);
        super::super::contract::check_races(&point);
        assert_eq!(
            std::fs::read(dir.path().join("public/trees/fedora/latest")).unwrap(),
            b"2",
            "a web server finds the pointer where the URL says"
        );
    }
}
