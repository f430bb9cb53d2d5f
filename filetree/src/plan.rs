//! What leads from the generation a site has to the one it wants.
//!
//! A pure comparison of two manifests, each seen through what the assignment keeps of it: nothing
//! here looks at a disk. The result names every path that changes, where each new content comes
//! from, and what has to be fetched; a path that neither manifest names is never part of a plan,
//! so nothing local is ever removed by it.

mod compare;
mod marks;
mod sources;
mod view;

use std::collections::{BTreeMap, HashSet};

use protocol::{
    digest::Digest,
    manifest::{self, Entry, EntryKind, LinkGroup, SharedEntries},
    path::TreePath,
};

pub(crate) use self::compare::{compare_with, seen};
pub use self::{
    compare::compare,
    view::{Modes, View},
};
use self::{
    compare::{in_order, merge},
    marks::{From, Mark, Marks},
    view::Kept,
};
use crate::{record::PathList, safe_path};

/// What makes two files interchangeable on a disk: the same content with the same attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileKey {
    /// Digest of the content.
    pub digest: Digest,
    /// Permission bits.
    pub mode: u32,
    /// Modification time, ns since 1970.
    pub mtime: i64,
    /// Set where files share an inode on purpose.
    pub group: Option<LinkGroup>,
}

/// Where a file's inode comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The live tree has this very file at that path.
    Live(TreePath),
    /// The live tree has the content at that path, with other attributes: copied, because the
    /// inode is shared.
    Copy(TreePath),
    /// Nothing local is known to have it.
    Fetch,
}

/// Something at one path that differs between the two generations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Where.
    pub path: TreePath,
    /// Whether the older generation has the path.
    pub had: bool,
    /// Whether one of the two is a directory and the other is not.
    pub other_kind: bool,
    /// Where the new file comes from; `None` for a removal, a directory or a symlink.
    pub source: Option<Source>,
    /// Whether the newer generation has the path.
    pub wanted: bool,
}

/// A content that has to be staged, once for all its uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// Digest of the content.
    pub digest: Digest,
    /// Length in bytes.
    pub size: u64,
    /// The first path, in order, that needs it.
    pub path: TreePath,
    /// The attributes it is needed with.
    pub keys: Vec<FileKey>,
}

/// An entry of the wanted generation as this site will hold it.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    pub(crate) entry: Entry,
    pub(crate) mode: u32,
    /// By which number the wanted manifest knows it, if it is from there.
    pub(crate) number: Option<u64>,
}

impl Item {
    pub(crate) fn key(&self) -> Option<FileKey> {
        match self.entry.kind {
            EntryKind::File { digest, link_group: group, .. } => {
                Some(FileKey { digest, mode: self.mode, mtime: self.entry.mtime, group })
            }
            _ => None,
        }
    }

    fn same_as(&self, other: &Self) -> bool {
        self.mode == other.mode
            && self.entry.mtime == other.entry.mtime
            && self.entry.kind == other.entry.kind
    }
}

/// For how long removed paths stay readable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grace {
    /// Now, in seconds since 1970.
    pub now: i64,
    /// Seconds from the switch that would have removed them; 0 removes at once.
    pub keep: i64,
}

/// An entry that no generation has any more and that stays readable for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Withdrawn {
    /// As it lies there: the mode is the site's.
    pub(crate) entry: Entry,
    /// Until when, in seconds since 1970; `None` where the switch that is planned decides.
    pub(crate) until: Option<i64>,
}

impl Withdrawn {
    fn item(&self) -> Item {
        Item { entry: self.entry.clone(), mode: self.entry.mode, number: None }
    }
}

/// What must not be relied upon or touched, beyond what the manifests say.
#[derive(Debug, Default)]
pub(crate) struct Reserve {
    /// What the live tree has beside the older manifest, in order.
    pub(crate) withdrawn: Vec<Withdrawn>,
    /// Whether anything stays readable; `None` removes everything at once.
    pub(crate) grace: Option<Grace>,
    /// The root holds a PROTECTED file: nothing may be touched.
    pub(crate) protected_root: bool,
    /// Directories that hold a PROTECTED file.
    pub(crate) protected: Vec<TreePath>,
    /// Paths whose live content may not be what the older manifest says.
    pub(crate) unsure: HashSet<TreePath>,
    /// Those of them that were looked at and hold what the newer manifest wants.
    pub(crate) settled: HashSet<TreePath>,
    /// What the live tree has is read before it is used: files may share what is damaged.
    pub(crate) unread: bool,
}

impl Reserve {
    fn shields(&self, path: &TreePath) -> bool {
        safe_path::is_reserved(path)
            || self.protected_root
            || self.protected.iter().any(|dir| path == dir || path.is_inside(dir))
    }

