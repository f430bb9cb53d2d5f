//! What already lies at an assignment's path is taken over, never fetched again, never removed.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown, lchown},
    path::Path,
    process::Command,
};

use tests::{
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

/// The agent as an unprivileged user, who can neither link nor change the files of others.
#[test]
fn files_of_a_foreign_owner_are_reported_with_the_chown_that_mends_it() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    const NOBODY: u32 = 65534;
    let net = OneTree::start("", "");
    net.write("f", "content");
    rsync(&net.upstream, &net.mirror());
    for dir in [&net.agent.data, &net.agent.storage] {
        for entry in walkdir::WalkDir::new(dir) {
            lchown(entry.unwrap().path(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
    }
    chown(net.mirror().join("f"), Some(12345), Some(12345)).unwrap();
    let reachable = fs::Permissions::from_mode(0o755);
    fs::set_permissions(net.testbed.path(""), reachable).unwrap();
    net.publish();
    let program = net.testbed.path("mirror-agent");
    fs::copy(tests::programs::directory().join("mirror-agent"), &program).unwrap();
    let mut agent = Command::new("setpriv");
    isolate(&mut agent);
    agent.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&program);
    agent.args(["run", "--once", "--config"]).arg(&net.agent.config).current_dir("/");
    let said = format!("{}{}", told(&agent.output().unwrap()), net.last_run());
    assert!(said.contains("chown"), "{said}");
    assert!(net.mirror().join("f").exists());
}
