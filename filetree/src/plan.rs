//! What leads from the generation a site has to the one it wants.
//!
//! A pure comparison of two manifests, each seen through what the assignment keeps of it: nothing
//! here looks at a disk. The result names every path that changes, where each new content comes
//! from, and what has to be fetched; a path that neither manifest names is never part of a plan,
//! so nothing local is ever removed by it.

use std::{
    cmp::Ordering,
    collections::{HashMap, HashSet},
    fmt,
    sync::Arc,
};

use protocol::{
    digest::Digest,
    manifest::{Entry, EntryKind, LinkGroup, Manifest},
    path::TreePath,
    symlinks::Symlinks,
};

use crate::{record::PathList, safe_path, scan::Keep};

/// Permission bits that an assignment adds to and takes from what a manifest says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Modes {
    /// Bits that every file gets.
    pub file_set: u32,
    /// Bits that no file has.
    pub file_clear: u32,
    /// Bits that every directory gets.
    pub dir_set: u32,
    /// Bits that no directory has.
    pub dir_clear: u32,
}

impl Modes {
    /// As the manifest says.
    pub const AS_IS: Self = Self { file_set: 0, file_clear: 0, dir_set: 0, dir_clear: 0 };

    /// As the manifest says, and readable by everyone: the default of an assignment.
    pub const READABLE: Self = Self { file_set: 0o444, dir_set: 0o555, ..Self::AS_IS };

    fn of(&self, entry: &Entry) -> u32 {
        match entry.kind {
            EntryKind::File { .. } => (entry.mode & !self.file_clear) | self.file_set,
            EntryKind::Dir => (entry.mode & !self.dir_clear) | self.dir_set,
            EntryKind::Symlink { .. } => 0,
        }
    }
}

/// How a site sees a manifest: what it keeps, and with which modes.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// The assignment's filter.
    pub keep: Keep<'a>,
    /// The assignment's modes.
    pub modes: Modes,
    /// Symbolic links that are kept, as far as `keep` keeps them.
    pub symlinks: Symlinks,
}

impl View<'_> {
    /// Everything, as it is.
    pub const AS_IS: View<'static> =
        View { keep: &crate::scan::keep_all, modes: Modes::AS_IS, symlinks: Symlinks::All };

    /// Numbers of the entries that are kept, in order. What lies inside a directory that is not
    /// kept is not kept.
    fn kept(&self, manifest: &Manifest) -> Vec<u32> {
        let mut hidden: Option<&TreePath> = None;
        let mut kept = Vec::new();
        for (at, entry) in manifest.entries().iter().enumerate() {
            if hidden.is_some_and(|dir| entry.path.is_inside(dir)) {
                continue;
            }
            if (self.keep)(&entry.path, entry.is_dir()) {
                if self.carries(entry) {
                    kept.push(at as u32);
                }
            } else if entry.is_dir() {
                hidden = Some(&entry.path);
            }
        }
        kept
    }
}

impl View<'_> {
    fn carries(&self, entry: &Entry) -> bool {
        match &entry.kind {
            EntryKind::Symlink { target } => self.symlinks.allows(&entry.path, target),
            EntryKind::File { .. } | EntryKind::Dir => true,
        }
    }
}

impl fmt::Debug for View<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "View({:?})", self.modes)
    }
}

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
#[derive(Debug, Clone, Copy)]
pub(crate) struct Item<'a> {
    pub(crate) entry: &'a Entry,
    pub(crate) mode: u32,
}

impl Item<'_> {
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
    fn item(&self) -> Item<'_> {
        Item { entry: &self.entry, mode: self.entry.mode }
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
    fn still_readable<'a>(
        &self,
        plan: &Plan,
        had: impl Iterator<Item = Item<'a>>,
    ) -> Vec<Withdrawn> {
        let Some(grace) = self.grace else { return Vec::new() };
        let older = self.withdrawn.iter().filter(|w| w.until.is_some_and(|t| t > grace.now));
        let mut candidates: Vec<Withdrawn> = older.cloned().collect();
        if grace.keep > 0 {
            let mut wanted = plan.items().peekable();
            candidates.extend(had.filter_map(|item| {
                let path = &item.entry.path;
                while wanted.next_if(|next| next.entry.path < *path).is_some() {}
                let stays = wanted.peek().is_some_and(|next| next.entry.path == *path);
                let entry = || Entry { mode: item.mode, ..item.entry.clone() };
                (!stays).then(|| Withdrawn { entry: entry(), until: None })
            }));
        }
        candidates.sort_by(|a, b| a.entry.path.cmp(&b.entry.path));
        candidates.dedup_by(|next, kept| next.entry.path == kept.entry.path);
        let mut dirs = HashSet::new();
        candidates.retain(|Withdrawn { entry, .. }| {
            let path = &entry.path;
            let has_place = path.parent().is_none_or(|above| match plan.item(&above) {
                Some(item) => item.entry.is_dir(),
                None => dirs.contains(&above),
            });
            let stays = has_place
                && plan.item(path).is_none()
                && !self.unsure.contains(path)
                && !self.shields(path);
            if stays && entry.is_dir() {
                dirs.insert(path.clone());
            }
            stays
        });
        candidates
    }
}

