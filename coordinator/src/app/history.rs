//! What happened: runs and receipts as agents report them, and the lists of both.

use certs::signing;
use protocol::{
    digest::Digest,
    dsse::Envelope,
    hold::HoldId,
    name::TreeName,
    role::Role,
    spec::AssignmentName,
    statement::{Claim as _, Offer, Receipt},
    v1::{
        agent::{MAX_LOG, RunReport, RunResult},
        definitions::Kind,
        history::{GenerationStatus, HoldStatus, LogOf, PackStatus, RunStatus},
    },
};
use uuid::Uuid;

use super::{
    App, Error, Picture, Refusal, Write,
    admission::{Caller, Scope},
    effective,
    publish::MAX_REASON,
};
use crate::db::{Outcome, RunFilter, StoredGeneration, StoredHold, StoredOffer, Topic};

/// Most bytes of texts that a report may carry.
const MAX_NOTICES: usize = 1000;
/// Most statements that are told at once: generations of a week, one every ten minutes.
const MAX_STATEMENTS: u64 = 1008;

impl App {
    /// Keeps a report. The same report again changes nothing.
    pub async fn report_run(&self, caller: &Caller, report: &RunReport) -> Result<(), Error> {
        let own = caller.site.as_ref() == Some(&report.assignment.site);
        if !own {
            return Err(Refusal::Forbidden(format!(
                "{caller} does not hold the assignment {}",
                report.assignment
            ))
            .into());
        }
        if report.notices.len() > MAX_NOTICES {
            let message = format!("a report carries at most {MAX_NOTICES} notices");
            return Err(Refusal::Invalid(message).into());
        }
        if report.log.len() > MAX_LOG {
            let message = format!("the log is longer than {MAX_LOG} bytes");
            return Err(Refusal::Invalid(message).into());
        }
        let mut write = self.write().await?;
        let receipt = receipt(&write.before, caller, report)?;
        if !write.tx.add_run(&caller.name, report, write.now).await? {
            return Ok(());
        }
        write.tx.end_begun(&report.assignment).await?;
        self.tell_of_run(&mut write, caller, report).await?;
        if report.kind.is_verdict() {
            write.tx.put_outcome(&outcome(report)).await?;
        }
        let mut topics = self.note_hold(&mut write, caller, report).await?;
        if let Some(id) = report.undelete
            && write.tx.end_undelete(&report.assignment, id).await?
        {
            topics.extend([Topic::Definitions, Topic::Agent(caller.name.clone())]);
        }
        if let (Some(receipt), Some(envelope)) = (&receipt, &report.receipt)
            && write.tx.put_receipt(receipt, envelope).await?
        {
            topics.push(Topic::Receipts);
            topics.extend(publisher_concerned(&write.before, receipt, &report.assignment));
        }
        if topics.is_empty() {
            return self.commit_quietly(write).await;
        }
        self.commit(write, &topics).await?;
        Ok(())
    }

    /// Keeps what an agent's guard stopped, and forgets it once a run of the assignment succeeds.
    async fn note_hold(
        &self,
        write: &mut Write,
        caller: &Caller,
        report: &RunReport,
    ) -> Result<Vec<Topic>, Error> {
        let AssignmentName { tree, site } = &report.assignment;
        let changed = match (&report.hold, report.result) {
            (Some(hold), _) if hold.reason.len() > MAX_REASON => {
                let message = format!("the reason is longer than {MAX_REASON} bytes");
                return Err(Refusal::Invalid(message).into());
            }
            (Some(hold), _) => {
                let ended = write.tx.end_holds(tree, Some(site), Some(&hold.manifest)).await?;
                let added = write.tx.add_hold(tree, &caller.name, Some(site), hold).await?;
                if added {
                    self.tell_of_hold(write, &report.assignment, hold).await?;
                }
                added || ended
            }
            (None, RunResult::UpToDate | RunResult::Completed) if report.kind.is_sync() => {
                write.tx.end_holds(tree, Some(site), None).await?
            }
            (None, _) => false,
        };
        Ok(if changed { vec![Topic::Generations] } else { Vec::new() })
    }

