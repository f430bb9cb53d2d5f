//! Where the published tree lies: at its path, or behind a symbolic link there.
//!
//! *Behind a link*, for roots that have to be served through one, the trees lie in the directory
//! `.mirrornet/trees/NAME` beside the link `NAME`, and the link names one of them by a relative
//! path. So whoever can resolve the link's own directory can resolve the link, in a chroot as well,
//! and the private work directory stays closed. That directory can be passed through and not listed.
//!
//! *From one to the other* is one exchange of two names of the same directory: a link is made under
//! the name that the tree is to have, leading to itself, and is swapped with the published tree. The
//! tree keeps its inode, readers see no difference, and there is nothing to recover: before the
//! exchange a directory is published, and after it a link to the same directory. Spare trees have
//! one name in either place and are looked for in both, so moving them needs no journal either.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

use protocol::path::TreePath;

use super::{
    Area, Error,
    marks::{TreeMark, TreeState},
};
use crate::{
    fs::{self, Attribute, Dir, FileId, Kind},
    safe_path::WORK_DIR,
    switch::{cursor::is_no_directory, exchange::STANDBY, remove::remove_all},
};

/// Under this name a link is made before it is renamed to the published path.
pub(crate) const NEXT: &[u8] = b"next";

/// The directories from the published name's own to the one of its trees, but for the last, which
/// has that name.
const PASSAGE: [&[u8]; 2] = [WORK_DIR, b"trees"];
/// They may be entered and not listed: what is in them is found by the link alone.
const PASSAGE_MODE: u32 = 0o711;

/// What has the published name.
pub(super) enum Published {
    Nothing,
    Directory(Dir),
    /// A link of ours, with the name of the tree that it leads to, and that tree if it is there.
    Linked(String, Option<Dir>),
}

impl Published {
    pub(super) fn dir(self) -> Option<Dir> {
        match self {
            Self::Nothing => None,
            Self::Directory(dir) => Some(dir),
            Self::Linked(_, dir) => dir,
        }
    }
}

/// Opens what is published below `publish`.
pub(super) fn find(publish: &Dir, path: &TreePath) -> Result<Published, Error> {
    let error = match publish.open_dir(path) {
        Ok(dir) => return Ok(Published::Directory(dir)),
        Err(error) if error.is_not_found() => return Ok(Published::Nothing),
        Err(error) => error,
    };
    if !is_no_directory(&error) {
        return Err(error.into());
    }
    let parent = publish.open_parent(path)?;
    let meta = parent.stat(path.name())?;
    if meta.is_none_or(|meta| meta.kind != Kind::Symlink) {
        return Err(error.into());
    }
    let target = parent.read_link(path.name())?;
    let Some(tree) = tree_of(path, &target) else {
        let path = publish.path().join(OsStr::from_bytes(path.as_bytes()));
        return Err(Error::Elsewhere { path, target: String::from_utf8_lossy(&target).into() });
    };
    let dir = match beside(&parent, path)?.map(|beside| beside.open_child(tree.as_bytes())) {
        Some(Ok(dir)) => Some(dir),
        None => None,
        Some(Err(error)) if error.is_not_found() => None,
        Some(Err(error)) => return Err(error.into()),
    };
    Ok(Published::Linked(tree, dir))
}

/// What a link at `path` says that leads to the tree of this name.
fn link_to(path: &TreePath, tree: &[u8]) -> Vec<u8> {
    [&PASSAGE[..], &[path.name(), tree]].concat().join(&b'/')
}

/// The name of the tree that a link of ours at `path` leads to.
fn tree_of(path: &TreePath, target: &[u8]) -> Option<String> {
    let tree = std::str::from_utf8(target.rsplit(|&b| b == b'/').next()?).ok()?;
    let number = tree.strip_prefix(STANDBY)?;
    let is_ours = number.parse::<u64>().is_ok_and(|n| n.to_string() == number);
    (is_ours && target == link_to(path, tree.as_bytes())).then(|| tree.to_owned())
}

