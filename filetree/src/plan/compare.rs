//! The comparison: both manifests pass once or a few times, entry by entry, and only what differs is
//! kept.

use std::{
    cmp::Ordering,
    collections::{HashMap, HashSet},
    sync::Arc,
};

use protocol::{
    digest::Digest,
    manifest::{self, Entries, SharedEntries},
    path::TreePath,
};

use super::{Change, FileKey, Item, Kept, Need, Plan, Reserve, Source, View, Withdrawn};

/// Compares what a site has with what it wants.
pub fn compare<W: Entries + 'static>(
    have: &dyn Entries,
    have_view: View<'_>,
    want: &Arc<W>,
    want_view: View<'_>,
) -> Result<Plan, manifest::Error> {
    compare_with(have, have_view, want.clone(), want_view, &Reserve::default())
}

/// A plan in which nothing changes: what is wanted, to be looked at.
pub(crate) fn seen(
    want: SharedEntries,
    view: View<'_>,
    reserve: &Reserve,
) -> Result<Plan, manifest::Error> {
    let mut plan = bare(want, view, reserve)?;
    plan.withdrawn = reserve.still_readable(&plan, std::iter::empty())?;
    Ok(plan)
}

/// What is wanted, without anything beside it.
fn bare(want: SharedEntries, view: View<'_>, reserve: &Reserve) -> Result<Plan, manifest::Error> {
    Ok(Plan {
        kept: Kept::of(&want, &view)?,
        want,
        withdrawn: Vec::new(),
        grace: reserve.grace,
        modes: view.modes,
        changes: Vec::new(),
        near: Vec::new(),
        needs: Vec::new(),
        copies: Vec::new(),
        exceptions: Vec::new(),
        removed_bytes: 0,
        protected: (reserve.protected_root, reserve.protected.clone()),
    })
}

pub(crate) fn compare_with(
    have: &dyn Entries,
    have_view: View<'_>,
    want: SharedEntries,
    want_view: View<'_>,
    reserve: &Reserve,
) -> Result<Plan, manifest::Error> {
    let mut plan = bare(want, want_view, reserve)?;
    plan.withdrawn = reserve.still_readable(&plan, have_view.seen(have))?;
    let all_had = || merge(have_view.seen(have), &reserve.withdrawn);
    let mut found = Found { reserve, differences: Differences::default(), near: Near::default() };
    let mut older = all_had().peekable();
    for item in plan.items() {
        let item = item?;
        let path = &item.entry.path;
        let is_before =
            |old: &Result<Item, _>| old.as_ref().map_or(true, |old: &Item| old.entry.path < *path);
        while let Some(gone) = older.next_if(is_before) {
            found.gone(&gone?);
        }
        let is_same =
            |old: &Result<Item, _>| old.as_ref().is_ok_and(|old: &Item| old.entry.path == *path);
        let old = older.next_if(is_same).transpose()?;
        found.wanted(old.as_ref(), item);
    }
    for gone in older {
        found.gone(&gone?);
    }
    // What an interrupted run may have put where neither manifest has anything.
    for path in &reserve.unsure {
        if !found.differences.unsure_had.contains(path) && plan.item(path)?.is_none() {
            found.differences.note(reserve, path, None, None);
        }
    }
    let Found { differences, near, .. } = found;
    plan.near = near.found;
    plan.changes = differences.changes;
    plan.exceptions = differences.exceptions;
    plan.removed_bytes = differences.removed_bytes;
    plan.changes.sort_by(|a, b| a.path.cmp(&b.path));
    let mut wanted = HashSet::new();
    for change in &plan.changes {
        wanted.extend(plan.item(&change.path)?.and_then(|item| item.key()).map(|key| key.digest));
    }
    let local = LocalContents::of(&wanted, all_had(), reserve)?;
    let mut changes = std::mem::take(&mut plan.changes);
    for change in changes.iter_mut().filter(|change| change.source.is_some()) {
        change.source = plan.item(&change.path)?.and_then(|item| local.source(&item));
    }
    plan.changes = changes;
    (plan.needs, plan.copies) = gather(&plan)?;
    Ok(plan)
}

/// What a comparison has found so far.
struct Found<'a> {
    reserve: &'a Reserve,
    differences: Differences,
    near: Near,
}

impl Found<'_> {
    /// The older generation has it and the newer has not.
    fn gone(&mut self, old: &Item) {
        if self.differences.note(self.reserve, &old.entry.path, Some(old), None) {
            self.near.above(&old.entry.path);
        }
    }

    /// The newer generation has it.
    fn wanted(&mut self, old: Option<&Item>, item: Item) {
        let path = &item.entry.path;
        self.near.reach(path);
        let differs =
            self.reserve.unsure.contains(path) || !old.is_some_and(|old| old.same_as(&item));
        let is_noted = differs && self.differences.note(self.reserve, path, old, Some(&item));
        if let Some(old) = old.filter(|_| !differs) {
            self.differences.saw(self.reserve, old);
        }
        self.near.pass(item, is_noted);
    }
}

#[derive(Default)]
struct Differences {
    changes: Vec<Change>,
    exceptions: Vec<TreePath>,
    removed_bytes: u64,
    /// Of the paths that nobody is sure of, those that the older generation has.
    unsure_had: HashSet<TreePath>,
}

impl Differences {
    fn saw(&mut self, reserve: &Reserve, old: &Item) {
        if reserve.unsure.contains(&old.entry.path) {
            self.unsure_had.insert(old.entry.path.clone());
        }
    }

