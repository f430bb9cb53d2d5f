//! What was taken out of a published tree, and may be wanted back.
//!
//! *The problem.* Three things leave a published tree: what the upstream removed, local content that
//! does not belong, and everything, when an assignment ends. Each of them may be a mistake, and the
//! one who notices comes days later.
//!
//! *The answer.* Nothing of it is removed at once. It lies in `trash/BATCH/PATH` below the work
//! directory, a batch for each occasion; its name says when that was, why, and how many bytes the
//! upstream's files had. It goes when its time is up, or earlier where room is short: but only what
//! came from an upstream gives way, never what we did not make. What is brought back is moved by
//! renames to where nothing is, and known as local content before the first of them, so that the
//! next switch leaves it where it is, whenever power is lost.

use std::{fmt, str::FromStr};

use protocol::path::TreePath;
use serde::{Deserialize, Serialize};

use super::{Area, Error, Locals, is_no_directory, marks::Marks};
use crate::{
    fs::{self, Dir, Fs, Kind},
    plan::Plan,
    safe_path::{self, PROTECTED},
    switch::remove::remove_all,
};

/// The directory of all batches, below the work directory.
pub(super) const TRASH: &[u8] = b"trash";
/// The root of an ended tree, in its batch.
const ROOT: &[u8] = b"tree";
/// Most paths of a batch that are told.
const MAX_TOLD: usize = 1_000;

/// Why something is in the trash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// The upstream removed it, or a filter left it out.
    Removed,
    /// The assignment ended.
    Ended,
    /// It was local content that does not belong.
    Local,
}

/// What came into the trash on one occasion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// When, in seconds since 1970.
    pub at: i64,
    /// Why.
    pub cause: Cause,
    /// Bytes of what the upstream removed; 0 for everything else, which nobody counted.
    pub bytes: u64,
}

/// What of a batch is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// Files and symlinks.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The first of them, by path.
    pub paths: Vec<TreePath>,
}

/// How long the trash is kept, and how much of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrashLimits {
    /// Seconds after which a batch goes.
    pub keep: i64,
    /// Most bytes of what upstreams removed; the oldest batch goes first.
    pub removed_bytes: u64,
}

/// What was brought back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Undeleted {
    /// Where it lies again: the topmost paths.
    pub restored: Vec<TreePath>,
    /// What stays in the trash, because something lies at its path, or a PROTECTED file is there.
    pub occupied: Vec<TreePath>,
    /// The published root itself came back.
    pub root: bool,
}

/// What became of a tree whose assignment ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// It is in the trash.
    Trashed,
    /// Nothing was published.
    Nothing,
    /// It stays published; why.
    Kept(String),
}

/// A name that no batch has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the name of a batch in the trash; 'mirror-agent trash' lists them")]
pub struct NoBatch(String);

impl Batch {
    /// Local content of one occasion.
    pub(crate) fn local(now: i64) -> Self {
        Self { at: now, cause: Cause::Local, bytes: 0 }
    }
}

/// `SECONDS` for local content, as it always was; `SECONDS-removed-BYTES`, `SECONDS-ended`.
impl fmt::Display for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.cause {
            Cause::Local => write!(f, "{}", self.at),
            Cause::Removed => write!(f, "{}-removed-{}", self.at, self.bytes),
            Cause::Ended => write!(f, "{}-ended", self.at),
        }
    }
}

impl FromStr for Batch {
    type Err = NoBatch;

    fn from_str(text: &str) -> Result<Self, NoBatch> {
        let no = || NoBatch(text.to_owned());
        let mut parts = text.split('-');
        let at = parts.next().and_then(|at| at.parse().ok()).ok_or_else(no)?;
        let batch = match (parts.next(), parts.next(), parts.next()) {
            (None, ..) => Self::local(at),
            (Some("ended"), None, _) => Self { at, cause: Cause::Ended, bytes: 0 },
            (Some("removed"), Some(bytes), None) => {
                Self { at, cause: Cause::Removed, bytes: bytes.parse().map_err(|_| no())? }
            }
            _ => return Err(no()),
        };
        // One name, one batch.
        if batch.to_string() == text { Ok(batch) } else { Err(no()) }
    }
}

/// The trash of one assignment. Nothing of its area is locked: who opens it is the only one to work
/// with the assignment at that time.
#[derive(Debug)]
pub struct Trash(Dir);