    /// What `plan` removes and readers may still ask for: all that went before and whose time is
    /// not up, and what goes now. Each has a place, as the wanted tree has a directory above it.
    fn still_readable(
        &self,
        plan: &Plan,
        had: impl Iterator<Item = Result<Item, manifest::Error>>,
    ) -> Result<Vec<Withdrawn>, manifest::Error> {
        let Some(grace) = self.grace else { return Ok(Vec::new()) };
        let older = self.withdrawn.iter().filter(|w| w.until.is_some_and(|t| t > grace.now));
        let mut candidates: Vec<Withdrawn> = older.cloned().collect();
        if grace.keep > 0 {
            let mut wanted = plan.items().peekable();
            for item in had {
                let Item { entry, mode, .. } = item?;
                let is_before = |next: &Result<Item, _>| {
                    next.as_ref().is_ok_and(|next: &Item| next.entry.path < entry.path)
                };
                while wanted.next_if(is_before).is_some() {}
                let stays = match wanted.peek() {
                    Some(Ok(next)) => next.entry.path == entry.path,
                    Some(Err(error)) => return Err(error.clone()),
                    None => false,
                };
                if !stays {
                    candidates.push(Withdrawn { entry: Entry { mode, ..entry }, until: None });
                }
            }
        }
        candidates.sort_by(|a, b| a.entry.path.cmp(&b.entry.path));
        candidates.dedup_by(|next, kept| next.entry.path == kept.entry.path);
        let mut dirs = HashSet::new();
        let mut readable = Vec::new();
        // Neighbors have one directory, and looking back in a manifest costs more than looking on.
        let mut last: Option<(TreePath, Option<bool>)> = None;
        for withdrawn in candidates {
            let path = &withdrawn.entry.path;
            let has_place = match path.parent() {
                None => true,
                Some(above) => {
                    let wanted = match &last {
                        Some((dir, wanted)) if *dir == above => *wanted,
                        _ => plan.item(&above)?.map(|item| item.entry.is_dir()),
                    };
                    let has_place = wanted.unwrap_or_else(|| dirs.contains(&above));
                    last = Some((above, wanted));
                    has_place
                }
            };
            let stays = has_place
                && plan.item(path)?.is_none()
                && !self.unsure.contains(path)
                && !self.shields(path);
            if stays && withdrawn.entry.is_dir() {
                dirs.insert(path.clone());
            }
            if stays {
                readable.push(withdrawn);
            }
        }
        Ok(readable)
    }
}

/// Everything that has to happen, in path order.
///
/// Takes a byte for every entry of the wanted manifest, however much changes; what changes is read
/// from there as it is asked for. Only removed paths, and files that come from another path of the
/// live tree, are held by name.
#[derive(Debug, Clone)]
pub struct Plan {
    want: SharedEntries,
    withdrawn: Vec<Withdrawn>,
    grace: Option<Grace>,
    kept: Kept,
    modes: Modes,
    marks: Marks,
    /// What the older generation has and the newer has not.
    gone: PathList,
    /// What changes though the wanted manifest does not have it: it stays readable.
    odd: Vec<Odd>,
    /// Where files come from that come from another path, by number.
    from: Vec<(u64, TreePath)>,
    /// Attributes that a content is needed with beside its first, by the number of its first use.
    more_keys: BTreeMap<u64, Vec<FileKey>>,
    /// Of a plan that changes little: what will be at the paths that change, and the directories
    /// above them, in order.
    near: Option<Vec<Item>>,
    sums: Sums,
    exceptions: Vec<TreePath>,
    removed_bytes: u64,
    /// What holds a PROTECTED file, as far as it is known: the root, and directories.
    pub(crate) protected: (bool, Vec<TreePath>),
}

/// A change of something that stays readable.
#[derive(Debug, Clone)]
struct Odd {
    change: Change,
    mark: Mark,
    more_keys: Vec<FileKey>,
}

/// What a plan comes to.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    changes: u64,
    needs: u64,
    fetch_bytes: u64,
    staged_bytes: u64,
    staged_files: u64,
}

impl Plan {
    /// Whether the two generations are, for this site, the same.
    pub fn is_empty(&self) -> bool {
        self.sums.changes == 0
    }

    /// How many paths differ.
    pub fn change_count(&self) -> u64 {
        self.sums.changes
    }

    /// How many contents have to come from elsewhere.
    pub fn need_count(&self) -> u64 {
        self.sums.needs
    }

