//! The site's own commands around a run: before it, and what is owed after it.
//!
//! A command after a run is *owed*: it is written down together with what the run came to, and
//! struck out when it has succeeded. So a cache is purged at least once for every change, also when
//! the program was killed between the two. A run's report waits for the first try, which is a part
//! of the story; it waits for no second.

use certs::clock;
use protocol::{
    generation::Version,
    path::TreePath,
    spec::AssignmentName,
    v1::agent::{AssignmentOrder, RunReport, RunResult},
};

use super::{Agent, result_name, runs::Error};
use crate::{
    apply::os_path,
    calendar,
    fetch::retries,
    hooks::{self, Hook},
    ledger::{self, Held, Owed, Record},
    report::Run,
    run_log::RunLog,
};

/// How often a command is tried for one run.
const MOST_TRIES: u32 = 8;
/// Commands of one assignment that wait; the oldest go first.
const MOST_OWED: usize = 8;

impl Agent {
    /// Runs the command that comes before a run.
    pub(super) async fn before(
        &self,
        order: &AssignmentOrder,
        run: &Run,
    ) -> Result<(), hooks::Error> {
        if !self.config.hooks.has(Hook::Before) {
            return Ok(());
        }
        let held = self.ledger.record(&order.name).ok().flatten().and_then(|record| record.held);
        let mut variables = self.variables(Hook::Before, &order.name, &order.path);
        variables.push(("MIRROR_RUN", run.id().to_string()));
        variables.push(("MIRROR_GENERATION_BEFORE", version(held.map(|held| held.version))));
        self.config.hooks.run(Hook::Before, &variables, run.log()).await
    }

    /// What a run that ended makes owed; `record` is as it was before.
    pub(super) fn owe(&self, record: &mut Record, held: Option<&Held>, report: &RunReport) {
        let same = |held: &Held| {
            let before = record.held.as_ref();
            before.is_some_and(|it| (it.manifest, it.filter) == (held.manifest, held.filter))
        };
        let switched = matches!(report.result, RunResult::Completed | RunResult::Partial);
        // A run before it may have been killed after the switch: this one found what it had done.
        let changed = switched || held.is_some_and(|held| !same(held));
        let failed = report.result == RunResult::Failed;
        let mut from = record.held.as_ref().map(|held| held.version);
        let mut hooks = Vec::new();
        if failed && record.failures == 0 {
            hooks.push(Hook::OnFailure);
        }
        if !failed && record.failures > 0 {
            hooks.push(Hook::OnRecovery);
        }
        if changed {
            hooks.push(Hook::AfterChange);
            // One for all changes that it was not told of yet.
            if let Some(at) = record.owed.iter().position(|it| it.hook == Hook::AfterChange) {
                from = record.owed.remove(at).from;
            }
        }
        for hook in hooks.into_iter().filter(|hook| self.config.hooks.has(*hook)) {
            record.owed.push(Owed { hook, run: report.id, from, tries: 0, due: None });
        }
        let surplus = record.owed.len().saturating_sub(MOST_OWED);
        record.owed.drain(..surplus);
    }

    /// Runs what is owed and due; gives the latest run's report if that changed it.
    pub(super) async fn settle(&self, name: &AssignmentName) -> Option<RunReport> {
        match self.try_to_settle(name).await {
            Ok(report) => report,
            Err(error) => {
                let error = crate::chain(&error);
                tracing::error!(assignment = %name, error, "the site's commands are not run");
                None
            }
        }
    }

    async fn try_to_settle(&self, name: &AssignmentName) -> Result<Option<RunReport>, Error> {
        let mut changed = None;
        for _ in 0..MOST_OWED {
            let Some(record) = self.ledger.record(name)? else { break };
            let now = clock::now();
            let is_due = |owed: &&Owed| owed.due.is_none_or(|due| due <= now);
            let Some(owed) = record.owed.iter().find(is_due).cloned() else { break };
            let log = self.logs.resume(name);
            let found = record.runs.iter().find(|run| run.id == owed.run).cloned();
            let result = match &found {
                // It was forgotten meanwhile, after fifty others.
                None => Ok(()),
                Some(report) => {
                    let variables = self.told(&record, report, &owed);
                    self.config.hooks.run(owed.hook, &variables, &log).await
                }
            };
            let report = self.note_paid(name, &owed, result.err(), &log)?;
            if let (Some(mut report), 0) = (report, owed.tries) {
                report.log = self.logs.excerpt(name, report.id);
                self.ledger.add_unsent(&report)?;
                self.unsent.notify_one();
                report.log.clear();
                changed = Some(report);
            }
        }
        Ok(changed)
    }

