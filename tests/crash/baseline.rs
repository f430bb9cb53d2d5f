//! The same promises, asked of rsync with the flags that mirror programs use.
//!
//! Whoever compares needs both rows from one machine and one day. What is measured here goes into
//! the table beside ours; each is also the proof that a harness can fail.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use tests::{
    Rsyncd,
    fixture::write,
    programs::{isolate, told},
};

use crate::{count, mirror::Mirror, tell};

/// The flags of PulpDist (src/pulpdist/core/sync_trees.py) and of tunasync
/// (worker/rsync_provider.go), as far as they say what is changed and what is removed.
const PEERS: [(&str, &[&str]); 2] = [
    (
        "PulpDist's",
        &["-rlptDvH", "--delete-after", "--ignore-errors", "--partial", "--delay-updates"],
    ),
    (
        "tunasync's",
        &[
            "-aHvh",
            "--no-o",
            "--no-g",
            "--stats",
            "--filter",
            "risk .~tmp~/",
            "--exclude",
            ".~tmp~/",
            "--delete",
            "--delete-after",
            "--delay-updates",
            "--safe-links",
        ],
    ),
];

fn rsync(flags: &[&str], from: &str, to: &Path) -> Output {
    let mut command = Command::new("rsync");
    isolate(&mut command);
    command.args(flags).arg(from).arg(to).output().unwrap()
}

fn files_in(dir: &Path) -> u64 {
    fs::read_dir(dir).map_or(0, |entries| entries.flatten().count() as u64)
}

#[test]
fn rsync_deletes_everything_that_an_empty_upstream_does_not_have() {
    const FILES: u64 = 1_000;
    let dir = tempfile::tempdir().unwrap();
    let upstream = dir.path().join("upstream");
    fs::create_dir(&upstream).unwrap();
    let rsyncd = Rsyncd::start(&dir.path().join("rsyncd"), &[("tree", &upstream)], "");
    for (peer, flags) in PEERS {
        let mirror = dir.path().join("mirror");
        for n in 0..FILES {
            write(&mirror.join(format!("f{n}")), "content");
        }
        let output = rsync(flags, &format!("{}tree/", rsyncd.url()), &mirror);
        let deleted = FILES - files_in(&mirror);
        let what = format!("files of a mirror with an empty upstream, rsync with {peer} flags");
        tell(&what, FILES, deleted);
        assert!(output.status.success(), "{}", told(&output));
        assert_eq!(deleted, FILES, "{peer} flags no longer delete; say so in the documents");
    }
}

/// Rounds of a reader that looks at every file of a tree, and how many of them saw two generations.
fn look(tree: &Path, files: u64, done: &AtomicBool) -> (u64, u64) {
    let (mut rounds, mut mixed) = (0, 0);
    while !done.load(Ordering::Relaxed) {
        let seen: std::collections::BTreeSet<Vec<u8>> = (0..files)
            .filter_map(|n| {
                let content = fs::read(tree.join(Mirror::name(n))).ok()?;
                Some(content.get(..19)?.to_vec())
            })
            .collect();
        rounds += 1;
        mixed += u64::from(seen.len() > 1);
    }
    (rounds, mixed)
}

/// What every program does that makes each file atomic and calls that an atomic update.
fn rename_each(upstream: &Path, mirror: &Path) {
    let stage = mirror.with_file_name("stage");
    for dir in [&stage, &mirror.to_owned()] {
        fs::create_dir_all(dir).unwrap();
    }
    let names: Vec<_> = fs::read_dir(upstream).unwrap().map(|e| e.unwrap().file_name()).collect();
    for name in &names {
        fs::copy(upstream.join(name), stage.join(name)).unwrap();
    }
    for name in &names {
        fs::rename(stage.join(name), mirror.join(name)).unwrap();
    }
}

