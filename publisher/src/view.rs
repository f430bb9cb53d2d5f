//! The view: private trees of announced generations.
//!
//! Nothing is served from a live source: its files may be held back by a guard, lie outside of the
//! limit, or change at any moment. So each generation that is kept has a tree of its own, made of
//! reflinks, hard links or copies, from which direct rsync, whole content and the bases of later
//! packs are read.
//!
//! A new tree is the oldest one brought forward by all the differences that it missed, or, while
//! there is none to spare, a twin of hard links of the newest. Only content that differs is taken
//! from the source, and it is digested again where it arrived: what the source did after the scan
//! is found out here, before anyone is told of the generation.
//!
//! *Hard links share content with the source.* A source that is replaced by rename (as rsync and
//! package managers do) leaves them alone; one that is edited in place changes them. So content of
//! a shared tree is compared with the manifest before it is used ([`Views::open`]), and what no
//! longer matches has *moved*: that is an answer, wrong bytes are not.

mod advance;
mod checked;

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use filetree::fs::{self, Dir, File, Fs};
use protocol::{
    digest::Digest,
    generation::Generation,
    manifest::{self, Entries, Entry, Manifest},
    name::TreeName,
    path::TreePath,
};

use self::{advance::Advance, checked::Checked};
use crate::{config::RetainMode, durable::UNFINISHED};

/// Why a view was not made, or content was not given out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk refused.
    #[error(transparent)]
    Fs(#[from] fs::Error),
    /// What a private tree holds cannot be told.
    #[error(transparent)]
    Manifest(#[from] manifest::Error),
    /// The file is no longer what the manifest says.
    #[error("{path} is no longer the file that was announced")]
    Moved {
        /// Which file.
        path: TreePath,
    },
}

/// All private trees.
#[derive(Debug)]
pub struct Views {
    root: Dir,
    mode: RetainMode,
    checked: Checked,
}

/// One private tree and what is in it.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// Its generation.
    pub generation: Generation,
    /// Its content.
    pub manifest: &'a dyn Entries,
    /// Whether some content is shared with the source.
    pub shared: bool,
}

/// How the content of a private tree was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// Whether some of it is shared with the source.
    pub shared: bool,
    /// Whether most of what came from the source had to be copied, though links were wanted; `None`
    /// where nothing came from there.
    pub copied: Option<bool>,
}

impl Views {
    /// Opens the directory of private trees, and makes it where it is missing.
    pub fn open_at(fs: &Fs, path: &Path, mode: RetainMode) -> Result<Self, Error> {
        let root = fs.create_root(path)?;
        // Trees of several readers lie in here side by side; only we may look.
        root.set_mode(0o700)?;
        Ok(Self { root, mode, checked: Checked::default() })
    }

    /// Makes the tree of a new generation: `spare` brought forward, else a twin of `newest`, else
    /// from nothing; `source` gives what neither has.
    pub fn prepare(
        &self,
        tree: &TreeName,
        generation: Generation,
        target: &Manifest,
        source: &Dir,
        newest: Option<View<'_>>,
        spare: Option<View<'_>>,
    ) -> Result<Taken, Error> {
        let trees = self.tree(tree)?;
        let unfinished = format!("{UNFINISHED}{generation}").into_bytes();
        remove_tree(&trees, &unfinished)?;
        let nothing = Manifest::empty();
        let from: &dyn Entries = match spare {
            Some(spare) => {
                trees.rename(&name(spare.generation), &trees, &unfinished)?;
                spare.manifest
            }
            None => {
                trees.make_dir(&unfinished)?;
                &nothing
            }
        };
        let donor = match newest {
            Some(newest) => Some((trees.open_child(&name(newest.generation))?, newest.manifest)),
            None => None,
        };
        let into = trees.open_child(&unfinished)?;
        let advance = Advance { into: &into, from, to: target, source, donor, mode: self.mode };
        let from_source = advance.run()?;
        // The root is no entry of the manifest, so its mode is the usual one.
        into.set_mode(0o755)?;
        into.sync_fs()?;
        remove_tree(&trees, &name(generation))?;
        trees.rename_new(&unfinished, &trees, &name(generation))?;
        trees.sync()?;
        let inherited = [newest, spare].into_iter().flatten().any(|view| view.shared);
        let copied = from_source.is_mostly_copied();
        Ok(Taken { shared: from_source.linked || inherited, copied })
    }

    /// The directory of one private tree.
    pub fn dir(&self, tree: &TreeName, generation: Generation) -> Result<Dir, Error> {
        Ok(self.tree(tree)?.open_child(&name(generation))?)
    }

