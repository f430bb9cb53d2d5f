//! `history`: what agents did.

use std::collections::{BTreeSet, HashMap};

use clap::Args;
use protocol::{
    client::{self, Client},
    error::ProblemKind,
    spec::AssignmentName,
    v1::{
        agent::RunReport,
        history::{LogOf, RunStatus},
    },
};

use super::{
    error::Error,
    print::{Print, table},
    select::Selectors,
    session::Session,
    status,
    text::{self, or_nothing},
};

/// Show the latest runs: what agents did, how it ended, and what it cost.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  mirrorctl history\n  mirrorctl history fedora@lisbon\n  mirrorctl history --site lisbon --site porto -n 10\n  mirrorctl history fedora@lisbon -n 2 --showlog"
)]
pub(super) struct History {
    #[command(flatten)]
    which: Which,
    /// Also show the runs' logs, as far as they are kept: of each assignment the latest, the one before
    /// it, the latest that succeeded and the latest that changed the tree.
    #[arg(long, visible_alias = "show-log")]
    showlog: bool,
}

/// Which runs.
#[derive(Debug, Args)]
pub(super) struct Which {
    /// Only of these assignments.
    #[arg(value_name = "TREE@SITE")]
    assignments: Vec<AssignmentName>,
    #[command(flatten)]
    selectors: Selectors,
    /// At most so many, the newest.
    #[arg(short = 'n', long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(..=1000))]
    number: u64,
}

impl History {
    pub(super) async fn run(self, session: &Session, print: &mut Print) -> Result<(), Error> {
        let api = session.api(print).await?;
        let mut runs = self.which.runs(&api).await?;
        if !self.showlog {
            return print.result(&runs, |runs| shown(runs));
        }
        add_logs(&api, &mut runs).await?;
        print.result(&runs, |runs| {
            let logs = runs.iter().map(log_of);
            std::iter::once(shown(runs)).chain(logs).collect::<Vec<_>>().join("\n")
        })
    }
}