#[test]
fn readers_of_a_tree_that_is_updated_file_by_file_see_two_generations() {
    const FILES: u64 = 300;
    let updates = count("MIRRORNET_BASELINE_UPDATES", 10);
    let dir = tempfile::tempdir().unwrap();
    let (upstream, mirror) = (dir.path().join("upstream"), dir.path().join("mirror"));
    for (name, flags) in [
        ("rsync -a --delete", &["-a", "--delete"][..]),
        ("rsync --delay-updates --delete-after", &["-a", "--delay-updates", "--delete-after"][..]),
        ("a program that renames file by file", &[]),
    ] {
        let done = AtomicBool::new(false);
        let update = |number: u64| {
            for n in 0..FILES {
                write(&upstream.join(Mirror::name(n)), Mirror::content(number, n, 2_000));
                let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(number * 10);
                let file = fs::File::options().write(true).open(upstream.join(Mirror::name(n)));
                file.unwrap().set_modified(time).unwrap();
            }
            if flags.is_empty() {
                return rename_each(&upstream, &mirror);
            }
            let output = rsync(flags, &format!("{}/", upstream.display()), &mirror);
            assert!(output.status.success(), "{}", told(&output));
        };
        update(1);
        let (rounds, mixed) = std::thread::scope(|scope| {
            let reader = scope.spawn(|| look(&mirror, FILES, &done));
            (2..2 + updates).for_each(update);
            done.store(true, Ordering::Relaxed);
            reader.join().unwrap()
        });
        tell(&format!("rounds of a reader during updates by {name}"), rounds, mixed);
        assert!(mixed > 0, "{name}: none of {rounds} rounds was mixed");
    }
}

#[test]
fn readers_that_pin_the_tree_see_one_generation() {
    const FILES: u64 = 300;
    let wanted = count("MIRRORNET_PINNED_ROUNDS", 1_000);
    let dir = crate::mirror::scratch();
    let mut mirror = Mirror::new(dir.path().to_owned(), FILES, 200);
    mirror.switch();
    let live = dir.path().join("pub/tree");
    let (done, rounds, mixed) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    // As a session does that begins with this directory.
                    let pinned = fs::File::open(&live).unwrap();
                    let at = std::os::fd::AsRawFd::as_raw_fd(&pinned);
                    let pinned_path = Path::new("/proc/self/fd").join(at.to_string());
                    let seen: std::collections::BTreeSet<Vec<u8>> = (0..FILES)
                        .map(|n| {
                            fs::read(pinned_path.join(Mirror::name(n))).unwrap()[..19].to_vec()
                        })
                        .collect();
                    rounds.fetch_add(1, Ordering::Relaxed);
                    mixed.fetch_add(u64::from(seen.len() > 1), Ordering::Relaxed);
                }
            });
        }
        while rounds.load(Ordering::Relaxed) < wanted {
            mirror.switch();
        }
        done.store(true, Ordering::Relaxed);
    });
    let (rounds, mixed) = (rounds.into_inner(), mixed.into_inner());
    tell("rounds of a reader that pins the tree during switches", rounds, mixed);
    assert_eq!(mixed, 0);
}

/// Why rsync's stage is never linked to the live tree.
#[test]
fn rsync_twice_into_one_linked_stage_changes_the_mode_of_the_live_file() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    write(&at("upstream/f"), "content");
    fs::set_permissions(at("upstream/f"), fs::Permissions::from_mode(0o644)).unwrap();
    let from = format!("{}/", at("upstream").display());
    assert!(rsync(&["-a"], &from, &at("live")).status.success());
    let link = format!("--link-dest={}", at("live").display());
    assert!(rsync(&["-a", &link], &from, &at("stage")).status.success());
    fs::set_permissions(at("upstream/f"), fs::Permissions::from_mode(0o600)).unwrap();
    assert!(rsync(&["-a", &link], &from, &at("stage")).status.success());
    let mode = fs::metadata(at("live/f")).unwrap().permissions().mode() & 0o777;
    assert_eq!(
        mode, 0o600,
        "rsync no longer changes the live inode; --link-dest may be thought of"
    );
}
