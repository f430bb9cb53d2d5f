//! One run for a directory of versions of a publisher.
//!
//! The generation's manifest covers the whole directory, as it does for a tree that is one unit;
//! packs, statements and offers are the same. It is taken apart at its first component, and every
//! version switches by itself. Versions that are not wanted, or not finished yet, stay as they are.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc};

use filetree::{
    fs::File,
    plan::{self, Need, View},
};
use jiff::Timestamp;
use protocol::{
    digest::Digest,
    manifest::{self, Entries, Entry, EntryKind, Manifest, StoredManifest},
    path::TreePath,
    v1::agent::{AssignmentOrder, PublisherOrigin, VersionsOrder},
};
use tokio::task::block_in_place;

use super::{Base, Error, NoPack, Outcome, Step, held_of, points, rsync_source, target_of};
use crate::{
    agent::Agent,
    apply::{self, Rules, Site},
    fetch::{self, kept::KeptManifest},
    gather::{AT_A_TIME, Link, Part, Sources, drop_frames, gather},
    orders::Verified,
    report::Run,
    spool::ScanRecords,
    versions::{Directory, Done, MAX_STATUS, SHARED_AT_A_TIME, Shown, Top, Union, part},
};

/// Brings a directory of versions to its target, as far as it is not there.
pub(super) async fn sync(
    agent: &Agent,
    order: &AssignmentOrder,
    versions: &VersionsOrder,
    from: &PublisherOrigin,
    target: &Verified,
    run: &Run,
) -> Result<Outcome, Error> {
    let rules = Rules::of(order, false)?;
    let mut site =
        block_in_place(|| Site::open(&agent.config, &order.name.to_string(), &order.path))?;
    if !run.is_dry() {
        block_in_place(|| site.set_group(&rules))?;
    }
    let applied = site.applied()?.filter(|applied| !applied.observed);
    run.set_versions(applied.as_ref().map(|applied| applied.version), Some(target.version()));
    let points = Arc::new(points(agent, &order.name.tree, from, |why| run.notice(why))?);
    run.set_points(&points);
    // What the publisher announced last, of which the versions here are a part.
    let announced = applied.as_ref().and_then(|applied| agent.manifests.get(&applied.manifest));
    let base = Base {
        digest: applied.as_ref().filter(|_| announced.is_some()).map(|applied| applied.manifest),
        manifest: announced.map(KeptManifest::Whole).unwrap_or_default(),
        rules: applied.map(|applied| applied.rules),
        adopted: false,
    };
    let (want, chain, no_pack) =
        target_of(agent, order, target, &base, &rules, (&site, &points), run).await?;
    // Directories of versions are followed whole.
    let want =
        want.whole().ok_or(protocol::pack::Error::Partial).map_err(fetch::manifest::Error::Pack)?;
    let top = block_in_place(|| top(want)).map_err(apply::Error::from)?;
    let mut directory = Directory::new(site, order, versions, &rules, top, run)?;
    let held = block_in_place(|| directory.held(&agent.manifests))?;
    let rsync = rsync_source(agent, order, from, target.statement.generation, run);
    let round = Round {
        agent,
        order,
        target,
        run,
        want,
        have: held,
        chain: &chain,
        no_pack: &no_pack,
        points: &points,
        rsync: rsync.as_ref().map_err(|reason| *reason),
    };
    let candidates = directory.candidates()?;
    let ready = round.ready(&directory, &candidates).await?;
    let taken = directory.take(candidates, &ready);
    let parts = block_in_place(|| round.parts(&taken))?;
    round.guard(&base, &taken, &parts, &rules).await?;
    if !taken.is_empty() && !run.is_dry() {
        directory.prepare()?;
    }
    for (version, want) in taken.iter().zip(parts) {
        match round.bring(&directory, version, want).await {
            Ok(done) => directory.complete(version, done)?,
            Err(error) => directory.fail(version, crate::chain(&error)),
        }
    }
    directory.end()?;
    if run.is_dry() {
        return Ok((directory.tally.result(true), None));
    }
    let union = block_in_place(|| directory.held(&agent.manifests))?;
    directory.remember(&agent.ledger, &union)?;
    let result = directory.tally.result(false);
    if !directory.tally.is_whole() {
        return Ok((result, None));
    }
    let generation = (target.version(), target.statement.manifest);
    if directory.site.is_published()? {
        directory.prepare()?;
        directory.site.note_applied(generation, &rules)?;
    }
    // What is counted is what lies here; what it is called is what the publisher announced.
    let held = held_of(&union, generation.0, generation.1, &rules, false)?;
    Ok((result, Some(held)))
}

