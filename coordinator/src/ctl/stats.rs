//! `stats`: what the latest runs cost, by assignment and by way.

use std::collections::BTreeMap;

use clap::Args;
use protocol::{
    transfer::Way,
    v1::{
        agent::{RunResult, SyncStats},
        history::RunStatus,
    },
};
use serde::Serialize;

use super::{
    error::Error,
    history::Which,
    print::{Print, table},
    session::Session,
    text,
};

/// Sum up the latest runs: how many succeeded, and by which way how many bytes came.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  mirrorctl stats\n  mirrorctl stats --tree fedora --output json"
)]
pub(super) struct Stats {
    #[command(flatten)]
    which: Which,
    /// Of each assignment, what its latest successful run moved, instead of its latest.
    #[arg(long)]
    success: bool,
}

/// Sums over some runs.
#[derive(Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Sums {
    runs: u64,
    assignments: BTreeMap<String, OfAssignment>,
    ways: BTreeMap<Way, OfWay>,
    /// All that the latest run of each assignment moved.
    latest: BTreeMap<String, SyncStats>,
    /// What each generation cost each site, the newest first.
    savings: Vec<Saving>,
}

/// What one generation cost one site, beside what it would have cost otherwise.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Saving {
    generation: String,
    assignment: String,
    /// Bytes that came and went.
    moved_bytes: u64,
    /// What whole files would have been.
    whole_bytes: u64,
    /// What rsync would be expected to move.
    rsync_estimate_bytes: u64,
}

/// Of one assignment.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
struct OfAssignment {
    runs: u64,
    with_changes: u64,
    failed: u64,
    content_bytes: u64,
    received_bytes: u64,
}

/// Of one way.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
struct OfWay {
    files: u64,
    content_bytes: u64,
    received_bytes: u64,
    sent_bytes: u64,
}

impl Stats {
    pub(super) async fn run(self, session: &Session, print: &mut Print) -> Result<(), Error> {
        let runs = self.which.runs(&session.api(print).await?).await?;
        print.result(&Sums::of(&runs, self.success), Sums::shown)
    }
}

impl Sums {
    fn of(runs: &[RunStatus], only_success: bool) -> Self {
        let mut sums = Self::default();
        for RunStatus { report, .. } in runs {
            sums.runs += 1;
            let success = matches!(report.result, RunResult::UpToDate | RunResult::Completed);
            if let Some(stats) = report.stats.as_ref().filter(|_| success || !only_success) {
                // The newest comes first.
                let latest = sums.latest.entry(report.assignment.to_string());
                latest.or_insert_with(|| stats.clone());
            }
            let own = sums.assignments.entry(report.assignment.to_string()).or_default();
            own.runs += 1;
            own.with_changes += u64::from(report.result == RunResult::Completed);
            own.failed +=
                u64::from(matches!(report.result, RunResult::Failed | RunResult::Partial));
            let moved = report.ways.iter().map(|way| way.received_bytes + way.sent_bytes).sum();
            if let Some(to) = report.to.filter(|_| report.result == RunResult::Completed) {
                sums.savings.push(Saving {
                    generation: format!("{}@{}", report.assignment.tree, text::version(to)),
                    assignment: report.assignment.to_string(),
                    moved_bytes: moved,
                    whole_bytes: report.changes.bytes,
                    rsync_estimate_bytes: report.changes.rsync_bytes,
                });
            }
            for way in &report.ways {
                own.content_bytes += way.content_bytes;
                own.received_bytes += way.received_bytes;
                let sum = sums.ways.entry(way.way).or_default();
                sum.files += way.files;
                sum.content_bytes += way.content_bytes;
                sum.received_bytes += way.received_bytes;
                sum.sent_bytes += way.sent_bytes;
            }
        }
        sums
    }