/// Everything that has to happen, in path order.
#[derive(Debug, Clone)]
pub struct Plan {
    want: Arc<Manifest>,
    withdrawn: Vec<Withdrawn>,
    grace: Option<Grace>,
    kept: Vec<u32>,
    modes: Modes,
    changes: Vec<Change>,
    needs: Vec<Need>,
    copies: Vec<Need>,
    exceptions: Vec<TreePath>,
    removed_bytes: u64,
    /// What holds a PROTECTED file, as far as it is known: the root, and directories.
    pub(crate) protected: (bool, Vec<TreePath>),
}

/// Compares what a site has with what it wants.
pub fn compare(
    have: &Manifest,
    have_view: View<'_>,
    want: &Arc<Manifest>,
    want_view: View<'_>,
) -> Plan {
    compare_with(have, have_view, want, want_view, &Reserve::default())
}

pub(crate) fn compare_with(
    have: &Manifest,
    have_view: View<'_>,
    want: &Arc<Manifest>,
    want_view: View<'_>,
    reserve: &Reserve,
) -> Plan {
    let (have_kept, kept) = (have_view.kept(have), want_view.kept(want));
    let had = |at: u32| {
        let entry = &have.entries()[at as usize];
        Item { entry, mode: have_view.modes.of(entry) }
    };
    let mut plan = Plan {
        want: want.clone(),
        withdrawn: Vec::new(),
        grace: reserve.grace,
        kept,
        modes: want_view.modes,
        changes: Vec::new(),
        needs: Vec::new(),
        copies: Vec::new(),
        exceptions: Vec::new(),
        removed_bytes: 0,
        protected: (reserve.protected_root, reserve.protected.clone()),
    };
    plan.withdrawn = reserve.still_readable(&plan, have_kept.iter().map(|at| had(*at)));
    let all_had = || {
        let beside = reserve.withdrawn.iter().map(Withdrawn::item);
        merge(have_kept.iter().map(|at| had(*at)), beside)
    };
    let mut older = all_had().peekable();
    let mut changes = Vec::new();
    let mut exceptions = Vec::new();
    let mut removed_bytes = 0_u64;
    let mut note = |path: &TreePath, old: Option<Item<'_>>, new: Option<Item<'_>>| {
        if reserve.settled.contains(path) {
            return;
        }
        if reserve.shields(path) {
            exceptions.push(path.clone());
            return;
        }
        let kind = |item: Item<'_>| item.entry.is_dir();
        // A directory cannot give way to a file while something in it is protected.
        if old.is_some_and(kind)
            && new.is_some_and(|new| !kind(new))
            && reserve.protected.iter().any(|dir| dir.is_inside(path))
        {
            exceptions.push(path.clone());
            return;
        }
        if new.is_none() {
            removed_bytes += old.map_or(0, |old| old.entry.size());
        }
        changes.push(Change {
            path: path.clone(),
            had: old.is_some(),
            wanted: new.is_some(),
            other_kind: old.zip(new).is_some_and(|(old, new)| kind(old) != kind(new)),
            source: new.and_then(|item| item.key()).map(|_| Source::Fetch),
        });
    };
    for item in plan.items() {
        let path = &item.entry.path;
        while let Some(gone) = older.next_if(|old| old.entry.path < *path) {
            note(&gone.entry.path, Some(gone), None);
        }
        let old = older.next_if(|old| old.entry.path == *path);
        if reserve.unsure.contains(path) || !old.is_some_and(|old| old.same_as(&item)) {
            note(path, old, Some(item));
        }
    }
    for gone in older {
        note(&gone.entry.path, Some(gone), None);
    }
    // What an interrupted run may have put where neither manifest has anything.
    for path in &reserve.unsure {
        let position = have.position(path).and_then(|at| u32::try_from(at).ok());
        let beside = &reserve.withdrawn;
        let had = position.is_some_and(|at| have_kept.binary_search(&at).is_ok())
            || beside.binary_search_by(|w| w.entry.path.cmp(path)).is_ok();
        if plan.item(path).is_none() && !had {
            note(path, None, None);
        }
    }
    changes.sort_by(|a, b| a.path.cmp(&b.path));
    let wanted = changes.iter().filter_map(|change| plan.item(&change.path)?.key());
    let wanted: HashSet<Digest> = wanted.map(|key| key.digest).collect();
    let local = LocalContents::of(&wanted, all_had(), reserve);
    for change in changes.iter_mut().filter(|change| change.source.is_some()) {
        change.source = plan.item(&change.path).and_then(|item| local.source(&item));
    }
    plan.changes = changes;
    plan.exceptions = exceptions;
    plan.removed_bytes = removed_bytes;
    let (needs, copies) = gather(&plan);
    (plan.needs, plan.copies) = (needs, copies);
    plan
}