    /// Says whether the path is one that changes.
    fn note(
        &mut self,
        reserve: &Reserve,
        path: &TreePath,
        old: Option<&Item>,
        new: Option<&Item>,
    ) -> bool {
        old.into_iter().for_each(|old| self.saw(reserve, old));
        if reserve.settled.contains(path) {
            return false;
        }
        if reserve.shields(path) {
            self.exceptions.push(path.clone());
            return false;
        }
        let kind = |item: &Item| item.entry.is_dir();
        // A directory cannot give way to a file while something in it is protected.
        if old.is_some_and(kind)
            && new.is_some_and(|new| !kind(new))
            && reserve.protected.iter().any(|dir| dir.is_inside(path))
        {
            self.exceptions.push(path.clone());
            return false;
        }
        if new.is_none() {
            self.removed_bytes += old.map_or(0, |old| old.entry.size());
        }
        self.changes.push(Change {
            path: path.clone(),
            had: old.is_some(),
            wanted: new.is_some(),
            other_kind: old.zip(new).is_some_and(|(old, new)| kind(old) != kind(new)),
            source: new.and_then(Item::key).map(|_| Source::Fetch),
        });
        true
    }
}

/// Keeps of the wanted entries, as they pass in order, those at and above the paths that change.
#[derive(Default)]
struct Near {
    found: Vec<Item>,
    /// The directories around the entry that passed last; `None` once kept.
    open: Vec<(TreePath, Option<Item>)>,
}

impl Near {
    /// The next entry is about to pass.
    fn reach(&mut self, path: &TreePath) {
        while self.open.last().is_some_and(|(dir, _)| !path.is_inside(dir)) {
            self.open.pop();
        }
    }

    /// Keeps the directories above a path that changes.
    fn above(&mut self, path: &TreePath) {
        let around = self.open.iter_mut().filter(|(dir, _)| path.is_inside(dir));
        self.found.extend(around.filter_map(|(_, item)| item.take()));
    }

    fn pass(&mut self, item: Item, changes: bool) {
        let path = item.entry.path.clone();
        if changes {
            self.above(&path);
            if item.entry.is_dir() {
                self.open.push((path, None));
            }
            self.found.push(item);
        } else if item.entry.is_dir() {
            self.open.push((path, Some(item)));
        }
    }
}

/// Both in path order; of two items with one path, the first.
pub(super) fn merge<'a>(
    one: impl Iterator<Item = Result<Item, manifest::Error>> + 'a,
    two: &'a [Withdrawn],
) -> impl Iterator<Item = Result<Item, manifest::Error>> + 'a {
    let (mut one, mut two) = (one.peekable(), two.iter().peekable());
    std::iter::from_fn(move || {
        let order = match (one.peek(), two.peek()) {
            (Some(Ok(one)), Some(two)) => one.entry.path.cmp(&two.entry.path),
            (Some(_), _) => Ordering::Less,
            (None, _) => Ordering::Greater,
        };
        match order {
            Ordering::Greater => two.next().map(|withdrawn| Ok(withdrawn.item())),
            Ordering::Less => one.next(),
            Ordering::Equal => {
                two.next();
                one.next()
            }
        }
    })
}

/// Which of the wanted contents the live tree holds, and where.
struct LocalContents {
    by_key: HashMap<FileKey, TreePath>,
    by_digest: HashMap<Digest, TreePath>,
    unread: bool,
}

impl LocalContents {
    fn of(
        wanted: &HashSet<Digest>,
        items: impl Iterator<Item = Result<Item, manifest::Error>>,
        reserve: &Reserve,
    ) -> Result<Self, manifest::Error> {
        let (by_key, by_digest) = (HashMap::new(), HashMap::new());
        let mut local = Self { by_key, by_digest, unread: reserve.unread };
        if wanted.is_empty() {
            return Ok(local);
        }
        for item in items {
            let item = item?;
            let path = &item.entry.path;
            if let Some(key) = item.key()
                && wanted.contains(&key.digest)
                && !reserve.unsure.contains(path)
            {
                local.by_key.entry(key).or_insert_with(|| path.clone());
                local.by_digest.entry(key.digest).or_insert_with(|| path.clone());
            }
        }
        Ok(local)
    }

    fn source(&self, item: &Item) -> Option<Source> {
        let key = item.key()?;
        let copy = || self.by_digest.get(&key.digest).map(|path| Source::Copy(path.clone()));
        let live = self.by_key.get(&key).filter(|_| !self.unread);
        let live = live.map(|path| Source::Live(path.clone()));
        Some(live.or_else(copy).unwrap_or(Source::Fetch))
    }
}

fn gather(plan: &Plan) -> Result<(Vec<Need>, Vec<Need>), manifest::Error> {
    let (mut needs, mut copies) = (Vec::new(), Vec::new());
    let mut places: HashMap<Digest, (bool, usize)> = HashMap::new();
    for change in &plan.changes {
        let Some(source) = &change.source else { continue };
        let fetch = match source {
            Source::Live(_) => continue,
            Source::Copy(_) => false,
            Source::Fetch => true,
        };
        let Some(need) = plan.need(&change.path)? else { continue };
        let list: &mut Vec<Need> = if fetch { &mut needs } else { &mut copies };
        match places.get(&need.digest) {
            Some((_, at)) => {
                for key in need.keys {
                    if !list[*at].keys.contains(&key) {
                        list[*at].keys.push(key);
                    }
                }
            }
            None => {
                places.insert(need.digest, (fetch, list.len()));
                list.push(need);
            }
        }
    }
    Ok((needs, copies))
}
