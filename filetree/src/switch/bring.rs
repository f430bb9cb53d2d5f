//! Brings a tree that nobody reads to the wanted generation, path by path.
//!
//! A step is done if and only if the name already has the inode of its source; otherwise it is
//! redone. So the same list of paths can be worked through again after any interruption. Nothing
//! is written into an existing file, because trees share inodes.

use std::collections::BTreeSet;

use protocol::{manifest::EntryKind, path::TreePath};

use super::{cursor::Cursor, remove::remove_all};
use crate::{
    area::Error,
    fs::{self, Dir, FileId, Kind, Meta},
    plan::{FileKey, Item, Need, Plan, Source},
    staging::Staging,
};

/// Brings one tree forward.
pub(crate) struct Bring<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) staging: &'a Staging,
    pub(crate) tree: Cursor,
    pub(crate) live: Option<Cursor>,
    /// The tree was just made: nothing has to be looked for before it is put there.
    pub(crate) fresh: bool,
    /// Directories whose mode and time have to be set at the end.
    touched: BTreeSet<TreePath>,
    /// Of a tree that was just made: the directories around the last path. Their modes and times are
    /// set when they are left, as nothing comes back to them.
    around: Vec<Item>,
    /// Contents that neither the live tree nor staging turned out to have.
    missing: Vec<Need>,
}

impl<'a> Bring<'a> {
    pub(crate) fn new(
        plan: &'a Plan,
        staging: &'a Staging,
        tree: Dir,
        live: Option<Dir>,
        fresh: bool,
    ) -> Self {
        Self {
            plan,
            staging,
            tree: Cursor::unlocking(tree),
            live: live.map(Cursor::new),
            fresh,
            touched: BTreeSet::new(),
            around: Vec::new(),
            missing: Vec::new(),
        }
    }

    /// Brings one path to what the plan wants there. Paths come in order.
    pub(crate) fn path(&mut self, path: &TreePath, item: Option<Item>) -> Result<(), Error> {
        if self.fresh {
            self.leave_for(Some(path))?;
        } else {
            // Also where nothing is left to do: an interrupted run may have left the times wrong.
            self.touched.extend(path.parent());
        }
        match item {
            None => self.absent(path),
            Some(item) => match &item.entry.kind {
                EntryKind::Dir => self.dir(&item),
                EntryKind::Symlink { target } => self.symlink(&item, target),
                EntryKind::File { .. } => self.file(&item),
            },
        }
    }

    /// Sets modes and times of directories, the deepest first, and says what was missing.
    pub(crate) fn finish(mut self) -> Result<(), Error> {
        if !self.missing.is_empty() {
            return Err(Error::Missing(self.missing));
        }
        self.leave_for(None)?;
        self.touched.extend(self.tree.unlocked.drain(..));
        close_dirs(self.plan, &self.touched, &mut self.tree)
    }

    /// Sets modes and times of directories that `path` is not in.
    fn leave_for(&mut self, path: Option<&TreePath>) -> Result<(), Error> {
        let is_left = |dir: &mut Item| !path.is_some_and(|path| path.is_inside(&dir.entry.path));
        while let Some(left) = self.around.pop_if(is_left) {
            if let Some(dir) = self.tree.dir(&left.entry.path)? {
                close_dir(&left, dir)?;
            }
        }
        Ok(())
    }

    fn absent(&mut self, path: &TreePath) -> Result<(), Error> {
        let Some(parent) = self.tree.parent(path)? else { return Ok(()) };
        if parent.stat(path.name())?.is_some() {
            remove_all(parent, path.name())?;
            self.tree.forget(path);
        }
        Ok(())
    }

    fn dir(&mut self, item: &Item) -> Result<(), Error> {
        let (path, fresh) = (&item.entry.path, self.fresh);
        if fresh {
            self.around.push(item.clone());
        } else {
            self.touched.insert(path.clone());
        }
        let parent = parent(&mut self.tree, path)?;
        let there = if fresh { None } else { parent.stat(path.name())? };
        match there.map(|meta| meta.kind) {
            // An interrupted run may have left it with another group or label.
            Some(Kind::Dir) => return Ok(self.staging.own(parent, path.name())?),
            Some(_) => parent.unlink(path.name())?,
            None => {}
        }
        parent.make_dir(path.name())?;
        Ok(self.staging.own(parent, path.name())?)
    }

