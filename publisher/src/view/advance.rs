//! Bringing one private tree from what it holds to what it should hold.

use std::{
    cell::RefCell,
    cmp::Ordering,
    collections::{BTreeSet, HashMap},
    rc::Rc,
};

use filetree::fs::{Dir, File, Kind};
use protocol::{
    manifest::{self, Entries, Entry, EntryKind, LinkGroup, Manifest},
    path::TreePath,
};

use super::Error;
use crate::{config::RetainMode, durable::UNFINISHED};

/// One tree on its way.
pub(super) struct Advance<'a> {
    /// The tree.
    pub(super) into: &'a Dir,
    /// What it holds.
    pub(super) from: &'a dyn Entries,
    /// What it should hold.
    pub(super) to: &'a Manifest,
    /// Where new content is.
    pub(super) source: &'a Dir,
    /// Another private tree, whose files are linked where they are the same.
    pub(super) donor: Option<(Dir, &'a dyn Entries)>,
    /// How content is taken from the source.
    pub(super) mode: RetainMode,
}

/// How content is taken from the source, decided once for each tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Take {
    /// A private copy, or blocks that the file system shares until one side changes.
    Private,
    /// Another name of the source's file.
    Link,
}

/// What came from the source.
#[derive(Debug, Default)]
pub(super) struct FromSource {
    how: Option<Take>,
    /// Whether anything was hard-linked to it.
    pub(super) linked: bool,
    linked_bytes: u64,
    /// Bytes that were to be linked and could only be copied.
    copied_bytes: u64,
}

impl FromSource {
    /// Whether links were wanted and mostly refused; `None` where nothing was to be linked.
    pub(super) fn is_mostly_copied(&self) -> Option<bool> {
        match self.how {
            Some(Take::Link) if self.linked || self.copied_bytes > 0 => {
                Some(self.copied_bytes > self.linked_bytes)
            }
            Some(Take::Private) => Some(false),
            _ => None,
        }
    }
}

