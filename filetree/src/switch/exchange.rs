//! Swaps the live tree for a standby that was brought forward beside it: the two directories, or the
//! link that the live one is published behind.
//!
//! Every tree below the work directory has a durable list of the paths in which it may differ from
//! the live tree. A list may name too much, never too little, which makes each step safe to
//! repeat: before a standby is touched its list grows by what is about to change, before the
//! exchange every other tree's list does, and because "differs in these paths" is symmetrical, the
//! lists stay true on both sides of the exchange.

use std::collections::BTreeSet;

#[cfg(test)]
use super::KnownBad;
use super::{
    Mode, SwitchOptions, SwitchReport,
    bring::{Bring, is_wanted},
    remove::remove_all,
};
use crate::{
    area::{
        Area, Error, Target,
        marks::{self, Journal, TreeMark, TreeState},
        trash,
    },
    fs::{Attribute, Dir, Kind},
    plan::Plan,
    record::PathList,
};

/// What the names of trees begin with that can become the live one; a number follows.
pub(crate) const STANDBY: &str = "standby-";

/// A tree that can become the live one.
struct Standby {
    name: String,
    dir: Dir,
    /// Paths in which it may differ from the live tree; `None` for a fresh one.
    missed: Option<PathList>,
}

/// A standby that was brought forward, durably, and has not taken the live tree's place yet.
pub(crate) struct Prepared {
    journal: Journal,
    changed: PathList,
    now: i64,
}

/// Brings a standby forward, up to the moment before it becomes the live tree.
pub(crate) fn prepare(
    area: &mut Area,
    plan: &Plan,
    target: &Target,
    options: &SwitchOptions<'_>,
    mode: Mode,
    report: &mut SwitchReport,
) -> Result<Prepared, Error> {
    let mut reused = reusable(area, options)?;
    if let Some(standby) = reused.take() {
        match attempt(area, plan, target, options, mode, standby) {
            // The list was wrong after all: someone touched the tree. A fresh twin needs no list.
            Err(Error::Inconsistent { path }) => {
                tracing::warn!(%path, "the standby tree is not what its list says; linking a new one");
            }
            other => return other,
        }
    }
    report.fresh_twin = area.marks.live.is_some();
    let standby = fresh(area)?;
    attempt(area, plan, target, options, mode, standby)
}

/// The oldest retired tree that nobody uses and whose differences are known.
fn reusable(area: &mut Area, options: &SwitchOptions<'_>) -> Result<Option<Standby>, Error> {
    let free = |tree: &TreeMark| {
        tree.state == TreeState::Whole
            && tree.swept
            && tree.retired_at.saturating_add(options.linger) <= options.now
    };
    let mut candidates: Vec<TreeMark> =
        area.marks.trees.iter().filter(|tree| free(tree)).cloned().collect();
    candidates.sort_by_key(|tree| tree.retired_at);
    for tree in candidates {
        let dir = match area.trees.open_child(tree.name.as_bytes()) {
            Ok(dir) => dir,
            Err(error) if error.is_not_found() => continue,
            Err(error) => return Err(error.into()),
        };
        if dir.meta()?.id != tree.id || in_use(&dir) {
            continue;
        }
        if let Ok(Some(missed)) = marks::load_paths(&area.work, &tree.list_name()) {
            return Ok(Some(Standby { name: tree.name, dir, missed: Some(missed) }));
        }
    }
    Ok(None)
}

/// Makes an empty directory for a twin and marks it as unfinished.
fn fresh(area: &mut Area) -> Result<Standby, Error> {
    let (name, dir) = loop {
        let name = format!("{STANDBY}{}", area.marks.next_tree);
        area.marks.next_tree += 1;
        match area.trees.make_dir(name.as_bytes()) {
            Ok(dir) => break (name, dir),
            Err(error) if error.is_already_there() => {}
            Err(error) => return Err(error.into()),
        }
    };
    area.marks.trees.push(TreeMark {
        name: name.clone(),
        id: dir.meta()?.id,
        state: TreeState::Building,
        swept: true,
        retired_at: 0,
    });
    area.marks.save(&area.work)?;
    Ok(Standby { name, dir, missed: None })
}

