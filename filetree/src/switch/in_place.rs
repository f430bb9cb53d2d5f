//! Replaces files one by one in the live tree.
//!
//! For trees that cannot be exchanged: mount points, file systems without hard links, local
//! content that must not move. Readers may see a mix of two generations, so the order matters: what is
//! new first, then what changed, then the files that name others, and removals last. Each file is
//! replaced in one step, and the journal names every path before the first is touched: an
//! interrupted switch is ended by doing it again.

use std::collections::BTreeSet;

use protocol::{manifest::EntryKind, path::TreePath};

use super::{
    SwitchOptions, SwitchReport,
    bring::{close_dirs, is_wanted, put_file, put_symlink},
    cursor::Cursor,
    exchange::extend_lists,
    remove::{remove_all, to_trash},
};
use crate::{
    area::{
        Area, Error, Target,
        marks::{Journal, Locals},
        trash,
    },
    fs::{Dir, Kind},
    plan::{Change, Item, Plan, Source},
};

pub(crate) fn run(
    area: &mut Area,
    plan: &Plan,
    target: &Target,
    options: &SwitchOptions<'_>,
    report: &mut SwitchReport,
) -> Result<(), Error> {
    let live = match area.live()? {
        Some(live) => live,
        None => {
            let parent = area.make_parent()?;
            let live = parent.ensure_dir(area.path.name(), 0o755)?;
            area.staging.own(&parent, area.path.name())?;
            area.marks.live = Some(live.meta()?.id);
            area.marks.save(&area.work)?;
            live
        }
    };
    let paths = area.unsure.union(&plan.paths()?);
    let withdrawn = area.save_withdrawn(plan, options.now)?;
    area.journal_in_place(target, options.now, &paths, withdrawn.clone())?;
    // Trees from before are brought forward by their lists, should an exchange be possible again.
    extend_lists(area, None, &paths)?;
    let mut work = InPlace {
        area,
        plan,
        options,
        report,
        live: Cursor::unlocking(live.reopen()?),
        // All of them, also where an interrupted run left nothing but a wrong time.
        touched: paths.iter().filter_map(|(path, _)| path.parent()).collect(),
    };
    // All that changes is gone through for each: there may be more of it than is well held.
    let mut removals = Vec::new();
    for stage in [Stage::New, Stage::Changed, Stage::Index] {
        let mut stages = Stages::default();
        for change in plan.changes() {
            let change = change?;
            match stages.of(&change, options) {
                Stage::Gone if stage == Stage::New => removals.push(change),
                of if of == stage => work.put(&change)?,
                _ => {}
            }
        }
    }
    // The deepest first.
    removals.reverse();
    if options.trash_removed {
        work.keep_removed(&removals)?;
    }
    removals.iter().try_for_each(|change| work.remove(change))?;
    work.finish()?;
    live.sync_fs()?;
    area.marks.applied = Some(target.clone());
    area.marks.withdrawn = withdrawn;
    area.marks.uncollected = true;
    area.marks.save(&area.work)?;
    Journal::remove(&area.work)
}

/// What is done together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// New content.
    New,
    /// Changed content.
    Changed,
    /// Files that name others.
    Index,
    /// Removals.
    Gone,
}

/// Tells the stage of one change after the other, in path order.
#[derive(Default)]
struct Stages {
    /// What lies in a place that changes its kind has to wait for that.
    turning: Option<TreePath>,
}

impl Stages {
    fn of(&mut self, change: &Change, options: &SwitchOptions<'_>) -> Stage {
        if change.other_kind {
            self.turning = Some(change.path.clone());
        }
        let waits = self
            .turning
            .as_ref()
            .is_some_and(|dir| *dir == change.path || change.path.is_inside(dir));
        match change {
            Change { wanted: false, .. } => Stage::Gone,
            _ if waits => Stage::Changed,
            _ if change.source.is_some() && options.is_index(&change.path) => Stage::Index,
            Change { had: true, .. } => Stage::Changed,
            _ => Stage::New,
        }
    }
}

