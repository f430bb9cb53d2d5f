//! One run for a tree of a publisher: from what is held to the signed target.

mod base;
mod guarded;
mod in_versions;
mod sources;

use std::sync::{Arc, Mutex, PoisonError};

use filetree::plan::Need;
use jiff::Timestamp;
use protocol::{
    digest::Digest,
    filter::Filter,
    generation::Version,
    manifest::Entries,
    pack::{PartOf, target_blocks, target_part},
    path::TreePath,
    statement::Offer,
    transfer::{NoDelta, Way},
    v1::agent::{AssignmentOrder, PublisherOrigin, RunResult},
};
use tokio::task::block_in_place;

use self::guarded::Step;
pub(crate) use self::{
    base::{Base, read},
    sources::{points, rsync_source, servers},
};
use crate::{
    agent::Agent,
    apply::{self, Applied, Rules, Site},
    fetch::{kept::KeptManifest, manifest, pack::Remote, points::Points},
    gather::{self, Link, Meanwhile, Part, Sources, gather},
    guard,
    ledger::Held,
    orders::Verified,
    report::{Came, Run},
    rsync::source::Source,
    spool::ScanRecords,
    versions, withdraw,
};

/// Why a run did not bring a tree to its target.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk.
    #[error(transparent)]
    Apply(#[from] apply::Error),
    /// The target's manifest.
    #[error(transparent)]
    Manifest(#[from] manifest::Error),
    /// Its content.
    #[error(transparent)]
    Gather(#[from] gather::Error),
    /// The guard.
    #[error("tree {tree}: {source}")]
    Held {
        /// Which tree.
        tree: protocol::name::TreeName,
        /// What it saw.
        #[source]
        source: guard::Held,
    },
    /// Nobody can be asked.
    #[error(
        "publisher {publisher} has not said yet where it can be reached; start it, or set 'advertise' in its configuration"
    )]
    NoAddress {
        /// Which publisher.
        publisher: protocol::name::IdentityName,
    },
    /// The directory of versions.
    #[error(transparent)]
    Versions(#[from] versions::Error),
    /// No client for it can be made.
    #[error(transparent)]
    Client(#[from] certs::live::Error),
}

/// What is held after a run, and how the run ended.
pub type Outcome = (RunResult, Option<Held>);

/// Brings one assignment to its target, as far as it is not there.
pub async fn sync(
    agent: &Agent,
    order: &AssignmentOrder,
    from: &PublisherOrigin,
    target: &Verified,
    run: &Run,
) -> Result<Outcome, Error> {
    if let Some(order_of_versions) = &order.versions {
        return in_versions::sync(agent, order, order_of_versions, from, target, run).await;
    }
    match prepare(agent, order, from, target, run).await? {
        Prepared::Done(outcome) => Ok(outcome),
        Prepared::Ready(mut ready) => {
            let report = match ready.switch(order, target, run) {
                // The live tree did not have what was expected of it: that comes from elsewhere, too.
                Err(apply::Error::Area(filetree::area::Error::Missing(missing))) => {
                    ready.bring(agent, order, target, &missing, run).await?;
                    ready.switch(order, target, run)?
                }
                other => other?,
            };
            ready.end(target, &report, run)
        }
    }
}

/// How far a run has come without changing what is published.
pub(crate) enum Prepared {
    /// There is nothing to switch.
    Done(Outcome),
    /// All that is new is staged.
    Ready(Box<Ready>),
}

/// Everything that a switch needs, and by which ways more content could come.
pub(crate) struct Ready {
    pub(crate) site: Site,
    pub(crate) plan: filetree::plan::Plan,
    pub(crate) rules: Rules,
    base: Base,
    want: Arc<KeptManifest>,
    points: Arc<Points>,
    chain: Vec<Link>,
    no_pack: NoPack,
    rsync: Result<Source, NoDelta>,
}

impl Ready {
    /// Brings all of `needs` into staging.
    pub(crate) async fn bring(
        &self,
        agent: &Agent,
        order: &AssignmentOrder,
        target: &Verified,
        needs: &[Need],
        run: &Run,
    ) -> Result<(), gather::Error> {
        self.bring_part(agent, order, target, (needs, Part::default(), None), run).await
    }

    /// The same, where more may follow.
    async fn bring_part(
        &self,
        agent: &Agent,
        order: &AssignmentOrder,
        target: &Verified,
        (needs, part, meanwhile): (&[Need], Part, Option<Meanwhile<'_>>),
        run: &Run,
    ) -> Result<(), gather::Error> {
        let sources = Sources {
            tree: &order.name.tree,
            manifest: target.statement.manifest,
            points: &self.points,
            patience: agent.patience,
            chain: &self.chain,
            no_pack: self.no_pack.clone(),
            rsync: self.rsync.as_ref().map_err(|reason| *reason),
            whole: true,
            part,
            have: &self.base.manifest,
            kept: self.base.rules.as_ref().map(|rules| &rules.filter),
            meanwhile,
        };
        let staging = self.site.area().staging();
        let failed = match gather(&self.site, staging, needs, &sources, run).await {
            Err(error @ gather::Error::NoWay { .. }) => error,
            other => return other,
        };
        let to = Intake { site: &self.site, staging, needs };
        match from_everything(agent, target, to, &sources, run).await? {
            true => Ok(()),
            false => Err(failed),
        }
    }

    fn switch(
        &mut self,
        order: &AssignmentOrder,
        target: &Verified,
        run: &Run,
    ) -> Result<filetree::switch::SwitchReport, apply::Error> {
        run.progress().phase("apply", "entries", self.plan.change_count());
        let generation = (target.version(), target.statement.manifest);
        let progress = Arc::clone(run.progress());
        let Self { site, plan, rules, .. } = self;
        block_in_place(|| site.switch(plan, generation, rules, order, &progress, Timestamp::now()))
    }

    /// How the run ends, once the tree is switched.
    pub(crate) fn end(
        &self,
        target: &Verified,
        report: &filetree::switch::SwitchReport,
        run: &Run,
    ) -> Result<Outcome, Error> {
        crate::agent::note_switch(run, &self.site, report)?;
        let (version, manifest) = (target.version(), target.statement.manifest);
        let held = held_of(&*self.want, version, manifest, &self.rules, false)?;
        Ok((RunResult::Completed, Some(held)))
    }
}

/// Brings all that is new of a target, and changes nothing that is published. Not for a directory of
/// versions.
pub(crate) async fn prepare(
    agent: &Agent,
    order: &AssignmentOrder,
    from: &PublisherOrigin,
    target: &Verified,
    run: &Run,
) -> Result<Prepared, Error> {
    let rules = Rules::of(order, false)?;
    let mut site =
        block_in_place(|| Site::open(&agent.config, &order.name.to_string(), &order.path))?;
    let applied = site.applied()?.filter(|applied| applied.rules.versions().is_none());
    run.set_versions(applied.as_ref().map(|applied| applied.version), Some(target.version()));
    if let Some(applied) = applied.as_ref().filter(|applied| is_target(applied, target, &rules)) {
        let result = withdraw::if_due(agent, &mut site, applied, order, run)?;
        let held = held(agent, applied.version, applied.manifest, &rules, false)?;
        return Ok(Prepared::Done((result, held)));
    }
    if !run.is_dry() {
        block_in_place(|| site.set_group(&rules))?;
    }
    let points = Arc::new(points(agent, &order.name.tree, from, |why| run.notice(why))?);
    run.set_points(&points);
    let mut base = Base::find(agent, &site, applied, &rules, run)?;
    let (want, chain, no_pack) =
        target_of(agent, order, target, &base, &rules, (&site, &points), run).await?;
    let want = Arc::new(want);
    if run.is_dry() && base.adopted {
        run.notice(
            "what lies at the path would be read and taken over; only differences would be fetched",
        );
        return Ok(Prepared::Done((RunResult::CompletedDryRun, None)));
    }
    base.adopt(&mut site, &want, &rules, &ScanRecords::none(), run)?;
    let removals = block_in_place(|| base.removals(&want, &rules, true, order))?;
    removals.notices().for_each(|notice| run.notice(notice));
    let refused = block_in_place(|| rules.refused_links(&want)).map_err(apply::Error::from)?;
    for path in refused {
        run.notice(format!("left out: {path}: {}", rules.symlinks.why()));
    }
    let step = Step {
        agent,
        order,
        target,
        have: &base.manifest,
        held: base.digest,
        want: &*want,
        rules: &rules,
    };
    step.guard(&removals, run).await?;
    let plan = block_in_place(|| {
        let grace = apply::grace(order, Timestamp::now());
        site.plan(&base.manifest, base.rules.as_ref(), &want, &rules, &removals, grace)
    })?;
    let changes = block_in_place(|| apply::changes(&plan, &base.manifest, &want));
    run.add_changes(changes.map_err(apply::Error::from)?);
    if run.is_dry() {
        let result =
            if plan.is_empty() { RunResult::UpToDateDryRun } else { RunResult::CompletedDryRun };
        run.foresee(&plan, &base.manifest, &want, None).map_err(apply::Error::from)?;
        run.notice(format!("{} bytes of content would be fetched at most", plan.fetch_bytes()));
        return Ok(Prepared::Done((result, None)));
    }
    block_in_place(|| site.check_room(&plan, &|notice| run.notice(notice)))?;
    agent.tell_begun(run);
    let rsync = rsync_source(agent, order, from, target.statement.generation, run);
    let mut ready = Ready { site, plan, rules, base, want, points, chain, no_pack, rsync };
    let all = ready.plan.need_count();
    let mut brought = 0;
    let copying = ready.site.area().copying(&ready.plan, gather::BESIDE_BYTES);
    let copy = |goes_on: &(dyn Fn() -> bool + Sync)| Ok(copying.steps(goes_on)?);
    let mut parts = ready.plan.needs_in_parts(gather::AT_A_TIME);
    while let Some(needs) = block_in_place(|| parts.next()) {
        let needs = needs.map_err(apply::Error::from)?;
        let part = Part::of(all, brought, needs.len());
        let meanwhile = Some(Meanwhile(&copy));
        ready.bring_part(agent, order, target, (&needs, part, meanwhile), run).await?;
        brought += needs.len() as u64;
    }
    drop(parts);
    drop(copying);
    if all > gather::AT_A_TIME as u64 {
        gather::drop_frames(&ready.site, &ready.chain)?;
        // The index of a large pack takes as much as the switch does. Should content be missing after
        // all, it comes by other ways, or the pack of everything is asked for its index again.
        ready.chain = Vec::new();
    }
    ready.site.leave(&removals.apart)?;
    Ok(Prepared::Ready(Box::new(ready)))
}

/// Where contents go that are to be brought.
#[derive(Clone, Copy)]
pub(crate) struct Intake<'a> {
    /// Where old content lies, and where the work is done.
    pub(crate) site: &'a Site,
    /// Where new content goes.
    pub(crate) staging: &'a filetree::staging::Staging,
    /// What has to come.
    pub(crate) needs: &'a [Need],
}

/// Draws contents from the pack of everything that leads to a target, where there is one that was
/// not tried already; `false` where that cannot help. Only the publisher has whole files, but such a
/// pack has all of them, and it may lie at a point that can be reached when the publisher cannot.
pub(crate) async fn from_everything(
    agent: &Agent,
    target: &Verified,
    Intake { site, staging, needs }: Intake<'_>,
    sources: &Sources<'_>,
    run: &Run,
) -> Result<bool, gather::Error> {
    let tried = |offer: &&Offer| sources.chain.iter().any(|link| link.offer.pack == offer.pack);
    let Some(offer) = target.of_everything().filter(|offer| !tried(offer)) else {
        return Ok(false);
    };
    let (start, before) = (std::time::Instant::now(), sources.points.mark());
    let nothing = KeptManifest::default();
    let chain = follow(agent, sources.tree, &[offer], &nothing, None, (sources.points, None)).await;
    note_metadata(sources.points, &before, start, run);
    let chain = match chain {
        Ok(Some((_, chain))) => chain,
        Ok(None) => return Ok(false),
        Err((_, detail)) => {
            tracing::warn!(tree = %sources.tree, detail, "the pack of everything helps neither");
            return Ok(false);
        }
    };
    tracing::info!(tree = %sources.tree, "the rest is drawn from the pack of everything");
    // Whatever the pack has is drawn: the other ways were tried.
    let rsync = Err(NoDelta::PointUnreachable);
    let sources = Sources {
        chain: &chain,
        no_pack: None,
        rsync,
        whole: false,
        part: Part::default(),
        ..sources.clone()
    };
    gather(site, staging, needs, &sources, run).await?;
    Ok(true)
}

fn is_target(applied: &Applied, target: &Verified, rules: &Rules) -> bool {
    applied.version == target.version()
        && applied.manifest == target.statement.manifest
        && applied.rules.same_as(rules)
        && !applied.observed
}

/// The manifest of the target: from the packs that lead to it, else from its blocks.
async fn target_of(
    agent: &Agent,
    order: &AssignmentOrder,
    target: &Verified,
    base: &Base,
    rules: &Rules,
    (site, points): (&Site, &Arc<Points>),
    run: &Run,
) -> Result<(KeptManifest, Vec<Link>, NoPack), Error> {
    run.progress().phase("plan", "bytes", 0);
    let tree = &order.name.tree;
    let start = std::time::Instant::now();
    let mut before = points.mark();
    let wanted = target.statement.manifest;
    let share = block_in_place(|| base.share(rules))?;
    let nothing = KeptManifest::default();
    let start_from = base.start(rules);
    let offers = target.chain(start_from.and(base.digest), share);
    let (held, filter) = start_from.unwrap_or((&nothing, None));
    let ahead = Some(points).filter(|_| {
        !run.is_dry() && takes_all(agent, order, target, base, rules) && is_untouched(site, &offers)
    });
    let mut followed = follow(agent, tree, &offers, held, filter, (points, ahead)).await;
    if let Err((NoDelta::Corrupt, detail)) = &followed
        && filter.is_some()
        && held.whole().is_some()
    {
        tracing::warn!(%tree, detail, "the index of a pack cannot be used in parts");
        followed = follow(agent, tree, &offers, held, None, (points, None)).await;
    }
    let (chain, no_pack) = match followed {
        Ok(chain) => (chain, None),
        Err((reason, detail)) => {
            tracing::warn!(%tree, detail, "a pack cannot be used");
            (None, Some((reason, detail)))
        }
    };
    let result = match chain {
        Some((want, chain)) if want.digest() == wanted => {
            let want = match want {
                KeptManifest::Whole(whole) => {
                    agent.manifests.put_list(whole.list())?;
                    KeptManifest::Whole(whole)
                }
                KeptManifest::Part(part) => {
                    let part = part.with_whole_bytes(target.statement.bytes);
                    agent.manifests.put_part(part.named())?;
                    KeptManifest::Part(part)
                }
            };
            (want, chain)
        }
        _ => {
            let statement = &target.statement;
            let fetched =
                manifest::fetch(points, &agent.manifests, tree, statement, agent.patience).await?;
            (KeptManifest::Whole(fetched), Vec::new())
        }
    };
    for link in &result.1 {
        let ahead = link.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        ahead.iter().for_each(|ahead| ahead.count(&mut before, true));
    }
    note_metadata(points, &before, start, run);
    Ok((result.0, result.1, no_pack))
}

/// Whether a site is likely to need nearly all that a pack brings: it keeps the whole tree in one piece,
/// holds what was announced before, or nothing, and was not kept from going on to this.
fn takes_all(
    agent: &Agent,
    order: &AssignmentOrder,
    target: &Verified,
    base: &Base,
    rules: &Rules,
) -> bool {
    let holds_all = match &base.rules {
        Some(held) => held.filter.is_all(),
        None => !base.adopted && base.manifest.count() == 0,
    };
    let failed = agent.ledger.record(&order.name).ok().flatten().and_then(|r| r.failed_target);
    let keeps_all = rules.filter.is_all() && order.versions.is_none();
    keeps_all && holds_all && failed != Some(target.statement.manifest)
}

/// Whether there is one pack to draw from, of which an earlier run has fetched nothing.
fn is_untouched(site: &Site, offers: &[&Offer]) -> bool {
    let [offer] = offers else { return false };
    let work_file = site.scratch().map(|dir| dir.join("packs").join(offer.pack.hex()));
    work_file.is_ok_and(|file| !file.exists())
}

/// Reports what came since `before` as what had to be known first.
fn note_metadata(points: &Points, before: &[u64], start: std::time::Instant, run: &Run) {
    for (point, received_bytes) in points.since(before) {
        let came = Came { received_bytes, ..Came::default() };
        run.add_way(Way::Metadata, point, came.since(start));
    }
}

/// Why offered packs are not used: the reason, and what exactly was seen.
type NoPack = Option<(NoDelta, String)>;

/// Reads the indexes of a chain of packs, one leading on from the other: where there is a filter, what
/// of them concerns whoever keeps what it keeps. Frames are asked for together with an index at the
/// points `ahead`, which are the same.
async fn follow(
    agent: &Agent,
    tree: &protocol::name::TreeName,
    offers: &[&Offer],
    base: &KeptManifest,
    filter: Option<&Filter>,
    (points, ahead): (&Points, Option<&Arc<Points>>),
) -> Result<Option<(KeptManifest, Vec<Link>)>, (NoDelta, String)> {
    if offers.is_empty() {
        return Ok(None);
    }
    let leads_on = offers.first().is_some_and(|offer| offer.from.is_some());
    let mut at = if leads_on { base.clone() } else { KeptManifest::default() };
    let keeps = filter.map(|filter| |path: &TreePath, is_dir| filter.keeps(path, is_dir));
    let mut chain = Vec::new();
    for &offer in offers {
        let remote = Remote { points, tree, offer, patience: agent.patience };
        let index = match (&keeps, ahead) {
            (Some(keeps), _) => remote.index_for(&at, keeps).await.map(|index| (index, None)),
            (None, Some(points)) => remote.index_and_more(points).await,
            (None, None) => remote.index().await.map(|index| (index, None)),
        };
        let (index, ahead) = index.map_err(|error| {
            let damaged = matches!(
                &error,
                crate::fetch::pack::Error::Fetch {
                    source: crate::fetch::ranges::Error::Wrong { .. }
                        | crate::fetch::ranges::Error::Long { .. }
                        | crate::fetch::ranges::Error::Short { .. },
                    ..
                } | crate::fetch::pack::Error::Pack(_)
            );
            let reason = if damaged { NoDelta::Corrupt } else { NoDelta::PointUnreachable };
            (reason, crate::chain(&error))
        })?;
        let put = |block| agent.manifests.put_block(&block);
        let to = block_in_place(|| match (&at, &keeps, filter) {
            (KeptManifest::Whole(from), ..) if index.is_whole() => target_blocks(&index, from, put)
                .map(|to| KeptManifest::Whole(agent.manifests.at(to))),
            (from, Some(keeps), Some(filter)) => {
                let (digest, filter) = (from.digest(), filter.digest());
                let held = PartOf { digest, from, keeps, filter };
                let to = target_part(&index, held, put)?;
                Ok(KeptManifest::Part(agent.manifests.part_at(to)))
            }
            _ => Err(protocol::pack::Error::Partial.into()),
        });
        let to = to.map_err(|error: manifest::Error| (NoDelta::Corrupt, crate::chain(&error)))?;
        let from = Arc::new(std::mem::replace(&mut at, to));
        chain.push(Link { offer: offer.clone(), index, from, ahead: Mutex::new(ahead) });
    }
    Ok(Some((at, chain)))
}

fn held(
    agent: &Agent,
    version: Version,
    digest: Digest,
    rules: &Rules,
    observed: bool,
) -> Result<Option<Held>, apply::Error> {
    let manifest = block_in_place(|| agent.manifests.get_for(&digest, &rules.filter));
    manifest.map(|manifest| held_of(&manifest, version, digest, rules, observed)).transpose()
}

/// What is held, for the ledger and the receipt.
pub(crate) fn held_of(
    manifest: &dyn Entries,
    version: Version,
    digest: Digest,
    rules: &Rules,
    observed: bool,
) -> Result<Held, apply::Error> {
    let (files, bytes) = block_in_place(|| rules.sums(manifest))?;
    Ok(Held {
        version,
        manifest: digest,
        filter: rules.filter.digest(),
        observed,
        applied: Timestamp::now(),
        files,
        bytes,
    })
}