/// Everything that is the same for all versions of one run.
struct Round<'a> {
    agent: &'a Agent,
    order: &'a AssignmentOrder,
    target: &'a Verified,
    run: &'a Run,
    want: &'a StoredManifest,
    /// What lies here, all versions together.
    have: Union,
    chain: &'a [Link],
    no_pack: &'a NoPack,
    points: &'a Arc<crate::fetch::points::Points>,
    rsync: Result<&'a crate::rsync::source::Source, protocol::transfer::NoDelta>,
}

impl Round<'_> {
    fn sources(&self) -> Sources<'_> {
        Sources {
            tree: &self.order.name.tree,
            manifest: self.target.statement.manifest,
            points: self.points,
            patience: self.agent.patience,
            chain: self.chain,
            no_pack: self.no_pack.clone(),
            rsync: self.rsync,
            have: &self.have,
            whole: true,
            part: Part::default(),
            kept: None,
            meanwhile: None,
        }
    }

    /// Which of the candidates are finished, by the status files of this generation.
    async fn ready(
        &self,
        directory: &Directory<'_>,
        candidates: &[Shown],
    ) -> Result<BTreeSet<TreePath>, Error> {
        let mut ready = BTreeSet::new();
        if !directory.versions.sealed {
            return Ok(ready);
        }
        let finished = directory.versions.finished.as_bytes();
        // As it is nearly always written: then its digest says it, and nothing has to come.
        let known = [Digest::of(finished), Digest::of(&[finished, b"\n"].concat())];
        let mut unread = Vec::new();
        for Shown { name, .. } in candidates {
            let path = name.child(directory.versions.status_file.as_bytes()).ok();
            let found = path.map_or(Ok(None), |path| self.want.find(&path));
            let Some(entry) = found.map_err(apply::Error::from)? else { continue };
            let Some(digest) = entry.digest().filter(|_| entry.size() <= MAX_STATUS) else {
                continue;
            };
            if known.contains(&digest) {
                ready.insert(name.clone());
            } else {
                unread.push((name.clone(), entry));
            }
        }
        for (name, entry) in unread {
            if let Some(text) = self.read(&directory.site, &entry).await?
                && directory.says_finished(&text)
            {
                ready.insert(name);
            }
        }
        Ok(ready)
    }

    /// Brings one small file and reads it.
    async fn read(&self, site: &Site, entry: &Entry) -> Result<Option<Vec<u8>>, Error> {
        let Some(dir) = entry.path.parent() else { return Ok(None) };
        let above = Entry { path: dir, mode: 0o755, mtime: 0, kind: EntryKind::Dir };
        let Ok(alone) = Manifest::new(vec![above, entry.clone()]) else { return Ok(None) };
        let alone = Arc::new(alone);
        let plan = plan::compare(&Manifest::empty(), View::AS_IS, &alone, View::AS_IS)
            .map_err(apply::Error::from)?;
        let staging = site.area().staging();
        let needs: Result<Vec<Need>, _> = plan.needs().collect();
        let needs = needs.map_err(apply::Error::from)?;
        gather(site, staging, &needs, &self.sources(), self.run).await?;
        let Some(file) = needs.first().and_then(|need| staging.base_file(need)) else {
            return Ok(None);
        };
        Ok(Some(text_of(&file)?))
    }

    /// The manifests that these versions are to have, in the same order.
    fn parts(&self, taken: &[Shown]) -> Result<Vec<StoredManifest>, fetch::manifest::Error> {
        let of = |version: &Shown| {
            let entries = part(self.want, &version.name)?;
            self.agent.manifests.put_blocks(entries.map(|entry| Ok(entry?)))
        };
        taken.iter().map(of).collect()
    }

    /// Stops the run before anything is fetched, if the versions together lose more than anybody's
    /// signature speaks of.
    async fn guard(
        &self,
        base: &Base,
        taken: &[Shown],
        parts: &[StoredManifest],
        rules: &Rules,
    ) -> Result<(), Error> {
        let mut wanted = self.have.clone();
        for (version, part) in taken.iter().zip(parts) {
            wanted.insert(version, part.clone());
        }
        let (manifest, digest) = (self.have.clone(), base.digest);
        let have = Base { manifest, digest, rules: base.rules.clone(), adopted: false };
        let removals = block_in_place(|| have.removals(&wanted, rules, true, self.order))?;
        removals.notices().for_each(|notice| self.run.notice(notice));
        let Self { agent, order, target, .. } = *self;
        let (have, held) = (&have.manifest, digest);
        let step = Step { agent, order, target, have, held, want: &wanted, rules };
        step.guard(&removals, self.run).await
    }

    async fn bring(
        &self,
        directory: &Directory<'_>,
        version: &Shown,
        want: StoredManifest,
    ) -> Result<Done, Error> {
        let Self { agent, order, run, .. } = *self;
        let name = &version.name;
        let rules = directory.rules.of_version(name);
        if let Some((held, held_rules)) = directory.site.version_held(name)?
            && held == want.digest()
            && held_rules.same_as(&rules)
        {
            return Ok(Done::UpToDate);
        }
        let live: PathBuf = directory.site.live.join(apply::os_path(name));
        if run.is_dry() && !live.is_dir() {
            for entry in want.each() {
                let entry = entry.map_err(apply::Error::from)?;
                if !entry.is_dir() && rules.keeps(&entry.path, false) {
                    run.foresee_transfer(&entry.path, Some(name));
                }
            }
            return Ok(Done::Changed);
        }
        let want = Arc::new(want);
        let mut site = block_in_place(|| directory.site.version(name))?;
        let applied = site.applied()?.filter(|applied| !applied.observed);
        let mut base = Base::find(agent, &site, applied, &rules, run)?;
        if run.is_dry() && base.adopted {
            run.notice(format!(
                "what lies at {name} would be read and taken over; only differences would be fetched"
            ));
            return Ok(Done::Changed);
        }
        base.adopt(&mut site, &want, &rules, &ScanRecords::none(), run)?;
        let removals = block_in_place(|| base.removals(&want, &rules, true, order))?;
        let plan = block_in_place(|| {
            let grace = apply::grace(order, Timestamp::now());
            site.plan(&base.manifest, base.rules.as_ref(), &want, &rules, &removals, grace)
        })?;
        let changes = block_in_place(|| apply::changes(&plan, &base.manifest, &want));
        run.add_changes(changes.map_err(apply::Error::from)?);
        if run.is_dry() {
            run.foresee(&plan, &base.manifest, &want, Some(name)).map_err(apply::Error::from)?;
            return Ok(if plan.is_empty() { Done::UpToDate } else { Done::Changed });
        }
        let same = plan.is_empty();
        block_in_place(|| site.check_room(&plan, &|why| run.notice(why)))?;
        if !same {
            agent.tell_begun(run);
        }
        agent.manifests.put_list(want.list())?;
        let sources = self.sources();
        let (all, mut brought) = (plan.need_count(), 0);
        for shared in plan.needs_in_parts(SHARED_AT_A_TIME) {
            let shared = shared.map_err(apply::Error::from)?;
            block_in_place(|| directory.share(name, &site, &shared, &agent.manifests))?;
            for needs in shared.chunks(AT_A_TIME) {
                let part = Part::of(all, brought, needs.len());
                let (needs, sources) =
                    (self.in_tree(needs, name), Sources { part, ..sources.clone() });
                gather(&directory.site, site.area().staging(), &needs, &sources, run).await?;
                brought += needs.len() as u64;
            }
        }
        if all > AT_A_TIME as u64 {
            drop_frames(&directory.site, self.chain)?;
        }
        site.leave(&removals.apart)?;
        let report = match self.switch(&mut site, &plan, &want, &rules) {
            Err(apply::Error::Area(filetree::area::Error::Missing(missing))) => {
                let missing = self.in_tree(&missing, name);
                gather(&directory.site, site.area().staging(), &missing, &sources, run).await?;
                self.switch(&mut site, &plan, &want, &rules)?
            }
            other => other?,
        };
        crate::agent::note_switch(run, &site, &report)?;
        Ok(if same { Done::UpToDate } else { Done::Changed })
    }

    fn switch(
        &self,
        site: &mut Site,
        plan: &filetree::plan::Plan,
        want: &StoredManifest,
        rules: &Rules,
    ) -> Result<filetree::switch::SwitchReport, apply::Error> {
        self.run.progress().phase("apply", "entries", plan.change_count());
        let generation = (self.target.version(), want.digest());
        let progress = Arc::clone(self.run.progress());
        let now = Timestamp::now();
        block_in_place(|| site.switch(plan, generation, rules, self.order, &progress, now))
    }

    /// The needs of one version as the whole tree names them.
    fn in_tree(&self, needs: &[Need], version: &TreePath) -> Vec<Need> {
        let named = |need: &Need| {
            let path = version.child(need.path.as_bytes()).ok()?;
            Some(Need { path, ..need.clone() })
        };
        needs.iter().filter_map(named).collect()
    }
}

fn top(manifest: &StoredManifest) -> Result<Top, manifest::Error> {
    let mut top = Top::default();
    for entry in manifest.each() {
        let entry = entry?;
        if entry.path.parent().is_some() {
            continue;
        }
        let name = entry.path;
        top.names.insert(name.clone());
        match entry.kind {
            EntryKind::Dir => top.dirs.push(Shown { name, mode: entry.mode, mtime: entry.mtime }),
            EntryKind::Symlink { target } => top.links.push((name, target)),
            EntryKind::File { .. } => {}
        }
    }
    Ok(top)
}

fn text_of(file: &File) -> Result<Vec<u8>, apply::Error> {
    let mut text = vec![0; MAX_STATUS as usize];
    let len = file.read_at(0, &mut text)?;
    text.truncate(len);
    Ok(text)
}
