//! Removed paths that stay readable for a while go once their time is up.
//!
//! A client that read an index before a switch asks for what it names for minutes after. So what a
//! generation no longer has stays in the published tree for the assignment's `keep-withdrawn`; which
//! paths these are, and until when, the area knows. Nobody has to be asked when they go.
//!
//! A run that finds nothing new is also the moment at which a tree is put behind a symbolic link, or
//! taken out again, because its assignment asks for that now.

use filetree::switch::SwitchReport;
use jiff::Timestamp;
use protocol::v1::agent::{AssignmentOrder, RunResult};
use tokio::task::block_in_place;

use crate::{
    agent::{Agent, note_switch},
    apply::{self, Applied, Site},
    removal::Removals,
    report::Run,
};

/// Takes away what is due, if anything is: the tree stays at the generation that it holds, and at its
/// path as the order asks for it.
pub(crate) fn if_due(
    agent: &Agent,
    site: &mut Site,
    applied: &Applied,
    order: &AssignmentOrder,
    run: &Run,
) -> Result<RunResult, apply::Error> {
    if !run.is_dry()
        && let Some(done) = block_in_place(|| site.settle(order))?
    {
        run.notice(done);
    }
    let now = Timestamp::now();
    let withdrawn = block_in_place(|| site.withdrawn())?;
    // Also where nothing is due yet: an end right after a switch may have kept it from the ledger.
    run.set_withdrawn(withdrawn);
    if run.is_dry() || withdrawn.is_none_or(|withdrawn| withdrawn.next > now) {
        return Ok(RunResult::UpToDate);
    }
    // Without the manifest nothing can be told apart; the next generation takes them along.
    let Some(manifest) = agent.manifests.get_for(&applied.manifest, &applied.rules.filter) else {
        tracing::warn!(assignment = %order.name, "the manifest of what is held is missing");
        return Ok(RunResult::UpToDate);
    };
    let report: SwitchReport = block_in_place(|| {
        site.set_group(&applied.rules)?;
        let want = std::sync::Arc::new(manifest);
        let (rules, grace) = (&applied.rules, apply::grace(order, now));
        let plan = site.plan(&want, Some(rules), &want, rules, &Removals::default(), grace)?;
        run.progress().phase("apply", "entries", plan.change_count());
        let generation = (applied.version, applied.manifest);
        site.switch(&plan, generation, rules, order, run.progress(), now)
    })?;
    run.notice(format!(
        "{} removed paths are gone, which had stayed readable (keep-withdrawn)",
        report.removed_entries
    ));
    note_switch(run, site, &report)?;
    Ok(RunResult::Completed)
}