impl Advance<'_> {
    /// Does it; says what came from the source.
    pub(super) fn run(self) -> Result<FromSource, Error> {
        let (gone, placed) = self.differences()?;
        let mut touched: BTreeSet<Option<TreePath>> = BTreeSet::new();
        for entry in gone.iter().rev() {
            touched.insert(entry.path.parent());
            let parent = self.into.open_parent(&entry.path)?;
            if entry.is_dir() {
                parent.remove_dir(entry.path.name())?;
            } else {
                parent.unlink(entry.path.name())?;
            }
        }
        let mut from_source = FromSource::default();
        let open = Open {
            into: Parents::of(self.into),
            source: Parents::of(self.source),
            donor: self.donor.as_ref().map(|(donor, _)| Parents::of(donor)),
        };
        let groups = self.groups(&placed)?;
        let mut made: HashMap<LinkGroup, &TreePath> = groups;
        for &entry in &placed {
            touched.insert(entry.path.parent());
            match &entry.kind {
                EntryKind::Dir => {
                    touched.insert(Some(entry.path.clone()));
                    self.place_dir(&open, entry)?;
                }
                EntryKind::Symlink { target } => place(&open, entry, |dir, name| {
                    Ok(dir
                        .symlink(name, target)
                        .and_then(|()| dir.set_mtime_of(name, entry.mtime))?)
                })?,
                EntryKind::File { link_group, .. } => {
                    let twin = link_group.and_then(|group| made.get(&group).copied());
                    self.place_file(&open, entry, twin, &mut from_source)?;
                    if let Some(group) = link_group {
                        made.entry(*group).or_insert(&entry.path);
                    }
                }
            }
        }
        self.settle_dirs(&touched)?;
        Ok(from_source)
    }

    /// What has to go (as the old tree names it), and what has to come.
    fn differences(&self) -> Result<(Vec<Entry>, Vec<&Entry>), manifest::Error> {
        let (mut gone, mut placed) = (Vec::new(), Vec::new());
        let mut old = self.from.each().peekable();
        let mut new = self.to.entries().iter().peekable();
        loop {
            let order = match (old.peek(), new.peek()) {
                (None, None) => return Ok((gone, placed)),
                (Some(_), None) | (Some(Err(_)), _) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(Ok(old)), Some(new)) => old.path.cmp(&new.path),
            };
            let before = if order.is_le() { old.next().transpose()? } else { None };
            let after = if order.is_ge() { new.next() } else { None };
            match (before, after) {
                (Some(before), Some(after)) if before == *after => {}
                (Some(before), Some(after)) => {
                    // A file takes another file's place by rename; anything else makes room first.
                    if before.is_dir() != after.is_dir() {
                        gone.push(before);
                    }
                    placed.push(after);
                }
                (Some(before), None) => gone.push(before),
                (None, Some(after)) => placed.push(after),
                (None, None) => {}
            }
        }
    }

    /// Members of hard-link groups that the tree holds already and keeps.
    fn groups(&self, placed: &[&Entry]) -> Result<HashMap<LinkGroup, &TreePath>, manifest::Error> {
        let group = |entry: &Entry| match entry.kind {
            EntryKind::File { link_group, .. } => link_group,
            _ => None,
        };
        let wanted: HashMap<LinkGroup, ()> =
            placed.iter().filter_map(|entry| Some((group(entry)?, ()))).collect();
        if wanted.is_empty() {
            return Ok(HashMap::new());
        }
        let mut kept = HashMap::new();
        for entry in self.to.entries() {
            if let Some(group) = group(entry).filter(|group| wanted.contains_key(group))
                && self.from.find(&entry.path)?.as_ref() == Some(entry)
            {
                kept.entry(group).or_insert(&entry.path);
            }
        }
        Ok(kept)
    }

    fn place_dir(&self, open: &Open<'_>, entry: &Entry) -> Result<(), Error> {
        let parent = open.into.of_path(&entry.path)?;
        let dir = match parent.open_child(entry.path.name()) {
            Err(error) if error.is_not_found() => parent.make_dir(entry.path.name())?,
            other => other?,
        };
        // Whatever its mode in the tree, we must get in to serve it.
        Ok(dir.set_mode(entry.mode | 0o700)?)
    }

    fn place_file(
        &self,
        open: &Open<'_>,
        entry: &Entry,
        twin: Option<&TreePath>,
        from_source: &mut FromSource,
    ) -> Result<(), Error> {
        if let Some(twin) = twin {
            let held = self.into.open_parent(twin)?;
            return place(open, entry, |dir, name| Ok(held.link(twin.name(), dir, name)?));
        }
        if let Some((_, manifest)) = &self.donor
            && let Some(donor) = &open.donor
            && manifest.find(&entry.path)?.as_ref() == Some(entry)
        {
            let held = donor.of_path(&entry.path)?;
            let linked =
                place(open, entry, |dir, name| Ok(held.link(entry.path.name(), dir, name)?));
            match linked {
                Err(Error::Fs(error)) if error.is_link_refused() => {
                    let file = held.open_file(entry.path.name())?;
                    place(open, entry, |dir, name| copy(&file, entry, dir, name))?;
                }
                other => other?,
            }
            return Ok(());
        }
        self.take_file(open, entry, from_source)
    }

    /// Takes a file from the source, and checks that what arrived is what was scanned.
    fn take_file(
        &self,
        open: &Open<'_>,
        entry: &Entry,
        from_source: &mut FromSource,
    ) -> Result<(), Error> {
        let moved = || Error::Moved { path: entry.path.clone() };
        let gone = |error: filetree::fs::Error| {
            if error.is_not_found() { moved() } else { error.into() }
        };
        let from = open.source.of_path(&entry.path).map_err(gone)?;
        let how = match from_source.how {
            Some(how) => how,
            None => *from_source.how.insert(self.decide(&from, entry)?),
        };
        let mut linked = false;
        if how == Take::Link {
            match place(open, entry, |dir, name| {
                from.link(entry.path.name(), dir, name)
                    .map_err(|error| if error.is_not_found() { moved() } else { error.into() })
            }) {
                // A file that cannot be linked (another owner's, too many names) is copied.
                Err(Error::Fs(error)) if error.is_link_refused() => {}
                other => {
                    other?;
                    linked = true;
                }
            }
        }
        if !linked {
            let file = from.open_file(entry.path.name()).map_err(gone)?;
            place(open, entry, |dir, name| copy(&file, entry, dir, name))?;
        }
        let parent = open.into.of_path(&entry.path)?;
        let file = parent.open_file(entry.path.name()).map_err(|_| moved())?;
        let meta = file.meta()?;
        let same = meta.size == entry.size() && meta.mtime == entry.mtime;
        if !same || Some(super::digest(&file)?) != entry.digest() {
            return Err(moved());
        }
        from_source.linked |= linked;
        match (linked, how) {
            (true, _) => from_source.linked_bytes += entry.size(),
            (false, Take::Link) => from_source.copied_bytes += entry.size(),
            (false, Take::Private) => {}
        }
        Ok(())
    }

    /// Whether the file system shares blocks is found out by trying.
    fn decide(&self, from: &Dir, entry: &Entry) -> Result<Take, Error> {
        match self.mode {
            RetainMode::Content => return Ok(Take::Private),
            RetainMode::HardLink | RetainMode::Signatures => return Ok(Take::Link),
            RetainMode::Auto => {}
        }
        let moved = || Error::Moved { path: entry.path.clone() };
        let file = from.open_file(entry.path.name()).map_err(|_| moved())?;
        let probe = [UNFINISHED.as_bytes(), b"probe"].concat();
        let target = self.into.create_file(&probe)?;
        let shares = match (file.into_std(), target.into_std()) {
            (Some(file), Some(target)) => rustix::fs::ioctl_ficlone(&target, &file).is_ok(),
            _ => false,
        };
        self.into.unlink(&probe)?;
        Ok(if shares { Take::Private } else { Take::Link })
    }

    /// Directory times last: making and removing names has moved them.
    fn settle_dirs(&self, touched: &BTreeSet<Option<TreePath>>) -> Result<(), Error> {
        for path in touched.iter().rev().flatten() {
            let Some(entry) = self.to.get(path).filter(|entry| entry.is_dir()) else { continue };
            self.into.open_dir(path)?.set_mtime(entry.mtime)?;
        }
        Ok(())
    }
}

