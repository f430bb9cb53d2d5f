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

use super::{
    SwitchOptions, SwitchReport,
    bring::close_dir,
    cursor::{Cursor, is_no_directory},
    remove::to_trash,
};
use crate::{
    area::{
        Area, Error,
        marks::{self, Locals, TreeState},
    },
    fs::{Dir, DirEntry},
    plan::Plan,
    record::PathList,
    safe_path::PROTECTED,
};

/// Sweeps every tree that was not swept since it was retired. `plan` leads from or to what is
/// live now: it says which times directories have that local content passes through.
pub(crate) fn all(
    area: &mut Area,
    plan: &Plan,
    options: &SwitchOptions<'_>,
    report: &mut SwitchReport,
) -> Result<(), Error> {
    let names: Vec<String> =
        area.marks.trees.iter().filter(|t| !t.swept).map(|t| t.name.clone()).collect();
    for name in names {
        let retired = match area.trees.open_child(name.as_bytes()) {
            Ok(dir) => Some(dir),
            Err(error) if is_no_directory(&error) => None,
            Err(error) => return Err(error.into()),
        };
        let list_name = format!("{name}.missed");
        // Without its list a tree cannot be told apart from local content; everything that the
        // live tree does not have is then kept in the trash.
        let list = match marks::load_paths(&area.work, &list_name) {
            Ok(list) => list,
            Err(Error::Damaged { .. }) => None,
            Err(error) => return Err(error),
        };
        let has_list = list.is_some();
        let mut moved = false;
        if let (Some(retired), Some(live)) = (retired, area.live()?) {
            let list = list.unwrap_or_default();
            let found = find(&list, options, &area.marks.locals, &retired, &live)?;
            if !found.is_empty() {
                // The times of these directories are about to change; should we be interrupted,
                // the list sees to it that they are put right before the tree is used.
                let passed = found.iter().filter_map(|found| found.path.parent());
                let mut passed: Vec<_> = passed.map(|path| (path, true)).collect();
                passed.sort();
                passed.dedup();
                marks::save_paths(
                    &area.work,
                    &list_name,
                    &list.union(&passed.into_iter().collect()),
                )?;
                remember(&mut area.marks.locals, &found);
                area.marks.save(&area.work)?;
                let displaced = move_out(area, options, report, &found, &retired, &live)?;
                let Locals { protected, excluded, held, .. } = &mut area.marks.locals;
                for list in [protected, excluded, held] {
                    list.retain(|path| !displaced.contains(path));
                }
                moved = true;
            }
        }
        for tree in area.marks.trees.iter_mut().filter(|tree| tree.name == name) {
            tree.swept = true;
            if !has_list {
                tree.state = TreeState::Building;
            }
        }
        // Durable before the marks call the tree swept: nobody looks again after that.
        if close_passed(area, plan)? || moved {
            area.work.sync_fs()?;
        }
        area.marks.save(&area.work)?;
    }
    Ok(())
}

/// Local content in a retired tree.
struct Found {
    path: TreePath,
    what: What,
}

enum What {
    /// A directory with a PROTECTED file: goes back as a whole.
    Protected,
    /// The root's own PROTECTED file.
    ProtectedRoot,
    /// Known or excluded: goes back to its place.
    Carry { excluded: bool },
    /// Does not belong.
    Trash,
}

/// A pair of directories with the same path: the retired one, and the live one if there is one.
struct Pair {
    path: Option<TreePath>,
    retired: Dir,
    live: Option<Dir>,
}

fn find(
    list: &PathList,
    options: &SwitchOptions<'_>,
    locals: &Locals,
    retired: &Dir,
    live: &Dir,
) -> Result<Vec<Found>, Error> {
    let mut found = Vec::new();
    let mut open =
        vec![Pair { path: None, retired: retired.reopen()?, live: Some(live.reopen()?) }];
    while let Some(pair) = open.pop() {
        let names: BTreeSet<Box<[u8]>> = match &pair.live {
            Some(live) => live.entries()?.into_iter().map(|entry| entry.name).collect(),
            None => BTreeSet::new(),
        };
        let entries = pair.retired.entries()?;
        if is_protected(list, &pair, &entries, &names) {
            match (pair.path, TreePath::parse(PROTECTED)) {
                (Some(path), _) => found.push(Found { path, what: What::Protected }),
                (None, Ok(path)) => found.push(Found { path, what: What::ProtectedRoot }),
                (None, Err(_)) => {}
            }
            continue;
        }
        for entry in entries {
            let path = match &pair.path {
                None => TreePath::parse(&entry.name),
                Some(above) => above.child(&entry.name),
            };
            // A name that no manifest can carry is local by definition, and stays where it is as
            // long as the tree does.
            let Ok(path) = path else { continue };
            let there = names.contains(&entry.name);
            if list.had(&path).unwrap_or(there) {
                if entry.is_dir != Some(false)
                    && let Ok(below) = pair.retired.open_child(&entry.name)
                {
                    let live = pair.live.as_ref().and_then(|d| d.open_child(&entry.name).ok());
                    open.push(Pair { path: Some(path), retired: below, live });
                }
                continue;
            }
            let excluded = !(options.keep)(&path, entry.is_dir.unwrap_or(false));
            let held = locals.held.binary_search(&path).is_ok();
            // Where the new generation has that name, the place is taken.
            if (held || excluded) && !there {
                found.push(Found { path, what: What::Carry { excluded } });
                continue;
            }
            if entry.is_dir != Some(false)
                && let Some(below) = holds_protected(&pair.retired, &entry.name)?
            {
                let live = pair.live.as_ref().and_then(|d| d.open_child(&entry.name).ok());
                open.push(Pair { path: Some(path), retired: below, live });
                continue;
            }
            found.push(Found { path, what: What::Trash });
        }
    }
    Ok(found)
}