/// Puts into each run its log, where that is kept.
async fn add_logs(api: &Client, runs: &mut [RunStatus]) -> Result<(), Error> {
    let assignments: BTreeSet<AssignmentName> =
        runs.iter().map(|run| run.report.assignment.clone()).collect();
    let mut logs = HashMap::new();
    for assignment in &assignments {
        for which in LogOf::ALL {
            match api.run_log(assignment, which).await {
                Ok(run) => drop(logs.insert(run.report.id, run.report.log)),
                Err(error) if is_missing(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    for run in runs {
        run.report.log = logs.remove(&run.report.id).unwrap_or_default();
    }
    Ok(())
}

pub(super) fn is_missing(error: &client::Error) -> bool {
    error.problem().is_some_and(|problem| problem.kind == ProblemKind::NotFound)
}

/// A log under the name and the end of its run.
pub(super) fn log_of(run: &RunStatus) -> String {
    let report = &run.report;
    let head = format!("--- {} of {}", report.assignment, text::time(report.ended));
    match report.log.as_str() {
        "" => format!("{head}: its log is not kept\n"),
        log => format!("{head}\n{log}"),
    }
}

impl Which {
    /// The latest of these runs, newest first.
    pub(super) async fn runs(self, api: &Client) -> Result<Vec<RunStatus>, Error> {
        let limit = format!("limit={}", self.number);
        let names = match (self.assignments.is_empty(), self.selectors.is_empty()) {
            (true, true) => return Ok(api.runs(&limit).await?.items),
            // What was deleted has runs too.
            (false, true) => self.assignments,
            (_, false) => self.selectors.and(&self.assignments).select(api).await?,
        };
        let mut runs = Vec::new();
        for name in names {
            runs.extend(api.runs(&format!("assignment={name}&{limit}")).await?.items);
        }
        runs.sort_by_key(|run| std::cmp::Reverse((run.received, run.report.id)));
        runs.truncate(usize::try_from(self.number).unwrap_or(usize::MAX));
        Ok(runs)
    }
}

/// The run with that id, or the latest runs of that assignment.
pub(super) async fn one_or_some(api: &Client, name: &str, print: &mut Print) -> Result<(), Error> {
    if name.contains('@') {
        let assignment: AssignmentName =
            name.parse().map_err(|error| Error::Usage(format!("{error}")))?;
        let runs = api.runs(&format!("assignment={assignment}")).await?.items;
        return print.result(&runs, |runs| shown(runs));
    }
    let id = name
        .parse()
        .map_err(|_| Error::Usage(format!("{name:?} is neither the id of a run nor TREE@SITE")))?;
    let run = api.run(id).await?;
    print.result(&run, details)
}

/// Runs as a table.
pub(super) fn shown(runs: &[RunStatus]) -> String {
    if runs.is_empty() {
        return "no runs yet".into();
    }
    let rows = runs.iter().map(|run| {
        let report = &run.report;
        let versions = match (report.from, report.to) {
            (None, None) => text::NOTHING.into(),
            (from, to) => {
                format!("{} > {}", or_nothing(from, text::version), or_nothing(to, text::version))
            }
        };
        [
            text::time(report.ended),
            report.assignment.to_string(),
            status::result(Some(report.result)),
            versions,
            changes(report),
            ways(report),
            report.error.clone(),
        ]
    });
    table(["ENDED", "ASSIGNMENT", "RESULT", "GENERATION", "CHANGES", "RECEIVED", "ERROR"], rows)
}

fn changes(report: &RunReport) -> String {
    let c = report.changes;
    match (c.added, c.changed + c.attributes, c.deleted) {
        (0, 0, 0) => text::NOTHING.into(),
        (added, changed, deleted) => format!("+{added} ~{changed} -{deleted}"),
    }
}

fn ways(report: &RunReport) -> String {
    let received = report.ways.iter().filter(|way| way.received_bytes > 0);
    let parts: Vec<_> =
        received.map(|way| format!("{} {}", way.way, text::bytes(way.received_bytes))).collect();
    if parts.is_empty() { text::NOTHING.into() } else { parts.join(", ") }
}

/// Everything about one run.
fn details(run: &RunStatus) -> String {
    let report = &run.report;
    let mut parts = vec![format!(
        "run {} of {} by {}\n{}, {} to {}\n",
        report.id,
        report.assignment,
        run.agent,
        status::result(Some(report.result)),
        text::time(report.started),
        text::time(report.ended)
    )];
    if !report.error.is_empty() {
        parts.push(format!("error: {}\n", report.error));
    }
    parts.push(format!(
        "changes {}, {} of content{}\n",
        changes(report),
        text::bytes(report.changes.bytes),
        report.switch.as_ref().map(|how| format!("; switched: {how}")).unwrap_or_default()
    ));
    if !report.ways.is_empty() {
        let rows = report.ways.iter().map(|way| {
            [
                way.way.to_string(),
                way.point.clone(),
                way.files.to_string(),
                text::bytes(way.content_bytes),
                text::bytes(way.received_bytes),
                text::bytes(way.sent_bytes),
                format!("{} ms", way.milliseconds),
            ]
        });
        parts.push(table(["WAY", "POINT", "FILES", "CONTENT", "RECEIVED", "SENT", "TOOK"], rows));
    }
    if !report.points.is_empty() {
        let rows = report.points.iter().map(|point| {
            [
                point.point.clone(),
                point.requests.to_string(),
                text::bytes(point.received_bytes),
                point.failed.to_string(),
                point.wrong.to_string(),
                point.detail.clone(),
            ]
        });
        parts.push(table(
            ["POINT", "REQUESTS", "RECEIVED", "FAILED", "WRONG", "LAST TROUBLE"],
            rows,
        ));
    }
    if !report.encoders.is_empty() {
        let rows = report.encoders.iter().map(|encoder| {
            [
                encoder.encoder.to_string(),
                encoder.files.to_string(),
                text::bytes(encoder.content_bytes),
                text::bytes(encoder.payload_bytes),
            ]
        });
        parts.push(table(["ENCODER", "FILES", "CONTENT", "PAYLOAD"], rows));
    }
    for not in &report.not_taken {
        let detail = match not.detail.as_str() {
            "" => String::new(),
            detail => format!(" ({detail})"),
        };
        parts.push(format!("not by {} for {} files: {}{detail}\n", not.way, not.files, not.reason));
    }
    parts.extend(report.notices.iter().map(|notice| format!("notice: {notice}\n")));
    parts.join("\n")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A run that came by pack and rsync.
    pub(in crate::ctl) fn example() -> RunStatus {
        let json = serde_json::json!({
            "agent": "lisbon-1",
            "received": "2026-06-01T12:00:05Z",
            "id": "0198f0c2-0000-7000-8000-000000000001",
            "assignment": "fedora@lisbon",
            "kind": "sync",
            "started": "2026-06-01T12:00:00Z",
            "ended": "2026-06-01T12:00:04Z",
            "result": "SYNC_COMPLETED",
            "from": { "epoch": 1, "generation": 11 },
            "to": { "epoch": 1, "generation": 12 },
            "changes": { "added": 3, "changed": 2, "attributes": 1, "deleted": 4, "bytes": 20480,
                         "rsync-bytes": 8000 },
            "ways": [
                { "way": "pack", "point": "origin", "files": 4, "content-bytes": 4096,
                  "received-bytes": 1024, "sent-bytes": 100, "milliseconds": 20 },
                { "way": "rsync", "point": "build:8445", "files": 1, "content-bytes": 2048,
                  "received-bytes": 2048, "sent-bytes": 300, "milliseconds": 40 },
                { "way": "local", "point": "local", "files": 2, "content-bytes": 10,
                  "received-bytes": 0, "sent-bytes": 0, "milliseconds": 0 },
            ],
            "points": [
                { "point": "https://cdn.example.org", "requests": 9, "received-bytes": 4096,
                  "failed": 0, "wrong": 1, "detail": "it is damaged" },
            ],
            "encoders": [
                { "encoder": "rsync", "files": 4, "content-bytes": 4096, "payload-bytes": 900 },
            ],
            "not-taken": [
                { "way": "pack", "reason": "not-published", "files": 1, "detail": "x.rpm" },
            ],
            "notices": ["kept \u{1b}[2J"],
        });
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn a_run_is_a_row_with_what_came_by_which_way() {
        let text = shown(&[example()]);
        let row = text.lines().nth(1).unwrap();
        for part in [
            "fedora@lisbon",
            "SYNC_COMPLETED",
            "11 > 12",
            "+3 ~3 -4",
            "pack 1.00 KiB, rsync 2.00 KiB",
        ] {
            assert!(row.contains(part), "{part:?} is not in {row:?}");
        }
        assert!(!row.contains("local"), "{row}");
    }

    #[test]
    fn a_log_stands_under_its_run_or_is_said_not_to_be_kept() {
        let mut run = example();
        assert!(log_of(&run).ends_with("its log is not kept\n"), "{}", log_of(&run));
        run.report.log = "fetched 3 files\n".into();
        let text = log_of(&run);
        assert!(text.starts_with("--- fedora@lisbon of ") && text.ends_with("\nfetched 3 files\n"));
    }

    #[test]
    fn everything_about_a_run_says_why_a_way_was_not_taken() {
        let text = details(&example());
        for part in [
            "run 0198f0c2-0000-7000-8000-000000000001 of fedora@lisbon by lisbon-1",
            "build:8445",
            "900 B",
            "https://cdn.example.org",
            "it is damaged",
            "not by pack for 1 files: no pack carries it (x.rpm)",
            "notice: kept",
        ] {
            assert!(text.contains(part), "{part:?} is not in:\n{text}");
        }
    }
}
