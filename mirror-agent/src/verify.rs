//! Reads what is published, says what is wrong with it, and repairs that.
//!
//! What was verified when it was written may be damaged since: by the disk, by a program, by a hand.
//! The manifest of what is held says how everything should be. What is not so is brought again, from
//! the mirror itself where it has it elsewhere, else from wherever the generation can still be had;
//! each content is verified, and the tree is switched as for a new generation. What does not belong
//! there goes to the trash.

use std::sync::{Arc, atomic::AtomicBool};

use filetree::{
    area::{Damage, Finding, ScrubOptions, ScrubReport},
    plan::Need,
};
use jiff::Timestamp;
use protocol::{
    manifest::StoredManifest,
    path::TreePath,
    v1::agent::{AssignmentOrder, Checked, Origin, RunResult},
};
use tokio::task::block_in_place;

use crate::{
    agent::{Agent, note_switch},
    apply::{self, Applied, Site},
    fetch::points::Points,
    gather::{self, Sources, gather},
    observed, published,
    report::Run,
};

/// Most findings that a report names.
const MAX_NAMED: usize = 50;

/// Why a tree was not verified, or not repaired.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk.
    #[error(transparent)]
    Apply(#[from] apply::Error),
    /// Nothing is there to compare with.
    #[error("nothing of it is held here yet, or what lies there was not put there by this agent")]
    NothingHeld,
    /// The manifest is gone.
    #[error("the manifest of what is held is missing; the next generation brings another")]
    NoManifest,
    /// It is not as it should be, and was left so.
    #[error("{count} of the published files are not what they should be, the first is {first}")]
    Differs {
        /// How many.
        count: usize,
        /// One of them.
        first: TreePath,
    },
    /// The contents could not be had.
    #[error("{count} damaged files could not be repaired, the first is {first}")]
    NotRepaired {
        /// How many.
        count: usize,
        /// One of them.
        first: TreePath,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// What to look at, and what to do about it.
pub(crate) struct Look<'a> {
    /// Where to begin; the whole tree where nothing is named.
    pub(crate) from: Option<&'a TreePath>,
    /// Bytes to read at most, but for those found before.
    pub(crate) most_bytes: u64,
    /// Called with bytes that were read; may take its time.
    pub(crate) tick: &'a (dyn Fn(u64) + Sync),
    /// Set to end it early.
    pub(crate) cancel: &'a AtomicBool,
    /// Found before, and not repaired yet.
    pub(crate) suspects: &'a [TreePath],
    /// Whether anything is changed.
    pub(crate) repair: bool,
}

/// What was seen and done.
pub(crate) struct Done {
    pub(crate) result: RunResult,
    pub(crate) checked: Checked,
    /// Where the next part begins; `None` at the end of the tree.
    pub(crate) next: Option<TreePath>,
    /// What is damaged still, and why.
    pub(crate) left: Option<(Vec<TreePath>, Error)>,
}

/// Verifies an assignment's tree, or a part of it, and repairs it as its order allows.
pub(crate) async fn verify(
    agent: &Agent,
    site: &mut Site,
    order: Option<&AssignmentOrder>,
    look: &Look<'_>,
    run: &Run,
) -> Result<Done, Error> {
    let applied = site.applied()?.ok_or(Error::NothingHeld)?;
    run.set_versions(Some(applied.version), Some(applied.version));
    if applied.rules.versions().is_some() {
        return verify_versions(agent, site, look, run);
    }
    let have = agent.manifests.get(&applied.manifest).ok_or(Error::NoManifest)?;
    let have = Arc::new(have);
    let report = block_in_place(|| scrub(site, &have, &applied, look, run))?;
    let mut checked =
        Checked { files: report.read_files, bytes: report.read_bytes, ..Checked::default() };
    count(&report.findings, &mut checked);
    for finding in report.findings.iter().take(MAX_NAMED) {
        run.notice(format!("{} {}", finding.path, finding.damage));
    }
    let next = report.next;
    let Some(first) = report.findings.first() else {
        return Ok(Done { result: RunResult::UpToDate, checked, next, left: None });
    };
    let paths = || report.findings.iter().map(|finding| finding.path.clone()).collect::<Vec<_>>();
    // What is not carried out, or has ended, is only looked at: nobody touches its files.
    let touched = |order: &&AssignmentOrder| order.stopped.is_none() && !order.dry_run_only;
    let order = order.filter(|order| look.repair && touched(order));
    let Some(order) = order else {
        let (count, first) = (report.findings.len(), first.path.clone());
        let left = Some((paths(), Error::Differs { count, first }));
        return Ok(Done { result: RunResult::Failed, checked, next, left });
    };
    let now = Timestamp::now();
    let extra = |finding: &&Finding| finding.damage == Damage::Extra;
    let extras: Vec<TreePath> =
        report.findings.iter().filter(extra).map(|f| f.path.clone()).collect();
    if !extras.is_empty() {
        let trashed = block_in_place(|| site.area_mut().trash_paths(&extras, now.as_second()));
        checked.trashed = trashed.map_err(apply::Error::from)?.len() as u64;
    }
    let damaged = (report.findings.len() - extras.len()) as u64;
    let repaired = repair(agent, site, order, (&have, &applied), &report.findings, run).await;
    match repaired {
        Ok(()) => {
            checked.repaired = damaged;
            Ok(Done { result: RunResult::Completed, checked, next, left: None })
        }
        Err(error) => {
            Ok(Done { result: RunResult::Failed, checked, next, left: Some((paths(), error)) })
        }
    }
}

/// Looks at each version of a directory of versions, whole. Nothing is repaired there: a version is
/// brought again when it is removed, or when its upstream changes.
fn verify_versions(agent: &Agent, site: &Site, look: &Look<'_>, run: &Run) -> Result<Done, Error> {
    let mut checked = Checked::default();
    let mut damaged = Vec::new();
    let most_bytes = if look.most_bytes == 0 { 0 } else { u64::MAX };
    for version in site.versions_held()? {
        // Found before and not repaired: it is looked at again under its name in the version.
        let inside = |path: &&TreePath| path.is_inside(&version);
        let below = |path: &TreePath| path.as_bytes()[version.as_bytes().len() + 1..].to_vec();
        let suspects = look.suspects.iter().filter(inside).map(below);
        let suspects: Vec<_> = suspects.filter_map(|path| TreePath::parse(&path).ok()).collect();
        let whole = Look { from: None, most_bytes, suspects: &suspects, ..*look };
        let unit = site.version(&version)?;
        let applied = unit.applied()?.ok_or(Error::NothingHeld)?;
        let have = Arc::new(agent.manifests.get(&applied.manifest).ok_or(Error::NoManifest)?);
        let report = block_in_place(|| scrub(&unit, &have, &applied, &whole, run))?;
        checked.files += report.read_files;
        checked.bytes += report.read_bytes;
        count(&report.findings, &mut checked);
        for Finding { path, damage } in report.findings {
            let path = version.child(path.as_bytes()).unwrap_or(path);
            if damaged.len() < MAX_NAMED {
                run.notice(format!("{path} {damage}"));
            }
            damaged.push(path);
        }
    }
    let (result, left) = match damaged.first().cloned() {
        None => (RunResult::UpToDate, None),
        Some(first) => {
            let count = damaged.len();
            (RunResult::Failed, Some((damaged, Error::Differs { count, first })))
        }
    };
    Ok(Done { result, checked, next: None, left })
}

fn scrub(
    site: &Site,
    have: &Arc<StoredManifest>,
    applied: &Applied,
    look: &Look<'_>,
    run: &Run,
) -> Result<ScrubReport, apply::Error> {
    let (_, total) = applied.rules.sums(have)?;
    run.progress().phase("verify", "bytes", if look.from.is_none() { total } else { 0 });
    let tick = |bytes| {
        run.progress().add(bytes);
        (look.tick)(bytes);
    };
    let options = ScrubOptions {
        from: look.from,
        most_bytes: look.most_bytes,
        tick: &tick,
        cancel: look.cancel,
        ..ScrubOptions::whole()
    };
    let mut report = match look.most_bytes {
        0 => ScrubReport::default(),
        _ => site.scrub(have, &applied.rules, &options)?,
    };
    if !look.suspects.is_empty() {
        let only =
            ScrubOptions { from: None, only: look.suspects, most_bytes: u64::MAX, ..options };
        let again = site.scrub(have, &applied.rules, &only)?;
        let is_new = |finding: &Finding| !report.findings.contains(finding);
        let new: Vec<Finding> = again.findings.into_iter().filter(is_new).collect();
        report.findings.extend(new);
        report.findings.sort_by(|one, other| one.path.cmp(&other.path));
    }
    Ok(report)
}

async fn repair(
    agent: &Agent,
    site: &mut Site,
    order: &AssignmentOrder,
    (have, applied): (&Arc<StoredManifest>, &Applied),
    findings: &[Finding],
    run: &Run,
) -> Result<(), Error> {
    block_in_place(|| site.set_group(&applied.rules))?;
    let plan = block_in_place(|| site.plan_repair(have, &applied.rules, findings))?;
    if plan.is_empty() {
        return Ok(());
    }
    let needs = block_in_place(|| site.area().stage_retired(plan.needs()));
    let needs = needs.map_err(apply::Error::from)?;
    bring(agent, site, order, (have, applied), &needs, run).await?;
    let mut tries = 0;
    let report = loop {
        let now = Timestamp::now();
        let generation = (applied.version, applied.manifest);
        run.progress().phase("apply", "entries", plan.changes().len() as u64);
        let switched = block_in_place(|| {
            site.switch(&plan, generation, &applied.rules, order, run.progress(), now)
        });
        match switched {
            // Another file of the mirror was to give the content, and is damaged as well.
            Err(apply::Error::Area(filetree::area::Error::Missing(missing))) if tries < 2 => {
                tries += 1;
                for need in missing.iter().take(MAX_NAMED) {
                    run.notice(format!("{} is missing or damaged as well", need.path));
                }
                bring(agent, site, order, (have, applied), &missing, run).await?;
            }
            other => break other?,
        }
    };
    note_switch(run, site, &report)?;
    Ok(())
}

/// Brings contents into staging, from wherever the generation that is held can be had.
async fn bring(
    agent: &Agent,
    site: &Site,
    order: &AssignmentOrder,
    (have, applied): (&Arc<StoredManifest>, &Applied),
    needs: &[Need],
    run: &Run,
) -> Result<(), Error> {
    let Some(first) = needs.first() else { return Ok(()) };
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| Error::NotRepaired {
        count: needs.len(),
        first: first.path.clone(),
        source,
    };
    let (points, rsync);
    match &order.origin {
        Origin::Publisher(from) => {
            points = published::points(agent, &order.name.tree, from, |why| run.notice(why))
                .map_err(|error| failed(error.into()))?;
            rsync = published::rsync_source(agent, order, from, applied.version.generation, run);
        }
        Origin::Rsyncd(from) => {
            points = Points::new(Vec::new());
            rsync = Ok(observed::source(agent, from, run, &site.scratch()?));
        }
    }
    let points = Arc::new(points);
    run.set_points(&points);
    let sources = Sources {
        tree: &order.name.tree,
        manifest: applied.manifest,
        points: &points,
        patience: agent.patience,
        chain: &[],
        no_pack: None,
        rsync: rsync.as_ref().map_err(|reason| *reason),
        whole: true,
        have: &**have,
        kept: Some(&applied.rules.filter),
    };
    let work = gather(site, site.area().staging(), needs, &sources, run);
    let brought = agent.under_lease(order, work).await.map_err(|error| failed(error.into()))?;
    match brought {
        Ok(()) => Ok(()),
        Err(gather::Error::Apply(error)) => Err(error.into()),
        Err(error) => Err(failed(error.into())),
    }
}

fn count(findings: &[Finding], checked: &mut Checked) {
    for finding in findings {
        *match finding.damage {
            Damage::Flipped => &mut checked.flipped,
            Damage::Length { .. } => &mut checked.cut,
            Damage::Missing => &mut checked.missing,
            Damage::Unreadable => &mut checked.unreadable,
            Damage::Extra => &mut checked.extra,
            Damage::Kind | Damage::Attributes => &mut checked.attributes,
        } += 1;
    }
}
