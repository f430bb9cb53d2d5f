use std::{
    os::unix::ffi::OsStrExt,
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64},
};

use super::*;
use crate::fs::{Fs, Op};

/// A time at which nothing that the tests write is recent.
const LATER: i64 = i64::MAX;

fn path(text: &str) -> TreePath {
    TreePath::parse(text.as_bytes()).unwrap()
}

fn tree() -> (tempfile::TempDir, Dir) {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path();
    std::fs::create_dir_all(root.join("a/deep")).unwrap();
    std::fs::create_dir(root.join("b")).unwrap();
    for name in ["a/one", "a/deep/two", "a-b", "b/three", "c"] {
        std::fs::write(root.join(name), name).unwrap();
    }
    std::os::unix::fs::symlink("../c", root.join("a/link")).unwrap();
    let dir = Fs::disk().open_root(root).unwrap();
    (temp, dir)
}

fn scan_with(dir: &Dir, record: &ScanRecord) -> Scan {
    scan(dir, record, &ScanOptions::new(LATER)).unwrap()
}

fn paths(scan: &Scan) -> Vec<String> {
    scan.manifest.entries().iter().map(|entry| entry.path.to_string()).collect()
}

#[test]
fn a_tree_becomes_a_manifest_in_path_order() {
    let (_temp, dir) = tree();
    let scan = scan_with(&dir, &ScanRecord::empty());
    let expected = ["a", "a/deep", "a/deep/two", "a/link", "a/one", "a-b", "b", "b/three", "c"];
    assert_eq!(paths(&scan), expected);
    let two = scan.manifest.get(&path("a/deep/two")).unwrap();
    assert_eq!(two.digest(), Some(Digest::of(b"a/deep/two")));
    let link = &scan.manifest.get(&path("a/link")).unwrap().kind;
    assert_eq!(*link, EntryKind::Symlink { target: b"../c"[..].into() });
    assert_eq!(scan.root, dir.meta().unwrap().id);
}

#[test]
fn an_unchanged_tree_is_scanned_without_opening_a_file() {
    let (_temp, dir) = tree();
    let first = scan_with(&dir, &ScanRecord::empty());
    assert_eq!(first.stats.read_files, 5);
    let before = dir.fs().counters().snapshot();
    let second = scan_with(&dir, &first.record);
    let done = dir.fs().counters().snapshot().since(&before);
    assert_eq!((done.count(Op::OpenFile), done.count(Op::ReadLink)), (0, 0));
    assert_eq!(done.mutations(), 0);
    assert_eq!(second.stats.unchanged_files, 5);
    assert_eq!(second.manifest, first.manifest);
    assert_eq!(second.record, first.record);
}

#[test]
fn what_somebody_vouches_for_is_not_opened_and_what_differs_in_time_or_size_is() {
    let (temp, dir) = tree();
    let vouched = scan_with(&dir, &ScanRecord::empty()).manifest;
    // Hard links give every file another ctime, as the next generation of a mirror does.
    for name in ["a/one", "a/deep/two", "a-b", "b/three", "c"] {
        std::fs::hard_link(temp.path().join(name), temp.path().join("twin")).unwrap();
        std::fs::remove_file(temp.path().join("twin")).unwrap();
    }
    std::fs::write(temp.path().join("c"), "other").unwrap();
    let options = ScanOptions { vouched: Some(&vouched), ..ScanOptions::new(LATER) };
    let before = dir.fs().counters().snapshot();
    let scan = scan(&dir, &ScanRecord::empty(), &options).unwrap();
    let done = dir.fs().counters().snapshot().since(&before);
    assert_eq!((scan.stats.read_files, done.count(Op::OpenFile)), (1, 1));
    assert_eq!(scan.manifest.get(&path("c")).unwrap().digest(), Some(Digest::of(b"other")));
    let kept = |name: &str| scan.manifest.get(&path(name)) == vouched.get(&path(name));
    assert!(kept("a/one") && kept("a/deep/two") && kept("a-b") && kept("b/three"));
}

#[test]
fn exactly_the_changed_files_are_read_again() {
    let (temp, dir) = tree();
    let first = scan_with(&dir, &ScanRecord::empty());
    let changed = temp.path().join("b/three");
    let modified = std::fs::metadata(&changed).unwrap().modified().unwrap();
    std::fs::write(&changed, "B/THREE").unwrap();
    // Same size, and the modification time set back: only the ctime tells.
    std::fs::File::options().write(true).open(&changed).unwrap().set_modified(modified).unwrap();
    std::fs::write(temp.path().join("d"), "new").unwrap();
    std::fs::remove_file(temp.path().join("c")).unwrap();
    let before = dir.fs().counters().snapshot();
    let second = scan_with(&dir, &first.record);
    let opened = dir.fs().counters().snapshot().since(&before).count(Op::OpenFile);
    assert_eq!((opened, second.stats.read_files), (2, 2));
    let three = second.manifest.get(&path("b/three")).unwrap();
    assert_eq!(three.digest(), Some(Digest::of(b"B/THREE")));
    assert!(second.manifest.get(&path("c")).is_none());
}

