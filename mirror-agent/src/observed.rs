//! One run for a tree of a stock rsync daemon: look, compare, bring exactly what differs.
//!
//! Such a server signs nothing and announces nothing; all that can be had is a listing. So the
//! listing is compared with what was seen last; what differs is fetched into a stage and digested;
//! a second listing must show the fetched paths unchanged, or the upstream was being changed
//! meanwhile. What results is an *observed* generation of this assignment alone.

mod bring;
mod differences;
mod error;
mod in_versions;
mod quick;
pub(crate) mod ranked;
mod recorded;
mod room;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use filetree::{fs::Dir, plan::Need};
use jiff::Timestamp;
use protocol::{
    digest::Digest,
    filter::Filter,
    generation::{Epoch, Generation, Version},
    manifest::{Entries, Entry, StoredManifest},
    path::TreePath,
    transfer::Way,
    v1::{
        agent::{AssignmentOrder, RsyncdOrigin, RunResult},
        publisher::Difference,
    },
};
use tokio::task::block_in_place;

use self::differences::{Differing, observe};
pub use self::error::Error;
use crate::{
    agent::{Agent, note_switch},
    apply::{self, Applied, Rules, Site},
    calendar,
    fetch::retries,
    guard::{self, Held as Guarded},
    published::{Base, Outcome, held_of, read},
    removal::Files,
    report::{Came, Run},
    rsync::{
        child::{Error as RsyncError, Limits, Passed},
        connect::to_stock,
        listing::{Listed, Listing, Refused},
        source::Source,
    },
    spool::{ScanRecords, Spool},
    versions::SHARED_AT_A_TIME,
    withdraw,
};

/// How often a listing or a transfer that broke off is tried within one run.
const TRIES: u32 = 3;

/// Brings one assignment to what its upstream shows now.
pub async fn sync(
    agent: &Agent,
    order: &AssignmentOrder,
    from: &RsyncdOrigin,
    run: &Run,
) -> Result<Outcome, Error> {
    if let Some(versions) = &order.versions {
        return in_versions::sync(agent, order, versions, from, run).await;
    }
    let rules = Rules::of(order, true)?;
    let mut site =
        block_in_place(|| Site::open(&agent.config, &order.name.to_string(), &order.path))?;
    let as_here = |applied: &Applied| applied.observed && applied.rules.versions().is_none();
    let applied = site.applied()?.filter(as_here);
    let last = applied.as_ref().map(|applied| applied.version);
    let same_rules = applied.as_ref().is_some_and(|applied| applied.rules.same_as(&rules));
    run.set_versions(last, last);
    if !run.is_dry() {
        block_in_place(|| site.set_group(&rules))?;
    }
    let (work, home) = (site.scratch()?, site.home()?);
    let upstream = source(agent, from, run, &work);
    let content = upstream.clone();
    let look = Look { agent, order, from, rules: &rules, upstream, content, run, home };
    run.progress().phase("list", "bytes", 0);
    let quick = match look.quick(same_rules, &work).await? {
        Quick::Unchanged => return unchanged(agent, &mut site, order, &rules, run),
        Quick::ToBeListed(quick) => quick,
    };
    let listing = look.list(&work).await?;
    look.tell_refused(&listing.refused);
    let version = next_version(last);
    let unit = Unit { listing: &listing, applied, version, bases: &[] };
    match look.bring_unit(&mut site, unit, &work, None).await? {
        Brought::Nothing => {
            if !run.is_dry() {
                quick::remember(agent, order, quick)?;
            }
            unchanged(agent, &mut site, order, &rules, run)
        }
        Brought::Foreseen => Ok((RunResult::CompletedDryRun, None)),
        Brought::Switched(want, digest) => {
            run.set_versions(last, Some(version));
            quick::remember(agent, order, quick)?;
            recorded::remember_server(agent, order, from)?;
            Ok((RunResult::Completed, Some(held_of(&*want, version, digest, &rules, true)?)))
        }
    }
}

/// The number of what is observed next.
fn next_version(last: Option<Version>) -> Version {
    let generation = last.map_or(Generation(1), |last| last.generation.next());
    Version { epoch: Epoch(0), generation }
}

/// One unit of a tree, as the upstream shows it and as it is here.
struct Unit<'a> {
    listing: &'a Listing,
    /// What was observed last.
    applied: Option<Applied>,
    /// Number of what is observed now.
    version: Version,
    /// Directories with similar content, beside what is published.
    bases: &'a [PathBuf],
}

