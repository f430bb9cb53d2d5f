//! The comparison: both manifests pass once or a few times, entry by entry, and only what differs is
//! kept.

use std::{cmp::Ordering, collections::HashSet, sync::Arc};

use protocol::{
    manifest::{self, Entries, SharedEntries},
    path::TreePath,
};

use super::{
    Change, Item, Kept, Odd, Plan, Reserve, Source, View, Withdrawn,
    marks::{From, Mark, Marks},
    sources,
};
use crate::record::PathList;

/// A plan with more entries than this at and above the paths that change looks them up.
const MOST_NEAR: usize = 1 << 14;

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
        marks: Marks::new(want.count()),
        want,
        withdrawn: Vec::new(),
        grace: reserve.grace,
        modes: view.modes,
        gone: PathList::default(),
        odd: Vec::new(),
        from: Vec::new(),
        more_keys: Default::default(),
        near: None,
        sums: Default::default(),
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
    compare_in_parts(have, have_view, want, want_view, reserve, sources::CONTENTS)
}

pub(super) fn compare_in_parts(
    have: &dyn Entries,
    have_view: View<'_>,
    want: SharedEntries,
    want_view: View<'_>,
    reserve: &Reserve,
    contents_at_a_time: u64,
) -> Result<Plan, manifest::Error> {
    let mut plan = bare(want, want_view, reserve)?;
    plan.withdrawn = reserve.still_readable(&plan, have_view.seen(have))?;
    let all_had = || merge(have_view.seen(have), &reserve.withdrawn);
    let marks = std::mem::take(&mut plan.marks);
    let differences = Differences { marks, ..Differences::default() };
    let mut found = Found { reserve, differences, near: Near::default() };
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
    let Found { mut differences, near, .. } = found;
    // What an interrupted run may have put where neither manifest has anything.
    let mut unsure: Vec<&TreePath> = reserve.unsure.iter().collect();
    unsure.sort();
    let gone = std::mem::take(&mut differences.gone);
    for path in unsure {
        if !differences.unsure_had.contains(path) && plan.item(path)?.is_none() {
            differences.note(reserve, path, None, None);
        }
    }
    plan.gone = if differences.gone.is_empty() { gone } else { gone.union(&differences.gone) };
    plan.near = near.found;
    plan.marks = differences.marks;
    plan.odd = differences.odd;
    plan.exceptions = differences.exceptions;
    plan.removed_bytes = differences.removed_bytes;
    plan.sums.changes = differences.wanted + plan.gone.len();
    sources::find(&mut plan, &|| Box::new(all_had()), reserve, contents_at_a_time)?;
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
    marks: Marks,
    gone: PathList,
    odd: Vec<Odd>,
    /// How many of those that are wanted change.
    wanted: u64,
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
        let Some(new) = new else {
            self.removed_bytes += old.map_or(0, |old| old.entry.size());
            self.gone.push(path, old.is_some());
            return true;
        };
        self.wanted += 1;
        let other_kind = old.is_some_and(|old| kind(old) != kind(new));
        let mut mark = Mark::change(old.is_some(), other_kind);
        let source = new.key().map(|_| Source::Fetch);
        if source.is_some() {
            mark.set_from(From::Fetch);
        }
        match new.number {
            Some(number) => self.marks.set(number, mark),
            None => {
                let (path, had) = (path.clone(), old.is_some());
                let change = Change { path, had, other_kind, source, wanted: true };
                self.odd.push(Odd { change, mark, more_keys: Vec::new() });
            }
        }
        true
    }
}

/// Keeps of the wanted entries, as they pass in order, those at and above the paths that change;
/// nothing where they are many.
struct Near {
    found: Option<Vec<Item>>,
    /// The directories around the entry that passed last; `None` once kept.
    open: Vec<(TreePath, Option<Item>)>,
}

impl Default for Near {
    fn default() -> Self {
        Self { found: Some(Vec::new()), open: Vec::new() }
    }
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
        let Some(found) = &mut self.found else { return };
        let around = self.open.iter_mut().filter(|(dir, _)| path.is_inside(dir));
        found.extend(around.filter_map(|(_, item)| item.take()));
        if found.len() > MOST_NEAR {
            self.found = None;
        }
    }

    fn pass(&mut self, item: Item, changes: bool) {
        let path = item.entry.path.clone();
        if changes {
            self.above(&path);
            if item.entry.is_dir() {
                self.open.push((path, None));
            }
            if let Some(found) = &mut self.found {
                found.push(item);
            }
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

/// Both in path order; they have no path in common.
pub(super) fn in_order(
    one: impl Iterator<Item = Result<Change, manifest::Error>>,
    two: impl Iterator<Item = Result<Change, manifest::Error>>,
) -> impl Iterator<Item = Result<Change, manifest::Error>> {
    let (mut one, mut two) = (one.peekable(), two.peekable());
    std::iter::from_fn(move || match (one.peek(), two.peek()) {
        (Some(Ok(first)), Some(Ok(second))) if second.path < first.path => two.next(),
        (None, _) => two.next(),
        _ => one.next(),
    })
}