    /// Every path that differs, in order.
    pub fn changes(&self) -> impl Iterator<Item = Result<Change, manifest::Error>> {
        let wanted = self.want.chosen(self.marks.all(|mark| mark.changes())).map(|found| {
            let (number, entry) = found?;
            let mark = self.marks.of(number);
            Ok(Change {
                had: mark.had(),
                other_kind: mark.other_kind(),
                source: mark.from().map(|from| self.source_from(from, number, &entry.path)),
                wanted: true,
                path: entry.path,
            })
        });
        let gone = self.gone.iter().map(|(path, had)| {
            Ok(Change { path, had, other_kind: false, source: None, wanted: false })
        });
        let odd = self.odd.iter().map(|odd| Ok(odd.change.clone()));
        in_order(in_order(wanted, gone), odd)
    }

    /// The contents that have to come from elsewhere, in path order.
    pub fn needs(&self) -> impl Iterator<Item = Result<Need, manifest::Error>> {
        self.staged(|from| from == From::Fetch).map(|found| Ok(found?.0))
    }

    /// The same, at most so many at a time: a first sync needs all contents of a tree.
    pub fn needs_in_parts(
        &self,
        most: usize,
    ) -> impl Iterator<Item = Result<Vec<Need>, manifest::Error>> {
        let mut needs = self.needs();
        std::iter::from_fn(move || {
            let part: Result<Vec<Need>, _> = needs.by_ref().take(most).collect();
            (!part.as_ref().is_ok_and(Vec::is_empty)).then_some(part)
        })
    }

    /// The contents that the live tree has, but with other attributes, and where it has them.
    pub fn copies(&self) -> impl Iterator<Item = Result<(Need, Source), manifest::Error>> {
        self.staged(|from| from == From::Copy)
    }

    fn staged(
        &self,
        is_meant: impl Fn(From) -> bool + Copy + Send + 'static,
    ) -> impl Iterator<Item = Result<(Need, Source), manifest::Error>> {
        let is_first = move |mark: Mark| mark.is_first() && mark.from().is_some_and(is_meant);
        let wanted = self.want.chosen(self.marks.all(is_first)).filter_map(move |found| {
            let (number, entry) = match found {
                Ok(found) => found,
                Err(error) => return Some(Err(error)),
            };
            let item = self.wanted(entry, number);
            let mut need = Need::of(&item)?;
            need.keys.extend(self.more_keys.get(&number).into_iter().flatten());
            Some(Ok((need, self.source(&item))))
        });
        let odd = self.odd.iter().filter(move |odd| is_first(odd.mark)).filter_map(|odd| {
            let item = self.withdrawn_item(&odd.change.path)?;
            let mut need = Need::of(&item)?;
            need.keys.extend(&odd.more_keys);
            Some(Ok((need, odd.change.source.clone()?)))
        });
        wanted.chain(odd)
    }

    /// Paths that stay as they are: a directory above them holds a PROTECTED file, or the name is
    /// reserved for our own work.
    pub fn exceptions(&self) -> &[TreePath] {
        &self.exceptions
    }

    /// Bytes that have to be fetched.
    pub fn fetch_bytes(&self) -> u64 {
        self.sums.fetch_bytes
    }

    /// Bytes that staging will hold.
    pub fn staged_bytes(&self) -> u64 {
        self.sums.staged_bytes
    }

    /// Files that staging will hold.
    pub(crate) fn staged_files(&self) -> u64 {
        self.sums.staged_files
    }

    /// Paths that the older generation has and the newer has not.
    pub fn removals(&self) -> impl Iterator<Item = TreePath> {
        self.gone.iter().map(|(path, _)| path)
    }

    /// How many those are.
    pub fn removal_count(&self) -> u64 {
        self.gone.len()
    }

    /// Content bytes of the files that the older generation has and the newer has not.
    pub fn removed_bytes(&self) -> u64 {
        self.removed_bytes
    }

    /// How many directories and symlinks this site will hold: what a new twin takes inodes for.
    pub(crate) fn kept_without_files(&self) -> usize {
        let withdrawn = self.withdrawn.iter().filter(|w| !w.entry.is_file());
        self.kept.entries - self.kept.files + withdrawn.count()
    }

    /// How many files, directories and symlinks this site will hold.
    pub fn kept_entries(&self) -> usize {
        self.kept.entries + self.withdrawn.len()
    }

    /// How many paths the newer generation no longer has that stay readable for now, and those
    /// of them that only this plan withdraws.
    pub fn withdrawn_entries(&self) -> (u64, u64) {
        let new = self.withdrawn.iter().filter(|w| w.until.is_none()).count();
        (self.withdrawn.len() as u64, new as u64)
    }

