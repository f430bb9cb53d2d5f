//! Reads what is published, says what is wrong with it, and repairs that.
//!
//! What was verified when it was written may be damaged since: by the disk, by a program, by a hand.
//! The manifest of what is held says how everything should be. What is not so is brought again, from
//! the mirror itself where it has it elsewhere, else from wherever the generation can still be had;
//! each content is verified, and the tree is switched as for a new generation. What does not belong
//! there goes to the trash.

mod repair;
mod versions;

use std::sync::{Arc, atomic::AtomicBool};

use filetree::area::{Damage, Finding, ScrubOptions, ScrubReport};
use jiff::Timestamp;
use protocol::{
    path::TreePath,
    v1::agent::{AssignmentOrder, Checked, RunResult},
};
use tokio::task::block_in_place;

use self::repair::Repair;
use crate::{
    agent::Agent,
    apply::{self, Applied, Site},
    fetch::kept::KeptManifest,
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

impl Look<'_> {
    /// The order by which damage is repaired. What is not carried out, or has ended, is only looked
    /// at: nobody touches its files.
    fn repairs<'o>(&self, order: Option<&'o AssignmentOrder>) -> Option<&'o AssignmentOrder> {
        order.filter(|order| self.repair && order.stopped.is_none() && !order.dry_run_only)
    }
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
        return versions::verify(agent, site, order, &applied, look, run).await;
    }
    let have = agent.manifests.get_for(&applied.manifest, &applied.rules.filter);
    let have = have.ok_or(Error::NoManifest)?;
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
    let Some(order) = look.repairs(order) else {
        let (count, first) = (report.findings.len(), first.path.clone());
        let left = Some((paths(), Error::Differs { count, first }));
        return Ok(Done { result: RunResult::Failed, checked, next, left });
    };
    let (extras, damaged) = take_extras(site, &report.findings)?;
    checked.trashed = extras;
    let repair = Repair {
        agent,
        order,
        run,
        generation: (applied.version, applied.manifest),
        have: &have,
        applied: &applied,
        within: None,
    };
    match repair.findings(site, &report.findings).await {
        Ok(()) => {
            checked.repaired = damaged;
            Ok(Done { result: RunResult::Completed, checked, next, left: None })
        }
        Err(error) => {
            Ok(Done { result: RunResult::Failed, checked, next, left: Some((paths(), error)) })
        }
    }
}

/// Moves what does not belong to the trash; gives how many that were, and how much else is wrong.
fn take_extras(site: &mut Site, findings: &[Finding]) -> Result<(u64, u64), apply::Error> {
    let extras = findings.iter().filter(|finding| finding.damage == Damage::Extra);
    let extras: Vec<TreePath> = extras.map(|finding| finding.path.clone()).collect();
    let damaged = (findings.len() - extras.len()) as u64;
    if extras.is_empty() {
        return Ok((0, damaged));
    }
    let now = Timestamp::now().as_second();
    let trashed = block_in_place(|| site.area_mut().trash_paths(&extras, now))?;
    Ok((trashed.len() as u64, damaged))
}

fn scrub(
    site: &Site,
    have: &Arc<KeptManifest>,
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