/// The directory of the trees beside a link, if there is one.
fn beside(parent: &Dir, path: &TreePath) -> Result<Option<Dir>, Error> {
    let opened = PASSAGE
        .iter()
        .chain([&path.name()])
        .try_fold(parent.reopen()?, |dir, name| dir.open_child(name));
    match opened {
        Ok(dir) => Ok(Some(dir)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Where the trees of a link lie, if a link of ours is published.
pub(super) fn trees_of(
    publish: &Dir,
    path: &TreePath,
    found: &Published,
) -> Result<Option<Dir>, Error> {
    match found {
        Published::Linked(_, Some(_)) => beside(&publish.open_parent(path)?, path),
        _ => Ok(None),
    }
}

/// Removes the trees beside a link.
pub(super) fn remove_trees(parent: &Dir, path: &TreePath) -> fs::Result<()> {
    let all = PASSAGE.iter().try_fold(parent.reopen()?, |dir, name| dir.open_child(name));
    match all {
        Ok(all) => remove_all(&all, path.name()),
        Err(error) if is_no_directory(&error) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Makes a directory below `publish`, and those above it.
pub(super) fn make_below(publish: &Dir, path: &TreePath) -> Result<Dir, Error> {
    let mut dir = publish.reopen()?;
    for component in path.components() {
        dir = dir.ensure_dir(component, 0o755)?;
    }
    Ok(dir)
}

/// Device and inode of the directory that is published at `path`, behind a link of ours or not.
pub fn published_root(publish: &Dir, path: &TreePath) -> Result<Option<FileId>, Error> {
    match find(publish, path)?.dir() {
        Some(dir) => Ok(Some(dir.meta()?.id)),
        None => Ok(None),
    }
}

impl Area {
    /// The live tree, if something is published.
    pub(crate) fn live(&self) -> Result<Option<Dir>, Error> {
        Ok(find(&self.publish, &self.path)?.dir())
    }

    pub(crate) fn live_id(&self) -> Result<Option<FileId>, Error> {
        published_root(&self.publish, &self.path)
    }

    /// The directory that holds the published path, made where it is missing.
    pub(crate) fn make_parent(&self) -> Result<Dir, Error> {
        match self.path.parent() {
            Some(parent) => make_below(&self.publish, &parent),
            None => Ok(self.publish.reopen()?),
        }
    }

    /// The SELinux label of what is published, or of the directory in which it will be; `None` where
    /// there are no labels. What is made below the work directory would have another.
    pub(super) fn published_label(&self) -> Result<Option<Vec<u8>>, Error> {
        let dir = match self.live()? {
            Some(live) => live,
            None => match self.publish.open_parent(&self.path) {
                Err(error) if error.is_not_found() => self.publish.reopen()?,
                other => other?,
            },
        };
        Ok(dir.attribute(Attribute::Label)?)
    }

    /// Whether the tree is published behind a link.
    pub fn is_linked(&self) -> bool {
        self.linked
    }

    /// Makes the published name a directory, should it be a link: the same directory.
    pub fn be_directory(&mut self) -> Result<(), Error> {
        self.settle(false)
    }

    /// Puts the published tree behind a link, or takes it out again, and sees to it that spare trees
    /// lie where they can take its place. Where nothing is published, only the latter.
    pub(crate) fn settle(&mut self, linked: bool) -> Result<(), Error> {
        // A link that leads nowhere is found only by looking.
        if self.linked == linked && self.marks.live.is_some() {
            return Ok(());
        }
        let parent = self.make_parent()?;
        let found = find(&self.publish, &self.path)?;
        if linked {
            let mut trees = parent.reopen()?;
            for name in PASSAGE.iter().chain([&self.path.name()]) {
                trees = trees.ensure_dir(name, PASSAGE_MODE)?;
            }
            if let Published::Directory(_) = found {
                self.put_behind_link(&parent, &trees)?;
            }
            self.trees = trees;
        } else {
            if let Published::Linked(tree, dir) = found {
                self.take_link_away(&parent, &tree, dir.is_some())?;
            }
            self.trees = self.work.reopen()?;
        }
        self.linked = linked;
        self.gather_trees()
    }

    fn put_behind_link(&mut self, parent: &Dir, trees: &Dir) -> Result<(), Error> {
        let tree = loop {
            let tree = format!("{STANDBY}{}", self.marks.next_tree);
            // Whatever a crash leaves under that name is known to be ours.
            self.marks.next_tree += 1;
            self.marks.save(&self.work)?;
            match trees.symlink(tree.as_bytes(), &link_to(&self.path, tree.as_bytes())) {
                Err(error) if error.is_already_there() => {}
                made => break made.map(|()| tree)?,
            }
        };
        trees.sync_fs()?;
        parent.exchange(self.path.name(), trees, tree.as_bytes())?;
        parent.sync()?;
        Ok(trees.sync()?)
    }

    fn take_link_away(&self, parent: &Dir, tree: &str, is_there: bool) -> Result<(), Error> {
        if !is_there {
            // It leads nowhere: what it led to was taken away by others.
            parent.unlink(self.path.name())?;
            return Ok(parent.sync()?);
        }
        parent.exchange(self.path.name(), &self.trees, tree.as_bytes())?;
        parent.sync()?;
        self.trees.sync()?;
        Ok(self.trees.unlink(tree.as_bytes())?)
    }

    /// Makes the link that the next switch puts in the place of the published one.
    pub(crate) fn prepare_link(&self, tree: &str) -> Result<(), Error> {
        if self.trees.stat(NEXT)?.is_some() {
            self.trees.unlink(NEXT)?;
        }
        Ok(self.trees.symlink(NEXT, &link_to(&self.path, tree.as_bytes()))?)
    }

    /// Puts it there, in one step.
    pub(crate) fn switch_link(&self, parent: &Dir) -> Result<(), Error> {
        Ok(self.trees.rename(NEXT, parent, self.path.name())?)
    }

    /// The name of the tree that the published link leads to.
    pub(crate) fn linked_tree(&self) -> Result<Option<String>, Error> {
        match find(&self.publish, &self.path)? {
            Published::Linked(tree, Some(_)) => Ok(Some(tree)),
            _ => Ok(None),
        }
    }

    /// A tree that was published behind a link, and that something else was put in the place of, is
    /// a spare one: it is still there, and may hold local content.
    pub(super) fn keep_former_live(&mut self) -> Result<(), Error> {
        let Some(former) = self.marks.live else { return Ok(()) };
        let parent = match self.publish.open_parent(&self.path) {
            Err(error) if error.is_not_found() => return Ok(()),
            other => other?,
        };
        let Some(trees) = beside(&parent, &self.path)? else { return Ok(()) };
        for entry in trees.entries()? {
            let is_former = trees.stat(&entry.name)?.is_some_and(|meta| meta.id == former);
            if is_former && let Some(name) = tree_of(&self.path, &link_to(&self.path, &entry.name))
            {
                self.marks.trees.retain(|tree| tree.name != name);
                self.marks.trees.push(TreeMark {
                    name,
                    id: former,
                    state: TreeState::Building,
                    swept: false,
                    retired_at: 0,
                });
            }
        }
        Ok(())
    }

    /// The other place where spare trees may lie: where they lay before the tree was put behind a
    /// link, or taken out again.
    fn other_place(&self) -> Result<Option<Dir>, Error> {
        if self.linked {
            return Ok(Some(self.work.reopen()?));
        }
        match self.publish.open_parent(&self.path) {
            Ok(parent) => beside(&parent, &self.path),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Moves the spare trees to where they are looked for, and removes what nobody knows from both
    /// places.
    pub(super) fn gather_trees(&mut self) -> Result<(), Error> {
        let live = self.linked_tree()?;
        self.remove_unknown_trees(&self.trees, live.as_deref())?;
        if let Some(other) = self.other_place()? {
            let mut moved = false;
            for tree in &self.marks.trees {
                let name = tree.name.as_bytes();
                if other.stat(name)?.is_some() && self.trees.stat(name)?.is_none() {
                    other.rename_new(name, &self.trees, name)?;
                    moved = true;
                }
            }
            if moved {
                self.trees.sync()?;
                other.sync()?;
            }
            self.remove_unknown_trees(&other, live.as_deref())?;
        }
        if self.linked { Ok(()) } else { self.remove_passage() }
    }

    /// Removes the directory of trees beside the published path, and those above it that are ours, as
    /// far as they are there and empty.
    fn remove_passage(&self) -> Result<(), Error> {
        let mut way = match self.publish.open_parent(&self.path) {
            Ok(parent) => vec![parent],
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let names = [PASSAGE[0], PASSAGE[1], self.path.name()];
        for name in names {
            match way[way.len() - 1].open_child(name) {
                Ok(dir) => way.push(dir),
                Err(error) if is_no_directory(&error) => break,
                Err(error) => return Err(error.into()),
            }
        }
        while let (Some(dir), Some(above)) = (way.pop(), way.last()) {
            let is_trees = way.len() == names.len();
            if is_trees && dir.stat(NEXT)?.is_some() {
                dir.unlink(NEXT)?;
            }
            if !dir.entries()?.is_empty() {
                break;
            }
            above.remove_dir(names[way.len() - 1])?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_links_that_we_make_are_ours() {
        let at = TreePath::parse(b"linux/fedora").unwrap();
        assert_eq!(link_to(&at, b"standby-7"), b".mirrornet/trees/fedora/standby-7");
        assert_eq!(
            tree_of(&at, b".mirrornet/trees/fedora/standby-7").as_deref(),
            Some("standby-7")
        );
        for other in [
            "fedora-41",
            "/srv/.mirrornet/trees/fedora/standby-7",
            ".mirrornet/trees/debian/standby-7",
            ".mirrornet/trees/fedora/standby-07",
            ".mirrornet/trees/fedora/standby-+7",
            ".mirrornet/trees/fedora/standby-",
            ".mirrornet/trees/fedora/standby-7/..",
            ".mirrornet/trees/fedora/../../standby-7",
        ] {
            assert_eq!(tree_of(&at, other.as_bytes()), None, "{other}");
        }
    }
}