/// The directories of the trees that files are taken from and put into.
struct Open<'a> {
    into: Parents<'a>,
    source: Parents<'a>,
    donor: Option<Parents<'a>>,
}

/// Opens the directory that holds a path. The last one stays open: neighbors have one, and a large
/// tree is asked for a million of them.
struct Parents<'a> {
    root: &'a Dir,
    last: RefCell<Option<(Option<TreePath>, Rc<Dir>)>>,
}

impl<'a> Parents<'a> {
    fn of(root: &'a Dir) -> Self {
        Self { root, last: RefCell::new(None) }
    }

    fn of_path(&self, path: &TreePath) -> filetree::fs::Result<Rc<Dir>> {
        let above = path.parent();
        if let Some((last, dir)) = &*self.last.borrow()
            && *last == above
        {
            return Ok(Rc::clone(dir));
        }
        let dir = Rc::new(self.root.open_parent(path)?);
        *self.last.borrow_mut() = Some((above, Rc::clone(&dir)));
        Ok(dir)
    }
}

/// Makes an entry beside its name and renames it there.
fn place(
    open: &Open<'_>,
    entry: &Entry,
    make: impl FnOnce(&Dir, &[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    let parent = open.into.of_path(&entry.path)?;
    let beside = UNFINISHED.as_bytes();
    let made = make(&parent, beside)
        .and_then(|()| Ok(parent.rename(beside, &parent, entry.path.name())?));
    if made.is_err() {
        // The first error is what matters.
        drop(parent.unlink(beside));
        return made;
    }
    // A rename onto another name of the same inode does nothing and leaves both.
    if matches!(&entry.kind, EntryKind::File { .. }) && parent.stat(beside)?.is_some() {
        parent.unlink(beside)?;
    }
    Ok(())
}

/// A private copy with the entry's attributes.
fn copy(from: &File, entry: &Entry, dir: &Dir, name: &[u8]) -> Result<(), Error> {
    let file = dir.create_file(name)?;
    file.fill_from(from, &mut |_| {})?;
    // We must be able to read it, whatever its mode in the tree.
    file.set_mode(entry.mode | 0o400)?;
    file.set_mtime(entry.mtime)?;
    debug_assert_eq!(file.meta()?.kind, Kind::File);
    Ok(())
}
