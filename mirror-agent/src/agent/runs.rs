//! Runs: one assignment moved by one step, with its record and its report.

use std::{pin::pin, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream};
use jiff::Timestamp;
use protocol::{
    spec::{AssignmentName, OnEnd},
    v1::agent::{AssignmentOrder, Origin, RunReport, RunResult, Stopped},
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{
    Agent,
    bring::unharmed,
    gates,
    leases::{self, Lease},
    names::{Forced, NoSuchTree},
};
use crate::{
    apply, fetch, hooks,
    ledger::{self, GoesBack, Record},
    observed,
    orders::{self, Orders, Verified},
    published,
    reconcile::{self, Situation, Step},
    report::Run,
    turns::Rank,
};

/// A look at everything at least so often, whether or not anything was heard.
const TICK: Duration = Duration::from_secs(20);

/// Assignments that are looked at together.
const MOST_STEPS: usize = 1_000;

/// How often one looks whether another run has ended.
const TURN: Duration = Duration::from_millis(100);

/// Why a run ended without its goal.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Published(#[from] published::Error),
    #[error(transparent)]
    Observed(#[from] observed::Error),
    #[error("the run was not begun")]
    Before(#[from] hooks::Error),
    #[error("this program made a mistake and gave the run up; please report it: {0}")]
    Mistake(String),
    #[error(transparent)]
    Lease(#[from] leases::Error),
    #[error(transparent)]
    Orders(#[from] orders::Error),
    #[error(transparent)]
    Ledger(#[from] ledger::Error),
    #[error(transparent)]
    Apply(#[from] apply::Error),
    #[error(transparent)]
    Manifest(#[from] fetch::manifest::Error),
    #[error(
        "tree {0} is not carried out at present: it was disabled, or its grant has ended; its files stay"
    )]
    Stopped(protocol::name::TreeName),
    #[error(
        "the coordinator's signed head has expired, so nothing new is begun; the mirror goes on serving what it has"
    )]
    Stale,
    #[error("cannot rename {from} to {to}")]
    Move {
        from: protocol::path::TreePath,
        to: protocol::path::TreePath,
        source: filetree::fs::Error,
    },
    #[error(
        "its tree is still to be renamed from {from} to {to}; another tree, or a run, is in the way"
    )]
    ToBeMoved { from: protocol::path::TreePath, to: protocol::path::TreePath },
    #[error(
        "it is to be published where the tree of {by} still lies, which has to be renamed first"
    )]
    InTheWay { by: AssignmentName },
    #[error(transparent)]
    Verify(#[from] crate::verify::Error),
    #[error("nothing of it is held here yet")]
    NothingHeld,
    #[error("it is switched together with {0}, which another run works on; it is tried again")]
    OtherRuns(AssignmentName),
    #[error("it is switched together with {other}, which cannot be switched")]
    Together { other: AssignmentName, source: Box<Error> },
    #[error(transparent)]
    NoBatch(#[from] filetree::area::NoBatch),
    #[error("the trash has nothing of that; 'mirror-agent trash' lists what it has")]
    NotInTrash,
    #[error(
        "nothing was brought back: {count} paths are taken or protected, the first is {first}; move what lies there away first"
    )]
    Occupied { count: usize, first: protocol::path::TreePath },
}

impl Agent {
    /// One activation: every assignment is moved by one step where one is due, or forced.
    /// Gives the reports of the runs.
    pub async fn activate(&self, forced: &Forced, dry: bool) -> Vec<RunReport> {
        let names = match self.names() {
            Ok(names) => names,
            Err(error) => {
                tracing::error!(error = crate::chain(&error), "the ledger cannot be read");
                return Vec::new();
            }
        };
        let mut reports = if dry { Vec::new() } else { self.move_and_report(forced) };
        if !dry {
            self.note_ends();
            self.tidy_trash();
        }
        let failed: Vec<_> = reports.iter().map(|report| report.assignment.clone()).collect();
        let mut steps = Vec::with_capacity(names.len());
        for name in names.into_iter().filter(|name| !failed.contains(name)) {
            steps.push(self.step(name, forced, dry));
        }
        // How many run at a time, and which first, is decided where a turn is taken.
        let mut done = stream::iter(steps).buffer_unordered(MOST_STEPS);
        while let Some(report) = done.next().await {
            reports.extend(report);
        }
        if !dry {
            for report in reports.iter_mut().filter(|report| failed.contains(&report.assignment)) {
                if let Some(told) = self.settle(&report.assignment).await {
                    *report = told;
                }
            }
        }
        reports
    }

