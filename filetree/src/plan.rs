//! What leads from the generation a site has to the one it wants.
//!
//! A pure comparison of two manifests, each seen through what the assignment keeps of it: nothing
//! here looks at a disk. The result names every path that changes, where each new content comes
//! from, and what has to be fetched; a path that neither manifest names is never part of a plan,
//! so nothing local is ever removed by it.

mod compare;
mod view;

use std::collections::HashSet;

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
use self::{compare::merge, view::Kept};
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
        Item { entry: self.entry.clone(), mode: self.entry.mode }
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
                let Item { entry, mode } = item?;
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
        for withdrawn in candidates {
            let path = &withdrawn.entry.path;
            let has_place = match path.parent() {
                None => true,
                Some(above) => match plan.item(&above)? {
                    Some(item) => item.entry.is_dir(),
                    None => dirs.contains(&above),
                },
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
/// Takes memory for what changes and one bit for everything else: of the wanted manifest no more is
/// held than its place allows.
#[derive(Debug, Clone)]
pub struct Plan {
    want: SharedEntries,
    withdrawn: Vec<Withdrawn>,
    grace: Option<Grace>,
    kept: Kept,
    modes: Modes,
    changes: Vec<Change>,
    /// What will be at the paths that change, and the directories above them, in order.
    near: Vec<Item>,
    needs: Vec<Need>,
    copies: Vec<Need>,
    exceptions: Vec<TreePath>,
    removed_bytes: u64,
    /// What holds a PROTECTED file, as far as it is known: the root, and directories.
    pub(crate) protected: (bool, Vec<TreePath>),
}

impl Plan {
    /// Whether the two generations are, for this site, the same.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Every path that differs, in order.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// The contents that have to come from elsewhere, in path order.
    pub fn needs(&self) -> &[Need] {
        &self.needs
    }

    /// The contents that the live tree has, but with other attributes.
    pub fn copies(&self) -> &[Need] {
        &self.copies
    }

    /// Paths that stay as they are: a directory above them holds a PROTECTED file, or the name is
    /// reserved for our own work.
    pub fn exceptions(&self) -> &[TreePath] {
        &self.exceptions
    }

    /// Bytes that have to be fetched.
    pub fn fetch_bytes(&self) -> u64 {
        self.needs.iter().map(|need| need.size).sum()
    }

    /// Bytes that staging will hold.
    pub fn staged_bytes(&self) -> u64 {
        let bytes = |need: &Need| need.size.saturating_mul(need.keys.len() as u64);
        self.needs.iter().chain(&self.copies).map(bytes).sum()
    }

    /// Paths that the older generation has and the newer has not.
    pub fn removals(&self) -> impl Iterator<Item = &TreePath> {
        self.changes.iter().filter(|change| !change.wanted).map(|change| &change.path)
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
        let Some(item) = self.item(path)? else { return Ok(None) };
        let Some(key) = item.key() else { return Ok(None) };
        let size = item.entry.size();
        Ok(Some(Need { digest: key.digest, size, path: path.clone(), keys: vec![key] }))
    }

    /// The entry that this site will hold at `path`. What changes, and what is above it, is at hand;
    /// anything else costs a look into the manifest, least where paths are asked for in order.
    pub(crate) fn item(&self, path: &TreePath) -> Result<Option<Item>, manifest::Error> {
        if let Ok(at) = self.near.binary_search_by(|item| item.entry.path.cmp(path)) {
            return Ok(Some(self.near[at].clone()));
        }
        if self.changes.binary_search_by(|change| change.path.cmp(path)).is_err()
            && let Some((number, entry)) = self.want.locate(path)?
            && self.kept.has(number)
        {
            return Ok(Some(self.wanted(entry)));
        }
        let at = self.withdrawn.binary_search_by(|w| w.entry.path.cmp(path)).ok();
        Ok(at.map(|at| self.withdrawn[at].item()))
    }

    /// Every entry that this site will hold, in order.
    pub(crate) fn items(&self) -> impl Iterator<Item = Result<Item, manifest::Error>> {
        let numbered = self.want.each().zip(0..);
        let wanted = numbered.filter_map(|(entry, number)| match entry {
            Ok(entry) => self.kept.has(number).then(|| Ok(self.wanted(entry))),
            Err(error) => Some(Err(error)),
        });
        merge(wanted, &self.withdrawn)
    }

    fn wanted(&self, entry: Entry) -> Item {
        Item { mode: self.modes.of(&entry), entry }
    }

    /// Where the file at `path` comes from: as planned, else unchanged from the live tree.
    pub(crate) fn source(&self, path: &TreePath) -> Source {
        let change = self.changes.binary_search_by(|change| change.path.cmp(path)).ok();
        match change.and_then(|at| self.changes[at].source.clone()) {
            Some(source) => source,
            None => Source::Live(path.clone()),
        }
    }

    pub(crate) fn paths(&self) -> PathList {
        PathList(self.changes.iter().map(|change| (change.path.clone(), change.had)).collect())
    }
}

#[cfg(test)]
mod tests;
