//! The agent's view of one assignment's place on the disk.
//!
//! `filetree` changes disks; this module tells it what an assignment wants, and reads back what is
//! there: which generation, seen through which rules.

mod plan_stage;
mod rules;

use std::sync::{Arc, OnceLock};

use filetree::{
    area::{
        self, AdoptError, Adopted, Area, Finding, Footprint, Place, ScrubOptions, ScrubReport,
        Switching, Target, TrashLimits,
    },
    fs::{self as disk, Fs},
    plan::{Grace, Modes, Plan, View},
    scan::{ScanOptions, scan_in_parts},
    staging,
    switch::{SwitchOptions, SwitchReport, WantedMode},
};
use jiff::Timestamp;
use protocol::{
    digest::Digest,
    generation::Version,
    manifest::{self, Entries, Entry, StoredManifest},
    path::TreePath,
    spec::Switch as WantedSwitch,
    symlinks::Symlinks,
    transfer::rsync_estimate,
    v1::agent::{AssignmentOrder, Changes},
};

use self::rules::Note;
pub use self::{
    plan_stage::{PlanStage, to_io},
    rules::Rules,
};
use crate::{
    config::Config,
    group,
    ledger::Withdrawn,
    modes::InvalidChmod,
    removal::Removals,
    report::Progress,
    spool::{ScanRecords, Spool},
};