fn attempt(
    area: &mut Area,
    plan: &Plan,
    target: &Target,
    options: &SwitchOptions<'_>,
    mode: Mode,
    standby: Standby,
) -> Result<Prepared, Error> {
    let changed = plan.paths()?;
    let live = area.live()?;
    let (staged_bytes, staged_files) = area.staging.held()?;
    let withdrawn = area.save_withdrawn(plan, options.now)?;
    let journal = Journal {
        home: area.marks.home,
        from: area.marks.applied.clone(),
        to: target.clone(),
        mode,
        live: area.marks.live,
        standby: Some((standby.name.clone(), standby.dir.meta()?.id)),
        retired: if mode == Mode::Symlink { area.linked_tree()? } else { None },
        withdrawn,
        staged_bytes,
        staged_files,
        started_at: options.now,
    };
    let missed = standby.missed.as_ref().map(|missed| missed.union(&changed));
    marks::save_paths(
        &area.work,
        &format!("{}.missed", standby.name),
        missed.as_ref().unwrap_or(&changed),
    )?;
    journal.save(&area.work, &changed)?;

    bring(area, plan, options, &standby, live, missed.as_ref())?;
    verify(plan, standby.dir.reopen()?, missed.as_ref().unwrap_or(&changed))?;
    copy_root_attributes(area, &standby)?;
    if options.trash_removed {
        keep_removed(area, plan, options.now)?;
    }
    extend_lists(area, Some(&standby.name), &changed)?;

    #[cfg(test)]
    if options.skips(KnownBad::EarlyMark) {
        area.marks.applied = Some(target.clone());
        area.marks.live = journal.standby.as_ref().map(|(_, id)| *id);
        area.marks.save(&area.work)?;
    }
    let durable = true;
    #[cfg(test)]
    let durable = durable && !options.skips(KnownBad::NoSyncFs);
    if mode == Mode::Symlink {
        area.prepare_link(&standby.name)?;
    }
    if durable {
        standby.dir.sync_fs()?;
    }
    Ok(Prepared { journal, changed, now: options.now })
}

/// Makes the standby the live tree, in one step.
pub(crate) fn exchange(area: &Area, prepared: &Prepared) -> Result<(), Error> {
    let Prepared { journal, .. } = prepared;
    let Some((standby, _)) = &journal.standby else { return Ok(()) };
    let parent = area.make_parent()?;
    let name = area.path.name();
    match journal.mode {
        Mode::Symlink => area.switch_link(&parent),
        _ if journal.live.is_some() => {
            Ok(parent.exchange(name, &area.trees, standby.as_bytes())?)
        }
        _ => Ok(area.trees.rename_new(standby.as_bytes(), &parent, name)?),
    }
}

/// Makes that durable and marks it.
pub(crate) fn settle(
    area: &mut Area,
    prepared: &Prepared,
    options: &SwitchOptions<'_>,
) -> Result<(), Error> {
    let durable = true;
    #[cfg(test)]
    let durable = durable && !options.skips(KnownBad::NoParentSync);
    #[cfg(not(test))]
    let _ = options;
    finish(area, &prepared.journal, &prepared.changed, prepared.now, durable)
}

/// What follows the exchange; also what recovery does when it finds the exchange done.
pub(crate) fn finish(
    area: &mut Area,
    journal: &Journal,
    changed: &PathList,
    now: i64,
    durable: bool,
) -> Result<(), Error> {
    if durable {
        area.make_parent()?.sync()?;
        area.trees.sync()?;
    }
    let Some((name, id)) = &journal.standby else { return Ok(()) };
    area.marks.trees.retain(|tree| tree.name != *name);
    let retired = journal.retired.as_ref().unwrap_or(name);
    if let Some(id) = journal.live {
        let tree = TreeMark {
            name: retired.clone(),
            id,
            state: TreeState::Whole,
            swept: false,
            retired_at: now,
        };
        marks::save_paths(&area.work, &tree.list_name(), changed)?;
        area.marks.trees.push(tree);
    }
    if journal.live.is_none() || retired != name {
        crate::record::remove(&area.work, &format!("{name}.missed"))?;
    }
    area.marks.live = Some(*id);
    area.marks.applied = Some(journal.to.clone());
    area.marks.withdrawn = journal.withdrawn.clone();
    area.marks.uncollected = true;
    area.marks.save(&area.work)?;
    Journal::remove(&area.work)
}

