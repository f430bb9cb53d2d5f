//! One assignment's place on a disk: what is published, and the work that leads to it.
//!
//! Published trees lie below one directory and work below another on the same file system, so that
//! servers can be given the one without the other. Below `WORK/NAME` lie the standby trees, staged
//! contents, trash, the plan of a switch that is under way, and the marks: what was applied, and
//! which tree is which, told by device and inode and never guessed.
//!
//! ```no_run
//! # use std::sync::Arc;
//! # use filetree::{area::{Area, Place, Target}, fs::Fs, plan::View, switch::SwitchOptions};
//! # fn fetch(_: &filetree::plan::Need) -> Vec<u8> { Vec::new() }
//! # fn sync(have: &protocol::manifest::Manifest, want: Arc<protocol::manifest::Manifest>,
//! #         target: Target, now: i64) -> Result<(), Box<dyn std::error::Error>> {
//! let place = Place {
//!     publish: "/srv/mirror/pub".into(),
//!     work: "/srv/mirror/work".into(),
//!     name: "fedora".into(),
//!     path: protocol::path::TreePath::parse(b"linux/fedora")?,
//! };
//! let mut area = Area::open(&Fs::disk(), place)?;      // locks, and ends what was interrupted
//! let plan = area.plan(have, View::AS_IS, &want, View::AS_IS)?;
//! area.check_room(&plan)?;                              // before the first byte is fetched
//! for need in plan.needs() {
//!     let need = need?;
//!     if !area.staging().has(&need)? {
//!         let mut writer = area.staging().writer(&need)?;
//!         writer.push(&fetch(&need))?;
//!         writer.finish()?;                             // verified, or an error
//!     }
//! }
//! let report = area.switch(&plan, &target, &SwitchOptions::new(now))?;
//! println!("{} entries changed", report.changed_entries);
//! # Ok(()) }
//! ```

pub(crate) mod adopt;
mod copying;
mod error;
mod group;
pub(crate) mod live;
pub(crate) mod marks;
mod protected;
mod recover;
mod room;
pub(crate) mod scrub;
mod switching;
pub(crate) mod trash;
pub mod units;
pub(crate) mod withdrawn;

use std::{collections::HashSet, path::PathBuf, sync::Arc, time::Duration};

use protocol::{
    manifest::{Entries, SharedEntries},
    path::TreePath,
};

pub use self::{
    adopt::{AdoptError, Adopted, ForeignFiles},
    copying::Copying,
    error::Error,
    live::published_root,
    marks::{Locals, Target},
    recover::Recovery,
    room::Footprint,
    scrub::{Damage, Finding, ScrubOptions, ScrubReport},
    switching::{Switching, switch_together},
    trash::{Batch, Cause, Contents, Ended, NoBatch, Trash, TrashLimits, Undeleted},
};
use self::{
    live::{Published, make_below},
    marks::{Journal, Marks},
    withdrawn::WithdrawnMark,
};
use crate::{
    fs::{self, Dir, File, FileId, Fs},
    plan::{self, Grace, Plan, Reserve, View},
    record::PathList,
    safe_path,
    scan::digest_file,
    staging::Staging,
    switch::{
        Mode, SwitchOptions, WantedMode,
        cursor::{Cursor, is_no_directory},
        exchange,
        remove::remove_all,
    },
};

/// Where an assignment lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// `STORAGE/pub`: what servers see.
    pub publish: PathBuf,
    /// `STORAGE/work`, on the same file system.
    pub work: PathBuf,
    /// The assignment's directory below `work`: one component.
    pub name: String,
    /// The published path below `publish`.
    pub path: TreePath,
}

/// One assignment's place on a disk, locked for this process.
#[derive(Debug)]
pub struct Area {
    pub(crate) publish: Dir,
    pub(crate) work: Dir,
    /// Where the trees lie that can become the live one: the work directory, or beside a link.
    pub(crate) trees: Dir,
    /// Whether the published name is a symbolic link of ours.
    pub(crate) linked: bool,
    pub(crate) path: TreePath,
    pub(crate) staging: Staging,
    pub(crate) marks: Marks,
    /// Paths that an interrupted in-place switch may have changed.
    pub(crate) unsure: PathList,
    /// Why this tree cannot be exchanged, whatever its content.
    pub(crate) fixed: Option<String>,
    pub(crate) wanted_group: Option<u32>,
    recovery: Recovery,
    _lock: File,
}

