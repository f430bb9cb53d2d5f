use protocol::{
    generation::{Epoch, Generation, HeadNumber, RestoreEpoch, Revision},
    v1::agent::{Changes, RunKind, RunResult},
};

use super::*;

fn name() -> AssignmentName {
    "fedora@lisbon".parse().unwrap()
}

fn version(epoch: u64, generation: u64) -> Version {
    Version { epoch: Epoch(epoch), generation: Generation(generation) }
}

fn report(at: i64) -> RunReport {
    let time = Timestamp::from_second(at).unwrap();
    RunReport {
        id: Uuid::now_v7(),
        assignment: name(),
        kind: RunKind::Sync,
        started: time,
        ended: time,
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
        notices: vec![],
        hold: None,
        checked: None,
        undelete: None,
        receipt: None,
        log: String::new(),
    }
}

#[test]
fn what_was_stored_is_there_after_a_restart() {
    let data = tempfile::tempdir().unwrap();
    let path = TreePath::parse(b"pub/fedora").unwrap();
    let mut record = Record::new(name(), path);
    {
        let ledger = Ledger::open(data.path()).unwrap();
        assert_eq!(ledger.record(&name()).unwrap(), None);
        record.add_run(report(7));
        ledger.set_record(&record).unwrap();
        ledger.add_unsent(&record.runs[0]).unwrap();
    }
    let ledger = Ledger::open(data.path()).unwrap();
    assert_eq!(ledger.records().unwrap(), [record.clone()]);
    let unsent = ledger.unsent().unwrap();
    assert_eq!(unsent, record.runs);
    ledger.remove_unsent(unsent[0].id).unwrap();
    assert!(ledger.unsent().unwrap().is_empty());
    ledger.remove_record(&name()).unwrap();
    assert!(ledger.records().unwrap().is_empty());
}

#[test]
fn only_the_newest_runs_are_remembered() {
    let mut record = Record::new(name(), TreePath::parse(b"x").unwrap());
    (0..60).for_each(|at| record.add_run(report(at)));
    let seconds: Vec<i64> = record.runs.iter().map(|run| run.started.as_second()).collect();
    assert_eq!(seconds, (10..60).collect::<Vec<_>>());
}

#[test]
fn a_half_written_file_changes_nothing_and_a_damaged_one_is_named() {
    let data = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(data.path()).unwrap();
    let marks = Marks { revision: Revision(4), ..Marks::default() };
    let raised = ledger.raise_marks(|now| {
        now.clone_from(&marks);
        Ok::<_, Error>(7)
    });
    assert_eq!(raised.unwrap(), 7);
    let refused = ledger.raise_marks(|now| {
        now.revision = Revision(9);
        Err::<(), Error>(Error::Io {
            what: "raise",
            path: "x".into(),
            source: std::io::Error::other("no"),
        })
    });
    refused.unwrap_err();
    assert_eq!(ledger.marks().unwrap(), marks, "what was refused raises nothing");
    std::fs::write(data.path().join("ledger/marks.new"), b"{").unwrap();
    assert_eq!(ledger.marks().unwrap(), marks);
    std::fs::write(data.path().join("ledger/marks.json"), b"{").unwrap();
    let error = ledger.marks().unwrap_err();
    assert!(error.to_string().contains("ledger/marks.json"), "{error}");
}

#[test]
fn marks_that_are_raised_at_the_same_time_are_all_kept() {
    let data = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(data.path()).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..25 {
                    let raise = |marks: &mut Marks| {
                        marks.revision.0 += 1;
                        Ok::<_, Error>(())
                    };
                    ledger.raise_marks(raise).unwrap();
                }
            });
        }
    });
    assert_eq!(ledger.marks().unwrap().revision, Revision(200));
}

#[test]
fn wanted_state_goes_back_only_under_a_higher_restore_epoch() {
    let mut marks = Marks::default();
    marks.raise_wanted(RestoreEpoch(1), Revision(9), HeadNumber(9)).unwrap();
    marks.raise_wanted(RestoreEpoch(1), Revision(9), HeadNumber(9)).unwrap();
    let back = marks.raise_wanted(RestoreEpoch(1), Revision(8), HeadNumber(8));
    assert!(matches!(back, Err(GoesBack::Revision { held: Revision(9), .. })));
    let back = marks.raise_wanted(RestoreEpoch(0), Revision(100), HeadNumber(100));
    assert!(matches!(back, Err(GoesBack::RestoreEpoch { .. })));
    marks.raise_wanted(RestoreEpoch(2), Revision(3), HeadNumber(3)).unwrap();
    assert_eq!(marks.revision, Revision(3));
}

#[test]
fn content_never_goes_back_and_never_changes_under_its_number() {
    let tree = "fedora".parse().unwrap();
    let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
    let mut marks = Marks::default();
    marks.raise_tree(&tree, version(0, 5), one).unwrap();
    marks.raise_tree(&tree, version(0, 5), one).unwrap();
    let changed = marks.raise_tree(&tree, version(0, 5), two);
    assert!(matches!(changed, Err(GoesBack::Changed { .. })));
    let back = marks.raise_tree(&tree, version(0, 4), two);
    assert!(matches!(back, Err(GoesBack::Generation { .. })));
    marks.raise_tree(&tree, version(1, 1), two).unwrap();
    assert!(marks.raise_tree(&tree, version(0, 9), one).is_err());
}