    fn symlink(&mut self, item: &Item, target: &[u8]) -> Result<(), Error> {
        let path = &item.entry.path;
        let fresh = self.fresh;
        let parent = parent(&mut self.tree, path)?;
        let there = if fresh { None } else { parent.stat(path.name())? };
        if let Some(meta) = there {
            if is_wanted(item, &meta, parent)? {
                return Ok(self.staging.own(parent, path.name())?);
            }
            if meta.kind == Kind::Dir {
                remove_all(parent, path.name())?;
            }
        }
        put_symlink(self.staging, item, target, parent)?;
        self.tree.forget(path);
        Ok(())
    }

    fn file(&mut self, item: &Item) -> Result<(), Error> {
        let path = &item.entry.path;
        let Some(key) = item.key() else { return Ok(()) };
        let fresh = self.fresh;
        let Some(source) = self.source(item, &key)? else {
            self.missing.extend(self.plan.need(path)?);
            return Ok(());
        };
        let from = match &source {
            Found::Live(at, _) => match &mut self.live {
                Some(live) => parent(live, at)?,
                None => self.staging.dir(),
            },
            Found::Staged(_) => self.staging.dir(),
        };
        let (name, id) = source.name(&key);
        let parent = parent(&mut self.tree, path)?;
        let there = if fresh { None } else { parent.stat(path.name())? };
        match there {
            Some(meta) if meta.id == id => return Ok(()),
            Some(meta) if meta.kind == Kind::Dir => {
                remove_all(parent, path.name())?;
                put_file(self.staging, item, from, &name, parent, false)?;
            }
            other => put_file(self.staging, item, from, &name, parent, other.is_some())?,
        }
        self.tree.forget(path);
        Ok(())
    }

    /// Where the file's inode is right now: as planned, else staged.
    fn source(&mut self, item: &Item, key: &FileKey) -> Result<Option<Found>, Error> {
        if let Source::Live(at) = self.plan.source(item)
            && let Some(live) = &mut self.live
            && let Some(dir) = live.parent(&at)?
            && let Some(meta) = dir.stat(at.name())?
            && meta.kind == Kind::File
        {
            return Ok(Some(Found::Live(at, meta.id)));
        }
        let staged = self.staging.dir().stat(&key.file_name())?;
        Ok(staged.map(|meta| Found::Staged(meta.id)))
    }
}

enum Found {
    Live(TreePath, FileId),
    Staged(FileId),
}

impl Found {
    fn name(&self, key: &FileKey) -> (Vec<u8>, FileId) {
        match self {
            Self::Live(at, id) => (at.name().to_vec(), *id),
            Self::Staged(id) => (key.file_name(), *id),
        }
    }
}

fn parent<'c>(cursor: &'c mut Cursor, path: &TreePath) -> Result<&'c Dir, Error> {
    cursor.parent(path)?.ok_or_else(|| Error::Inconsistent { path: path.clone() })
}

/// Gives the file `from/name` the item's name in `dir`: by a link, else by a copy. `replace` where
/// a file or symlink is there already. Where the file has as many names as it can have, one copy
/// takes the next ones.
pub(crate) fn put_file(
    staging: &Staging,
    item: &Item,
    from: &Dir,
    name: &[u8],
    dir: &Dir,
    replace: bool,
) -> Result<(), Error> {
    let refused = match link(staging, item, from, name, dir, replace) {
        Err(error) if error.is_link_refused() => error,
        other => return Ok(other?),
    };
    if !refused.is_out_of_names() {
        let copy = copy(staging, item, from, name)?;
        return Ok(staging.dir().rename(&copy, dir, item.entry.path.name())?);
    }
    let Some(full) = from.stat(name)? else { return Err(refused.into()) };
    if let Some(spare) = staging.spare_of(full.id) {
        match link(staging, item, staging.dir(), &spare, dir, replace) {
            Err(error) if error.is_out_of_names() => {}
            other => return Ok(other?),
        }
    }
    let spare = copy(staging, item, from, name)?;
    staging.set_spare_of(full.id, spare.clone());
    Ok(link(staging, item, staging.dir(), &spare, dir, replace)?)
}