/// Why the disk does not do what is wanted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The area.
    #[error(transparent)]
    Area(#[from] area::Error),
    /// Staging.
    #[error(transparent)]
    Staging(#[from] staging::Error),
    /// A file or directory.
    #[error(transparent)]
    Disk(#[from] disk::Error),
    /// The tree could not be read.
    #[error("the published files cannot be read")]
    Scan(#[from] filetree::scan::Error),
    /// What was there could not be taken over.
    #[error("what lies at the published path cannot be taken over")]
    Adopt(#[from] AdoptError),
    /// Rules that are none.
    #[error("the assignment's rules are not understood")]
    Filter(#[from] protocol::filter::RuleErrors),
    /// What goes and what stays cannot be told.
    #[error(transparent)]
    Removal(#[from] crate::removal::Error),
    /// A manifest cannot be read where it is kept.
    #[error(transparent)]
    Manifest(#[from] manifest::Error),
    /// What was found cannot be noted.
    #[error("a list of what lies at the published path cannot be kept in the work directory")]
    Spool(#[from] crate::fetch::manifest::Error),
    /// A mode change that is none.
    #[error(transparent)]
    Chmod(#[from] InvalidChmod),
    /// A group that cannot be given.
    #[error(transparent)]
    Group(#[from] group::Error),
}

/// A generation as it was applied.
#[derive(Debug, Clone)]
pub struct Applied {
    /// Which generation.
    pub version: Version,
    /// Digest of its whole manifest.
    pub manifest: Digest,
    /// As what it is kept.
    pub rules: Rules,
    /// Whether this agent observed it at a stock server.
    pub observed: bool,
}

/// The place of one assignment, locked.
#[derive(Debug)]
pub struct Site {
    area: Area,
    trash: TrashLimits,
    group: Option<u32>,
    /// Where it is published, by its absolute path.
    pub live: std::path::PathBuf,
}

/// The one file system layer of the process: its counters count everything.
fn fs() -> &'static Fs {
    static FS: OnceLock<Fs> = OnceLock::new();
    FS.get_or_init(Fs::disk)
}

impl Site {
    /// Locks it and ends what a crash interrupted.
    pub fn open(config: &Config, name: &str, path: &TreePath) -> Result<Self, Error> {
        let publish = config.publish();
        let live = publish.join(os_path(path));
        let place =
            Place { publish, work: config.work(), name: name.to_owned(), path: path.clone() };
        Ok(Self { area: Area::open(fs(), place)?, trash: config.trash(), group: None, live })
    }

    /// The place of one version, where the path is a directory of versions; locked as well.
    pub fn version(&self, name: &TreePath) -> Result<Self, Error> {
        let mut area = Area::open(fs(), self.area.unit_place(name))?;
        area.set_group(self.group);
        Ok(Self { area, trash: self.trash, group: self.group, live: self.live.join(os_path(name)) })
    }

    /// What one version durably holds, without opening its place: the digest of its manifest, and
    /// its rules.
    pub fn version_held(&self, name: &TreePath) -> Result<Option<(Digest, Rules)>, Error> {
        let Some(target) = self.area.unit_target(name)? else { return Ok(None) };
        let Ok(note) = serde_json::from_str::<Note>(&target.note) else { return Ok(None) };
        Ok(Some((target.manifest, Rules::read(note)?)))
    }

    /// The versions that lie here and are known, by name.
    pub fn versions_held(&self) -> Result<Vec<TreePath>, Error> {
        let Some(dir) = self.area.directory()? else { return Ok(Vec::new()) };
        let mut held = Vec::new();
        for entry in dir.entries()? {
            if let Ok(name) = TreePath::parse(&entry.name)
                && self.area.unit_target(&name)?.is_some()
            {
                held.push(name);
            }
        }
        Ok(held)
    }

    /// Notes which generation the versions make up.
    pub fn note_applied(
        &mut self,
        (version, manifest): (Version, Digest),
        rules: &Rules,
    ) -> Result<(), Error> {
        let note = serde_json::to_string(&rules.note).unwrap_or_default();
        Ok(self.area.note_applied(&Target { version, manifest, note })?)
    }

    /// What is published, durably.
    pub fn applied(&self) -> Result<Option<Applied>, Error> {
        let Some(target) = self.area.applied() else { return Ok(None) };
        // A note of a later release costs a comparison with everything, not the tree.
        let Ok(note) = serde_json::from_str::<Note>(&target.note) else { return Ok(None) };
        let observed = note.observed;
        let (version, manifest) = (target.version, target.manifest);
        Ok(Some(Applied { version, manifest, rules: Rules::read(note)?, observed }))
    }

    /// Whether anything lies at the published path.
    pub fn is_published(&self) -> Result<bool, Error> {
        Ok(self.area.is_published()?)
    }

    /// The area itself.
    pub fn area(&self) -> &Area {
        &self.area
    }

    /// The area, to be changed.
    pub fn area_mut(&mut self) -> &mut Area {
        &mut self.area
    }

    /// The assignment's own work directory.
    pub fn home(&self) -> Result<disk::Dir, Error> {
        Ok(self.area.work_dir().reopen()?)
    }

    /// A private directory for downloads and rsync, by its absolute path.
    pub fn scratch(&self) -> Result<std::path::PathBuf, Error> {
        let dir = self.area.work_dir().ensure_dir(b"partial", 0o700)?;
        Ok(dir.path().to_owned())
    }

    /// Reads and digests what is published; `keep` leaves out what is not looked at. What was found,
    /// and what spares reading it again, lies in a file below the work directory.
    pub fn scan(
        &self,
        keep: filetree::scan::Keep<'_>,
        progress: &Arc<Progress>,
        now: Timestamp,
    ) -> Result<(StoredManifest, ScanRecords), Error> {
        let root = fs().open_root(&self.live)?;
        let tell = |scan: filetree::scan::Progress| progress.set(scan.bytes, scan.total_bytes);
        let options = ScanOptions { keep, progress: &tell, ..ScanOptions::new(nanoseconds(now)) };
        let spool = self.spool()?;
        let (mut found, mut records) = (spool.writer(), ScanRecords::begin(&spool));
        let nothing = || -> Box<dyn Iterator<Item = _>> { Box::new(std::iter::empty()) };
        scan_in_parts(&root, &nothing, &options, &mut |part| {
            part.entries.iter().try_for_each(|entry| found.push(entry))?;
            Ok::<_, Error>(spool.keep_record(&mut records, &part.record)?)
        })?;
        Ok((found.finish()?, records))
    }

    /// A file for manifests that this run alone needs.
    pub fn spool(&self) -> Result<Arc<Spool>, Error> {
        Ok(Spool::begin(&self.scratch()?)?)
    }

    /// Takes over what lies at the published path; nothing in it changes. `records` spare reading
    /// what was read already. Gives what lies there of the wanted tree, too.
    pub fn adopt(
        &mut self,
        want: &Arc<impl Entries + 'static>,
        rules: &Rules,
        records: &ScanRecords,
        progress: &Arc<Progress>,
        now: Timestamp,
    ) -> Result<(StoredManifest, Adopted), Error> {
        progress.phase("adopt", "bytes", 0);
        let keep = |path: &TreePath, is_dir: bool| rules.decides(path, is_dir);
        let view = View { keep: &keep, modes: rules.modes, symlinks: rules.symlinks };
        let tell = |scan: filetree::scan::Progress| progress.set(scan.bytes, scan.total_bytes);
        let options = ScanOptions { progress: &tell, ..ScanOptions::new(nanoseconds(now)) };
        let earlier = || -> Box<dyn Iterator<Item = _>> { Box::new(records.each()) };
        let mut have = self.spool()?.writer();
        let adopted = self.area.adopt_into(want, view, &earlier, &options, &mut |entry| {
            Ok::<_, Error>(have.push(&entry)?)
        })?;
        Ok((have.finish()?, adopted))
    }

    /// Plans the way from what was applied to what is wanted; `removals` are those between the two.
    /// What stays apart is known as local from now on; what goes stays readable for `grace`.
    pub fn plan(
        &self,
        have: &dyn Entries,
        have_rules: Option<&Rules>,
        want: &Arc<impl Entries + 'static>,
        want_rules: &Rules,
        removals: &Removals,
        grace: Grace,
    ) -> Result<Plan, Error> {
        let keep_want = |path: &TreePath, is_dir: bool| want_rules.decides(path, is_dir);
        let keep_have = |path: &TreePath, is_dir: bool| {
            have_rules.is_none_or(|rules| rules.decides(path, is_dir)) && removals.concerns(path)
        };
        let have_modes = have_rules.map_or(Modes::AS_IS, |rules| rules.modes);
        let have_links = have_rules.map_or(Symlinks::All, |rules| rules.symlinks);
        let have_view = View { keep: &keep_have, modes: have_modes, symlinks: have_links };
        let (modes, symlinks) = (want_rules.modes, want_rules.symlinks);
        let want_view = View { keep: &keep_want, modes, symlinks };
        Ok(self.area.plan_with_grace(have, have_view, want, want_view, Some(grace))?)
    }

    /// Removed paths that are still readable.
    pub fn withdrawn(&self) -> Result<Option<Withdrawn>, Error> {
        let next = self.area.next_withdrawal().map(Timestamp::from_second);
        let Some(Ok(next)) = next else { return Ok(None) };
        Ok(Some(Withdrawn { paths: self.area.withdrawn_entries()?, next, failures: 0 }))
    }

    /// Reads what is published, or a part of it, and compares it with what was applied.
    pub fn scrub(
        &self,
        have: &Arc<impl Entries + 'static>,
        rules: &Rules,
        options: &ScrubOptions<'_>,
    ) -> Result<ScrubReport, Error> {
        let keep = |path: &TreePath, is_dir: bool| rules.decides(path, is_dir);
        let view = View { keep: &keep, modes: rules.modes, symlinks: rules.symlinks };
        Ok(self.area.scrub(have, view, options)?)
    }

    /// Plans the repair of what was found.
    pub fn plan_repair(
        &self,
        have: &Arc<impl Entries + 'static>,
        rules: &Rules,
        findings: &[Finding],
    ) -> Result<Plan, Error> {
        let keep = |path: &TreePath, is_dir: bool| rules.decides(path, is_dir);
        let view = View { keep: &keep, modes: rules.modes, symlinks: rules.symlinks };
        Ok(self.area.plan_repair(have, view, findings)?)
    }

    /// From now on these paths are local: they stay where they are, and no switch moves them.
    pub fn leave(&mut self, paths: &[TreePath]) -> Result<(), Error> {
        Ok(self.area.leave(paths)?)
    }

    /// Sees to it that all that is published gets the group of the rules.
    pub fn set_group(&mut self, rules: &Rules) -> Result<(), Error> {
        let group = rules.note.group.as_deref().map(group::find).transpose()?;
        if let (Some(name), Some(group)) = (&rules.note.group, group) {
            group::may_give(self.area.work_dir(), name, group)?;
        }
        self.area.set_group(group);
        self.group = group;
        Ok(())
    }

    /// Switches to a plan's generation.
    pub fn switch(
        &mut self,
        plan: &Plan,
        generation: (Version, Digest),
        rules: &Rules,
        order: &AssignmentOrder,
        progress: &Arc<Progress>,
        now: Timestamp,
    ) -> Result<SwitchReport, Error> {
        let mut one = [Switch { site: self, plan, generation, rules, order, progress }];
        let mut reports = switch_together(&mut one, now).map_err(|(_, error)| error)?;
        Ok(reports.pop().unwrap_or_default())
    }

    /// Puts what is published behind a symbolic link, or takes it out again, where the order asks for
    /// the other now; says which of the two was done. No generation changes.
    pub fn settle(&mut self, order: &AssignmentOrder) -> Result<Option<&'static str>, Error> {
        let before = self.area.is_linked();
        if self.area.is_published()? {
            self.area.settle_for(wanted_mode(order))?;
        }
        Ok(match (before, self.area.is_linked()) {
            (false, true) => Some("published behind a symbolic link now (switch = \"symlink\")"),
            (true, false) => Some("published as a directory now, no more behind a symbolic link"),
            _ => None,
        })
    }

    /// Refuses a plan that would fill the disk. What the trash holds of upstreams gives way first,
    /// the oldest before the rest.
    pub fn check_room(&self, plan: &Plan, notice: &dyn Fn(String)) -> Result<(), Error> {
        self.make_room(&|area| area.check_room(plan), notice)
    }

    /// [`Site::check_room`] before there is a plan.
    pub fn check_room_for(
        &self,
        footprint: Footprint,
        notice: &dyn Fn(String),
    ) -> Result<(), Error> {
        self.make_room(&|area| area.check_room_for(footprint), notice)
    }

    fn make_room(
        &self,
        fits: &dyn Fn(&Area) -> Result<(), area::Error>,
        notice: &dyn Fn(String),
    ) -> Result<(), Error> {
        loop {
            let Err(error) = fits(&self.area) else { return Ok(()) };
            let is_short =
                matches!(error, area::Error::DoesNotFit { .. } | area::Error::NoInodes { .. });
            let trash = if is_short { self.area.trash()? } else { None };
            match trash.map(|trash| trash.give_way()).transpose()?.flatten() {
                Some(batch) => {
                    notice(format!("room is short: batch {batch} of the trash was removed"));
                }
                None => return Err(error.into()),
            }
        }
    }
}

/// Which generation an assignment holds, durably, without opening its place. What a crash left in
/// the middle of a switch counts as not switched.
pub fn applied_at(config: &Config, name: &str) -> Result<Option<Target>, Error> {
    let found = |dir: disk::Result<disk::Dir>| match dir {
        Ok(dir) => Ok(Some(dir)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(Error::from(error)),
    };
    let Some(work) = found(fs().open_root(&config.work()))? else { return Ok(None) };
    let Some(own) = found(work.open_child(name.as_bytes()))? else { return Ok(None) };
    Ok(area::applied(&own)?)
}

/// What is to be switched, with all its content staged.
pub struct Switch<'a> {
    /// Where.
    pub site: &'a mut Site,
    /// The way from what is there.
    pub plan: &'a Plan,
    /// Which generation, and the digest of its manifest.
    pub generation: (Version, Digest),
    /// As what it is kept.
    pub rules: &'a Rules,
    /// How.
    pub order: &'a AssignmentOrder,
    /// Told how far it is.
    pub progress: &'a Arc<Progress>,
}

/// Switches several trees together, in order: all are brought up before the first is switched. Of an
/// error it gives the number of the tree.
pub fn switch_together(
    switches: &mut [Switch<'_>],
    now: Timestamp,
) -> Result<Vec<SwitchReport>, (usize, Error)> {
    // What is local and what a rule speaks of stays, whichever side the rule speaks to.
    let keeps: Vec<_> = switches.iter().map(|one| keep_of(one.rules)).collect();
    let tells: Vec<_> = switches.iter().map(|one| tell_of(one.progress)).collect();
    let targets: Vec<Target> = switches
        .iter()
        .map(|one| {
            let (version, manifest) = one.generation;
            let note = serde_json::to_string(&one.rules.note).unwrap_or_default();
            Target { version, manifest, note }
        })
        .collect();
    let mut switchings = Vec::with_capacity(switches.len());
    for (at, one) in switches.iter_mut().enumerate() {
        let options = SwitchOptions {
            keep: &keeps[at],
            mode: wanted_mode(one.order),
            trash_removed: one.site.trash.keep > 0,
            linger: i64::try_from(one.order.linger.duration().as_secs()).unwrap_or(i64::MAX),
            progress: &tells[at],
            ..SwitchOptions::new(now.as_second())
        };
        let (area, plan, target) = (&mut one.site.area, one.plan, &targets[at]);
        switchings.push(Switching { area, plan, target, options });
    }
    let done = area::switch_together(&mut switchings);
    drop(switchings);
    let reports = done.map_err(|(at, error)| (at, error.into()))?;
    for (at, one) in switches.iter().enumerate() {
        let expired = one.site.area.trash().and_then(|trash| match trash {
            Some(trash) => trash.expire(now.as_second(), one.site.trash).map(drop),
            None => Ok(()),
        });
        expired.map_err(|error| (at, error.into()))?;
    }
    Ok(reports)
}

fn keep_of(rules: &Rules) -> impl Fn(&TreePath, bool) -> bool + Sync {
    |path, is_dir| rules.keeps(path, is_dir) && !rules.protects(path, is_dir)
}

fn tell_of(progress: &Arc<Progress>) -> impl Fn(u64, u64) + Sync {
    |done, total| progress.set(done, total)
}

/// How an order wants generations switched. A directory of versions stays a directory, and so do the
/// versions in it.
fn wanted_mode(order: &AssignmentOrder) -> WantedMode {
    match order.switch {
        WantedSwitch::InPlace => WantedMode::InPlace,
        WantedSwitch::Symlink if order.versions.is_none() => WantedMode::Symlink,
        WantedSwitch::Auto | WantedSwitch::Symlink => WantedMode::Auto,
    }
}

/// For how long an order lets removed paths stay readable, from `now` on. In a directory of versions
/// what a version loses goes with its switch: it is the version that stays or goes.
pub fn grace(order: &AssignmentOrder, now: Timestamp) -> Grace {
    let keep = i64::try_from(order.keep_withdrawn.duration().as_secs()).unwrap_or(i64::MAX);
    Grace { now: now.as_second(), keep: if order.versions.is_some() { 0 } else { keep } }
}

/// What a plan changes, counted. What it withdraws counts as deleted now, and not once more when it
/// goes.
pub fn changes(
    plan: &Plan,
    have: &dyn Entries,
    want: &dyn Entries,
) -> Result<Changes, manifest::Error> {
    let mut changes = Changes { deleted: plan.withdrawn_entries().1, ..Changes::default() };
    for change in plan.changes() {
        let change = change?;
        let old = have.find(&change.path)?;
        if !change.wanted && old.is_none() {
            continue;
        }
        let new = want.find(&change.path)?;
        let same_content = old.as_ref().zip(new.as_ref()).is_some_and(|(old, new)| {
            old.digest() == new.digest()
                && std::mem::discriminant(&old.kind) == std::mem::discriminant(&new.kind)
                && (new.is_file() || new.is_dir() || old.kind == new.kind)
        });
        match (change.had, change.wanted) {
            (_, false) => changes.deleted += 1,
            (false, true) => changes.added += 1,
            (true, true) if same_content => {
                changes.attributes += 1;
                continue;
            }
            (true, true) => changes.changed += 1,
        }
        if let Some(new) = new.filter(|new| change.wanted && new.is_file()) {
            let has_old = old.as_ref().is_some_and(Entry::is_file);
            changes.bytes += new.size();
            changes.rsync_bytes += rsync_estimate(new.size(), has_old);
        }
    }
    Ok(changes)
}

/// A tree's path as the system takes it.
pub fn os_path(path: &TreePath) -> &std::path::Path {
    use std::os::unix::ffi::OsStrExt;
    std::path::Path::new(std::ffi::OsStr::from_bytes(path.as_bytes()))
}

fn nanoseconds(now: Timestamp) -> i64 {
    i64::try_from(now.as_nanosecond()).unwrap_or(i64::MAX)
}
