//! A published path that is a plain directory of units.
//!
//! Where a tree has several versions, each of them switches by itself, so the published path is a
//! directory that stays, and every version in it has a place of its own: an [`Area`] whose work
//! lies in the directory's work directory. What is beside the versions, links and status files,
//! changes here, each in one step that no reader can see half of: made aside, then renamed.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

use protocol::{digest::Digest, path::TreePath};

use super::{
    Area, Error, Place, Target, is_no_directory,
    marks::{Marks, TreeState},
    trash::TRASH,
};
use crate::{
    fs::{Dir, FileId, Kind},
    safe_path::PROTECTED,
    switch::remove::{remove_all, to_trash},
};

/// Where the work of units lies, below the work directory.
const UNITS: &[u8] = b"units";
/// Where names are made before they are renamed to their places.
const BESIDE: &[u8] = b"beside";

/// What became of a name that was to be a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Linked {
    /// It was that link already.
    Kept,
    /// It is that link now; a directory that was there is in the trash.
    Made,
    /// A directory is there that holds something protected: it stays.
    Protected,
    /// A directory is there that is not empty: it stays.
    Occupied,
}

/// What may be done with a directory that lies where a link is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Instead {
    /// It goes to the trash, unless something in it is PROTECTED.
    OfDirectory,
    /// Only an empty one goes.
    OfEmptyDirectory,
}

impl Area {
    /// The published directory, where there is one. For reading; changes go through the methods
    /// here and through the areas of the units.
    pub fn directory(&self) -> Result<Option<Dir>, Error> {
        self.live()
    }

    /// The published directory, made where it is missing; from now on it is this area's own.
    /// Trees that were prepared while it was one unit are of no use any more.
    pub fn make_directory(&mut self) -> Result<Dir, Error> {
        self.be_directory()?;
        let dir = super::make_below(&self.publish, &self.path)?;
        let id = dir.meta()?.id;
        if self.marks.live != Some(id) {
            self.make_parent()?.sync()?;
            self.marks.live = Some(id);
            self.marks.applied = None;
            self.marks.withdrawn = None;
            self.marks.save(&self.work)?;
        }
        let spare = |tree: &super::marks::TreeMark| tree.swept || tree.state == TreeState::Building;
        for tree in self.marks.trees.clone().iter().filter(|tree| spare(tree)) {
            remove_all(&self.trees, tree.name.as_bytes())?;
            crate::record::remove(&self.work, &tree.list_name())?;
            self.marks.trees.retain(|other| other.name != tree.name);
            self.marks.save(&self.work)?;
        }
        Ok(dir)
    }

    /// Notes which generation the units make up.
    pub fn note_applied(&mut self, target: &Target) -> Result<(), Error> {
        if self.marks.applied.as_ref() != Some(target) {
            self.marks.applied = Some(target.clone());
            self.marks.save(&self.work)?;
        }
        Ok(())
    }

    /// The place of one unit: `name` is one component.
    pub fn unit_place(&self, name: &TreePath) -> Place {
        Place {
            publish: self.publish.path().join(OsStr::from_bytes(self.path.as_bytes())),
            work: self.work.path().join(OsStr::from_bytes(UNITS)),
            name: unit_name(name),
            path: name.clone(),
        }
    }

