//! What an agent does with what it holds, without asking anybody: no upstream, no coordinator.

use std::time::Duration;

use jiff::Timestamp;
use protocol::v1::agent::{AssignmentOrder, RunKind, RunReport, RunResult};

use super::{
    Agent,
    runs::{Busy, Error},
};
use crate::{apply::Site, calendar, fetch::retries, ledger, report::Run, withdraw};

impl Agent {
    /// How long nothing has to be looked at: until the next removed path is to go, and no longer
    /// than `most`.
    pub(super) fn rest(&self, most: Duration) -> Duration {
        let now = Timestamp::now();
        let records = self.ledger.records().unwrap_or_default();
        let next = records.iter().filter(|record| !record.unassigned);
        let next = next.filter_map(|record| Some(record.withdrawn?.next)).min();
        let wait = next.map(|next| Duration::try_from(next.duration_since(now)));
        // What is due already is being done, or waits for a reason.
        wait.and_then(Result::ok).map_or(most, |wait| wait.min(most))
    }

    /// Remembers what is to become of the files of each assignment, should it end.
    pub(super) fn note_ends(&self) {
        let Some(orders) = self.orders() else { return };
        for order in &orders.wanted.assignments {
            if let Err(error) = self.note_end(order) {
                tracing::error!(assignment = %order.name, error = crate::chain(&error), "not recorded");
            }
        }
    }

    fn note_end(&self, order: &AssignmentOrder) -> Result<(), ledger::Error> {
        let differs = |record: &ledger::Record| record.on_end != order.on_end;
        if self.ledger.record(&order.name)?.filter(differs).is_none() {
            return Ok(());
        }
        // Whoever works on it writes it down.
        let Some(_busy) = Busy::take(self, &order.name) else { return Ok(()) };
        let Some(record) = self.ledger.record(&order.name)? else { return Ok(()) };
        self.ledger.set_record(&ledger::Record { on_end: order.on_end, ..record })
    }

    /// Takes away removed paths whose time to stay readable is up.
    pub(super) fn withdraw(&self, order: &AssignmentOrder) -> RunReport {
        let run = Run::begin(order.name.clone(), false, self.progress(&order.name));
        run.set_kind(RunKind::Withdraw);
        let (result, error) = match self.withdraw_now(order, &run) {
            Ok(result) => (result, String::new()),
            Err(error) => (RunResult::Failed, crate::chain(&error)),
        };
        let withdrawn = run.withdrawn();
        let report = run.finish(result, error);
        self.tell(&report);
        let noted = self.note_upkeep(&report, |record| {
            let again = match (withdrawn, report.result) {
                (Some(withdrawn), _) => withdrawn,
                (None, RunResult::Failed) => record.withdrawn.map(|kept| {
                    let failures = kept.failures.saturating_add(1);
                    let next = calendar::next_try(Timestamp::now(), failures, retries::chance());
                    ledger::Withdrawn { next, failures, ..kept }
                }),
                (None, _) => None,
            };
            record.withdrawn = again;
        });
        if let Err(error) = noted {
            tracing::error!(assignment = %order.name, error = crate::chain(&error), "not recorded");
        }
        report
    }

    fn withdraw_now(&self, order: &AssignmentOrder, run: &Run) -> Result<RunResult, Error> {
        let name = order.name.to_string();
        let mut site =
            tokio::task::block_in_place(|| Site::open(&self.config, &name, &order.path))?;
        // What lies there is not ours any more, so nothing of it goes.
        let Some(applied) = site.applied()? else { return Ok(RunResult::UpToDate) };
        run.set_versions(Some(applied.version), Some(applied.version));
        Ok(withdraw::if_due(self, &mut site, &applied, order, run)?)
    }

    /// Writes down a run that followed no order: what is due, and what failed before, stays so.
    pub(super) fn note_upkeep(
        &self,
        report: &RunReport,
        change: impl FnOnce(&mut ledger::Record),
    ) -> Result<(), ledger::Error> {
        // The report first: what was done is told twice rather than not at all.
        self.ledger.add_unsent(report)?;
        if let Some(mut record) = self.ledger.record(&report.assignment)? {
            change(&mut record);
            record.add_run(report.clone());
            self.ledger.set_record(&record)?;
        }
        self.unsent.notify_one();
        Ok(())
    }
}