impl Area {
    /// Opens and locks an area, makes its directories where they are missing, and ends what a
    /// crash interrupted. An area that is in order is not changed.
    pub fn open(fs: &Fs, place: Place) -> Result<Self, Error> {
        if !safe_path::is_component(place.name.as_bytes()) {
            return Err(Error::Name { name: place.name });
        }
        let publish = fs.create_root(&place.publish)?;
        let root = fs.create_root(&place.work)?;
        let mut found = live::find(&publish, &place.path)?;
        let (there, apart) = (root.meta()?.id.dev, publish.meta()?.id.dev);
        if apart != there && matches!(found, Published::Nothing) {
            found = Published::Directory(make_below(&publish, &place.path)?);
        }
        let mut fixed = None;
        let mut work = None;
        if let Published::Directory(live) = &found {
            let here = live.meta()?;
            if here.mount_root || here.id.dev != there {
                fixed = Some(match here.mount_root {
                    true => "a file system is mounted there".to_owned(),
                    false => "it lies on another file system than the work directory".to_owned(),
                });
                work = Some(live.ensure_dir(safe_path::WORK_DIR, 0o700)?);
            }
        }
        let work = match work {
            Some(work) => work,
            None => root.ensure_dir(place.name.as_bytes(), 0o700)?,
        };
        let lock = lock(&work)?;
        let marks = match Marks::load(&work)? {
            Some(marks) => marks,
            None => Marks::first(&work)?,
        };
        let staging = Staging::open(&work)?;
        let (trees, linked) = match live::trees_of(&publish, &place.path, &found)? {
            Some(trees) => (trees, true),
            None => (work.reopen()?, false),
        };
        let mut area = Self {
            publish,
            work,
            trees,
            linked,
            path: place.path,
            staging,
            marks,
            unsure: PathList::default(),
            fixed,
            wanted_group: None,
            recovery: Recovery::Clean,
            _lock: lock,
        };
        let label = area.published_label()?;
        area.staging.set_label(label);
        area.recovery = recover::recover(&mut area)?;
        area.gather_trees()?;
        area.drop_old_withdrawn()?;
        if area.marks.uncollected {
            area.staging.clear()?;
        }
        area.try_links()?;
        Ok(area)
    }

    /// What opening found and ended.
    pub fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    /// The generation that is published, durably; `None` before the first, and where the
    /// published directory is not ours.
    pub fn applied(&self) -> Option<&Target> {
        self.marks.applied.as_ref()
    }

    /// Whether anything lies at the published path.
    pub fn is_published(&self) -> Result<bool, Error> {
        Ok(self.live()?.is_some())
    }

    /// Local content that is known.
    pub fn locals(&self) -> &Locals {
        &self.marks.locals
    }

    /// The staged contents.
    pub fn staging(&self) -> &Staging {
        &self.staging
    }

    /// The assignment's own directory below the work directory; the agent may keep partial
    /// downloads in `partial` there.
    pub fn work_dir(&self) -> &Dir {
        &self.work
    }

    /// Opens a file of the live tree as the base of a delta. It was verified when it was put
    /// there, but not since: whoever uses it verifies the result.
    pub fn base_file(&self, path: &TreePath) -> Result<File, Error> {
        let live = self.live()?.ok_or_else(|| Error::Inconsistent { path: path.clone() })?;
        Ok(live.open_parent(path)?.open_file(path.name())?)
    }

    /// Plans the way from `have`, seen as it was applied, to `want`, seen as it is wanted now.
    pub fn plan(
        &self,
        have: &dyn Entries,
        have_view: View<'_>,
        want: &Arc<impl Entries + 'static>,
        want_view: View<'_>,
    ) -> Result<Plan, Error> {
        self.plan_with_grace(have, have_view, want, want_view, None)
    }

    /// [`Area::plan`], with removed paths staying readable for a while after the switch. What
    /// earlier switches withdrew goes once its own time is up.
    pub fn plan_with_grace(
        &self,
        have: &dyn Entries,
        have_view: View<'_>,
        want: &Arc<impl Entries + 'static>,
        want_view: View<'_>,
        grace: Option<Grace>,
    ) -> Result<Plan, Error> {
        let unsure = self.unsure.iter().map(|(path, _)| path).collect();
        let want: SharedEntries = want.clone();
        let settled = self.settled(&want, &want_view)?;
        let locals = &self.marks.locals;
        let mut reserve = Reserve {
            withdrawn: self.withdrawn()?,
            grace,
            protected_root: locals.protected_root,
            protected: locals.protected.clone(),
            unsure,
            settled,
            unread: false,
        };
        let plan = plan::compare_with(have, have_view, want.clone(), want_view, &reserve)?;
        let found = self.protected_now(have, &plan)?;
        if found.protected.is_empty() && !found.protected_root {
            return Ok(plan);
        }
        reserve.protected_root |= found.protected_root;
        reserve.protected.extend(found.protected);
        Ok(plan::compare_with(have, have_view, want, want_view, &reserve)?)
    }

