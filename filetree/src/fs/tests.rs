use std::os::unix::{ffi::OsStrExt, fs::PermissionsExt};

use protocol::path::TreePath;

use super::*;

fn root() -> (tempfile::TempDir, Dir) {
    let temp = tempfile::tempdir().unwrap();
    let dir = Fs::disk().open_root(temp.path()).unwrap();
    (temp, dir)
}

fn path(text: &str) -> TreePath {
    TreePath::parse(text.as_bytes()).unwrap()
}

#[test]
fn nothing_is_reached_through_a_symlink() {
    let (temp, dir) = root();
    std::fs::create_dir_all(temp.path().join("real/below")).unwrap();
    std::fs::write(temp.path().join("real/file"), "x").unwrap();
    std::os::unix::fs::symlink("real", temp.path().join("dir-link")).unwrap();
    std::os::unix::fs::symlink("real/file", temp.path().join("file-link")).unwrap();
    assert!(dir.open_dir(&path("real/below")).is_ok());
    assert!(dir.open_dir(&path("dir-link")).is_err());
    assert!(dir.open_dir(&path("dir-link/below")).is_err());
    assert!(dir.open_file(b"file-link").is_err());
    assert_eq!(dir.stat(b"file-link").unwrap().unwrap().kind, Kind::Symlink);
}

#[test]
fn names_that_are_paths_are_refused_by_every_operation() {
    let (temp, dir) = root();
    std::fs::write(temp.path().join("a"), "x").unwrap();
    for name in [&b".."[..], b".", b"", b"a/b", b"../x", b"/etc/passwd", b"a\0b"] {
        assert!(dir.open_child(name).is_err(), "{name:?}");
        assert!(dir.open_file(name).is_err(), "{name:?}");
        assert!(dir.create_file(name).is_err(), "{name:?}");
        assert!(dir.stat(name).is_err(), "{name:?}");
        assert!(dir.unlink(name).is_err(), "{name:?}");
        assert!(dir.symlink(name, b"t").is_err(), "{name:?}");
        for refused in [
            dir.link(name, &dir, b"z"),
            dir.link(b"a", &dir, name),
            dir.rename(name, &dir, b"z"),
            dir.rename(b"a", &dir, name),
            dir.exchange(b"a", &dir, name),
        ] {
            assert!(refused.is_err(), "{name:?}");
        }
    }
    assert_eq!(dir.entries().unwrap().len(), 1);
}

#[test]
fn odd_names_work_and_come_back_as_they_are() {
    let (_temp, dir) = root();
    let names = [&b"a\nb"[..], b"\xff\xfe", b" ", b"-rf", &[b'n'; 255]];
    for name in names {
        dir.create_file(name).unwrap().write_at(0, name).unwrap();
    }
    let mut listed: Vec<Vec<u8>> =
        dir.entries().unwrap().into_iter().map(|entry| entry.name.into()).collect();
    listed.sort();
    let mut expected: Vec<Vec<u8>> = names.iter().map(|name| name.to_vec()).collect();
    expected.sort();
    assert_eq!(listed, expected);
}

#[test]
fn swapping_two_directories_swaps_their_identity() {
    let (_temp, dir) = root();
    let one = dir.make_dir(b"one").unwrap().meta().unwrap().id;
    let two = dir.make_dir(b"two").unwrap().meta().unwrap().id;
    dir.exchange(b"one", &dir, b"two").unwrap();
    assert_eq!(dir.stat(b"one").unwrap().unwrap().id, two);
    assert_eq!(dir.stat(b"two").unwrap().unwrap().id, one);
    assert!(dir.rename_new(b"one", &dir, b"two").unwrap_err().is_already_there());
}

#[test]
fn modes_and_times_are_set_as_given() {
    let (temp, dir) = root();
    let file = dir.create_file(b"f").unwrap();
    file.write_at(0, b"hello").unwrap();
    file.set_mode(0o2755).unwrap();
    file.set_mtime(-1_500_000_001).unwrap();
    dir.symlink(b"l", b"nowhere").unwrap();
    dir.set_mtime_of(b"l", 1_000_000_007).unwrap();
    let meta = dir.stat(b"f").unwrap().unwrap();
    assert_eq!((meta.mode, meta.mtime, meta.size), (0o2755, -1_500_000_001, 5));
    assert_eq!(dir.stat(b"l").unwrap().unwrap().mtime, 1_000_000_007);
    let made = dir.make_dir(b"d").unwrap();
    made.set_mode(0o555).unwrap();
    let mode = std::fs::metadata(temp.path().join("d")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o555);
}

