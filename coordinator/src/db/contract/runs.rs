//! Runs, outcomes and receipts.

use jiff::{SignedDuration, Timestamp};
use protocol::{
    digest::Digest,
    dsse::{Bytes, Envelope},
    generation::{Epoch, Generation, Version},
    statement::Receipt,
    v1::{
        agent::{Changes, RunKind, RunReport, RunResult},
        history::LogOf,
    },
};
use uuid::Uuid;

use super::{TestDatabase, on_both};
use crate::db::{Outcome, RunFilter};

on_both! {
    a_run_is_stored_once_and_found_by_tree_and_site
    of_an_assignment_s_logs_those_are_kept_that_can_be_asked_for
    a_run_that_began_is_known_until_a_report_is_here
    an_older_outcome_never_takes_the_place_of_a_newer_one
    an_older_receipt_never_takes_the_place_of_a_newer_one
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000).unwrap() + SignedDuration::from_secs(second)
}

fn report(assignment: &str) -> RunReport {
    RunReport {
        id: Uuid::now_v7(),
        assignment: assignment.parse().unwrap(),
        kind: RunKind::Sync,
        started: at(0),
        ended: at(1),
        result: RunResult::Completed,
        from: None,
        to: None,
        changes: Changes::default(),
        ways: vec![],
        points: vec![],
        encoders: vec![],
        not_taken: vec![],
        switch: None,
        stats: None,
        foreseen: None,
        error: String::new(),
        notices: vec!["one".into()],
        hold: None,
        checked: None,
        undelete: None,
        receipt: None,
        log: String::new(),
    }
}

async fn a_run_is_stored_once_and_found_by_tree_and_site(test: &TestDatabase) {
    let agent = "lisbon-1".parse().unwrap();
    let reports = ["a@lisbon", "b@lisbon", "a@oslo"].map(report);
    let mut tx = test.database.write().await.unwrap();
    for (second, report) in (10..).zip(&reports) {
        assert!(tx.add_run(&agent, report, at(second)).await.unwrap());
        assert!(!tx.add_run(&agent, report, at(second)).await.unwrap());
    }
    tx.commit().await.unwrap();
    let mut tx = test.database.read().await.unwrap();
    let found = tx.run(reports[1].id).await.unwrap().unwrap();
    assert_eq!((found.report, found.received), (reports[1].clone(), at(11)));
    assert_eq!(tx.run(Uuid::nil()).await.unwrap(), None);
    let names = |runs: Vec<crate::db::StoredRun>| {
        runs.iter().map(|run| run.report.assignment.to_string()).collect::<Vec<_>>()
    };
    let all = RunFilter::default();
    let found = names(tx.runs(&all, 0, 10).await.unwrap());
    assert_eq!(found, ["a@oslo", "b@lisbon", "a@lisbon"], "the newest first");
    assert_eq!(names(tx.runs(&all, 1, 1).await.unwrap()), ["b@lisbon"]);
    let of_a = RunFilter { tree: Some("a".parse().unwrap()), site: None };
    assert_eq!(names(tx.runs(&of_a, 0, 10).await.unwrap()), ["a@oslo", "a@lisbon"]);
    let one = RunFilter { site: Some("lisbon".parse().unwrap()), ..of_a };
    assert_eq!(names(tx.runs(&one, 0, 10).await.unwrap()), ["a@lisbon"]);
}

