//! Looks through a retired tree, once, for what people put into it.
//!
//! Between the moment a twin is linked and the moment it goes live, someone may have put a file
//! into the published tree. After the exchange it lies in the retired tree, and would be gone when
//! that is brought forward or collected. So every directory is listed beside its live counterpart
//! (names only, no file is looked at), and what neither the live tree nor the list of changes
//! accounts for is local: a PROTECTED directory goes back as a whole, an excluded or held name
//! moves back to its place, and the rest goes to the trash.

use std::collections::BTreeSet;

use protocol::path::TreePath;

use super::{SwitchOptions, SwitchReport, cursor::is_no_directory, remove::to_trash};
use crate::{
    area::{
        Area, Error,
        marks::{self, Locals, TreeState},
    },
    fs::{Dir, DirEntry},
    record::PathList,
    safe_path::PROTECTED,
};

/// Sweeps every tree that was not swept since it was retired.
pub(crate) fn all(
    area: &mut Area,
    options: &SwitchOptions<'_>,
    report: &mut SwitchReport,
) -> Result<(), Error> {
    let names: Vec<String> =
        area.marks.trees.iter().filter(|t| !t.swept).map(|t| t.name.clone()).collect();
    for name in names {
        let retired = match area.work.open_child(name.as_bytes()) {
            Ok(dir) => Some(dir),
            Err(error) if is_no_directory(&error) => None,
            Err(error) => return Err(error.into()),
        };
        // Without its list a tree cannot be told apart from local content; everything that the
        // live tree does not have is then kept in the trash.
        let list = match marks::load_paths(&area.work, &format!("{name}.missed")) {
            Ok(list) => list,
            Err(Error::Damaged { .. }) => None,
            Err(error) => return Err(error),
        };
        let has_list = list.is_some();
        if let (Some(retired), Some(live)) = (retired, area.live()?) {
            let (root, list) = (retired.reopen()?, list.unwrap_or_default());
            let mut sweep = Sweep { area, options, report, root, list };
            if sweep.run(retired, live)? {
                area.work.sync_fs()?;
            }
        }
        for tree in area.marks.trees.iter_mut().filter(|tree| tree.name == name) {
            tree.swept = true;
            if !has_list {
                tree.state = TreeState::Building;
            }
        }
        area.marks.save(&area.work)?;
    }
    Ok(())
}

struct Sweep<'a> {
    area: &'a mut Area,
    options: &'a SwitchOptions<'a>,
    report: &'a mut SwitchReport,
    root: Dir,
    list: PathList,
}

/// A pair of directories with the same path: the retired one, and the live one if there is one.
struct Pair {
    path: Option<TreePath>,
    retired: Dir,
    live: Option<Dir>,
}

impl Sweep<'_> {
    /// Returns whether anything was moved.
    fn run(&mut self, retired: Dir, live: Dir) -> Result<bool, Error> {
        let mut moved = false;
        let mut open = vec![Pair { path: None, retired, live: Some(live) }];
        while let Some(pair) = open.pop() {
            let names: BTreeSet<Box<[u8]>> = match &pair.live {
                Some(live) => live.entries()?.into_iter().map(|entry| entry.name).collect(),
                None => BTreeSet::new(),
            };
            let entries = pair.retired.entries()?;
            if self.is_protected(&pair, &entries, &names) {
                moved = true;
                self.restore(&pair)?;
                continue;
            }
            for entry in entries {
                let path = match &pair.path {
                    None => TreePath::parse(&entry.name),
                    Some(above) => above.child(&entry.name),
                };
                // A name that no manifest can carry is local by definition, and stays where it
                // is as long as the tree does.
                let Ok(path) = path else { continue };
                let ours = match self.list.had(&path) {
                    Some(had) => had,
                    None => names.contains(&entry.name),
                };
                if !ours {
                    moved = true;
                    self.carry(&pair, &names, path, &entry)?;
                } else if entry.is_dir != Some(false)
                    && let Ok(below) = pair.retired.open_child(&entry.name)
                {
                    let live = pair.live.as_ref().and_then(|d| d.open_child(&entry.name).ok());
                    open.push(Pair { path: Some(path), retired: below, live });
                }
            }
        }
        Ok(moved)
    }

    fn is_protected(&self, pair: &Pair, entries: &[DirEntry], live: &BTreeSet<Box<[u8]>>) -> bool {
        let marker = match &pair.path {
            None => TreePath::parse(PROTECTED),
            Some(above) => above.child(PROTECTED),
        };
        entries.iter().any(|entry| *entry.name == *PROTECTED)
            && !live.contains(PROTECTED)
            && !marker.is_ok_and(|marker| self.list.had(&marker) == Some(true))
    }

    /// Puts a directory that was protected meanwhile back as a whole.
    fn restore(&mut self, pair: &Pair) -> Result<(), Error> {
        let Some(path) = &pair.path else {
            // The root: the marker moves over, and nothing is touched from now on.
            if let Some(live) = &pair.live {
                pair.retired.rename_new(PROTECTED, live, PROTECTED)?;
            }
            self.area.marks.locals.protected_root = true;
            return Ok(());
        };
        let from = self.root.open_parent(path)?;
        let to = self.live_parent(path)?;
        let name = path.name();
        let (left, entered) = (from.meta()?.mtime, to.meta()?.mtime);
        match to.stat(name)? {
            Some(_) => from.exchange(name, &to, name)?,
            None => from.rename_new(name, &to, name)?,
        }
        from.set_mtime(left)?;
        to.set_mtime(entered)?;
        Locals::add(&mut self.area.marks.locals.protected, path.clone());
        self.report.carried.push(path.clone());
        Ok(())
    }

    fn carry(
        &mut self,
        pair: &Pair,
        live_names: &BTreeSet<Box<[u8]>>,
        path: TreePath,
        entry: &DirEntry,
    ) -> Result<(), Error> {
        let is_dir = entry.is_dir.unwrap_or(false);
        let locals = &self.area.marks.locals;
        let held = locals.held.binary_search(&path).is_ok();
        let excluded = !(self.options.keep)(&path, is_dir);
        // What is listed was changed by this switch: the place is taken, or is to be empty.
        if (held || excluded) && !live_names.contains(&entry.name) {
            let to = self.live_parent(&path)?;
            // Both directories keep their times: either may be the live one again.
            let (left, entered) = (pair.retired.meta()?.mtime, to.meta()?.mtime);
            pair.retired.rename_new(&entry.name, &to, &entry.name)?;
            pair.retired.set_mtime(left)?;
            to.set_mtime(entered)?;
            if excluded {
                Locals::add(&mut self.area.marks.locals.excluded, path.clone());
            }
            self.report.carried.push(path);
        } else {
            to_trash(&self.area.work, self.options.now, &pair.retired, &path)?;
            self.report.trashed.push(path);
        }
        Ok(())
    }

    /// The live directory that is to hold `path`; made where the new generation has none.
    fn live_parent(&self, path: &TreePath) -> Result<Dir, Error> {
        let mut dir =
            self.area.live()?.ok_or_else(|| Error::Inconsistent { path: path.clone() })?;
        let above = path.components().count() - 1;
        for component in path.components().take(above) {
            dir = dir.ensure_dir(component, 0o755)?;
        }
        Ok(dir)
    }
}