/// What became of a unit.
enum Brought {
    /// It was as the upstream shows it.
    Nothing,
    /// It would change.
    Foreseen,
    /// It was switched to this manifest.
    Switched(Arc<StoredManifest>, Digest),
}

/// Stages contents that lie elsewhere on this disk already.
type Share<'a> = dyn FnMut(&Site, &[Need]) -> Result<(), apply::Error> + Send + 'a;

/// The upstream shows what is held; what was withdrawn goes all the same once its time is up.
fn unchanged(
    agent: &Agent,
    site: &mut Site,
    order: &AssignmentOrder,
    rules: &Rules,
    run: &Run,
) -> Result<Outcome, Error> {
    if run.is_dry() {
        return Ok((RunResult::UpToDateDryRun, None));
    }
    let held = recorded::missing(agent, order, site, rules)?;
    let Some(applied) = site.applied()? else { return Ok((RunResult::UpToDate, held)) };
    Ok((withdraw::if_due(agent, site, &applied, order, run)?, held))
}

/// Name of rsync's directory below the scratch directory.
const STAGE: &str = "rsync";

/// How one unit is looked at.
struct Look<'a> {
    agent: &'a Agent,
    order: &'a AssignmentOrder,
    from: &'a RsyncdOrigin,
    rules: &'a Rules,
    /// Where the tree is listed.
    upstream: Source,
    /// Where the unit's files are: the same, or one version in it.
    content: Source,
    run: &'a Run,
    /// The assignment's own work directory.
    home: Dir,
}

/// What the small files of a tree say about all of it.
enum Quick {
    /// It is as it was.
    Unchanged,
    /// Nothing, or that it changed; what they show, to be remembered once it was listed and taken.
    ToBeListed(Option<Digest>),
}

