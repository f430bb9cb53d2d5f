//! The publisher's scan of an unchanged tree, beside `find` printing the same fields.

use std::{process::Command, time::Instant};

use filetree::{
    fs::Fs,
    scan::{self, ScanOptions, ScanRecord},
};

use tests::{programs::isolate, wait_until};

use crate::figure::{Figure, median};

const FILES: u64 = 200_000;
const ROUNDS: usize = 5;

pub(crate) fn run() -> Vec<Figure> {
    let dir = tempfile::tempdir().unwrap();
    for n in 0..FILES {
        tests::fixture::write(
            &dir.path().join(format!("d{:03}/e{}/f{n:06}", n % 200, n % 7)),
            b"x",
        );
    }
    // What changed within the last second is read again, by design.
    let made = Instant::now();
    wait_until("the files to be a second old", || made.elapsed().as_millis() > 1_500);
    let mut record = None;
    scan(dir.path(), &mut record);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let begin = Instant::now();
        scan(dir.path(), &mut record);
        ours.push(begin.elapsed().as_secs_f64());
        let begin = Instant::now();
        let mut find = Command::new("find");
        isolate(&mut find);
        find.arg(dir.path()).args(["-printf", "%P %y %m %s %T@ %C@ %i %D\\0"]);
        assert!(find.stdout(std::process::Stdio::null()).status().unwrap().success());
        theirs.push(begin.elapsed().as_secs_f64());
    }
    vec![Figure {
        what: format!("scan of an unchanged tree of {FILES} files"),
        ours: median(ours),
        unit: "s",
        peer: Some(("find -printf", median(theirs))),
        most: 1.5,
    }]
}

fn scan(dir: &std::path::Path, record: &mut Option<ScanRecord>) {
    let now = i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap();
    let root = Fs::disk().open_root(dir).unwrap();
    let previous = record.take().unwrap_or_else(ScanRecord::empty);
    let scan = scan::scan(&root, &previous, &ScanOptions::new(now)).unwrap();
    assert!(previous.is_empty() || scan.stats.read_files == 0, "{:?}", scan.stats);
    *record = Some(scan.record);
}