    /// What a unit durably holds, if what lies there is what was put there. Nothing is locked and
    /// nothing recovered.
    pub fn unit_target(&self, name: &TreePath) -> Result<Option<Target>, Error> {
        let Some(there) = self.unit_id(name)? else { return Ok(None) };
        let units = match self.work.open_child(UNITS) {
            Ok(units) => units,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        match units.open_child(unit_name(name).as_bytes()) {
            Ok(work) => {
                let marks = Marks::load(&work)?.filter(|marks| marks.live == Some(there));
                Ok(marks.and_then(|marks| marks.applied))
            }
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn unit_id(&self, name: &TreePath) -> Result<Option<FileId>, Error> {
        let Some(live) = self.live()? else { return Ok(None) };
        let meta = live.stat(name.name())?.filter(|meta| meta.kind == Kind::Dir);
        Ok(meta.map(|meta| meta.id))
    }

    /// Sets mode and modification time (ns since 1970) of a unit's own directory.
    pub fn dress_unit(&self, name: &TreePath, mode: u32, mtime: i64) -> Result<(), Error> {
        let Some(live) = self.live()? else { return Ok(()) };
        let unit = live.open_child(name.name())?;
        let now = unit.meta()?;
        if now.mode != mode {
            unit.set_mode(mode)?;
        }
        if now.mtime != mtime {
            unit.set_mtime(mtime)?;
        }
        if (now.mode, now.mtime) != (mode, mtime) {
            unit.sync()?;
        }
        Ok(())
    }

    /// Writes a small file into a unit's directory: whole or not at all, and durably. The
    /// directory keeps its modification time.
    pub fn write_in_unit(&self, name: &TreePath, file: &[u8], text: &[u8]) -> Result<(), Error> {
        let Some(live) = self.live()? else { return Ok(()) };
        let unit = live.open_child(name.name())?;
        let mtime = unit.meta()?.mtime;
        let beside = self.beside(0)?;
        let new = beside.create_file(file)?;
        new.write_at(0, text)?;
        new.set_mode(0o644)?;
        new.sync()?;
        beside.rename(file, &unit, file)?;
        unit.set_mtime(mtime)?;
        Ok(unit.sync()?)
    }

    /// Makes the name beside the units a symbolic link, in one step.
    pub fn set_link(
        &self,
        path: &TreePath,
        target: &[u8],
        instead: Instead,
        now: i64,
    ) -> Result<Linked, Error> {
        let Some(live) = self.live()? else { return Ok(Linked::Occupied) };
        let name = path.name();
        let there = live.stat(name)?;
        let is_dir = there.is_some_and(|meta| meta.kind == Kind::Dir);
        if there.is_some_and(|meta| meta.kind == Kind::Symlink) && live.read_link(name)? == target {
            return Ok(Linked::Kept);
        }
        if is_dir {
            let dir = live.open_child(name)?;
            if holds_protected(&dir)? {
                return Ok(Linked::Protected);
            }
            if instead == Instead::OfEmptyDirectory && !dir.entries()?.is_empty() {
                return Ok(Linked::Occupied);
            }
        }
        let beside = self.beside(now)?;
        beside.symlink(path.name(), target)?;
        if !is_dir {
            beside.rename(path.name(), &live, path.name())?;
            live.sync()?;
            return Ok(Linked::Made);
        }
        // A directory cannot be replaced by a rename; swapped, it never leaves a gap.
        beside.exchange(path.name(), &live, path.name())?;
        live.sync()?;
        beside.sync()?;
        to_trash(&self.work, now, &beside, path)?;
        self.work.sync_fs()?;
        self.forget_unit(path)?;
        Ok(Linked::Made)
    }

    /// Moves a unit to the trash, in one step, unless something in it is PROTECTED; says whether
    /// it went.
    pub fn remove_unit(&self, name: &TreePath, now: i64) -> Result<bool, Error> {
        let Some(live) = self.live()? else { return Ok(false) };
        if holds_protected(&live.open_child(name.name())?)? {
            return Ok(false);
        }
        to_trash(&self.work, now, &live, name)?;
        self.work.sync_fs()?;
        self.forget_unit(name)?;
        Ok(true)
    }

    /// Whether a directory beside the units, or anything in it, is PROTECTED.
    pub fn is_protected(&self, name: &TreePath) -> Result<bool, Error> {
        let Some(live) = self.live()? else { return Ok(false) };
        Ok(holds_protected(&live.open_child(name.name())?)?)
    }

    /// Moves what a unit's own switches put into its trash to the trash of the directory, where
    /// it is listed, brought back and let go as everything else is.
    pub fn gather_trash(&self, name: &TreePath) -> Result<(), Error> {
        let own = self
            .work
            .open_child(UNITS)
            .and_then(|units| units.open_child(unit_name(name).as_bytes())?.open_child(TRASH));
        let own = match own {
            Ok(own) => own,
            Err(error) if is_no_directory(&error) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let batches = own.entries()?;
        for batch in &batches {
            let trash = self.work.ensure_dir(TRASH, 0o700)?;
            let to = trash.ensure_dir(&batch.name, 0o700)?;
            let mut place = name.name().to_vec();
            let mut again = 0;
            while let Err(error) = own.rename_new(&batch.name, &to, &place) {
                if !error.is_already_there() || again > 1_000 {
                    return Err(error.into());
                }
                again += 1;
                let short = &name.name()[..name.name().len().min(200)];
                place = [short, b".", again.to_string().as_bytes()].concat();
            }
        }
        if batches.is_empty() { Ok(()) } else { Ok(self.work.sync_fs()?) }
    }

    /// Removes the work of a unit that is no longer there.
    fn forget_unit(&self, name: &TreePath) -> Result<(), Error> {
        self.gather_trash(name)?;
        match self.work.open_child(UNITS) {
            Ok(units) => Ok(remove_all(&units, unit_name(name).as_bytes())?),
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// An empty private directory. A directory that power was lost for on its way to the trash
    /// goes there now.
    fn beside(&self, now: i64) -> Result<Dir, Error> {
        let beside = self.work.ensure_dir(BESIDE, 0o700)?;
        for entry in beside.entries()? {
            let is_dir = beside.stat(&entry.name)?.is_some_and(|meta| meta.kind == Kind::Dir);
            match TreePath::parse(&entry.name) {
                Ok(path) if is_dir => to_trash(&self.work, now, &beside, &path)?,
                _ => remove_all(&beside, &entry.name)?,
            }
        }
        Ok(beside)
    }
}

/// Any name as one component that is text: names may be any bytes and as long as a component can.
fn unit_name(name: &TreePath) -> String {
    Digest::of(name.as_bytes()).hex().chars().take(32).collect()
}

/// Whether this directory or one below it holds a PROTECTED file.
fn holds_protected(dir: &Dir) -> crate::fs::Result<bool> {
    // A stack of our own: the depth is somebody else's choice.
    let mut open = vec![dir.reopen()?];
    while let Some(dir) = open.pop() {
        for entry in dir.entries()? {
            if *entry.name == *PROTECTED {
                return Ok(true);
            }
            let is_dir = match entry.is_dir {
                Some(is_dir) => is_dir,
                None => dir.stat(&entry.name)?.is_some_and(|meta| meta.kind == Kind::Dir),
            };
            if is_dir {
                open.push(dir.open_child(&entry.name)?);
            }
        }
    }
    Ok(false)
}