    /// Generations that have a private tree.
    pub fn generations(&self, tree: &TreeName) -> Result<Vec<Generation>, Error> {
        let number = |name: &[u8]| std::str::from_utf8(name).ok()?.parse().ok().map(Generation);
        Ok(self.tree(tree)?.entries()?.iter().filter_map(|entry| number(&entry.name)).collect())
    }

    /// Removes one private tree, and what was left of an unfinished one.
    pub fn remove(&self, tree: &TreeName, generation: Generation) -> Result<(), Error> {
        remove_tree(&self.tree(tree)?, &name(generation))
    }

    /// Opens a file of a private tree, if it still is what the manifest says.
    pub fn open(
        &self,
        tree: &TreeName,
        generation: Generation,
        shared: bool,
        entry: &Entry,
    ) -> Result<File, Error> {
        let moved = || Error::Moved { path: entry.path.clone() };
        self.files(tree, generation, shared)?.ok_or_else(moved)?.open(entry)
    }

    /// The files of a private tree, for whoever opens many of them; `None` where there is no such tree.
    pub fn files(
        &self,
        tree: &TreeName,
        generation: Generation,
        shared: bool,
    ) -> Result<Option<Files<'_>>, Error> {
        match self.dir(tree, generation) {
            Ok(dir) => {
                Ok(Some(Files { checked: &self.checked, dir, shared, near: Mutex::default() }))
            }
            Err(Error::Fs(error)) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn tree(&self, tree: &TreeName) -> Result<Dir, Error> {
        Ok(self.root.ensure_dir(tree.as_str().as_bytes(), 0o700)?)
    }
}

/// The files of one private tree.
///
/// A pack of a million small files opens each of them, and on its way to one the kernel looks at every
/// directory above: so the directories of those that were opened last stay open.
#[derive(Debug)]
pub struct Files<'a> {
    checked: &'a Checked,
    dir: Dir,
    shared: bool,
    near: Mutex<Vec<(Option<TreePath>, Arc<Dir>)>>,
}

/// Directories that stay open: some for each thread that writes a pack.
const NEAR: usize = 8;

impl Files<'_> {
    /// Opens a file, if it still is what the manifest says.
    pub fn open(&self, entry: &Entry) -> Result<File, Error> {
        let moved = || Error::Moved { path: entry.path.clone() };
        let missing = |error: fs::Error| if error.is_not_found() { moved() } else { error.into() };
        let parent = self.parent(entry.path.parent()).map_err(missing)?;
        let file = parent.open_file(entry.path.name()).map_err(missing)?;
        let digest = entry.digest().ok_or_else(moved)?;
        let meta = file.meta()?;
        if meta.size != entry.size() || meta.mtime != entry.mtime {
            return Err(moved());
        }
        if self.shared && !self.checked.matches(&file, &meta, &digest)? {
            return Err(moved());
        }
        Ok(file)
    }

    fn parent(&self, path: Option<TreePath>) -> fs::Result<Arc<Dir>> {
        let mut near = self.near.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, dir)) = near.iter().find(|(known, _)| *known == path) {
            return Ok(Arc::clone(dir));
        }
        let dir = match &path {
            Some(path) => self.dir.open_dir(path)?,
            None => self.dir.reopen()?,
        };
        let dir = Arc::new(dir);
        if near.len() >= NEAR {
            near.remove(0);
        }
        near.push((path, Arc::clone(&dir)));
        Ok(dir)
    }
}

/// Digest of an open file's content.
fn digest(file: &File) -> Result<Digest, fs::Error> {
    let mut digest = protocol::digest::DigestWriter::new();
    // Most files are small, and there may be a million.
    let size = file.meta()?.size;
    let mut buffer = vec![0; size.clamp(1, 128 * 1024) as usize];
    let mut offset = 0;
    loop {
        match file.read_at(offset, &mut buffer)? {
            0 => return Ok(digest.finish()),
            read => {
                digest.update(&buffer[..read]);
                offset += read as u64;
            }
        }
    }
}

fn name(generation: Generation) -> Vec<u8> {
    generation.to_string().into_bytes()
}

/// Removes a directory with everything in it; one that is not there is no error.
fn remove_tree(parent: &Dir, name: &[u8]) -> Result<(), Error> {
    let dir = match parent.open_child(name) {
        Err(error) if error.is_not_found() => return Ok(()),
        other => other?,
    };
    dir.set_mode(0o700)?;
    for entry in dir.entries()? {
        match dir.unlink(&entry.name) {
            // The kernel says so for directories; asking first would cost a call for every file.
            Err(error) if error.source.kind() == std::io::ErrorKind::IsADirectory => {
                remove_tree(&dir, &entry.name)?;
            }
            other => other?,
        }
    }
    Ok(parent.remove_dir(name)?)
}

#[cfg(test)]
mod tests;
