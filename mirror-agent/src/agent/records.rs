//! What is written down around a run: what was begun, what is held, and the report of it.

use std::collections::HashSet;

use certs::signing::sign_json;
use jiff::Timestamp;
use protocol::{
    dsse::Envelope,
    statement::{Claim, Receipt},
    v1::agent::{AssignmentOrder, Origin, RunReport, RunResult},
};

use super::{Agent, gates, runs::Error};
use crate::{
    calendar,
    fetch::retries,
    ledger::{self, Held, Record, Withdrawn},
    observed,
    orders::Verified,
    reconcile,
};

impl Agent {
    /// Writes down what is begun, so that it is finished even when the head expires meanwhile.
    pub(super) fn note_planned(
        &self,
        order: &AssignmentOrder,
        target: &Verified,
    ) -> Result<(), Error> {
        let mut record = self.record_of(order)?;
        let planned = Some(target.statement.manifest);
        if record.planned != planned {
            record.planned = planned;
            self.ledger.set_record(&record)?;
        }
        Ok(())
    }

    pub(super) fn record_of(&self, order: &AssignmentOrder) -> Result<Record, ledger::Error> {
        let record = self.ledger.record(&order.name)?;
        Ok(record.unwrap_or_else(|| Record::new(order.name.clone(), order.path.clone())))
    }

    /// Writes down how a run ended, and puts its report where it waits for the coordinator.
    pub(super) fn record(
        &self,
        order: &AssignmentOrder,
        target: Option<&Verified>,
        held: Option<Held>,
        withdrawn: Option<Option<Withdrawn>>,
        report: &mut RunReport,
    ) -> Result<(), Error> {
        let now = Timestamp::now();
        let mut record = self.record_of(order)?;
        let is_news = is_news(order, &record, held.as_ref(), report);
        self.owe(&mut record, held.as_ref(), report);
        record.unassigned = false;
        record.on_end = order.on_end;
        record.withdrawn = withdrawn.unwrap_or(record.withdrawn);
        record.sync_requests = order.sync_requests;
        if matches!(report.result, RunResult::Failed | RunResult::Partial) {
            record.failures = record.failures.saturating_add(1);
            record.failed_target = target.map(|target| target.statement.manifest);
            record.due = Some(calendar::next_try(now, record.failures, retries::chance()));
        } else {
            record.failures = 0;
            record.failed_target = None;
            self.wait_for_occasion(order, report, &mut record, now);
        }
        record.rehearsed = None;
        if let Some(held) = held {
            record.path = order.path.clone();
            report.receipt = self.receipt(order, &held);
            record.held = Some(held);
        }
        record.add_run(report.clone());
        self.ledger.set_record(&record)?;
        self.applied.notify_waiters();
        self.collect()?;
        if is_news && !Self::waits_for_command(&record, report) {
            let log = self.logs.excerpt(&report.assignment, report.id);
            self.ledger.add_unsent(&RunReport { log, ..report.clone() })?;
            self.unsent.notify_one();
        }
        Ok(())
    }

    /// Writes down a dry run of an assignment that has no other, so that it is not repeated before
    /// something new is to be seen, and reports it.
    pub(super) fn record_rehearsal(
        &self,
        order: &AssignmentOrder,
        report: &RunReport,
    ) -> Result<(), Error> {
        let now = Timestamp::now();
        let mut record = self.record_of(order)?;
        // A mirror that is started by the clock would say the same each time.
        let asked = order.sync_requests > record.sync_requests;
        let foresaw = |run: &RunReport| (run.result, run.to, run.foreseen.clone());
        let is_news = asked || record.runs.last().map(foresaw) != Some(foresaw(report));
        record.unassigned = false;
        record.sync_requests = order.sync_requests;
        if report.result == RunResult::FailedDryRun {
            record.failures = record.failures.saturating_add(1);
            record.due = Some(calendar::next_try(now, record.failures, retries::chance()));
        } else {
            record.failures = 0;
            let orders = self.orders();
            let tree = orders.as_ref().and_then(|orders| orders.head.trees.get(&order.name.tree));
            record.rehearsed = reconcile::rehearsed(order, tree.map(|tree| tree.manifest));
            self.wait_for_occasion(order, report, &mut record, now);
        }
        record.add_run(report.clone());
        self.ledger.set_record(&record)?;
        if is_news {
            self.ledger.add_unsent(report)?;
            self.unsent.notify_one();
        }
        Ok(())
    }

    /// When a tree that is as it should be is looked at again.
    fn wait_for_occasion(
        &self,
        order: &AssignmentOrder,
        report: &RunReport,
        record: &mut Record,
        now: Timestamp,
    ) {
        record.due = match (&order.origin, &order.schedule) {
            (Origin::Publisher(_), _) => None,
            (Origin::Rsyncd(_), None) => Some(observed::next_look(order, now)),
            (Origin::Rsyncd(_), Some(schedule)) => {
                // The slot in which it began, however long it took.
                let zone = gates::zone(self.orders().as_deref());
                let slot = schedule.slot(report.started, &zone);
                record.slot = slot.map(|slot| slot.begins).or(record.slot);
                schedule.next(now, &zone)
            }
        };
    }

    fn receipt(&self, order: &AssignmentOrder, held: &Held) -> Option<Envelope> {
        let identity = self.identity.current();
        let receipt = Receipt {
            agent: identity.membership.name.clone(),
            site: order.name.site.clone(),
            tree: order.name.tree.clone(),
            version: held.version,
            manifest: held.manifest,
            filter: held.filter,
            observed: held.observed,
            files: held.files,
            bytes: held.bytes,
            applied: held.applied,
        };
        match sign_json(&identity.signing_key, Receipt::PAYLOAD_TYPE, &receipt) {
            Ok(envelope) => Some(envelope),
            Err(error) => {
                tracing::error!(error = crate::chain(&error), "no receipt could be signed");
                None
            }
        }
    }

    /// Keeps the manifests that are held, and no others.
    fn collect(&self) -> Result<(), Error> {
        let records = self.ledger.records()?;
        let held = records.iter().filter_map(|record| record.held.as_ref());
        let mut keep: HashSet<_> = held.map(|held| held.manifest).collect();
        keep.extend(records.iter().flat_map(|record| record.version_manifests.iter().copied()));
        if let Some(orders) = self.orders() {
            keep.extend(orders.head.trees.values().map(|tree| tree.manifest));
        }
        // Another run may be about to hold what it has just put there.
        if self.lock().busy.len() <= 1 {
            self.manifests.keep_only(&keep)?;
        }
        Ok(())
    }
}

/// Whether the coordinator learns anything from a report. That nothing had changed is known from the
/// orders having been asked for, and costs a mirror that is started by the clock no second request.
fn is_news(
    order: &AssignmentOrder,
    record: &Record,
    held: Option<&Held>,
    report: &RunReport,
) -> bool {
    let same = |one: &Held, other: &Held| {
        (one.version, one.manifest, one.filter) == (other.version, other.manifest, other.filter)
    };
    let held_before = record.held.as_ref().zip(held).is_some_and(|(one, other)| same(one, other));
    let nobody_asked = order.sync_requests == record.sync_requests;
    let is_quiet = matches!(order.origin, Origin::Publisher(_))
        && report.result == RunResult::UpToDate
        && report.notices.is_empty();
    !(is_quiet && held_before && nobody_asked && record.failures == 0 && !record.unassigned)
}