impl Trash {
    /// The trash of the assignment `name`, published at `path`; `None` where there is none.
    pub fn open(fs: &Fs, place: &super::Place) -> Result<Option<Self>, Error> {
        let found = |dir: fs::Result<Dir>| match dir {
            Ok(dir) => Ok(Some(dir)),
            Err(error) if is_no_directory(&error) => Ok(None),
            Err(error) => Err(Error::from(error)),
        };
        if !safe_path::is_component(place.name.as_bytes()) {
            return Err(Error::Name { name: place.name.clone() });
        }
        let Some(work) = found(fs.open_root(&place.work))? else { return Ok(None) };
        let own = found(work.open_child(place.name.as_bytes()))?;
        if let Some(trash) = own.map(|own| found(own.open_child(TRASH))).transpose()?.flatten() {
            return Ok(Some(Self(trash)));
        }
        // Where the tree is a mount point, its work lies in it.
        let Some(publish) = found(fs.open_root(&place.publish))? else { return Ok(None) };
        let Some(live) = found(publish.open_dir(&place.path))? else { return Ok(None) };
        let inside = found(live.open_child(safe_path::WORK_DIR))?;
        let trash = inside.map(|inside| found(inside.open_child(TRASH))).transpose()?.flatten();
        Ok(trash.map(Self))
    }