/// Both in path order; of two items with one path, the first.
fn merge<'a>(
    one: impl Iterator<Item = Item<'a>>,
    two: impl Iterator<Item = Item<'a>>,
) -> impl Iterator<Item = Item<'a>> {
    let (mut one, mut two) = (one.peekable(), two.peekable());
    std::iter::from_fn(move || {
        let order = match (one.peek(), two.peek()) {
            (Some(one), Some(two)) => one.entry.path.cmp(&two.entry.path),
            (Some(_), None) => Ordering::Less,
            (None, _) => Ordering::Greater,
        };
        match order {
            Ordering::Greater => two.next(),
            Ordering::Less => one.next(),
            Ordering::Equal => {
                two.next();
                one.next()
            }
        }
    })
}

/// Which of the wanted contents the live tree holds, and where.
struct LocalContents<'a> {
    by_key: HashMap<FileKey, &'a TreePath>,
    by_digest: HashMap<Digest, &'a TreePath>,
    unread: bool,
}

impl<'a> LocalContents<'a> {
    fn of(
        wanted: &HashSet<Digest>,
        items: impl Iterator<Item = Item<'a>>,
        reserve: &Reserve,
    ) -> Self {
        let (by_key, by_digest) = (HashMap::new(), HashMap::new());
        let mut local = Self { by_key, by_digest, unread: reserve.unread };
        for item in items {
            let path = &item.entry.path;
            if let Some(key) = item.key()
                && wanted.contains(&key.digest)
                && !reserve.unsure.contains(path)
            {
                local.by_key.entry(key).or_insert(path);
                local.by_digest.entry(key.digest).or_insert(path);
            }
        }
        local
    }

    fn source(&self, item: &Item<'_>) -> Option<Source> {
        let key = item.key()?;
        let copy = || self.by_digest.get(&key.digest).map(|path| Source::Copy((*path).clone()));
        let live = self.by_key.get(&key).filter(|_| !self.unread);
        let live = live.map(|path| Source::Live((*path).clone()));
        Some(live.or_else(copy).unwrap_or(Source::Fetch))
    }
}

fn gather(plan: &Plan) -> (Vec<Need>, Vec<Need>) {
    let (mut needs, mut copies) = (Vec::new(), Vec::new());
    let mut places: HashMap<Digest, (bool, usize)> = HashMap::new();
    for change in &plan.changes {
        let Some(source) = &change.source else { continue };
        let fetch = match source {
            Source::Live(_) => continue,
            Source::Copy(_) => false,
            Source::Fetch => true,
        };
        let Some(need) = plan.need(&change.path) else { continue };
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
    (needs, copies)
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
        self.items().filter(|item| !item.entry.is_file()).count()
    }

    /// How many files, directories and symlinks this site will hold.
    pub fn kept_entries(&self) -> usize {
        self.kept.len() + self.withdrawn.len()
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
    pub(crate) fn need(&self, path: &TreePath) -> Option<Need> {
        let item = self.item(path)?;
        let key = item.key()?;
        let size = item.entry.size();
        Some(Need { digest: key.digest, size, path: path.clone(), keys: vec![key] })
    }

    /// The entry that this site will hold at `path`.
    pub(crate) fn item(&self, path: &TreePath) -> Option<Item<'_>> {
        let wanted = || {
            let at = self.want.position(path)?;
            self.kept.binary_search(&u32::try_from(at).ok()?).ok()?;
            Some(self.wanted(at))
        };
        let withdrawn = || {
            let at = self.withdrawn.binary_search_by(|w| w.entry.path.cmp(path)).ok()?;
            Some(self.withdrawn[at].item())
        };
        wanted().or_else(withdrawn)
    }

    /// Every entry that this site will hold, in order.
    pub(crate) fn items(&self) -> impl Iterator<Item = Item<'_>> {
        let wanted = self.kept.iter().map(|at| self.wanted(*at as usize));
        merge(wanted, self.withdrawn.iter().map(Withdrawn::item))
    }

    fn wanted(&self, at: usize) -> Item<'_> {
        let entry = &self.want.entries()[at];
        Item { entry, mode: self.modes.of(entry) }
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
