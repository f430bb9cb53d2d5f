//! What already lies at an assignment's path is taken over, never fetched again, never removed.

use std::{fs, os::unix::fs::chown, path::Path, process::Command};

use tests::{
    compare,
    fixture::{OneTree, prose},
    network::{bytes_by, inodes},
    programs::{isolate, succeed, told},
};

const FILES: u64 = 10_000;
const DIFFERENT: u64 = 20;
const EXTRAS: [&str; 5] = ["local.html", "d3/notes.txt", "own/a", "own/b", ".htaccess"];

fn rsync(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    let mut command = Command::new("rsync");
    isolate(&mut command);
    command.arg("-a").arg(format!("{}/", from.display())).arg(to);
    succeed(&mut command);
}

#[test]
fn a_tree_made_by_rsync_is_adopted_for_the_price_of_its_differences() {
    let net = OneTree::start("", "");
    for n in 0..FILES {
        net.write(&format!("d{}/f{n}", n % 100), prose(n, 600));
    }
    let mirror = net.mirror();
    rsync(&net.upstream, &mirror);
    let mut different = 0;
    for n in 0..DIFFERENT {
        let path = format!("d{}/f{}", n % 100, n);
        different += fs::metadata(net.upstream.join(&path)).unwrap().len();
        tests::fixture::write(&mirror.join(&path), prose(n + FILES, 700));
    }
    for extra in EXTRAS {
        tests::fixture::write(&mirror.join(extra), "local");
    }
    let before = inodes(&mirror);
    let run = net.publish_and_sync();

    let after = inodes(&mirror);
    let is_different =
        |path: &Path| (0..DIFFERENT).any(|n| path == Path::new(&format!("d{}/f{n}", n % 100)));
    for (path, inode) in &before {
        let metadata = fs::symlink_metadata(mirror.join(path)).unwrap();
        if metadata.is_file() && !is_different(path) {
            assert_eq!(after.get(path), Some(inode), "{} has another inode", path.display());
        }
    }
    for extra in EXTRAS {
        assert_eq!(fs::read(mirror.join(extra)).unwrap(), b"local", "{extra}");
    }
    for n in 0..DIFFERENT {
        let path = format!("d{}/f{n}", n % 100);
        assert_eq!(
            fs::read(mirror.join(&path)).unwrap(),
            fs::read(net.upstream.join(&path)).unwrap()
        );
    }
    let received = ["pack", "whole", "rsync"].iter().map(|way| bytes_by(&run, way)).sum::<u64>();
    assert!(received <= different * 11 / 10, "{received} bytes for {different}: {run:#}");
    let notices = run["notices"].to_string();
    assert!(EXTRAS.iter().any(|extra| notices.contains(extra)), "{notices}");
}

#[test]
fn files_of_a_foreign_owner_are_reported_with_the_chown_that_mends_it() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let net = OneTree::start("", "");
    net.write("f", "content");
    rsync(&net.upstream, &net.mirror());
    chown(net.mirror().join("f"), Some(12345), Some(12345)).unwrap();
    net.publish();
    let output = net.agent.run_once();
    let said = told(&output);
    let whole = format!("{said}{}", net.last_run());
    assert!(whole.contains("chown"), "{whole}");
    assert!(net.mirror().join("f").exists());
    let _ = compare::rsync_differences(&net.upstream, &net.mirror(), &[]);
}