    fn in_work(work: &Dir) -> Result<Option<Self>, Error> {
        match work.open_child(TRASH) {
            Ok(dir) => Ok(Some(Self(dir))),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Every batch, the oldest first.
    pub fn batches(&self) -> Result<Vec<Batch>, Error> {
        let entries = self.0.entries()?;
        let names = entries.iter().filter_map(|entry| std::str::from_utf8(&entry.name).ok());
        let mut batches: Vec<Batch> = names.filter_map(|name| name.parse().ok()).collect();
        batches.sort_by_key(|batch| (batch.at, batch.cause));
        Ok(batches)
    }

    /// Looks through a batch.
    pub fn contents(&self, batch: &Batch) -> Result<Contents, Error> {
        let mut contents = Contents { files: 0, bytes: 0, paths: Vec::new() };
        let mut open: Vec<(Option<TreePath>, Dir)> = vec![(None, self.root(batch)?)];
        while let Some((at, dir)) = open.pop() {
            let mut deeper = Vec::new();
            for entry in dir.entries()? {
                let Ok(path) = below(at.as_ref(), &entry.name) else { continue };
                let Some(meta) = dir.stat(&entry.name)? else { continue };
                if meta.kind == Kind::Dir {
                    deeper.push((Some(path), dir.open_child(&entry.name)?));
                    continue;
                }
                contents.files += 1;
                contents.bytes += meta.size;
                if contents.paths.len() < MAX_TOLD {
                    contents.paths.push(path);
                }
            }
            open.extend(deeper.into_iter().rev());
        }
        contents.paths.sort();
        Ok(contents)
    }

    /// Removes what is older than it may be, and then the oldest of what upstreams removed, until
    /// the rest is no more than it may be. Gives what went.
    pub fn expire(&self, now: i64, limits: TrashLimits) -> Result<Vec<Batch>, Error> {
        let mut batches = self.batches()?;
        let is_old = |batch: &Batch| batch.at.saturating_add(limits.keep) <= now;
        let mut going: Vec<Batch> = batches.extract_if(.., |batch| is_old(batch)).collect();
        let mut held: u64 = batches.iter().map(|batch| batch.bytes).sum();
        for batch in batches.into_iter().filter(|batch| batch.cause == Cause::Removed) {
            if held <= limits.removed_bytes {
                break;
            }
            held -= batch.bytes;
            going.push(batch);
        }
        going.iter().try_for_each(|batch| self.remove(batch))?;
        Ok(going)
    }

    /// Removes the oldest batch of what came from an upstream: what was removed there first, then
    /// ended trees. `None` where there is none.
    pub fn give_way(&self) -> Result<Option<Batch>, Error> {
        let batches = self.batches()?;
        let gives = |cause| batches.iter().find(|batch| batch.cause == cause);
        let Some(batch) = gives(Cause::Removed).or_else(|| gives(Cause::Ended)) else {
            return Ok(None);
        };
        self.remove(batch)?;
        Ok(Some(batch.clone()))
    }

    fn remove(&self, batch: &Batch) -> Result<(), Error> {
        Ok(remove_all(&self.0, batch.to_string().as_bytes())?)
    }

    /// The directory to which the paths of a batch are relative.
    fn root(&self, batch: &Batch) -> Result<Dir, Error> {
        let dir = self.0.open_child(batch.to_string().as_bytes())?;
        Ok(if batch.cause == Cause::Ended { dir.open_child(ROOT)? } else { dir })
    }
}

impl Area {
    /// The trash of this assignment; `None` where there is none.
    pub fn trash(&self) -> Result<Option<Trash>, Error> {
        Trash::in_work(&self.work)
    }

    /// Moves local content of the published tree to the trash, durably: what a scrub found, or what
    /// adoption held and someone has decided about. Gives what was there to be moved.
    pub fn trash_paths(&mut self, paths: &[TreePath], now: i64) -> Result<Vec<TreePath>, Error> {
        let mut moved = Vec::new();
        if let Some(live) = self.live()? {
            for path in paths {
                let parent = match live.open_parent(path) {
                    Err(error) if is_no_directory(&error) => continue,
                    other => other?,
                };
                if !self.marks.locals.protects_in(path) && parent.stat(path.name())?.is_some() {
                    crate::switch::remove::to_trash(&self.work, now, &parent, path)?;
                    moved.push(path.clone());
                }
            }
            self.work.sync_fs()?;
        }
        self.marks.locals.held.retain(|held| !paths.contains(held));
        self.marks.save(&self.work)?;
        Ok(moved)
    }

    /// Moves everything that is published to the trash, because its assignment ended. A tree with a
    /// PROTECTED file, at any depth, stays; so does what is not ours, or cannot be renamed.
    pub fn end(&mut self, now: i64) -> Result<Ended, Error> {
        let Some(live) = self.live()? else {
            self.forget_live()?;
            return Ok(Ended::Nothing);
        };
        if self.marks.live != Some(live.meta()?.id) {
            return Ok(Ended::Kept("what lies there is not what this agent published".to_owned()));
        }
        if let Some(why) = &self.fixed {
            return Ok(Ended::Kept(why.clone()));
        }
        if let Some(path) = find_protected(&live)? {
            return Ok(Ended::Kept(format!("a PROTECTED file is there: {path}")));
        }
        self.be_directory()?;
        let batch = Batch { at: now, cause: Cause::Ended, bytes: 0 };
        let trash = self.work.ensure_dir(TRASH, 0o700)?;
        let dir = trash.ensure_dir(batch.to_string().as_bytes(), 0o700)?;
        let parent = self.make_parent()?;
        parent.rename_new(self.path.name(), &dir, ROOT)?;
        dir.sync()?;
        parent.sync()?;
        self.forget_live()?;
        Ok(Ended::Trashed)
    }

    /// Brings back what lies at `path`, or everything, from one batch, or from each that has it, the
    /// newest first. Nothing is overwritten; what is published and where nobody may touch anything
    /// stays as it is. Durable when this returns.
    pub fn undelete(
        &mut self,
        path: Option<&TreePath>,
        from: Option<&Batch>,
    ) -> Result<Undeleted, Error> {
        let mut done = Undeleted::default();
        let Some(trash) = self.trash()? else { return Ok(done) };
        let mut batches = trash.batches()?;
        batches.reverse();
        batches.retain(|batch| from.is_none_or(|from| from == batch));
        for batch in batches {
            if batch.cause == Cause::Ended && path.is_none() && self.live()?.is_none() {
                let dir = trash.0.open_child(batch.to_string().as_bytes())?;
                let parent = self.make_parent()?;
                dir.rename_new(ROOT, &parent, self.path.name())?;
                parent.sync()?;
                dir.sync()?;
                trash.remove(&batch)?;
                done.root = true;
                continue;
            }
            let Some(live) = self.live()? else { continue };
            let root = match trash.root(&batch) {
                Ok(root) => root,
                Err(Error::Fs(error)) if is_no_directory(&error) => continue,
                Err(error) => return Err(error),
            };
            let moves = self.find_moves(&root, &live, path, &mut done)?;
            self.bring_back(&root, &live, &moves)?;
            done.restored.extend(moves);
        }
        Ok(done)
    }

    /// The topmost paths of a batch that have a free place in the live tree.
    fn find_moves(
        &self,
        root: &Dir,
        live: &Dir,
        only: Option<&TreePath>,
        done: &mut Undeleted,
    ) -> Result<Vec<TreePath>, Error> {
        let mut moves = Vec::new();
        let mut open: Vec<Option<TreePath>> = vec![None];
        while let Some(at) = open.pop() {
            let dir = match &at {
                Some(at) => root.open_dir(at)?,
                None => root.reopen()?,
            };
            for entry in dir.entries()? {
                let Ok(path) = below(at.as_ref(), &entry.name) else { continue };
                let is_above = only.is_some_and(|only| only.is_inside(&path));
                if only.is_some_and(|only| *only != path && !path.is_inside(only)) && !is_above {
                    continue;
                }
                let is_dir = dir.stat(&entry.name)?.is_some_and(|meta| meta.kind == Kind::Dir);
                match kind_at(live, &path)? {
                    _ if self.marks.locals.protects(&path) => done.occupied.push(path),
                    None if is_above => open.push(Some(path)),
                    None => moves.push(path),
                    Some(Kind::Dir) if is_dir => open.push(Some(path)),
                    Some(_) => done.occupied.push(path),
                }
            }
        }
        moves.sort();
        Ok(moves)
    }

    fn bring_back(&mut self, root: &Dir, live: &Dir, moves: &[TreePath]) -> Result<(), Error> {
        if moves.is_empty() {
            return Ok(());
        }
        for path in moves {
            // Of directories that have to be made again, the topmost is what is local.
            let mut topmost = path.clone();
            for above in path.ancestors() {
                if kind_at(live, &above)?.is_none() {
                    topmost = above;
                    break;
                }
            }
            Locals::add(&mut self.marks.locals.held, topmost);
        }
        self.marks.save(&self.work)?;
        for path in moves {
            let from = root.open_parent(path)?;
            let mut to = live.reopen()?;
            let mut times = vec![];
            let above = path.components().count() - 1;
            for component in path.components().take(above) {
                times.push((to.meta()?.mtime, to.reopen()?));
                to = to.ensure_dir(component, 0o755)?;
            }
            times.push((to.meta()?.mtime, to.reopen()?));
            from.rename_new(path.name(), &to, path.name())?;
            // Directories of the generation keep their times.
            times.into_iter().rev().try_for_each(|(mtime, dir)| dir.set_mtime(mtime))?;
        }
        Ok(self.work.sync_fs()?)
    }

    /// Nothing is published any more, and nothing is left of the work that led to it.
    fn forget_live(&mut self) -> Result<(), Error> {
        let trees = std::mem::take(&mut self.marks.trees);
        let Marks { home, next_tree, links, .. } = self.marks.clone();
        self.marks = Marks { home, next_tree, links, ..Marks::default() };
        self.marks.save(&self.work)?;
        for tree in &trees {
            remove_all(&self.trees, tree.name.as_bytes())?;
            crate::record::remove(&self.work, &tree.list_name())?;
        }
        self.drop_old_withdrawn()?;
        Ok(self.staging.clear()?)
    }
}

/// What a plan that is carried out now removes.
pub(crate) fn removed_by(plan: &Plan, now: i64) -> Batch {
    Batch { at: now, cause: Cause::Removed, bytes: plan.removed_bytes() }
}

/// Where `path` lies in the batch, made where it is missing: what is put there gets its own name.
pub(crate) fn place_of(work: &Dir, batch: &Batch, path: &TreePath) -> fs::Result<Dir> {
    let mut dir = work.ensure_dir(TRASH, 0o700)?;
    dir = dir.ensure_dir(batch.to_string().as_bytes(), 0o700)?;
    let above = path.components().count() - 1;
    for component in path.components().take(above) {
        // It may be brought back together with what is in it.
        dir = dir.ensure_dir(component, 0o755)?;
    }
    Ok(dir)
}

fn below(at: Option<&TreePath>, name: &[u8]) -> Result<TreePath, protocol::path::InvalidPath> {
    match at {
        Some(at) => at.child(name),
        None => TreePath::parse(name),
    }
}

fn kind_at(live: &Dir, path: &TreePath) -> Result<Option<Kind>, Error> {
    let parent = match live.open_parent(path) {
        Ok(parent) => parent,
        Err(error) if error.is_not_found() => return Ok(None),
        // Something that is no directory lies above it.
        Err(error) if is_no_directory(&error) => return Ok(Some(Kind::Special)),
        Err(error) => return Err(error.into()),
    };
    Ok(parent.stat(path.name())?.map(|meta| meta.kind))
}

/// A PROTECTED file at any depth.
fn find_protected(live: &Dir) -> Result<Option<TreePath>, Error> {
    let mut open: Vec<(Option<TreePath>, Dir)> = vec![(None, live.reopen()?)];
    while let Some((at, dir)) = open.pop() {
        for entry in dir.entries()? {
            let Ok(path) = below(at.as_ref(), &entry.name) else { continue };
            if *entry.name == *PROTECTED {
                return Ok(Some(path));
            }
            if entry.is_dir != Some(false) {
                match dir.open_child(&entry.name) {
                    Ok(below) => open.push((Some(path), below)),
                    Err(error) if is_no_directory(&error) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }
    Ok(None)
}