    /// Writes down how a command ended, and gives the report of its run.
    fn note_paid(
        &self,
        name: &AssignmentName,
        owed: &Owed,
        error: Option<hooks::Error>,
        log: &RunLog,
    ) -> Result<Option<RunReport>, ledger::Error> {
        let Some(mut record) = self.ledger.record(name)? else { return Ok(None) };
        let place = record.owed.iter().position(|it| (it.hook, it.run) == (owed.hook, owed.run));
        let mut run = record.runs.iter_mut().find(|run| run.id == owed.run);
        if let Some(error) = error {
            let tries = owed.tries + 1;
            let text = crate::chain(&error);
            let next = if tries < MOST_TRIES {
                "it is tried again"
            } else {
                "it is not tried again for this run"
            };
            log.line(&format!("{}: {text}; {next}", owed.hook));
            tracing::error!(assignment = %name, error = text, tries, "{next}");
            if let (Some(run), 0) = (&mut run, owed.tries) {
                run.notices.push(format!("{text}; {next}"));
            }
            match place {
                Some(at) if tries < MOST_TRIES => {
                    let due = calendar::next_try(clock::now(), tries, retries::chance());
                    record.owed[at] = Owed { tries, due: Some(due), ..owed.clone() };
                }
                Some(at) => drop(record.owed.remove(at)),
                None => {}
            }
        } else {
            log.line(&format!("{}: done", owed.hook));
            if let Some(at) = place {
                record.owed.remove(at);
            }
        }
        let report = run.cloned();
        self.ledger.set_record(&record)?;
        Ok(report)
    }

    /// What every command is told.
    fn variables(
        &self,
        hook: Hook,
        name: &AssignmentName,
        path: &TreePath,
    ) -> Vec<(&'static str, String)> {
        let membership = &self.identity.current().membership;
        vec![
            ("MIRROR_HOOK", hook.to_string()),
            ("MIRROR_NETWORK", membership.network.to_string()),
            ("MIRROR_AGENT", membership.name.to_string()),
            ("MIRROR_ASSIGNMENT", name.to_string()),
            ("MIRROR_TREE", name.tree.to_string()),
            ("MIRROR_SITE", name.site.to_string()),
            ("MIRROR_DIRECTORY", self.config.publish().join(os_path(path)).display().to_string()),
        ]
    }

    /// What a command is told of a run that ended.
    fn told(
        &self,
        record: &Record,
        report: &RunReport,
        owed: &Owed,
    ) -> Vec<(&'static str, String)> {
        let held = record.held.as_ref();
        let mut variables = self.variables(owed.hook, &record.name, &record.path);
        let changes = &report.changes;
        let received: u64 = report.ways.iter().map(|way| way.received_bytes).sum();
        variables.extend([
            ("MIRROR_RUN", report.id.to_string()),
            ("MIRROR_RESULT", result_name(report.result)),
            ("MIRROR_ERROR", report.error.clone()),
            ("MIRROR_STARTED", report.started.to_string()),
            ("MIRROR_ENDED", report.ended.to_string()),
            ("MIRROR_GENERATION_BEFORE", version(owed.from)),
            ("MIRROR_GENERATION", version(held.map(|held| held.version))),
            ("MIRROR_MANIFEST", held.map(|held| held.manifest.to_string()).unwrap_or_default()),
            ("MIRROR_FILES", held.map_or(0, |held| held.files).to_string()),
            ("MIRROR_BYTES", held.map_or(0, |held| held.bytes).to_string()),
            ("MIRROR_ADDED", changes.added.to_string()),
            ("MIRROR_CHANGED", (changes.changed + changes.attributes).to_string()),
            ("MIRROR_DELETED", changes.deleted.to_string()),
            ("MIRROR_RECEIVED_BYTES", received.to_string()),
        ]);
        variables
    }

    /// Whether the report of a run waits for a command that was not tried yet.
    pub(super) fn waits_for_command(record: &Record, report: &RunReport) -> bool {
        record.owed.iter().any(|owed| owed.run == report.id && owed.tries == 0)
    }
}

fn version(version: Option<Version>) -> String {
    version.map_or_else(String::new, |version| version.to_string())
}