#[test]
fn a_file_that_changed_just_before_the_scan_is_read_again_by_the_next() {
    let (_temp, dir) = tree();
    let now = dir.stat(b"c").unwrap().unwrap().ctime;
    let first = scan(&dir, &ScanRecord::empty(), &ScanOptions::new(now)).unwrap();
    assert!(first.record.is_empty());
    assert_eq!(scan_with(&dir, &first.record).stats.read_files, 5);
}

#[test]
fn what_the_limit_leaves_out_is_neither_entered_nor_looked_at() {
    let (_temp, dir) = tree();
    let keep = |path: &TreePath, _: bool| path.as_bytes() != b"a" && path.as_bytes() != b"c";
    let before = dir.fs().counters().snapshot();
    let options = ScanOptions { keep: &keep, ..ScanOptions::new(LATER) };
    let scan = scan(&dir, &ScanRecord::empty(), &options).unwrap();
    assert_eq!(paths(&scan), ["a-b", "b", "b/three"]);
    let done = dir.fs().counters().snapshot().since(&before);
    assert_eq!(done.count(Op::ReadDir), 2);
}

#[test]
fn names_that_are_not_utf_8_survive() {
    let (temp, dir) = tree();
    let names: [&[u8]; 4] = [b"\xff\xfe", b"new\nline", b" ", &[b'n'; 255]];
    for name in names {
        std::fs::write(temp.path().join(std::ffi::OsStr::from_bytes(name)), name).unwrap();
    }
    let scan = scan_with(&dir, &ScanRecord::empty());
    let record = ScanRecord::decode(&scan.record.encode()).unwrap();
    assert_eq!(record, scan.record);
    for name in names {
        let entry = scan.manifest.get(&TreePath::parse(name).unwrap()).unwrap();
        assert_eq!(entry.digest(), Some(Digest::of(name)));
    }
    assert_eq!(scan_with(&dir, &record).stats.read_files, 0);
}

#[test]
fn hard_links_form_a_group_and_are_read_once() {
    let (temp, dir) = tree();
    std::fs::hard_link(temp.path().join("c"), temp.path().join("a/zero")).unwrap();
    std::fs::hard_link(temp.path().join("c"), temp.path().join("z")).unwrap();
    let scan = scan_with(&dir, &ScanRecord::empty());
    let group = |name: &str| match scan.manifest.get(&path(name)).unwrap().kind {
        EntryKind::File { link_group, .. } => link_group,
        _ => None,
    };
    let expected = Some(LinkGroup::of_first(&path("a/zero")));
    assert_eq!([group("a/zero"), group("c"), group("z")], [expected; 3]);
    assert_eq!(group("a/one"), None);
    assert_eq!(scan.stats.read_files, 5);
    assert_eq!(scan_with(&dir, &scan.record).manifest, scan.manifest);
}

#[test]
fn fifos_are_left_out_and_reported() {
    let (temp, dir) = tree();
    let fifo = temp.path().join("b/fifo");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    std::fs::create_dir(temp.path().join(".mirrornet")).unwrap();
    let scan = scan_with(&dir, &ScanRecord::empty());
    let left_out: Vec<String> = scan.left_out.iter().map(|l| l.path.to_string()).collect();
    assert_eq!(left_out, [".mirrornet", "b/fifo"]);
    assert!(scan.manifest.get(&path("b/fifo")).is_none());
}

#[test]
fn a_name_that_cannot_be_carried_makes_the_scan_an_error_that_keeps_what_was_read() {
    let (temp, dir) = tree();
    // Deeper than any manifest carries.
    let mut deep = Dir::reopen(&dir).unwrap();
    for _ in 0..257 {
        deep = deep.make_dir(b"d").unwrap();
    }
    let error = scan(&dir, &ScanRecord::empty(), &ScanOptions::new(LATER)).unwrap_err();
    let Error::Incomplete(left) = error else { panic!("{error}") };
    assert_eq!(left.problems.len(), 1);
    assert_eq!(left.record.len(), 6);
    std::fs::remove_dir_all(temp.path().join("d")).unwrap();
    assert_eq!(scan_with(&dir, &left.record).stats.read_files, 0);
}

#[test]
fn a_file_that_never_settles_is_a_problem_not_a_guess() {
    let (temp, dir) = tree();
    let restless = temp.path().join("b/three");
    std::fs::write(&restless, vec![7; 300_000]).unwrap();
    let touch = |_: Progress| append(&restless);
    let options = ScanOptions { progress: &touch, ..ScanOptions::new(LATER) };
    let error = scan(&dir, &ScanRecord::empty(), &options).unwrap_err();
    let Error::Incomplete(left) = error else { panic!("{error}") };
    assert!(
        left.problems.iter().any(
            |problem| matches!(problem, Problem::Unsettled { path: p } if *p == path("b/three"))
        )
    );
}