impl Look<'_> {
    /// Compares a unit with its listing, brings what differs, and switches it.
    async fn bring_unit(
        &self,
        site: &mut Site,
        unit: Unit<'_>,
        work: &Path,
        share: Option<&mut Share<'_>>,
    ) -> Result<Brought, Error> {
        let Self { agent, order, rules, run, .. } = *self;
        let Unit { listing, applied, version, bases } = unit;
        let same_rules = applied.as_ref().is_some_and(|applied| applied.rules.same_as(rules));
        let kept = |held: &Applied| block_in_place(|| agent.manifests.get(&held.manifest));
        let mut base: Base<StoredManifest> = Base::find_by(kept, site, applied, rules, run)?;
        let mut records = ScanRecords::none();
        if base.adopted {
            // The listing has no digests, so what lies here has to be read before it is compared.
            let found;
            (found, records) = read(site, &filetree::scan::keep_all, run)?;
            base.manifest = found;
        }
        if !base.adopted {
            let check = || ranked::check_time(agent, order, self.from, listing, &base.manifest);
            block_in_place(check)?;
        }
        block_in_place(|| self.guard(listing, &base))?;
        let is_same = || listing.agrees_with(&base.manifest);
        if same_rules && base.rules.is_some() && block_in_place(is_same)? {
            return Ok(Brought::Nothing);
        }
        let differing = block_in_place(|| Differing::find(listing, &base.manifest))?;
        block_in_place(|| self.foresee(site, listing, &base, work))?;
        if run.is_dry() {
            let Differing { files, bytes, .. } = differing;
            run.notice(format!("{files} files of {bytes} bytes would be fetched at most"));
            return Ok(Brought::Foreseen);
        }
        block_in_place(|| self.check_room(site, &differing, work))?;
        if differing.files > 0 {
            agent.tell_begun(run);
            self.bring(site, &differing, bases, work).await?;
        }
        let want = block_in_place(|| self.digest(listing, &base.manifest, &differing, work))?;
        let (want, digest) = (Arc::new(want.clone()), want.digest());
        base.adopt(site, &want, rules, &records, run)?;
        let removals = block_in_place(|| base.removals(&*want, rules, false, order))?;
        let plan = block_in_place(|| {
            let grace = apply::grace(order, Timestamp::now());
            site.plan(&base.manifest, base.rules.as_ref(), &want, rules, &removals, grace)
        })?;
        run.add_changes(apply::changes(&plan, &base.manifest, &*want)?);
        if let Some(share) = share {
            let mut parts = plan.needs_in_parts(SHARED_AT_A_TIME);
            block_in_place(|| parts.try_for_each(|part| share(site, &part?)))?;
        }
        block_in_place(|| self.stage(site, &plan, work))?;
        site.leave(&removals.apart)?;
        run.progress().phase("apply", "entries", plan.change_count());
        let progress = Arc::clone(run.progress());
        let report = block_in_place(|| {
            site.switch(&plan, (version, digest), rules, order, &progress, Timestamp::now())
        })?;
        note_switch(run, site, &report)?;
        std::fs::remove_dir_all(work.join(STAGE)).ok();
        Ok(Brought::Switched(want, digest))
    }

    fn tree(&self) -> &protocol::name::TreeName {
        &self.order.name.tree
    }

    /// Asks the tree's small files, where it names some, whether there is anything to be listed; what is
    /// held through other rules has to be.
    async fn quick(&self, same_rules: bool, work: &Path) -> Result<Quick, Error> {
        if self.order.quick_list.is_empty() {
            return Ok(Quick::ToBeListed(None));
        }
        let Some(filter) = quick::filter(&self.order.quick_list) else {
            return Ok(Quick::ToBeListed(None));
        };
        let listing = self.list_through(&filter, work).await?;
        let shown = quick::digest(&listing)?;
        match shown {
            Some(shown) if same_rules && quick::is_unchanged(self.agent, self.order, shown)? => {
                self.run
                    .notice("the files of quick-list are as they were; the tree was not listed");
                Ok(Quick::Unchanged)
            }
            shown => Ok(Quick::ToBeListed(shown)),
        }
    }

    /// Lists the unit, without the links that it may not have.
    async fn list(&self, work: &Path) -> Result<Listing, Error> {
        let listing = match self.rules.version() {
            None => self.list_through(&self.rules.filter, work).await?,
            Some(version) => {
                let filter = in_versions::filter_of(self.order, [version])?;
                let all = self.list_through(&filter, work).await?;
                block_in_place(|| all.below(version))?
            }
        };
        Ok(block_in_place(|| listing.without_links(self.rules.symlinks))?)
    }

    async fn list_through(&self, filter: &Filter, work: &Path) -> Result<Listing, Error> {
        let start = std::time::Instant::now();
        let mut total = Passed::default();
        let mut tries = 0;
        let result = loop {
            tries += 1;
            let (passed, result) = self.upstream.list(filter, work).await;
            total += passed;
            match result {
                Err(error) if error.is_transient() && tries < TRIES => pause(tries).await,
                other => break other,
            }
        };
        let came =
            Came { received_bytes: total.received, sent_bytes: total.sent, ..Came::default() };
        self.run.add_figures(total.figures);
        self.run.add_way(Way::Metadata, &self.upstream.host, came.since(start));
        result.map_err(|source| self.failed(source))
    }

    fn failed(&self, source: RsyncError) -> Error {
        Error::Rsync {
            tree: self.tree().clone(),
            host: format!("{}:{}", self.from.host, self.from.port),
            path: self.from.path.clone(),
            source,
        }
    }

    fn tell_refused(&self, refused: &Refused) {
        for refused in refused.named.iter().take(20) {
            self.run.notice(format!("left out: {refused}"));
        }
        if refused.count > 20 {
            self.run.notice(format!("{} entries were left out", refused.count));
        }
    }

    fn guard(&self, listing: &Listing, base: &Base<StoredManifest>) -> Result<(), Error> {
        let held = |source| Error::Held { tree: self.tree().clone(), source };
        for listed in listing.each() {
            guard::update_marker(&listed?.path).map_err(held)?;
        }
        // What was found at the path is no generation that could shrink.
        let empty = StoredManifest::empty();
        let held_before = if base.adopted { &empty } else { &base.manifest };
        let is_kept = |entry: &Entry| self.rules.keeps(&entry.path, entry.is_dir());
        let kept = || held_before.each().filter(|entry| entry.as_ref().map_or(true, is_kept));
        let is_there = |path: &TreePath| Ok(listing.get(path)?.is_some());
        let mut limits = self.order.guard.clone();
        if let Some(version) = self.rules.version() {
            limits.must_contain =
                limits.must_contain.iter().filter_map(|path| path.below(version)).collect();
        }
        let Err(source) = guard::check(kept(), is_there, &limits)? else { return Ok(()) };
        let mut removed = Files::default();
        let mut difference = Difference::default();
        for entry in kept() {
            let entry = entry?;
            if !entry.is_file() {
                continue;
            }
            difference.of_files += 1;
            difference.of_bytes += entry.size();
            match listing.get(&entry.path)? {
                None => {
                    removed.add(&entry);
                    difference.name(&entry.path);
                }
                Some(listed) if !listed.agrees_but_for_mode(&entry) => {
                    difference.changed_files += 1;
                }
                Some(_) => {}
            }
        }
        for listed in listing.each() {
            let listed = listed?;
            if listed.is_file() && !held_before.find(&listed.path)?.as_ref().is_some_and(is_kept) {
                difference.added_files += 1;
            }
        }
        self.hold(listing, base, source, &removed, difference)
    }

    /// Lets a step pass that an admin approved exactly as it is; else reports it as held.
    fn hold(
        &self,
        listing: &Listing,
        base: &Base<StoredManifest>,
        source: Guarded,
        removed: &Files,
        difference: Difference,
    ) -> Result<(), Error> {
        let filter = self.rules.filter.digest();
        let step = guard::step_digest(base.digest.as_ref(), &listing.digest()?, &filter);
        if let Some(approval) = guard::approval(self.order, &step) {
            self.run.notice(format!("approved by {}: {source}", approval.by));
            return Ok(());
        }
        self.run.set_hold(guard::report(step, &source, removed, difference));
        Err(Error::Held { tree: self.tree().clone(), source })
    }

    /// Looks at what the run is going to change, before anything is fetched for it.
    fn foresee(
        &self,
        site: &Site,
        listing: &Listing,
        base: &Base<StoredManifest>,
        work: &Path,
    ) -> Result<(), Error> {
        if base.rules.is_none() {
            return Ok(());
        }
        // Any digest does: what differs counts as changed, whatever it turns out to be.
        let unread = |listed: &Listed| Ok::<_, Error>(Digest::of(listed.path.as_bytes()));
        let want = Spool::begin(work)?.keep(observe(listing, &base.manifest, unread))?;
        let want = Arc::new(want);
        let removals = base.removals(&*want, self.rules, false, self.order)?;
        removals.notices().for_each(|notice| self.run.notice(notice));
        if let Err(source) = guard::check_removals(&removals, None, &self.order.guard) {
            let difference = Difference::between(&base.manifest, &*want, &|_| true)?;
            self.hold(listing, base, source, &removals.removed, difference)?;
        }
        if self.run.is_dry() {
            let grace = apply::grace(self.order, Timestamp::now());
            let rules = base.rules.as_ref();
            let plan = site.plan(&base.manifest, rules, &want, self.rules, &removals, grace)?;
            self.run.add_changes(apply::changes(&plan, &base.manifest, &*want)?);
            self.run.foresee(&plan, &base.manifest, &*want, self.rules.version())?;
        }
        Ok(())
    }
}

/// rsync from a stock server; `work` is a private directory.
pub(crate) fn source(agent: &Agent, from: &RsyncdOrigin, run: &Run, work: &Path) -> Source {
    Source {
        connect: to_stock(agent.dialer.clone(), from, work, &agent.programs.helper),
        line: Arc::clone(&agent.line),
        host: from.host.clone(),
        path: from.path.clone(),
        // Behind ssh the user is ssh's, unless the daemon asks for a password besides.
        user: from.user.clone().filter(|_| from.ssh.is_none() || from.password_file.is_some()),
        password_file: from.password_file.as_ref().map(Into::into),
        compress: true,
        programs: agent.programs.clone(),
        limits: Limits::default(),
        log: run.log().clone(),
    }
}

async fn pause(tries: u32) {
    let (first, longest) = (std::time::Duration::from_secs(1), std::time::Duration::from_secs(10));
    tokio::time::sleep(retries::backoff(tries, first, longest, retries::chance())).await;
}

/// When the upstream is asked again.
pub fn next_look(order: &AssignmentOrder, now: Timestamp) -> Timestamp {
    calendar::next_look(
        now,
        order.interval.duration(),
        order.splay.map(|s| s.duration()),
        retries::chance(),
    )
}