async fn of_an_assignment_s_logs_those_are_kept_that_can_be_asked_for(test: &TestDatabase) {
    use RunResult::{Completed, Failed, UpToDate};
    let agent = "lisbon-1".parse().unwrap();
    let mut tx = test.database.write().await.unwrap();
    let results = [Completed, Completed, UpToDate, Failed, Failed, Failed];
    for (number, result) in (0..).zip(results) {
        let log = format!("log {number}\n");
        let report = RunReport { result, ended: at(number), log, ..report("a@lisbon") };
        tx.add_run(&agent, &report, at(number)).await.unwrap();
        assert_eq!(tx.run(report.id).await.unwrap().unwrap().report.log, "");
    }
    let other = RunReport { log: "other\n".into(), ..report("a@oslo") };
    tx.add_run(&agent, &other, at(20)).await.unwrap();
    let name = "a@lisbon".parse().unwrap();
    for (of, number) in
        [(LogOf::Latest, 5), (LogOf::Previous, 4), (LogOf::Success, 2), (LogOf::Change, 1)]
    {
        let (_, log) = tx.run_log(&name, of).await.unwrap().unwrap();
        assert_eq!(log, format!("log {number}\n"), "{of:?}");
    }
    let kept = crate::db::rows!(tx, (String,), "SELECT log FROM run_logs ORDER BY log").unwrap();
    let kept: Vec<_> = kept.iter().map(|(log,)| log.trim()).collect();
    assert_eq!(kept, ["log 1", "log 2", "log 4", "log 5", "other"]);
    assert_eq!(tx.run_log(&"b@lisbon".parse().unwrap(), LogOf::Latest).await.unwrap(), None);
    tx.commit().await.unwrap();
}

async fn a_run_that_began_is_known_until_a_report_is_here(test: &TestDatabase) {
    let (one, other) = ("a@lisbon".parse().unwrap(), "a@oslo".parse().unwrap());
    let mut tx = test.database.write().await.unwrap();
    for (name, second) in [(&one, 1), (&other, 2), (&one, 3)] {
        tx.put_begun(name, at(second)).await.unwrap();
    }
    let mut found = tx.begun().await.unwrap();
    found.sort();
    assert_eq!(found, [(one.clone(), at(3)), (other.clone(), at(2))]);
    tx.end_begun(&one).await.unwrap();
    assert_eq!(tx.begun().await.unwrap(), [(other, at(2))]);
    tx.commit().await.unwrap();
}

async fn an_older_outcome_never_takes_the_place_of_a_newer_one(test: &TestDatabase) {
    let outcome = |second, result, success: Option<i64>| Outcome {
        assignment: "a@lisbon".parse().unwrap(),
        last_result: result,
        last_run: at(second),
        last_success: success.map(at),
        error: second.to_string(),
    };
    let mut tx = test.database.write().await.unwrap();
    tx.put_outcome(&outcome(1, RunResult::Completed, Some(1))).await.unwrap();
    tx.put_outcome(&outcome(3, RunResult::Failed, None)).await.unwrap();
    tx.put_outcome(&outcome(2, RunResult::UpToDate, Some(2))).await.unwrap();
    let found = tx.outcomes().await.unwrap();
    assert_eq!(found, [outcome(3, RunResult::Failed, Some(1))]);
    tx.commit().await.unwrap();
}

async fn an_older_receipt_never_takes_the_place_of_a_newer_one(test: &TestDatabase) {
    let envelope =
        Envelope { payload_type: "t".into(), payload: Bytes(vec![1]), signatures: vec![] };
    let receipt = |second, number| Receipt {
        agent: "lisbon-1".parse().unwrap(),
        site: "lisbon".parse().unwrap(),
        tree: "a".parse().unwrap(),
        version: Version { epoch: Epoch(1), generation: Generation(number) },
        manifest: Digest::of(&[7]),
        filter: Digest::of(&[8]),
        observed: true,
        files: 1,
        bytes: 2,
        applied: at(second),
    };
    let mut tx = test.database.write().await.unwrap();
    assert!(tx.put_receipt(&receipt(2, 5), &envelope).await.unwrap());
    assert!(!tx.put_receipt(&receipt(2, 5), &envelope).await.unwrap());
    assert!(!tx.put_receipt(&receipt(1, 4), &envelope).await.unwrap());
    assert!(tx.put_receipt(&receipt(3, 6), &envelope).await.unwrap());
    let found = tx.receipts().await.unwrap();
    assert_eq!((found.len(), found[0].version.generation), (1, Generation(6)));
    assert!(found[0].observed);
    assert_eq!(found[0].assignment.to_string(), "a@lisbon");
    tx.commit().await.unwrap();
}