fn append(path: &Path) {
    use std::io::Write;
    std::fs::File::options().append(true).open(path).unwrap().write_all(b"x").unwrap();
}

#[test]
fn a_damaged_record_is_refused_at_every_byte() {
    let (_temp, dir) = tree();
    let bytes = scan_with(&dir, &ScanRecord::empty()).record.encode();
    assert!(ScanRecord::decode(&bytes).is_ok());
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        assert!(ScanRecord::decode(&damaged).is_err(), "byte {at}");
        assert!(ScanRecord::decode(&bytes[..at]).is_err(), "cut at {at}");
    }
}

#[test]
fn a_scan_reports_progress_and_can_be_stopped() {
    let (_temp, dir) = tree();
    let most = AtomicU64::new(0);
    let progress = |p: Progress| {
        most.fetch_max(p.bytes, Ordering::Relaxed);
    };
    let options = ScanOptions { progress: &progress, ..ScanOptions::new(LATER) };
    scan(&dir, &ScanRecord::empty(), &options).unwrap();
    assert_eq!(most.load(Ordering::Relaxed), 26);
    let cancel = AtomicBool::new(true);
    let options = ScanOptions { cancel: &cancel, ..ScanOptions::new(LATER) };
    let stopped = scan(&dir, &ScanRecord::empty(), &options);
    assert!(matches!(stopped, Err(Error::Cancelled)));
}

fn rule_files(rules: &[&str]) -> filter::Walk {
    filter::Walk::new(&filter::Filter::parse(rules).unwrap(), filter::Side::Sender)
}

#[test]
fn rule_files_in_the_tree_leave_out_what_they_say() {
    let (temp, dir) = tree();
    std::fs::write(temp.path().join(".rules"), "- three\n").unwrap();
    std::fs::write(temp.path().join("a/.rules"), "- /one\n- two\n").unwrap();
    let rules = rule_files(&[":e .rules"]);
    let options = ScanOptions { rule_files: Some(&rules), ..ScanOptions::new(LATER) };
    let scan = scan(&dir, &ScanRecord::empty(), &options).unwrap();
    assert_eq!(paths(&scan), ["a", "a/deep", "a/link", "a-b", "b", "c"]);
}

#[test]
fn a_rule_file_that_is_not_understood_stops_the_scan() {
    let (temp, dir) = tree();
    let rules = rule_files(&[": .rules"]);
    let options = ScanOptions { rule_files: Some(&rules), ..ScanOptions::new(LATER) };
    let problem = || match scan(&dir, &ScanRecord::empty(), &options) {
        Err(Error::Incomplete(incomplete)) => incomplete.problems[0].to_string(),
        other => panic!("{other:?}"),
    };
    std::fs::write(temp.path().join("a/.rules"), "- fine\nzap\n").unwrap();
    assert!(
        problem().starts_with("rule file 'a/.rules', rule 2, column 1: 'zap'"),
        "{}",
        problem()
    );
    std::fs::remove_file(temp.path().join("a/.rules")).unwrap();
    std::os::unix::fs::symlink("/etc/hostname", temp.path().join("a/.rules")).unwrap();
    assert!(problem().starts_with("the rule file 'a/.rules' cannot be read"), "{}", problem());
}

#[test]
fn links_that_may_lead_out_of_the_tree_are_left_out_by_name_unless_the_tree_has_them() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("d")).unwrap();
    for (link, target) in
        [("d/in", "../f"), ("d/up", "../../f"), ("abs", "/etc"), ("through", "d/../f")]
    {
        std::os::unix::fs::symlink(target, dir.path().join(link)).unwrap();
    }
    let root = Fs::disk().open_root(dir.path()).unwrap();
    let mut record = ScanRecord::empty();
    for (symlinks, carried) in [
        (Symlinks::Inside, &["d", "d/in"][..]),
        (Symlinks::Relative, &["d", "d/in", "d/up", "through"]),
        (Symlinks::All, &["abs", "d", "d/in", "d/up", "through"]),
        (Symlinks::Inside, &["d", "d/in"]),
    ] {
        let options = ScanOptions { symlinks, ..ScanOptions::new(LATER) };
        let found = scan(&root, &record, &options).unwrap();
        let paths = |entries: &[Entry]| -> Vec<String> {
            entries.iter().map(|entry| entry.path.to_string()).collect()
        };
        assert_eq!(paths(found.manifest.entries()), carried, "{symlinks:?}");
        assert_eq!(found.left_out.len(), 5 - carried.len(), "{symlinks:?}: {:?}", found.left_out);
        assert!(found.left_out.iter().all(|left| left.why.contains("symbolic link")));
        // What was read of a link that is left out is known all the same.
        record = found.record;
        assert_eq!(record.len(), 4);
    }
}