fn bring(
    area: &Area,
    plan: &Plan,
    options: &SwitchOptions<'_>,
    standby: &Standby,
    live: Option<Dir>,
    missed: Option<&PathList>,
) -> Result<(), Error> {
    let fresh = missed.is_none();
    let mut bring = Bring::new(plan, &area.staging, standby.dir.reopen()?, live, fresh);
    let total = missed.map_or(plan.kept_entries() as u64, PathList::len);
    let mut done = 0;
    let mut step = || {
        done += 1;
        if done % 256 == 0 || done == total {
            (options.progress)(done, total);
        }
    };
    match missed {
        Some(missed) => missed.iter().try_for_each(|(path, _)| {
            step();
            bring.path(&path, plan.item(&path)?)
        })?,
        None => plan.items().try_for_each(|item| {
            step();
            let item = item?;
            bring.path(&item.entry.path.clone(), Some(item))
        })?,
    }
    bring.finish()
}

/// Looks at everything that was to change, as a reader would see it.
fn verify(plan: &Plan, tree: Dir, paths: &PathList) -> Result<(), Error> {
    let mut tree = super::cursor::Cursor::new(tree);
    for (path, _) in paths.iter() {
        let wrong = || Error::Inconsistent { path: path.clone() };
        let parent = tree.parent(&path)?;
        match (plan.item(&path)?, parent) {
            (None, None) => {}
            (None, Some(parent)) => {
                if parent.stat(path.name())?.is_some() {
                    return Err(wrong());
                }
            }
            (Some(_), None) => return Err(wrong()),
            (Some(item), Some(parent)) => {
                let meta = parent.stat(path.name())?.ok_or_else(wrong)?;
                if !is_wanted(&item, &meta, parent)? {
                    return Err(wrong());
                }
            }
        }
    }
    Ok(())
}

/// Gives every file that goes a name in the trash, before it loses its own. Room that is short, or a
/// file system that gives no second names, keeps nothing from being switched.
fn keep_removed(area: &Area, plan: &Plan, now: i64) -> Result<(), Error> {
    let Some(live) = area.live()? else { return Ok(()) };
    let mut live = super::cursor::Cursor::new(live);
    let batch = trash::removed_by(plan, now);
    for path in plan.removals() {
        let Some(parent) = live.parent(&path)? else { continue };
        let name = path.name();
        if parent.stat(name)?.is_none_or(|meta| meta.kind == Kind::Dir) {
            continue;
        }
        let kept = trash::place_of(&area.work, &batch, &path)
            .and_then(|place| parent.link(name, &place, name));
        match kept {
            Err(error) if error.is_full() => {
                tracing::warn!(%error, "there is no room to keep what goes in the trash");
                return Ok(());
            }
            Err(error) if error.is_already_there() || error.is_link_refused() => {
                tracing::debug!(%path, %error, "not kept in the trash");
            }
            other => other?,
        }
    }
    Ok(())
}

/// The published directory itself keeps its owner, group, mode, access lists and label.
fn copy_root_attributes(area: &Area, standby: &Standby) -> Result<(), Error> {
    let now = standby.dir.meta()?;
    let name = standby.name.as_bytes();
    let Some(live) = area.live()? else {
        area.staging.own(&area.trees, name)?;
        if now.mode != 0o755 {
            standby.dir.set_mode(0o755)?;
        }
        return Ok(());
    };
    let wanted = live.meta()?;
    let group = area.marks.group.unwrap_or(wanted.gid);
    if now.gid != group {
        area.trees.set_group_of(name, group)?;
    }
    // Only root can have adopted a directory of another user, and only root can give one away.
    if now.uid != wanted.uid {
        area.trees.set_owner_of(name, wanted.uid)?;
    }
    if now.mode != wanted.mode {
        standby.dir.set_mode(wanted.mode)?;
    }
    for which in [Attribute::Label, Attribute::Acl, Attribute::DefaultAcl] {
        let wanted = live.attribute(which)?;
        // There is no way to have no label where there are labels.
        let is_kept = which == Attribute::Label && wanted.is_none();
        if !is_kept && standby.dir.attribute(which)? != wanted {
            standby.dir.set_attribute(which, wanted.as_deref())?;
        }
    }
    Ok(())
}