#[test]
fn a_fifo_in_a_files_place_is_refused_without_waiting() {
    let (temp, dir) = root();
    let fifo = temp.path().join("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    assert!(dir.open_file(b"fifo").is_err());
    assert_eq!(dir.stat(b"fifo").unwrap().unwrap().kind, Kind::Special);
}

#[test]
fn every_operation_is_counted_by_kind() {
    let (_temp, dir) = root();
    let before = dir.fs().counters().snapshot();
    dir.create_file(b"a").unwrap();
    dir.link(b"a", &dir, b"b").unwrap();
    dir.rename(b"b", &dir, b"c").unwrap();
    dir.stat(b"a").unwrap();
    dir.sync().unwrap();
    let done = dir.fs().counters().snapshot().since(&before);
    assert_eq!(done.mutations(), 3);
    for op in [Op::Create, Op::Link, Op::Rename, Op::Stat, Op::SyncDir] {
        assert_eq!(done.count(op), 1, "{op}");
    }
}

#[test]
fn an_armed_fail_point_makes_that_operation_fail_and_says_where() {
    let temp = tempfile::tempdir().unwrap();
    let plan = Arc::new("create:2:28".parse::<FailPlan>().unwrap());
    let dir = Fs::disk_failing(plan.clone()).open_root(temp.path()).unwrap();
    dir.create_file(b"a").unwrap();
    let error = dir.create_file(b"b").unwrap_err();
    assert!(error.is_full() && plan.fired());
    assert_eq!(error.to_string(), format!("cannot create {}/b", temp.path().display()));
    assert!(!temp.path().join(std::ffi::OsStr::from_bytes(b"b")).exists());
    dir.create_file(b"b").unwrap();
}

#[test]
fn filling_one_file_from_another_copies_everything() {
    let (_temp, dir) = root();
    let content: Vec<u8> = (0..700_000u32).flat_map(|n| n.to_le_bytes()).collect();
    let from = dir.create_file(b"from").unwrap();
    from.write_at(0, &content).unwrap();
    let to = dir.create_file(b"to").unwrap();
    let mut shown = Vec::new();
    let is_shared = to.fill_from(&from, &mut |bytes| shown.extend_from_slice(bytes)).unwrap();
    let mut copied = Vec::new();
    std::io::Read::read_to_end(&mut to.reader(), &mut copied).unwrap();
    assert_eq!(copied, content);
    assert_eq!(shown, if is_shared { &[][..] } else { &content });
}

/// What the standard library and the kernel's interface offer for changing a disk.
const MUTATIONS: &[&str] = &[
    "fs::write(",
    "fs::rename(",
    "fs::remove_file(",
    "fs::remove_dir(",
    "fs::remove_dir_all(",
    "fs::create_dir(",
    "fs::create_dir_all(",
    "fs::set_permissions(",
    "fs::hard_link(",
    "fs::copy(",
    "File::create(",
    "File::options(",
    "OpenOptions::new(",
    "unix::fs::symlink(",
    "unix::fs::chown(",
    "renameat(",
    "renameat_with(",
    "unlinkat(",
    "mkdirat(",
    "linkat(",
    "symlinkat(",
    "fchmod(",
    "chownat(",
    "utimensat(",
    "futimens(",
    "ftruncate(",
];

/// Who may use them all the same, and for what that is no mirrored tree.
const APART: &[(&str, &str)] = &[
    ("filetree/src/fs/", "this layer"),
    ("filetree/src/pack/write/output.rs", "packs are written beside trees, never into one"),
    ("mirror-agent/src/enroll.rs", "the data directory"),
    ("mirror-agent/src/agent.rs", "the data directory"),
    ("mirror-agent/src/claim.rs", "the claim on the storage"),
    ("mirror-agent/src/control.rs", "the control socket"),
    ("mirror-agent/src/lib.rs", "the control socket"),
    ("mirror-agent/src/ledger/", "the ledger"),
    ("mirror-agent/src/rsync/", "the pipe's socket and the child's lists of rules"),
    ("mirror-agent/src/fetch/", "downloads and manifests"),
    ("mirror-agent/src/gather", "downloads"),
    ("mirror-agent/src/observed", "the stage of rsync"),
    (
        "mirror-agent/src/spool.rs",
        "what a server lists, in a file without a name beside that stage",
    ),
    (
        "mirror-agent/src/relay/cache",
        "what is kept for others, in the work directory beside those of trees",
    ),
    ("mirror-agent/src/run_log", "the logs of runs, in the data directory"),
    ("mirror-agent/src/cli/", "the directory of a command"),
];

#[test]
fn nothing_else_changes_a_mirrored_tree() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let sources = ["filetree/src", "mirror-agent/src"].into_iter().flat_map(|dir| {
        walkdir::WalkDir::new(root.join(dir)).into_iter().filter_map(std::result::Result::ok)
    });
    let (mut looked, mut wrong) = (0, Vec::new());
    for entry in sources.filter(|entry| entry.path().extension().is_some_and(|e| e == "rs")) {
        let path = entry.path().strip_prefix(root).unwrap().to_string_lossy().into_owned();
        let is_test = path.contains("/tests/") || path.ends_with("/tests.rs");
        if is_test || APART.iter().any(|(apart, _)| path.starts_with(apart)) {
            continue;
        }
        looked += 1;
        let text = std::fs::read_to_string(entry.path()).unwrap();
        let code = text.split("#[cfg(test)]\nmod ").next().unwrap();
        for (number, line) in code.lines().enumerate() {
            if MUTATIONS.iter().any(|mutation| line.contains(mutation)) {
                wrong.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    assert!(looked > 40, "only {looked} files were looked at");
    assert!(wrong.is_empty(), "changes a disk without filetree::fs:\n{}", wrong.join("\n"));
}