    /// Notes paths of the live tree as local: no generation has them any more, and they stay where
    /// they are. Durable before the switch that first leaves them alone.
    pub fn leave(&mut self, paths: &[TreePath]) -> Result<(), Error> {
        if paths.is_empty() {
            return Ok(());
        }
        for path in paths {
            Locals::add(&mut self.marks.locals.excluded, path.clone());
        }
        self.marks.save(&self.work)
    }

    /// Which way a switch would go, and why.
    pub fn choose(&self, wanted: WantedMode) -> Result<(Mode, String), Error> {
        let locals = &self.marks.locals;
        let first = |list: &[TreePath]| list.first().map(TreePath::to_string);
        let no_place = || {
            let no_links = "this file system has no hard links or cannot swap directories";
            let no_links = (self.marks.links == Some(false)).then(|| no_links.to_owned());
            self.fixed.clone().or(no_links)
        };
        let in_the_way = || {
            if !self.unsure.is_empty() {
                Some("an earlier switch in place has to be ended".to_owned())
            } else if locals.protected_root {
                Some("the tree holds a PROTECTED file".to_owned())
            } else if let Some(path) = first(&locals.protected) {
                Some(format!("{path} holds a PROTECTED file"))
            } else {
                first(&locals.excluded).map(|path| format!("{path} is excluded and exists locally"))
            }
        };
        let is_first = self.marks.live.is_none();
        let obstacle = || if is_first { None } else { no_place().or_else(in_the_way) };
        let asked = || "the assignment asks for it".to_owned();
        match wanted {
            WantedMode::InPlace => Ok((Mode::InPlace, asked())),
            WantedMode::Exchange => match obstacle() {
                Some(why) => Err(Error::NoExchange { why }),
                None => Ok((Mode::Exchange, asked())),
            },
            WantedMode::Auto => match obstacle() {
                Some(why) => Ok((Mode::InPlace, why)),
                None => Ok((Mode::Exchange, "nothing stands against it".to_owned())),
            },
            // Local content comes and goes; a place that cannot be behind a link is a mistake.
            WantedMode::Symlink => match (no_place().filter(|_| !is_first), in_the_way()) {
                (Some(why), _) => Err(Error::NoLink { why }),
                (None, Some(why)) if !is_first => Ok((Mode::InPlace, why)),
                (None, _) => Ok((Mode::Symlink, asked())),
            },
        }
    }

    /// Chooses a way, and puts the published tree behind a link or takes it out again, as that way
    /// needs it. The tree stays the same one.
    pub fn settle_for(&mut self, wanted: WantedMode) -> Result<(Mode, String), Error> {
        let (mode, why) = self.choose(wanted)?;
        if mode == Mode::Symlink || wanted != WantedMode::Symlink {
            self.settle(mode == Mode::Symlink)?;
        }
        Ok((mode, why))
    }

    fn check_live(&self) -> Result<(), Error> {
        match (self.live_id()?, self.marks.live) {
            (now, marked) if now == marked => Ok(()),
            _ => Err(Error::Foreign { path: self.publish.path().join(self.path.to_string()) }),
        }
    }

    /// Copies what the live tree has with other attributes, and sees to it that the rest is there.
    fn complete_staging(&self, plan: &Plan, options: &SwitchOptions<'_>) -> Result<(), Error> {
        let copying = self.copying(plan, u64::MAX);
        copying.steps(&|| true)?;
        let mut missing = copying.into_missing();
        for need in plan.needs() {
            let need = need?;
            if !self.staging.has(&need)? {
                missing.push(need);
            }
        }
        if !missing.is_empty() {
            return Err(Error::Missing(missing));
        }
        if options.leaves_staging_unsynced() { Ok(()) } else { Ok(self.staging.seal()?) }
    }

    /// Paths of an interrupted in-place switch that already hold what is wanted.
    fn settled(&self, want: &SharedEntries, view: &View<'_>) -> Result<HashSet<TreePath>, Error> {
        let mut settled = HashSet::new();
        if self.unsure.is_empty() {
            return Ok(settled);
        }
        let all = plan::seen(want.clone(), *view, &Reserve::default())?;
        let Some(live) = self.live()? else { return Ok(settled) };
        let mut live = Cursor::new(live);
        for (path, _) in self.unsure.iter() {
            if self.holds(&mut live, &path, all.item(&path)?)? {
                settled.insert(path);
            }
        }
        Ok(settled)
    }

    fn holds(
        &self,
        live: &mut Cursor,
        path: &TreePath,
        item: Option<plan::Item>,
    ) -> Result<bool, Error> {
        let Some(parent) = live.parent(path)? else { return Ok(item.is_none()) };
        let meta = parent.stat(path.name())?;
        let (Some(meta), Some(item)) = (meta, &item) else {
            return Ok(meta.is_none() && item.is_none());
        };
        if !crate::switch::bring::is_wanted(item, &meta, parent)? {
            return Ok(false);
        }
        match item.entry.digest() {
            None => Ok(true),
            Some(digest) => {
                let file = parent.open_file(path.name())?;
                Ok(digest_file(&file, meta.size, &mut |_| {})? == digest)
            }
        }
    }