/// Adds what is about to change in the live tree to the list of every other tree.
pub(crate) fn extend_lists(
    area: &mut Area,
    standby: Option<&str>,
    changed: &PathList,
) -> Result<(), Error> {
    let mut lost = BTreeSet::new();
    for tree in &area.marks.trees {
        if standby == Some(&tree.name) || tree.state != TreeState::Whole {
            continue;
        }
        match marks::load_paths(&area.work, &tree.list_name()) {
            Ok(Some(list)) => {
                marks::save_paths(&area.work, &tree.list_name(), &list.union(changed))?;
            }
            // Without its list a tree is good for nothing but being swept and removed.
            Ok(None) | Err(Error::Damaged { .. }) => {
                lost.insert(tree.name.clone());
            }
            Err(error) => return Err(error),
        }
    }
    for tree in area.marks.trees.iter_mut().filter(|tree| lost.contains(&tree.name)) {
        tree.state = TreeState::Building;
    }
    Ok(())
}

/// Removes trees that are no longer needed: unfinished ones, and the oldest beyond their linger.
pub(crate) fn collect(area: &mut Area, options: &SwitchOptions<'_>) -> Result<(), Error> {
    let mut spare: Vec<TreeMark> =
        area.marks.trees.iter().filter(|tree| tree.state == TreeState::Whole).cloned().collect();
    spare.sort_by_key(|tree| tree.retired_at);
    let expired = |tree: &TreeMark| tree.retired_at.saturating_add(options.linger) <= options.now;
    // Where updates come faster than trees may be reused, as many are needed as retire within one
    // linger, and the one that is next: with fewer, every so often a whole twin would be linked.
    let lingering = spare.iter().filter(|tree| !expired(tree)).count();
    let excess = spare.len().saturating_sub(options.retired_trees.max(lingering + 1));
    let mut going: Vec<String> = spare
        .iter()
        .take(excess)
        .filter(|t| t.swept && expired(t))
        .map(|t| t.name.clone())
        .collect();
    let unfinished = area.marks.trees.iter().filter(|t| t.state == TreeState::Building && t.swept);
    going.extend(unfinished.map(|tree| tree.name.clone()));
    for name in &going {
        if area.trees.open_child(name.as_bytes()).is_ok_and(|dir| in_use(&dir)) {
            continue;
        }
        remove_all(&area.trees, name.as_bytes())?;
        crate::record::remove(&area.work, &format!("{name}.missed"))?;
        area.marks.trees.retain(|tree| tree.name != *name);
    }
    area.marks.uncollected = false;
    area.marks.save(&area.work)
}

/// Whether a process has its working directory, its root or an open file below `dir`. Asks
/// `/proc`, so it sees what this user may see: the linger is the guarantee, this is courtesy.
fn in_use(dir: &Dir) -> bool {
    if !dir.fs().is_kernel() {
        return false;
    }
    let below = dir.path();
    let Ok(processes) = std::fs::read_dir("/proc") else { return false };
    let own = std::process::id().to_string();
    for process in processes.flatten() {
        let name = process.file_name();
        let is_process = name.to_str().is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()));
        if !is_process || name.to_str() == Some(&own) {
            continue;
        }
        let at = process.path();
        let fds = std::fs::read_dir(at.join("fd")).into_iter().flatten().flatten();
        let links = fds.map(|fd| fd.path()).chain([at.join("cwd"), at.join("root")]);
        for link in links {
            if std::fs::read_link(link).is_ok_and(|target| target.starts_with(below)) {
                return true;
            }
        }
    }
    false
}