    /// The signed statements of a tree, from its current one back to the one whose parent has the
    /// manifest `from`, the newest first; empty where nothing leads so far back.
    pub async fn statements(
        &self,
        caller: &Caller,
        tree: &TreeName,
        from: &Digest,
    ) -> Result<Vec<Envelope>, Error> {
        let picture = self.picture();
        let mut held = picture.assignments_of(&caller.name).iter();
        if !held.any(|name| name.tree == *tree) {
            return Err(Refusal::Forbidden(format!("{caller} does not hold a tree {tree}")).into());
        }
        let mut tx = self.parts.database.read().await?;
        let generations = tx.generations(Some(tree), 0, MAX_STATEMENTS).await?;
        let is_last = |generation: &StoredGeneration| {
            generation.parent.as_ref().is_some_and(|parent| parent.manifest == *from)
        };
        let reach = generations.iter().position(is_last).map_or(0, |last| last + 1);
        Ok(generations.into_iter().take(reach).map(|generation| generation.statement).collect())
    }

    /// A page of runs within `scope`, the newest first.
    pub async fn runs(
        &self,
        mut filter: RunFilter,
        scope: &Scope,
        skip: u64,
        limit: u64,
    ) -> Result<Vec<RunStatus>, Error> {
        if let Scope::Site(own) = scope {
            if filter.site.as_ref().is_some_and(|site| site != own) {
                return Ok(vec![]);
            }
            filter.site = Some(own.clone());
        }
        let filter = &filter;
        let mut tx = self.parts.database.read().await?;
        Ok(tx.runs(filter, skip, limit).await?)
    }

    /// One run, if it is within `scope`.
    pub async fn run(&self, id: Uuid, scope: &Scope) -> Result<RunStatus, Error> {
        let mut tx = self.parts.database.read().await?;
        let found = tx.run(id).await?;
        let found = found.filter(|run| scope.covers(&run.report.assignment.site));
        Ok(found.ok_or_else(|| Refusal::NotFound(format!("there is no run {id}")))?)
    }

    /// A run of an assignment within `scope`, with its log.
    pub async fn run_log(
        &self,
        name: &AssignmentName,
        of: LogOf,
        scope: &Scope,
    ) -> Result<RunStatus, Error> {
        if !scope.covers(&name.site) {
            return Err(Refusal::NotFound(format!("there is no assignment {name}")).into());
        }
        let mut tx = self.parts.database.read().await?;
        let Some((id, log)) = tx.run_log(name, of).await? else {
            let what = match of {
                LogOf::Latest => "no log of a run",
                LogOf::Previous => "no log of a second run",
                LogOf::Success => "no log of a run that succeeded",
                LogOf::Change => "no log of a run that changed anything",
            };
            return Err(Refusal::NotFound(format!("there is {what} of {name} yet")).into());
        };
        let found = tx.run(id).await?;
        let mut run = found.ok_or_else(|| Refusal::NotFound(format!("there is no run {id}")))?;
        run.report.log = log;
        Ok(run)
    }

    /// A page of generations, the newest first; on the first page after the holds. Who may not see
    /// all trees has to name one.
    pub async fn generations(
        &self,
        tree: Option<&TreeName>,
        scope: &Scope,
        skip: u64,
        limit: u64,
    ) -> Result<Vec<GenerationStatus>, Error> {
        let picture = self.picture();
        match (tree, scope) {
            (None, Scope::Site(site)) => {
                return Err(Refusal::Invalid(format!(
                    "an operator sees the trees that were granted to {site}; say which one"
                ))
                .into());
            }
            (Some(tree), scope)
                if !picture.wanted.definitions.concerns(Kind::Tree, tree.as_str(), scope) =>
            {
                return Err(Refusal::NotFound(format!("there is no tree {tree}")).into());
            }
            _ => {}
        }
        let mut tx = self.parts.database.read().await?;
        let mut page = Vec::new();
        if skip == 0 {
            let trees =
                picture.contents.trees().filter(|(name, _)| tree.is_none_or(|t| t == *name));
            let holds = trees.flat_map(|(_, contents)| &contents.holds);
            let open = holds.filter(|hold| hold.decision.is_none());
            let shown =
                |hold: &&StoredHold| hold.site.is_none() || scope.covers_some(hold.site.as_ref());
            page.extend(open.filter(shown).map(hold_status));
            page.sort_by_key(|status: &GenerationStatus| std::cmp::Reverse(status.created));
        }
        for generation in tx.generations(tree, skip, limit).await? {
            let offers = &picture.contents.tree(&generation.tree).offers;
            let packs = offers.iter().filter(|offer| offer.to == generation.manifest);
            let packs = packs.map(pack_status).collect();
            page.push(generation_status(generation, packs));
        }
        Ok(page)
    }
}