    fn shown(&self) -> String {
        if self.runs == 0 {
            return "no runs yet".into();
        }
        let assignments = self.assignments.iter().map(|(name, of)| {
            [
                name.clone(),
                of.runs.to_string(),
                of.with_changes.to_string(),
                of.failed.to_string(),
                text::bytes(of.content_bytes),
                text::bytes(of.received_bytes),
            ]
        });
        let headings = ["ASSIGNMENT", "RUNS", "WITH CHANGES", "FAILED", "CONTENT", "RECEIVED"];
        let assignments = table(headings, assignments);
        let ways = self.ways.iter().map(|(way, of)| {
            [
                way.to_string(),
                of.files.to_string(),
                text::bytes(of.content_bytes),
                text::bytes(of.received_bytes),
                text::bytes(of.sent_bytes),
            ]
        });
        let ways = table(["WAY", "FILES", "CONTENT", "RECEIVED", "SENT"], ways);
        let savings = self.savings.iter().map(|saving| {
            [
                saving.generation.clone(),
                saving.assignment.clone(),
                text::bytes(saving.moved_bytes),
                text::bytes(saving.whole_bytes),
                text::bytes(saving.rsync_estimate_bytes),
                text::saved(saving.moved_bytes, saving.whole_bytes),
            ]
        });
        let headings =
            ["GENERATION", "ASSIGNMENT", "MOVED", "WHOLE FILES", "RSYNC (ESTIMATE)", "SAVED"];
        let savings = table(headings, savings);
        let latest = self.latest.iter().map(|(name, stats)| {
            [
                name.clone(),
                stats.total_file_count.to_string(),
                text::bytes(stats.total_bytes),
                stats.transferred_file_count.to_string(),
                text::bytes(stats.transferred_bytes),
                text::bytes(stats.literal_bytes),
                text::bytes(stats.matched_bytes),
                format!("{}/s", text::bytes(stats.transfer_bps)),
            ]
        });
        let headings =
            ["LATEST RUN", "FILES", "CONTENT", "CAME", "OF CONTENT", "LITERAL", "MATCHED", "RATE"];
        let latest = table(headings, latest);
        format!("the latest {} runs\n\n{assignments}\n{ways}\n{latest}\n{savings}", self.runs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctl::history::tests::example;

    #[test]
    fn f38_f65_what_the_latest_run_moved_is_shown_or_the_latest_that_succeeded() {
        let with = |result, files| {
            let mut run = example();
            run.report.result = result;
            run.report.stats = Some(SyncStats { total_file_count: files, ..SyncStats::default() });
            run
        };
        let runs = [with(RunResult::Partial, 1), with(RunResult::Completed, 2)];
        let latest =
            |only_success| Sums::of(&runs, only_success).latest["fedora@lisbon"].total_file_count;
        assert_eq!((latest(false), latest(true)), (1, 2));
        let json = serde_json::to_value(SyncStats::default()).unwrap();
        let keys: Vec<_> = json.as_object().unwrap().keys().cloned().collect();
        for key in [
            "total-file-count",
            "transferred-file-count",
            "total-bytes",
            "transferred-bytes",
            "literal-bytes",
            "matched-bytes",
            "sent-bytes",
            "received-bytes",
            "transfer-bps",
            "listing-bytes",
            "listing-creation-seconds",
            "listing-transfer-seconds",
        ] {
            assert!(keys.contains(&key.to_owned()), "{key} in {keys:?}");
        }
    }

    #[test]
    fn runs_are_summed_by_assignment_and_by_way() {
        let mut failed = example();
        failed.report.result = RunResult::Failed;
        failed.report.ways.clear();
        let sums = Sums::of(&[example(), example(), failed], false);
        let own = &sums.assignments["fedora@lisbon"];
        assert_eq!((own.runs, own.with_changes, own.failed), (3, 2, 1));
        assert_eq!((own.content_bytes, own.received_bytes), (12_308, 6_144));
        let pack = &sums.ways[&Way::Pack];
        assert_eq!((pack.files, pack.received_bytes, pack.sent_bytes), (8, 2_048, 200));
        assert_eq!(sums.savings.len(), 2, "a run that failed saved nothing");
        assert_eq!(
            sums.savings[0],
            Saving {
                generation: "fedora@12".into(),
                assignment: "fedora@lisbon".into(),
                moved_bytes: 3_472,
                whole_bytes: 20_480,
                rsync_estimate_bytes: 8_000,
            }
        );
        let text = sums.shown();
        assert!(text.contains("83.0 %"), "{text}");
        assert!(text.starts_with("the latest 3 runs\n"), "{text}");
        assert_eq!(Sums::default().shown(), "no runs yet");
    }
}
