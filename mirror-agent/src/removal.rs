//! What a run takes away from a mirror, and what it leaves there on purpose.
//!
//! Two things take files away: the upstream no longer has them, or a filter that changed leaves
//! them out. The first was announced; the second may be a slip of the pen, so what becomes of it
//! is the assignment's choice (`on-exclude`). Either way rules that speak to the receiver have the
//! last word, exactly as with rsync's `--delete`.

use std::{cell::RefCell, collections::HashSet, fmt, iter::Peekable};

use protocol::{
    filter::{Filter, WalkError, Wanted},
    manifest::{self, Entries, Entry},
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
    pub have: &'a dyn Entries,
    /// Through which filter it was applied; `None` where all of it is wanted.
    pub have_filter: Option<&'a Filter>,
    /// What is wanted.
    pub want: &'a dyn Entries,
    /// What is kept of it.
    pub filter: &'a Filter,
    /// Whether a publisher signed what is wanted, as it is without the filter.
    pub signed: bool,
    /// What happens to that which the filter newly leaves out.
    pub on_exclude: OnExclude,
}

/// Why it cannot be said what goes.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The rules.
    #[error(transparent)]
    Walk(#[from] WalkError),
    /// A manifest cannot be read where it is kept.
    #[error(transparent)]
    Manifest(#[from] manifest::Error),
}

impl Change<'_> {
    /// Goes through all that is held. Reads nothing: agents never follow rule files in a tree.
    pub fn removals(&self) -> Result<Removals, Error> {
        let protecting = match self.on_exclude {
            OnExclude::Keep => self.filter.clone(),
            OnExclude::Remove => self.filter.removing_excluded(),
        };
        let unread = RefCell::new(None);
        let note = |error| {
            unread.borrow_mut().get_or_insert(error);
        };
        let local = kept(self.have, self.have_filter).map_while(|entry| match entry {
            Ok(entry) => Some((entry.path.clone(), entry.is_dir())),
            Err(error) => {
                note(error);
                None
            }
        });
        let wanted = RefCell::new(Beside::of(kept(self.want, Some(self.filter))));
        let is_wanted = |path: &TreePath| {
            wanted.borrow_mut().at(path).unwrap_or_else(|error| {
                note(error);
                Wanted::Nothing
            })
        };
        let removed = protecting.removals(local, is_wanted, |_, _| Ok(None))?;
        // Of what was not read to its end nothing may be believed.
        if let Some(error) = unread.take() {
            return Err(error.into());
        }
        Ok(self.sort(&removed)?)
    }

    fn sort(&self, removed: &[TreePath]) -> Result<Removals, manifest::Error> {
        let mut all = Removals::default();
        let mut removed = removed.iter().peekable();
        let mut wanted = Beside::of(kept(self.want, Some(self.filter)));
        for entry in kept(self.have, self.have_filter) {
            let entry = entry?;
            let path = &entry.path;
            all.held.add(&entry);
            let goes = removed.next_if(|next| *next == path).is_some();
            if !goes && wanted.at(path)? != Wanted::Nothing {
                continue;
            }
            let is_left_out = !self.filter.keeps(path, entry.is_dir());
            if goes {
                all.removed.add(&entry);
                if is_left_out && (!self.signed || self.want.find(path)?.is_some()) {
                    all.left_out.add(&entry);
                }
                continue;
            }
            let stays = if is_left_out { &mut all.kept } else { &mut all.protected };
            stays.add(&entry);
            // A directory that stays for what is inside of it is looked into; the rest is apart.
            let is_entered = removed.peek().is_some_and(|next| next.is_inside(path));
            if !is_entered && !all.apart.last().is_some_and(|above| path.is_inside(above)) {
                all.apart.push(path.clone());
                all.hidden.insert(path.clone());
            }
        }
        Ok(all)
    }
}

/// Goes along with another list in path order, and says what is wanted at its paths.
struct Beside<I: Iterator>(Peekable<I>);

impl<I: Iterator<Item = Result<Entry, manifest::Error>>> Beside<I> {
    fn of(wanted: I) -> Self {
        Self(wanted.peekable())
    }

    fn at(&mut self, path: &TreePath) -> Result<Wanted, manifest::Error> {
        let is_before =
            |entry: &Result<Entry, _>| entry.as_ref().is_ok_and(|entry: &Entry| entry.path < *path);
        while self.0.next_if(is_before).is_some() {}
        match self.0.peek() {
            Some(Err(error)) => Err(error.clone()),
            Some(Ok(entry)) if entry.path == *path && entry.is_dir() => Ok(Wanted::Directory),
            Some(Ok(entry)) if entry.path == *path => Ok(Wanted::Other),
            _ => Ok(Wanted::Nothing),
        }
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

/// The entries that a filter keeps, in order, all where there is none; what lies in a directory that
/// is left out is not.
fn kept<'m>(
    manifest: &'m dyn Entries,
    filter: Option<&'m Filter>,
) -> impl Iterator<Item = Result<Entry, manifest::Error>> + 'm {
    let mut hidden: Option<TreePath> = None;
    manifest.each().filter(move |entry| {
        let (Ok(entry), Some(filter)) = (entry, filter) else { return true };
        if hidden.as_ref().is_some_and(|dir| entry.path.is_inside(dir)) {
            return false;
        }
        let is_kept = filter.decide(&entry.path, entry.is_dir()).kept;
        if !is_kept && entry.is_dir() {
            hidden = Some(entry.path.clone());
        }
        is_kept
    })
}

#[cfg(test)]
mod tests;