    /// Removes trees that the marks do not name and no link leads to: power was lost while one was
    /// made, or after one was collected. Both are ours alone.
    fn remove_unknown_trees(&self, from: &Dir, live: Option<&str>) -> Result<(), Error> {
        for entry in from.entries()? {
            let Ok(name) = std::str::from_utf8(&entry.name) else { continue };
            let Some(number) = name.strip_prefix(exchange::STANDBY) else { continue };
            // A tree, its list, or a list that was being written.
            let number = number.split('.').next().unwrap_or(number);
            let tree = format!("{}{number}", exchange::STANDBY);
            let Ok(number) = number.parse::<u64>() else { continue };
            if live == Some(&tree) || self.marks.trees.iter().any(|known| known.name == tree) {
                continue;
            }
            if number < self.marks.next_tree {
                remove_all(from, &entry.name)?;
            } else if let Err(error) = from.remove_dir(&entry.name) {
                // Not empty, so it was not just made: whoever took the marks away decides.
                tracing::debug!(%error, "left a tree that the marks do not name");
            }
        }
        Ok(())
    }

    /// Tries once whether this file system can do what an exchange needs.
    fn try_links(&mut self) -> Result<(), Error> {
        if self.marks.links.is_some() || self.fixed.is_some() {
            return Ok(());
        }
        let (one, two) = (self.staging.temporary(), self.staging.temporary());
        let dir = self.staging.dir();
        dir.create_file(&one)?;
        let tried = dir
            .link(&one, dir, &two)
            .and_then(|()| dir.exchange(&one, dir, &two))
            .and_then(|()| dir.unlink(&two));
        dir.unlink(&one)?;
        // A disk that is full or broken now says nothing about what it can do.
        self.marks.links = match tried {
            Ok(()) => Some(true),
            Err(error) if error.is_unsupported() => Some(false),
            Err(error) => return Err(error.into()),
        };
        self.marks.save(&self.work)
    }

    pub(crate) fn journal_in_place(
        &self,
        target: &Target,
        now: i64,
        paths: &PathList,
        withdrawn: Option<WithdrawnMark>,
    ) -> Result<(), Error> {
        let (staged_bytes, staged_files) = self.staging.held()?;
        let journal = Journal {
            home: self.marks.home,
            from: self.marks.applied.clone(),
            to: target.clone(),
            mode: Mode::InPlace,
            live: self.marks.live,
            standby: None,
            retired: None,
            withdrawn,
            staged_bytes,
            staged_files,
            started_at: now,
        };
        journal.save(&self.work, paths)
    }
}

/// Device and inode of the published root of the assignment whose directory below the work
/// directory this is, as it was left; `None` where nothing of ours is published. Nothing is locked
/// and nothing recovered, so it tells a tree that was renamed from others.
pub fn live_root(work: &Dir) -> Result<Option<FileId>, Error> {
    Ok(Marks::load(work)?.and_then(|marks| marks.live))
}

/// What the assignment whose directory below the work directory this is holds, durably. As little is
/// locked and recovered as by [`live_root`].
pub fn applied(work: &Dir) -> Result<Option<Target>, Error> {
    Ok(Marks::load(work)?.and_then(|marks| marks.applied))
}

/// Removes everything that was published at a place, and the work that led to it: for an admin who
/// said so. Nothing is reached through a symlink.
pub fn purge(fs: &Fs, place: &Place) -> Result<(), fs::Error> {
    match fs.open_root(&place.publish).and_then(|publish| publish.open_parent(&place.path)) {
        Ok(parent) => {
            remove_all(&parent, place.path.name())?;
            live::remove_trees(&parent, &place.path)?;
            parent.sync()?;
        }
        Err(error) if error.is_not_found() => {}
        Err(error) => return Err(error),
    }
    match fs.open_root(&place.work) {
        Ok(work) => {
            remove_all(&work, place.name.as_bytes())?;
            work.sync()
        }
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error),
    }
}

/// A lock that this process has just given up may live on for a moment in a child that another
/// thread has forked and that has not started its program yet.
const LOCK_TRIES: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

fn lock(work: &Dir) -> Result<File, Error> {
    const LOCK: &[u8] = b"lock";
    let file = match work.open_file(LOCK) {
        Err(error) if error.is_not_found() => work.create_file(LOCK)?,
        other => other?,
    };
    for _ in 0..LOCK_TRIES {
        if file.try_lock()? {
            return Ok(file);
        }
        std::thread::sleep(LOCK_PAUSE);
    }
    Err(Error::Locked { path: file.path().to_owned() })
}

#[cfg(test)]
mod tests;