    /// Works until `shutdown`. A long run of one tree keeps no other waiting; a run that is under
    /// way at the end stops at its next safe point.
    pub(crate) async fn work(self: Arc<Self>, shutdown: CancellationToken) {
        let mut steps = JoinSet::new();
        loop {
            self.move_and_report(&Forced::Due);
            self.note_ends();
            self.tidy_trash();
            self.save_account();
            for name in self.names().unwrap_or_default() {
                if !self.is_busy(&name) {
                    let agent = Arc::clone(&self);
                    steps.spawn(async move { agent.step(name, &Forced::Due, false).await });
                }
            }
            let mut rest = pin!(tokio::time::sleep(self.rest(TICK)));
            loop {
                tokio::select! {
                    () = shutdown.cancelled() => {
                        steps.abort_all();
                        while steps.join_next().await.is_some() {}
                        return;
                    }
                    () = self.wake.notified() => break,
                    () = &mut rest => break,
                    done = steps.join_next(), if !steps.is_empty() => {
                        // A run may have made another possible; a step that was none has not.
                        if matches!(done, Some(Ok(Some(_)))) {
                            break;
                        }
                    }
                }
            }
        }
    }

    /// One step, with the site's commands that are owed before it and after it.
    async fn step(&self, name: AssignmentName, forced: &Forced, dry: bool) -> Option<RunReport> {
        let is_forced = forced.includes(&name);
        let _busy = self.take_turn(&name, is_forced).await?;
        let orders = self.orders();
        let ordered = orders.as_deref().and_then(|orders| orders.order(&name));
        if let Some(order) = ordered.filter(|order| order.dry_run_only && !dry) {
            let report = self.step_alone(&name, forced, true).await?;
            if let Err(error) = self.record_rehearsal(order, &report) {
                tracing::error!(assignment = %name, error = crate::chain(&error), "not recorded");
            }
            return Some(report);
        }
        if !dry {
            self.settle(&name).await;
        }
        let report = self.step_alone(&name, forced, dry).await?;
        let told = if dry { None } else { self.settle(&name).await };
        Some(told.filter(|told| told.id == report.id).unwrap_or(report))
    }

    async fn step_alone(
        &self,
        name: &AssignmentName,
        forced: &Forced,
        dry: bool,
    ) -> Option<RunReport> {
        let is_forced = forced.includes(name);
        self.look_for_latest(name).await;
        let orders = self.orders();
        let order = orders.as_deref().and_then(|orders| orders.order(name));
        // What is not due waits for nobody.
        if matches!(self.find_step(name, orders.as_deref(), forced, dry), Ok(None)) {
            return None;
        }
        let _turn = self.turns.take(order.map_or(Rank::LAST, Rank::of)).await;
        // One look at the orders for the decision and for what follows from it.
        let orders = self.orders();
        let order = orders.as_deref().and_then(|orders| orders.order(name));
        match self.find_step(name, orders.as_deref(), forced, dry) {
            Ok(None) => None,
            Ok(Some((Step::Sync, _)))
                if !is_forced && order.is_some_and(|order| !self.lets_through(order)) =>
            {
                None
            }
            Ok(Some((Step::Sync, target))) => {
                let lease = match order {
                    Some(order) => self.lease(order, is_forced).await,
                    None => Ok(None),
                };
                let report = match lease {
                    Ok(lease) => Some(self.run(name, orders.as_deref(), target, lease, dry).await),
                    // Another run of this network has the connection: it comes again.
                    Err(leases::Error::AllTaken { .. }) if !is_forced => None,
                    Err(error) => Some(self.failed(name, &error.into(), dry)),
                };
                if let Some(order) = order {
                    self.end_probes(order);
                }
                report
            }
            Ok(Some((Step::Release | Step::Undelete, _))) if dry => None,
            Ok(Some((Step::Release, _))) => match self.release(name) {
                Ok(report) => report,
                Err(error) => {
                    tracing::error!(assignment = %name, error = crate::chain(&error), "not released");
                    None
                }
            },
            Ok(Some((Step::Undelete, _))) => order.and_then(|order| self.undelete_ordered(order)),
            Ok(Some((Step::Move { from, to }, _))) if dry => {
                let run = Run::begin(name.clone(), dry, Arc::default());
                run.notice(format!("it would be renamed from {from} to {to}, and then compared"));
                Some(run.finish(RunResult::CompletedDryRun, String::new()))
            }
            Ok(Some((Step::Withdraw, _))) if dry => None,
            Ok(Some((Step::Withdraw, _))) => order.map(|order| self.withdraw(order)),
            // All renames were tried together, before anything else.
            Ok(Some((Step::Move { from, to }, _))) => {
                is_forced.then(|| self.failed(name, &Error::ToBeMoved { from, to }, dry))
            }
            Err(_) if !is_forced && self.waits(name) => None,
            Err(error) => Some(self.failed(name, &error, dry)),
        }
    }

