//! What a run takes away from a mirror, and what it leaves there on purpose.
//!
//! Two things take files away: the upstream no longer has them, or a filter that changed leaves
//! them out. The first was announced; the second may be a slip of the pen, so what becomes of it
//! is the assignment's choice (`on-exclude`). Either way rules that speak to the receiver have the
//! last word, exactly as with rsync's `--delete`.

use std::{cell::Cell, collections::HashSet, fmt};

use protocol::{
    filter::{Filter, WalkError, Wanted},
    manifest::{Entry, Manifest},
    path::TreePath,
    spec::OnExclude,
};

/// How many paths a notice names.
const NAMED: usize = 3;

/// Files, their bytes, and the first of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Files {
    /// How many.
    pub files: u64,
    /// Their sizes together.
    pub bytes: u64,
    first: Vec<TreePath>,
}

/// What becomes of everything that is held and not wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removals {
    /// All that is held, as the older rules show it.
    pub held: Files,
    /// All that goes.
    pub removed: Files,
    /// That of it which only the filter leaves out: no publisher said that it is gone.
    pub left_out: Files,
    /// What stays, though the filter newly leaves it out.
    pub kept: Files,
    /// What stays, because a rule protects it, though the upstream no longer has it.
    pub protected: Files,
    /// What stays and is nobody's business from now on: the topmost paths, in order.
    pub apart: Vec<TreePath>,
    hidden: HashSet<TreePath>,
}

/// The two states that are compared, each with the filter through which it is seen.
#[derive(Debug, Clone, Copy)]
pub struct Change<'a> {
    /// What is held.
    pub have: &'a Manifest,
    /// Through which filter it was applied; `None` where all of it is wanted.
    pub have_filter: Option<&'a Filter>,
    /// What is wanted.
    pub want: &'a Manifest,
    /// What is kept of it.
    pub filter: &'a Filter,
    /// Whether a publisher signed what is wanted, as it is without the filter.
    pub signed: bool,
    /// What happens to that which the filter newly leaves out.
    pub on_exclude: OnExclude,
}

impl Change<'_> {
    /// Goes through all that is held. Reads nothing: agents never follow rule files in a tree.
    pub fn removals(&self) -> Result<Removals, WalkError> {
        let held = match self.have_filter {
            Some(filter) => kept(self.have, filter),
            None => self.have.entries().iter().collect(),
        };
        let wanted = kept(self.want, self.filter);
        let at = Cell::new(0);
        // Both are in path order, so one look goes along with the other.
        let wanted = |path: &TreePath| {
            while wanted.get(at.get()).is_some_and(|entry| entry.path < *path) {
                at.set(at.get() + 1);
            }
            match wanted.get(at.get()) {
                Some(entry) if entry.path != *path => Wanted::Nothing,
                Some(entry) if entry.is_dir() => Wanted::Directory,
                Some(_) => Wanted::Other,
                None => Wanted::Nothing,
            }
        };
        let protecting = match self.on_exclude {
            OnExclude::Keep => self.filter.clone(),
            OnExclude::Remove => self.filter.removing_excluded(),
        };
        let local = held.iter().map(|entry| (entry.path.clone(), entry.is_dir()));
        let removed = protecting.removals(local, wanted, |_, _| Ok(None))?;
        at.set(0);
        Ok(self.sort(&held, &removed, |path| wanted(path) != Wanted::Nothing))
    }

    fn sort(
        &self,
        held: &[&Entry],
        removed: &[TreePath],
        is_wanted: impl Fn(&TreePath) -> bool,
    ) -> Removals {
        let mut all = Removals::default();
        let mut removed = removed.iter().peekable();
        for entry in held {
            let path = &entry.path;
            all.held.add(entry);
            let goes = removed.next_if(|next| *next == path).is_some();
            if !goes && is_wanted(path) {
                continue;
            }
            let is_left_out = !self.filter.keeps(path, entry.is_dir());
            if goes {
                all.removed.add(entry);
                if is_left_out && (!self.signed || self.want.get(path).is_some()) {
                    all.left_out.add(entry);
                }
                continue;
            }
            let stays = if is_left_out { &mut all.kept } else { &mut all.protected };
            stays.add(entry);
            // A directory that stays for what is inside of it is looked into; the rest is apart.
            let is_entered = removed.peek().is_some_and(|next| next.is_inside(path));
            if !is_entered && !all.apart.last().is_some_and(|above| path.is_inside(above)) {
                all.apart.push(path.clone());
                all.hidden.insert(path.clone());
            }
        }
        all
    }
}

impl Removals {
    /// The same as seen from the directory of one version.
    pub fn below(mut self, version: &TreePath) -> Self {
        self.apart = self.apart.iter().filter_map(|path| path.below(version)).collect();
        self.hidden = self.hidden.iter().filter_map(|path| path.below(version)).collect();
        self
    }

    /// Whether a held path is compared with what is wanted: it is wanted, or it goes.
    pub fn concerns(&self, path: &TreePath) -> bool {
        !self.hidden.contains(path)
    }

    /// What an admin should know before, or after, it happened.
    pub fn notices(&self) -> impl Iterator<Item = String> {
        let tell = |files: &Files, what: &str| (files.files > 0).then(|| format!("{files} {what}"));
        [
            tell(&self.left_out, "go, because the filter now leaves them out (on-exclude: remove)"),
            tell(&self.kept, "stay, though the filter now leaves them out (on-exclude: keep)"),
            tell(
                &self.protected,
                "stay, though the upstream has them no longer: a rule protects them",
            ),
        ]
        .into_iter()
        .flatten()
    }
}

impl Files {
    /// Counts an entry, unless it is a directory.
    pub fn add(&mut self, entry: &Entry) {
        if entry.is_dir() {
            return;
        }
        self.files += 1;
        self.bytes += entry.size();
        if self.first.len() < NAMED {
            self.first.push(entry.path.clone());
        }
    }
}

/// Count, size, and the first paths.
impl fmt::Display for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { files, bytes, first } = self;
        let more = if *files > first.len() as u64 { ", …" } else { "" };
        let first: Vec<_> = first.iter().map(ToString::to_string).collect();
        write!(f, "{files} files of {bytes} bytes ({}{more})", first.join(", "))
    }
}

/// The entries that a filter keeps, in order; what lies in a directory that is left out is not.
fn kept<'m>(manifest: &'m Manifest, filter: &Filter) -> Vec<&'m Entry> {
    let mut hidden: Option<&TreePath> = None;
    let mut kept = Vec::with_capacity(manifest.entries().len());
    for entry in manifest.entries() {
        if hidden.is_some_and(|dir| entry.path.is_inside(dir)) {
            continue;
        }
        if filter.decide(&entry.path, entry.is_dir()).kept {
            kept.push(entry);
        } else if entry.is_dir() {
            hidden = Some(&entry.path);
        }
    }
    kept
}

#[cfg(test)]
mod tests;