/// The directory, if it or anything in it holds a PROTECTED file: then it does not go as a whole.
fn holds_protected(parent: &Dir, name: &[u8]) -> Result<Option<Dir>, Error> {
    let opened = |dir: &Dir, name: &[u8]| match dir.open_child(name) {
        Ok(dir) => Ok(Some(dir)),
        Err(error) if is_no_directory(&error) => Ok(None),
        Err(error) => Err(Error::from(error)),
    };
    let Some(dir) = opened(parent, name)? else { return Ok(None) };
    let mut open = vec![dir.reopen()?];
    while let Some(at) = open.pop() {
        for entry in at.entries()? {
            if *entry.name == *PROTECTED {
                return Ok(Some(dir));
            }
            if entry.is_dir != Some(false) {
                open.extend(opened(&at, &entry.name)?);
            }
        }
    }
    Ok(None)
}

fn is_protected(
    list: &PathList,
    pair: &Pair,
    entries: &[DirEntry],
    live: &BTreeSet<Box<[u8]>>,
) -> bool {
    let marker = match &pair.path {
        None => TreePath::parse(PROTECTED),
        Some(above) => above.child(PROTECTED),
    };
    entries.iter().any(|entry| *entry.name == *PROTECTED)
        && !live.contains(PROTECTED)
        && !marker.is_ok_and(|marker| list.had(&marker) == Some(true))
}

/// What was found is known from now on, whatever happens while it is moved.
fn remember(locals: &mut Locals, found: &[Found]) {
    for Found { path, what } in found {
        match what {
            What::ProtectedRoot => locals.protected_root = true,
            What::Protected => Locals::add(&mut locals.protected, path.clone()),
            What::Carry { excluded: true } => Locals::add(&mut locals.excluded, path.clone()),
            What::Carry { excluded: false } | What::Trash => {}
        }
    }
}

/// Moves what was found to where it belongs; gives the paths that had to go to the trash although
/// they were to stay, because the new generation has something else above them.
fn move_out(
    area: &Area,
    options: &SwitchOptions<'_>,
    report: &mut SwitchReport,
    found: &[Found],
    retired: &Dir,
    live: &Dir,
) -> Result<BTreeSet<TreePath>, Error> {
    let mut displaced = BTreeSet::new();
    for Found { path, what } in found {
        let from = retired.open_parent(path)?;
        let name = path.name();
        let to = match what {
            What::ProtectedRoot => Some(live.reopen()?),
            What::Protected | What::Carry { .. } => match live_parent(live, path) {
                Err(Error::Fs(error)) if is_no_directory(&error) => {
                    displaced.insert(path.clone());
                    None
                }
                other => Some(other?),
            },
            What::Trash => None,
        };
        let Some(to) = to else {
            to_trash(&area.work, options.now, &from, path)?;
            report.trashed.push(path.clone());
            continue;
        };
        match what {
            What::Protected if to.stat(name)?.is_some() => from.exchange(name, &to, name)?,
            _ => from.rename_new(name, &to, name)?,
        }
        if !matches!(what, What::ProtectedRoot) {
            report.carried.push(path.clone());
        }
    }
    Ok(displaced)
}

/// The live directory that is to hold `path`; made where the new generation has none.
fn live_parent(live: &Dir, path: &TreePath) -> Result<Dir, Error> {
    let mut dir = live.reopen()?;
    let above = path.components().count() - 1;
    for component in path.components().take(above) {
        dir = dir.ensure_dir(component, 0o755)?;
    }
    Ok(dir)
}

/// Local content that comes and goes changes the times of the directories it is in; puts those
/// of the live tree right, and says whether they were wrong.
fn close_passed(area: &Area, plan: &Plan) -> Result<bool, Error> {
    let Some(live) = area.live()? else { return Ok(false) };
    let mut changed = false;
    let mut live = Cursor::new(live);
    let locals = &area.marks.locals;
    for path in locals.excluded.iter().chain(&locals.held).chain(&locals.protected) {
        if let Some(above) = path.parent()
            && !locals.protects(&above)
            && let Some(item) = plan.item(&above)?
            && item.entry.is_dir()
            && let Some(dir) = live.dir(&above)?
        {
            changed |= close_dir(&item, dir)?;
        }
    }
    Ok(changed)
}