    /// Marks an assignment as being worked on. What was asked for waits for the run that is under
    /// way; what is merely due comes again by itself.
    pub(super) async fn take_turn(
        &self,
        name: &AssignmentName,
        is_forced: bool,
    ) -> Option<Busy<'_>> {
        loop {
            match Busy::take(self, name) {
                None if is_forced => tokio::time::sleep(TURN).await,
                turn => return turn,
            }
        }
    }

    /// Whether a failed step is to be tried only later.
    fn waits(&self, name: &AssignmentName) -> bool {
        self.ledger.record(name).ok().flatten().is_some_and(|record| is_due_later(&record))
    }

    fn find_step(
        &self,
        name: &AssignmentName,
        orders: Option<&Orders>,
        forced: &Forced,
        dry: bool,
    ) -> Result<Option<(Step, Option<Verified>)>, Error> {
        let record = self.ledger.record(name)?;
        let order = orders.and_then(|orders| orders.order(name));
        let now = certs::clock::now();
        let mut stale = orders.is_some_and(|orders| orders.is_stale(now));
        let mut target = None;
        if let (Some(orders), Some(order)) = (orders, order) {
            target = self.found(orders, order, record.as_ref())?;
            if target.is_some() {
                // The publisher's own word is enough for this tree while there is no other.
                stale = false;
            } else {
                target = self.target(orders, order, record.as_ref())?;
            }
        }
        let situation = Situation {
            order,
            record: record.as_ref(),
            target: target.as_ref().map(|t| (t.version(), t.statement.manifest)),
            stale,
            now,
            zone: &gates::zone(orders),
        };
        let step = reconcile::next_step(&situation);
        if let (Some(orders), Some(order)) = (orders, order)
            && (step == Some(Step::Sync) || forced.includes(name))
            && let Some(by) = self.in_the_way(order, orders)?
        {
            return if forced.includes(name) { Err(Error::InTheWay { by }) } else { Ok(None) };
        }
        let step = match order {
            Some(order) if forced.includes(name) && matches!(step, None | Some(Step::Withdraw)) => {
                // What a disabled assignment would do may be asked for before it is enabled.
                let may_look = dry
                    && order.stopped == Some(Stopped::Disabled)
                    && matches!(order.origin, Origin::Rsyncd(_));
                if order.stopped.is_some() && !may_look {
                    return Err(Error::Stopped(name.tree.clone()));
                }
                let is_held = is_held(record.as_ref(), target.as_ref());
                let is_stale = target.is_some() && !is_held && !reconcile::may_follow(&situation);
                if is_stale && step.is_none() {
                    return Err(Error::Stale);
                }
                let has_target = target.is_some() || matches!(order.origin, Origin::Rsyncd(_));
                (has_target && !is_stale).then_some(Step::Sync).or(step)
            }
            _ => step,
        };
        if let (Some(Step::Sync), Some(orders), Some(order)) = (&step, orders, order)
            && !dry
            && order.together.is_some()
            && let Some(leader) = self.leader(order, orders)
            && leader != name
            && (forced.includes(leader) || !forced.includes(name))
        {
            // It is switched by the run of another.
            return Ok(None);
        }
        Ok(step.map(|step| (step, target)))
    }

    /// The target of an assignment as the orders have it, to be read from and not followed: what is
    /// held already may be brought again by its packs.
    pub(crate) fn signed_target(&self, order: &AssignmentOrder) -> Option<Verified> {
        self.signed_target_in(order, self.orders()?.as_ref())
    }

    /// [`Agent::signed_target`] of certain orders.
    pub(super) fn signed_target_in(
        &self,
        order: &AssignmentOrder,
        orders: &Orders,
    ) -> Option<Verified> {
        let mut marks = self.ledger.marks().ok()?;
        orders.target(order, &mut marks).ok()?
    }

    /// The target that the orders name.
    fn target(
        &self,
        orders: &Orders,
        order: &AssignmentOrder,
        record: Option<&Record>,
    ) -> Result<Option<Verified>, Error> {
        let named = self.ledger.raise_marks(|marks| Ok(orders.target(order, marks)?));
        let Err(Error::Orders(orders::Error::GoesBack(back))) = &named else { return named };
        let found = record.and_then(|record| record.found.as_ref());
        let ours = found.and_then(|found| orders.went_on_to(order, found));
        if let GoesBack::Generation { held, offered, .. } = back
            && ours == Some(*held)
        {
            tracing::info!(
                assignment = %order.name, %held, named = %offered,
                "the publisher went on alone, and the coordinator was not told yet; what is held stays"
            );
            return Ok(None);
        }
        named
    }

    /// The newer target that a point had, where the tree goes on by itself.
    fn found(
        &self,
        orders: &Orders,
        order: &AssignmentOrder,
        record: Option<&Record>,
    ) -> Result<Option<Verified>, Error> {
        let Some(found) = record.and_then(|record| record.found.as_ref()) else { return Ok(None) };
        let now = certs::clock::now();
        self.ledger.raise_marks(|marks| Ok(orders.found(order, found, marks, now)?))
    }

    async fn run(
        &self,
        name: &AssignmentName,
        orders: Option<&Orders>,
        target: Option<Verified>,
        lease: Option<Lease>,
        dry: bool,
    ) -> RunReport {
        let run = self.begin(name, dry);
        let order = orders.and_then(|orders| orders.order(name));
        let Some(order) = order else {
            return run.finish(RunResult::Disabled, "it is no longer assigned".into());
        };
        tracing::debug!(assignment = %name, dry, "run begins");
        if let Some(target) = target.as_ref().filter(|_| !dry)
            && let Err(error) = self.note_planned(order, target)
        {
            return run.finish(RunResult::Failed, crate::chain(&error));
        }
        if let Err(error) = self.line.check() {
            let result = if dry { RunResult::FailedDryRun } else { RunResult::Failed };
            let report = run.finish(result, error.to_string());
            self.tell(&report);
            return report;
        }
        let outcome = unharmed(self.bring(order, target.as_ref(), lease, &run)).await;
        self.save_account();
        let used_up = self.line.check().err();
        let (result, held, error) = match outcome {
            Ok((result, held)) => (result, held, String::new()),
            Err(error) if dry => (RunResult::FailedDryRun, None, crate::chain(&error)),
            Err(_) if used_up.is_some() => {
                (RunResult::Failed, None, used_up.map_or_else(String::new, |used| used.to_string()))
            }
            Err(error) => (RunResult::Failed, None, crate::chain(&error)),
        };
        let withdrawn = run.withdrawn();
        let held_before = self.ledger.record(name).ok().flatten().and_then(|record| record.held);
        if let Some(now) = held.as_ref().or(held_before.as_ref()) {
            run.set_held(now.files, now.bytes);
        }
        let mut report = run.finish(result, error);
        self.tell(&report);
        if !dry
            && let Err(error) = self.record(order, target.as_ref(), held, withdrawn, &mut report)
        {
            tracing::error!(assignment = %name, error = crate::chain(&error), "not recorded");
        }
        report
    }

    pub(super) fn tell(&self, report: &RunReport) {
        let (assignment, result) = (&report.assignment, result_name(report.result));
        let received: u64 = report.ways.iter().map(|way| way.received_bytes).sum();
        if report.error.is_empty() {
            let changes = &report.changes;
            tracing::info!(
                %assignment, result, received,
                added = changes.added, changed = changes.changed, deleted = changes.deleted,
                "run ended"
            );
        } else {
            tracing::error!(%assignment, result, error = report.error, "run failed");
        }
        for notice in &report.notices {
            tracing::info!(%assignment, notice, "notice");
        }
    }

    /// A run that could not even begin.
    pub(super) fn failed(&self, name: &AssignmentName, error: &Error, dry: bool) -> RunReport {
        let run = self.begin(name, dry);
        let result = match (error, dry) {
            (Error::Stopped(_), _) => RunResult::Disabled,
            (_, true) => RunResult::FailedDryRun,
            (_, false) => RunResult::Failed,
        };
        let mut report = run.finish(result, crate::chain(error));
        self.tell(&report);
        let orders = self.orders();
        let order = orders.as_ref().and_then(|orders| orders.order(name));
        if let Some(order) = order.filter(|_| result == RunResult::Failed)
            && let Err(error) = self.record(order, None, None, None, &mut report)
        {
            tracing::error!(assignment = %name, error = crate::chain(&error), "not recorded");
        }
        report
    }

    fn release(&self, name: &AssignmentName) -> Result<Option<RunReport>, Error> {
        let Some(record) = self.ledger.record(name)? else { return Ok(None) };
        let may_go = self.orders().is_none_or(|orders| orders.may_trash(name));
        let goes = record.on_end == OnEnd::Trash && record.held.is_some() && may_go;
        let report = if goes { Some(self.end(&record)?) } else { None };
        let Some(mut record) = self.ledger.record(name)? else { return Ok(report) };
        record.unassigned = true;
        self.ledger.set_record(&record)?;
        if record.held.is_some() {
            tracing::info!(
                assignment = %name,
                "no longer assigned; its files stay. 'mirror-agent purge {}' removes them",
                name.tree
            );
        }
        Ok(report)
    }

    /// Removes the published files, the work directory and the record of an assignment that has
    /// ended.
    pub fn purge(&self, name: &AssignmentName) -> Result<(), crate::Failure> {
        let orders = self.orders();
        if orders.as_ref().is_some_and(|orders| orders.order(name).is_some()) {
            return Err(crate::Failure::StillAssigned { assignment: name.clone() });
        }
        // A rename that was begun is ended first, so that the files are where the record says.
        self.move_and_report(&Forced::All);
        let Some(_busy) = Busy::take(self, name) else {
            return Err(crate::Failure::Busy { assignment: name.clone() });
        };
        let Some(record) = self.ledger.record(name)? else {
            return Err(NoSuchTree { tree: name.to_string() }.into());
        };
        if let Some(other) = self.other_user_of(name, &record.path)? {
            return Err(crate::Failure::InUse { assignment: name.clone(), other });
        }
        filetree::area::purge(&filetree::fs::Fs::disk(), &self.place(&record))
            .map_err(|source| crate::Failure::Remove { tree: name.tree.clone(), source })?;
        self.logs.remove(name);
        Ok(self.ledger.remove_record(name)?)
    }

    /// Whose files lie at, below or above a path that an assignment had: a later assignment may
    /// have adopted them.
    pub(super) fn other_user_of(
        &self,
        name: &AssignmentName,
        path: &protocol::path::TreePath,
    ) -> Result<Option<AssignmentName>, ledger::Error> {
        let records = self.ledger.records()?;
        let orders = self.orders();
        let ordered = orders.iter().flat_map(|orders| &orders.wanted.assignments);
        let used = ordered.map(|order| (&order.name, &order.path));
        let held = records.iter().map(|record| (&record.name, &record.path));
        let meets = |other: &protocol::path::TreePath| {
            other == path || other.is_inside(path) || path.is_inside(other)
        };
        let mut others = used.chain(held).filter(|(other, at)| *other != name && meets(at));
        Ok(others.next().map(|(other, _)| other.clone()))
    }
}

/// Whether it is to be tried or asked again only later.
pub(super) fn is_due_later(record: &Record) -> bool {
    record.due.is_some_and(|due| due > Timestamp::now())
}

fn is_held(record: Option<&Record>, target: Option<&Verified>) -> bool {
    let held = record.and_then(|record| record.held.as_ref());
    held.zip(target).is_some_and(|(held, target)| held.manifest == target.statement.manifest)
}

/// The name of a result, as it is reported.
pub fn result_name(result: RunResult) -> String {
    serde_json::to_value(result)
        .ok()
        .and_then(|value| value.as_str().map(str::to_owned))
        .unwrap_or_default()
}

/// Marks an assignment as being worked on, until it goes.
pub(super) struct Busy<'a>(&'a Agent, AssignmentName);

impl<'a> Busy<'a> {
    pub(super) fn take(agent: &'a Agent, name: &AssignmentName) -> Option<Self> {
        agent.lock().busy.insert(name.clone()).then(|| Self(agent, name.clone()))
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.lock().busy.remove(&self.1);
        // A publisher beside this agent waits until a tree is not about to change.
        self.0.applied.notify_waiters();
    }
}