fn link(
    staging: &Staging,
    item: &Item,
    from: &Dir,
    name: &[u8],
    dir: &Dir,
    replace: bool,
) -> fs::Result<()> {
    let target = item.entry.path.name();
    if !replace {
        return from.link(name, dir, target);
    }
    let temporary = staging.temporary();
    from.link(name, staging.dir(), &temporary)?;
    staging.dir().rename(&temporary, dir, target)
}

/// Copies `from/name` into staging, with the attributes of the item; gives the copy's name.
fn copy(staging: &Staging, item: &Item, from: &Dir, name: &[u8]) -> fs::Result<Vec<u8>> {
    let temporary = staging.temporary();
    let copy = staging.dir().create_file(&temporary)?;
    copy.fill_from(&from.open_file(name)?, &mut |_| {})?;
    staging.own(staging.dir(), &temporary)?;
    copy.set_mode(item.mode)?;
    copy.set_mtime(item.entry.mtime)?;
    Ok(temporary)
}

/// Makes a symlink under the item's name in `dir`, replacing a file or symlink in one step.
pub(crate) fn put_symlink(
    staging: &Staging,
    item: &Item,
    target: &[u8],
    dir: &Dir,
) -> fs::Result<()> {
    let temporary = staging.temporary();
    staging.dir().symlink(&temporary, target)?;
    staging.own(staging.dir(), &temporary)?;
    staging.dir().set_mtime_of(&temporary, item.entry.mtime)?;
    staging.dir().rename(&temporary, dir, item.entry.path.name())
}

/// Gives those of these paths that are directories their modes and times, the deepest first.
pub(crate) fn close_dirs(
    plan: &Plan,
    touched: &BTreeSet<TreePath>,
    tree: &mut Cursor,
) -> Result<(), Error> {
    let mut dirs = Vec::new();
    // Asked for in order, as that is how a large manifest is read.
    for path in touched {
        dirs.extend(plan.item(path)?.filter(|item| item.entry.is_dir()));
    }
    for item in dirs.iter().rev() {
        if let Some(dir) = tree.dir(&item.entry.path)? {
            close_dir(item, dir)?;
        }
    }
    Ok(())
}

/// Gives a directory its mode and time, and says whether they were others.
pub(crate) fn close_dir(item: &Item, dir: &Dir) -> fs::Result<bool> {
    let meta = dir.meta()?;
    if meta.mode != item.mode {
        dir.set_mode(item.mode)?;
    }
    if meta.mtime != item.entry.mtime {
        dir.set_mtime(item.entry.mtime)?;
    }
    Ok(meta.mode != item.mode || meta.mtime != item.entry.mtime)
}

/// Whether what is at the item's name in `dir` is, by its attributes, what the item wants.
pub(crate) fn is_wanted(item: &Item, meta: &Meta, dir: &Dir) -> fs::Result<bool> {
    let entry = &item.entry;
    let alike = same_time(meta.mtime, entry.mtime)
        && match &entry.kind {
            EntryKind::Dir => meta.kind == Kind::Dir && meta.mode == item.mode,
            EntryKind::File { size, .. } => {
                meta.kind == Kind::File && meta.size == *size && meta.mode == item.mode
            }
            EntryKind::Symlink { .. } => meta.kind == Kind::Symlink,
        };
    Ok(alike
        && match &entry.kind {
            EntryKind::Symlink { target } => dir.read_link(entry.path.name())? == **target,
            _ => true,
        })
}

/// Whether a time on a disk is the wanted one, as exactly as that disk keeps times.
pub(crate) fn same_time(on_disk: i64, wanted: i64) -> bool {
    const SECOND: i64 = 1_000_000_000;
    on_disk == wanted
        || (on_disk % SECOND == 0 && on_disk.abs_diff(wanted) < 2 * SECOND.unsigned_abs())
}