fn pack_status(offer: &StoredOffer) -> PackStatus {
    // It was read and verified when it was taken.
    let claim = serde_json::from_slice::<Offer>(&offer.offer.payload.0).ok();
    let figures = claim.and_then(|claim| claim.figures);
    PackStatus { from: offer.from, length: offer.length, figures }
}

/// The receipt of a report, if it has one, by the agent itself and about this assignment.
fn receipt(
    picture: &Picture,
    caller: &Caller,
    report: &RunReport,
) -> Result<Option<Receipt>, Refusal> {
    let Some(envelope) = &report.receipt else { return Ok(None) };
    let identity = picture.fleet.identity(Role::Agent, &caller.name);
    let key = identity.map(|identity| identity.signing_key);
    let checked = signing::verify::<Receipt>(
        envelope,
        Receipt::PAYLOAD_TYPE,
        key.as_slice(),
        Receipt::MAX_LEN,
    )
    .map_err(|error| {
        let what = format!("the receipt is not signed by {caller}'s registered key");
        Refusal::Invalid(format!("{what}: {error}"))
    })?;
    let receipt = checked.content;
    let about = (&receipt.agent, &receipt.tree, &receipt.site);
    if about != (&caller.name, &report.assignment.tree, &report.assignment.site) {
        return Err(Refusal::Invalid(format!(
            "the receipt is about {}@{} at {}, not about {}",
            receipt.tree, receipt.site, receipt.agent, report.assignment
        )));
    }
    Ok(Some(receipt))
}

/// The publisher of the tree, if this receipt changes how many hold what.
fn publisher_concerned(
    before: &Picture,
    receipt: &Receipt,
    name: &AssignmentName,
) -> Option<Topic> {
    let known = before.receipts.get(name).filter(|known| !known.observed);
    let held = (!receipt.observed).then_some(receipt.manifest);
    if known.map(|known| known.manifest) == held {
        return None;
    }
    let merged = effective::tree(&before.wanted.definitions, &name.tree)?;
    merged.publisher().cloned().map(Topic::Publisher)
}

fn outcome(report: &RunReport) -> Outcome {
    let success = matches!(report.result, RunResult::UpToDate | RunResult::Completed);
    Outcome {
        assignment: report.assignment.clone(),
        last_result: report.result,
        last_run: report.ended,
        last_success: success.then_some(report.ended),
        error: report.error.clone(),
    }
}

fn generation_status(generation: StoredGeneration, packs: Vec<PackStatus>) -> GenerationStatus {
    GenerationStatus {
        tree: generation.tree,
        version: Some(generation.version),
        manifest: generation.manifest,
        parent: generation.parent,
        entries: generation.entries,
        bytes: generation.bytes,
        created: generation.created,
        held: None,
        hold: None,
        packs,
    }
}

fn hold_status(hold: &StoredHold) -> GenerationStatus {
    GenerationStatus {
        tree: hold.tree.clone(),
        version: None,
        manifest: hold.report.manifest,
        parent: None,
        entries: 0,
        bytes: 0,
        created: hold.report.since,
        held: Some(hold.report.reason.clone()),
        hold: Some(HoldStatus {
            id: HoldId::of(&hold.report.manifest),
            by: hold.publisher.clone(),
            removed_files: hold.report.removed_files,
            removed_bytes: hold.report.removed_bytes,
            difference: hold.report.difference.clone(),
            unseen: hold.report.unseen,
        }),
        packs: vec![],
    }
}