    /// The entries that stay readable, with the time that a switch at `now` gives them.
    pub(crate) fn withdrawn_at(&self, now: i64) -> Vec<Withdrawn> {
        let keep = self.grace.map_or(0, |grace| grace.keep);
        let until = now.saturating_add(keep);
        let mut all = self.withdrawn.clone();
        all.iter_mut().for_each(|w| w.until = w.until.or(Some(until)));
        all
    }

    /// The need that one path alone would be.
    pub(crate) fn need(&self, path: &TreePath) -> Result<Option<Need>, manifest::Error> {
        Ok(self.item(path)?.as_ref().and_then(Need::of))
    }

    /// The entry that this site will hold at `path`. Of a plan that changes little, what changes and
    /// what is above it is at hand; anything else costs a look into the manifest, least where paths
    /// are asked for in order.
    pub(crate) fn item(&self, path: &TreePath) -> Result<Option<Item>, manifest::Error> {
        if let Some(near) = &self.near
            && let Ok(at) = near.binary_search_by(|item| item.entry.path.cmp(path))
        {
            return Ok(Some(near[at].clone()));
        }
        if self.gone.had(path).is_none()
            && let Some((number, entry)) = self.want.locate(path)?
            && self.kept.has(number)
        {
            return Ok(Some(self.wanted(entry, number)));
        }
        Ok(self.withdrawn_item(path))
    }

    fn withdrawn_item(&self, path: &TreePath) -> Option<Item> {
        let at = self.withdrawn.binary_search_by(|w| w.entry.path.cmp(path)).ok()?;
        Some(self.withdrawn[at].item())
    }

    /// Every entry that this site will hold, in order.
    pub(crate) fn items(&self) -> impl Iterator<Item = Result<Item, manifest::Error>> {
        let numbered = self.want.each().zip(0..);
        let wanted = numbered.filter_map(|(entry, number)| match entry {
            Ok(entry) => self.kept.has(number).then(|| Ok(self.wanted(entry, number))),
            Err(error) => Some(Err(error)),
        });
        merge(wanted, &self.withdrawn)
    }

    fn wanted(&self, entry: Entry, number: u64) -> Item {
        Item { mode: self.modes.of(&entry), entry, number: Some(number) }
    }

    /// Where a file comes from: as planned, else unchanged from the live tree.
    pub(crate) fn source(&self, item: &Item) -> Source {
        let path = &item.entry.path;
        let planned = match item.number {
            Some(number) => {
                self.marks.of(number).from().map(|from| self.source_from(from, number, path))
            }
            None => self.odd(path).and_then(|odd| odd.change.source.clone()),
        };
        planned.unwrap_or_else(|| Source::Live(path.clone()))
    }

    fn source_from(&self, from: From, number: u64, path: &TreePath) -> Source {
        let there = || {
            let at = self.from.binary_search_by_key(&number, |(number, _)| *number).ok();
            at.map_or(path, |at| &self.from[at].1).clone()
        };
        match from {
            From::Fetch => Source::Fetch,
            From::Copy => Source::Copy(there()),
            From::Live => Source::Live(there()),
        }
    }

    fn odd(&self, path: &TreePath) -> Option<&Odd> {
        let at = self.odd.binary_search_by(|odd| odd.change.path.cmp(path)).ok()?;
        Some(&self.odd[at])
    }

    /// Whether the path is one that changes, and the older generation has it.
    pub(crate) fn had(&self, path: &TreePath) -> Result<bool, manifest::Error> {
        if let Some(had) = self.gone.had(path) {
            return Ok(had);
        }
        Ok(match self.item(path)?.map(|item| item.number) {
            Some(Some(number)) => self.marks.of(number).had(),
            Some(None) => self.odd(path).is_some_and(|odd| odd.change.had),
            None => false,
        })
    }

    pub(crate) fn paths(&self) -> Result<PathList, manifest::Error> {
        self.changes().map(|change| change.map(|change| (change.path, change.had))).collect()
    }
}

#[cfg(test)]
impl Plan {
    pub(crate) fn all_needs(&self) -> Vec<Need> {
        self.needs().collect::<Result<_, _>>().unwrap()
    }

    pub(crate) fn all_changes(&self) -> Vec<Change> {
        self.changes().collect::<Result<_, _>>().unwrap()
    }

    pub(crate) fn all_copies(&self) -> Vec<(Need, Source)> {
        self.copies().collect::<Result<_, _>>().unwrap()
    }
}

impl Need {
    fn of(item: &Item) -> Option<Self> {
        let key = item.key()?;
        let (size, path) = (item.entry.size(), item.entry.path.clone());
        Some(Self { digest: key.digest, size, path, keys: vec![key] })
    }
}

#[cfg(test)]
mod tests;
