//! Published files have the group that the assignment asks for.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{MetadataExt, lchown, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use tests::{
    fixture::OneTree,
    programs::{isolate, told},
};

/// The group of everything that is published, the root included.
fn groups(mirror: &Path) -> BTreeMap<PathBuf, u32> {
    let entries = walkdir::WalkDir::new(mirror).into_iter().map(Result::unwrap);
    entries.map(|entry| (entry.path().to_owned(), entry.metadata().unwrap().gid())).collect()
}

fn number(group: &str) -> u32 {
    let groups = fs::read_to_string("/etc/group").unwrap();
    let line = groups.lines().find(|line| line.starts_with(&format!("{group}:")));
    line.and_then(|line| line.split(':').nth(2)?.parse().ok()).unwrap()
}

fn all_have(mirror: &Path, group: u32) {
    let groups = groups(mirror);
    let others: Vec<_> = groups.iter().filter(|(_, other)| **other != group).collect();
    assert!(groups.len() > 5 && others.is_empty(), "not {group}: {others:#?}");
}

#[test]
fn all_that_is_published_has_the_group_of_the_assignment_also_once_that_is_another() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    for switch in ["auto", "in-place"] {
        let net = OneTree::start("", &format!("switch = \"{switch}\"\ngroup = \"daemon\""));
        for n in 0..6 {
            net.write(&format!("d{}/f{n}", n % 2), format!("content {n}"));
        }
        symlink("d0/f0", net.upstream.join("link")).unwrap();
        net.publish_and_sync();
        all_have(&net.mirror(), number("daemon"));
        for round in 0..3 {
            net.write("d0/f0", format!("changed {round}"));
            net.write(&format!("new{round}/x"), "new");
            net.publish_and_sync();
            all_have(&net.mirror(), number("daemon"));
        }
        let network = fs::read_to_string(net.testbed.path("network.toml")).unwrap();
        net.testbed.apply(&network.replace("\"daemon\"", "\"games\""));
        net.agent.sync();
        all_have(&net.mirror(), number("games"));
        net.write("d0/f0", "changed again");
        net.publish_and_sync();
        all_have(&net.mirror(), number("games"));
        net.assert_same();
    }
}

#[test]
fn a_group_that_the_agent_may_not_give_is_said_before_anything_is_fetched() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    const NOBODY: u32 = 65534;
    let net = OneTree::start("", "group = \"daemon\"");
    net.write("f", "content");
    net.publish();
    for dir in [&net.agent.data, &net.agent.storage] {
        for entry in walkdir::WalkDir::new(dir) {
            lchown(entry.unwrap().path(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
    }
    let reachable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(net.testbed.path(""), reachable).unwrap();
    let program = net.testbed.path("mirror-agent");
    fs::copy(tests::programs::directory().join("mirror-agent"), &program).unwrap();
    let mut agent = Command::new("setpriv");
    isolate(&mut agent);
    agent.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&program);
    agent.args(["run", "--once", "--config"]).arg(&net.agent.config).current_dir("/");
    let output = agent.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    assert!(told(&output).contains("may not give files the group daemon"), "{}", told(&output));
    assert!(!net.mirror().exists());
}