struct InPlace<'a> {
    area: &'a mut Area,
    plan: &'a Plan,
    options: &'a SwitchOptions<'a>,
    report: &'a mut SwitchReport,
    live: Cursor,
    touched: BTreeSet<TreePath>,
}

impl InPlace<'_> {
    fn put(&mut self, change: &Change) -> Result<(), Error> {
        let path = &change.path;
        let Some(item) = self.plan.item(path)? else { return Ok(()) };
        self.make_way(&item, change.had)?;
        let mut other = Cursor::new(self.live.root().reopen()?);
        let parent = dir_of(&mut self.live, path)?;
        let there = parent.stat(path.name())?;
        match &item.entry.kind {
            EntryKind::Dir => {
                self.touched.insert(path.clone());
                if there.is_none() {
                    parent.make_dir(path.name())?;
                }
                self.area.staging.own(parent, path.name())?;
            }
            EntryKind::Symlink { target } => {
                if let Some(meta) = &there
                    && is_wanted(&item, meta, parent)?
                {
                    return Ok(());
                }
                put_symlink(&self.area.staging, &item, target, parent)?;
            }
            EntryKind::File { .. } => {
                let Some(key) = item.key() else { return Ok(()) };
                let staging = &self.area.staging;
                let name = key.file_name();
                if let Some(staged) = staging.dir().stat(&name)? {
                    if there.is_some_and(|meta| meta.id == staged.id) {
                        return Ok(());
                    }
                    put_file(staging, &item, staging.dir(), &name, parent, there.is_some())?;
                } else if let Source::Live(from) = self.plan.source(&item) {
                    let from_dir = dir_of(&mut other, &from)?;
                    let id = from_dir.stat(from.name())?.map(|meta| meta.id);
                    if there.is_some() && there.map(|meta| meta.id) == id {
                        return Ok(());
                    }
                    put_file(staging, &item, from_dir, from.name(), parent, there.is_some())?;
                } else {
                    return Err(Error::Missing(self.plan.need(path)?.into_iter().collect()));
                }
            }
        }
        Ok(())
    }

    /// Clears a name whose kind changes. What is local goes to the trash first; then a directory is
    /// moved out in one step, and a file is swapped for the directory that replaces it.
    fn make_way(&mut self, item: &Item, had: bool) -> Result<(), Error> {
        let (path, wants_dir) = (&item.entry.path, item.entry.is_dir());
        let parent = dir_of(&mut self.live, path)?;
        let Some(meta) = parent.stat(path.name())? else { return Ok(()) };
        let staging = &self.area.staging;
        if meta.kind == Kind::Dir && !wants_dir {
            if !had {
                to_trash(&self.area.work, self.options.now, parent, path)?;
                self.report.trashed.push(path.clone());
            } else {
                let name = path.name().to_vec();
                self.rescue(path)?;
                let aside = self.area.staging.temporary();
                let parent = dir_of(&mut self.live, path)?;
                parent.rename_new(&name, self.area.staging.dir(), &aside)?;
                remove_all(self.area.staging.dir(), &aside)?;
            }
            self.live.forget(path);
        } else if meta.kind != Kind::Dir && wants_dir && had {
            let aside = staging.temporary();
            staging.dir().make_dir(&aside)?;
            parent.exchange(path.name(), staging.dir(), &aside)?;
            staging.dir().unlink(&aside)?;
        } else if wants_dir && meta.kind != Kind::Dir {
            // A local file in the way of a new directory.
            to_trash(&self.area.work, self.options.now, parent, path)?;
            self.report.trashed.push(path.clone());
        } else if meta.kind != Kind::Dir && !had && self.plan.source(item) == Source::Fetch {
            // Something local has the name of a new file.
            if !is_wanted(item, &meta, parent).unwrap_or(false) {
                to_trash(&self.area.work, self.options.now, parent, path)?;
                self.report.trashed.push(path.clone());
            }
        }
        Ok(())
    }

    /// Moves what the older generation did not have out of a directory that is to go.
    fn rescue(&mut self, dir: &TreePath) -> Result<(), Error> {
        let mut open = vec![dir.clone()];
        let mut moved = false;
        while let Some(at) = open.pop() {
            let Some(opened) = self.live.dir(&at)? else { continue };
            let opened = opened.reopen()?;
            for entry in opened.entries()? {
                let Ok(path) = at.child(&entry.name) else { continue };
                if !self.plan.had(&path)? {
                    to_trash(&self.area.work, self.options.now, &opened, &path)?;
                    self.report.trashed.push(path);
                    moved = true;
                } else if entry.is_dir != Some(false) {
                    open.push(path);
                }
            }
        }
        if moved { self.settle_trash() } else { Ok(()) }
    }

    /// What was moved to the trash is durably there before the directory that it came from goes.
    fn settle_trash(&self) -> Result<(), Error> {
        Ok(self.area.work.sync_fs()?)
    }

    fn remove(&mut self, change: &Change) -> Result<(), Error> {
        let path = &change.path;
        let Some(parent) = self.live.parent(path)? else { return Ok(()) };
        let Some(meta) = parent.stat(path.name())? else { return Ok(()) };
        if meta.kind != Kind::Dir {
            parent.unlink(path.name())?;
        } else if !self.empty(path)? {
            return Ok(());
        } else {
            dir_of(&mut self.live, path)?.remove_dir(path.name())?;
            self.live.forget(path);
        }
        Ok(())
    }

    /// Moves the files that go to the trash, all of them before the first directory goes. Room that
    /// is short keeps nothing from being removed.
    fn keep_removed(&mut self, removals: &[Change]) -> Result<(), Error> {
        let batch = trash::removed_by(self.plan, self.options.now);
        let mut moved = false;
        for Change { path, .. } in removals {
            let Some(parent) = self.live.parent(path)? else { continue };
            let name = path.name();
            if parent.stat(name)?.is_none_or(|meta| meta.kind == Kind::Dir) {
                continue;
            }
            match trash::place_of(&self.area.work, &batch, path)
                .and_then(|place| parent.rename_new(name, &place, name))
            {
                Ok(()) => moved = true,
                Err(error) if error.is_full() => {
                    tracing::warn!(%error, "there is no room to keep what goes in the trash");
                    break;
                }
                Err(error) if error.is_already_there() => {}
                Err(error) => return Err(error.into()),
            }
        }
        if moved { self.settle_trash() } else { Ok(()) }
    }

    /// Empties a directory that is to go of what does not belong; `false` if something excluded
    /// stays in it.
    fn empty(&mut self, dir: &TreePath) -> Result<bool, Error> {
        let Some(opened) = self.live.dir(dir)? else { return Ok(false) };
        let mut empty = true;
        let mut moved = false;
        for entry in opened.entries()? {
            let Ok(path) = dir.child(&entry.name) else {
                empty = false;
                continue;
            };
            let is_dir = entry.is_dir.unwrap_or(false);
            let locals = &mut self.area.marks.locals;
            let held = locals.held.binary_search(&path).is_ok();
            let protected = locals.protects_in(&path);
            if protected || held || !(self.options.keep)(&path, is_dir) {
                if !held && !protected {
                    Locals::add(&mut locals.excluded, path.clone());
                }
                self.report.carried.push(path);
                empty = false;
            } else {
                to_trash(&self.area.work, self.options.now, opened, &path)?;
                self.report.trashed.push(path);
                moved = true;
            }
        }
        if moved {
            self.settle_trash()?;
        }
        Ok(empty)
    }

    fn finish(mut self) -> Result<(), Error> {
        self.touched.extend(self.live.unlocked.drain(..));
        close_dirs(self.plan, &self.touched, &mut self.live)
    }
}

fn dir_of<'c>(cursor: &'c mut Cursor, path: &TreePath) -> Result<&'c Dir, Error> {
    cursor.parent(path)?.ok_or_else(|| Error::Inconsistent { path: path.clone() })
}
