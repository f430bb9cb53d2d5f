//! PROTECTED: a directory with a file of that name is the site's own, at any depth.
//!
//! By path, never by pattern: what a plan would touch is looked at on the disk, and what was found
//! once is known from then on.

use std::collections::HashSet;

use protocol::{
    manifest::{self, Entries},
    path::TreePath,
};

use super::{Area, Error, Locals, is_no_directory};
use crate::{
    fs::Dir,
    plan::{Plan, Reserve},
    safe_path::PROTECTED,
    switch::cursor::Cursor,
};

impl Area {
    /// What a plan found protected is known from now on, and no exchange takes it out of sight.
    pub(super) fn learn_protected(&mut self, plan: &Plan) -> Result<(), Error> {
        let before = self.marks.locals.clone();
        let (root, dirs) = &plan.protected;
        self.marks.locals.protected_root |= root;
        for dir in dirs {
            Locals::add(&mut self.marks.locals.protected, dir.clone());
        }
        if self.marks.locals != before {
            self.marks.save(&self.work)?;
        }
        Ok(())
    }

    /// Looks for PROTECTED files in the directories that a plan touches.
    pub(super) fn protected_now(&self, have: &dyn Entries, plan: &Plan) -> Result<Reserve, Error> {
        let mut found = Reserve::default();
        let Some(live) = self.live()? else { return Ok(found) };
        let ours = |dir: Option<&TreePath>| -> Result<bool, manifest::Error> {
            let marker = dir.map_or_else(|| TreePath::parse(PROTECTED), |d| d.child(PROTECTED));
            marker.map_or(Ok(false), |marker| Ok(have.find(&marker)?.is_some()))
        };
        if !plan.is_empty() {
            found.protected_root = live.stat(PROTECTED)?.is_some() && !ours(None)?;
        }
        let mut live = Cursor::new(live);
        let mut asked = HashSet::new();
        for change in plan.changes() {
            let change = change?;
            for dir in change.path.ancestors().chain([change.path.clone()]) {
                if asked.insert(dir.clone())
                    && let Some(opened) = live.dir(&dir)?
                    && opened.stat(PROTECTED)?.is_some()
                    && !ours(Some(&dir))?
                {
                    found.protected.push(dir);
                }
            }
            if (!change.wanted || change.other_kind)
                && let Some(going) = live.dir(&change.path)?
            {
                protected_below(going.reopen()?, &change.path, have, &mut found.protected)?;
            }
        }
        found.protected.sort();
        found.protected.dedup();
        Ok(found)
    }
}

/// Whether a PROTECTED file that is not the tree's own lies in a directory above a path.
pub(super) fn shields(live: &mut Cursor, path: &TreePath, plan: &Plan) -> Result<bool, Error> {
    let is_local = |marker: Result<TreePath, _>| -> Result<bool, manifest::Error> {
        marker.map_or(Ok(false), |marker: TreePath| Ok(plan.item(&marker)?.is_none()))
    };
    if live.root().stat(PROTECTED)?.is_some() && is_local(TreePath::parse(PROTECTED))? {
        return Ok(true);
    }
    for dir in path.ancestors() {
        if let Some(opened) = live.dir(&dir)?
            && opened.stat(PROTECTED)?.is_some()
            && is_local(dir.child(PROTECTED))?
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Finds PROTECTED files in what lies locally in a directory that is to go.
fn protected_below(
    dir: Dir,
    path: &TreePath,
    have: &dyn Entries,
    found: &mut Vec<TreePath>,
) -> Result<(), Error> {
    let mut open = vec![(path.clone(), dir)];
    while let Some((at, dir)) = open.pop() {
        for entry in dir.entries()? {
            let Ok(path) = at.child(&entry.name) else { continue };
            // Directories of the tree itself are looked into for their own sake.
            if entry.is_dir == Some(false) || have.find(&path)?.is_some() {
                continue;
            }
            let below = match dir.open_child(&entry.name) {
                Ok(below) => below,
                Err(error) if is_no_directory(&error) => continue,
                Err(error) => return Err(error.into()),
            };
            match below.stat(PROTECTED)? {
                Some(_) => found.push(path),
                None => open.push((path, below)),
            }
        }
    }
    Ok(())
}
