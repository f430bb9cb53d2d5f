//! Which agent holds what where, and that changed orders move or stop a tree and never cost it.

use std::{fs, os::unix::fs::PermissionsExt as _};

use tests::{
    Testbed,
    fixture::{OneTree, prose, write},
    network::{bytes_by, inodes},
    programs::{succeed, told},
    wait_until,
};

/// Definitions of one publisher with these trees, and of the site `site`, which may hold them.
pub(super) fn trees(net: &Testbed, trees: &[&str]) -> String {
    let mut text = format!(
        r#"
[[upstream]]
name = "build"
kind = "publisher"

[[source]]
name = "source"
upstream = "build"
path = {:?}

[[site]]
name = "site"
"#,
        net.path("upstream")
    );
    for tree in trees {
        text += &format!(
            r#"
[[tree]]
name = "{tree}"
source = "source"
path = "{tree}"

[[grant]]
site = "site"
tree = "{tree}"
"#
        );
    }
    text
}

pub(super) fn assignment(tree: &str, more: &str) -> String {
    format!("[[assignment]]\nsite = \"site\"\ntree = \"{tree}\"\n{more}\n")
}

#[test]
fn two_agents_of_a_site_hold_each_its_own() {
    let net = Testbed::start();
    for tree in ["one", "two"] {
        write(&net.path(&format!("upstream/{tree}/f")), tree);
    }
    let definitions = trees(&net, &["one", "two"]);
    net.apply(&definitions);
    let publisher = net.enroll_publisher("build");
    let _publishing = net.run_publisher(&publisher);
    let (first, second) = (net.enroll_agent("first", "site"), net.enroll_agent("second", "site"));
    let orders = [
        definitions.clone(),
        assignment("one", "agent = \"first\""),
        assignment("two", "agent = \"second\""),
    ];
    net.apply(&orders.concat());
    net.publish(&publisher, "one");
    net.publish(&publisher, "two");
    first.sync();
    second.sync();
    assert_eq!(fs::read(first.published("one/f")).unwrap(), b"one");
    assert_eq!(fs::read(second.published("two/f")).unwrap(), b"two");
    assert!(!first.published("two").exists() && !second.published("one").exists());
    for (name, agent) in [("one@site", "first"), ("two@site", "second")] {
        let runs = net.runs(name);
        assert!(!runs.is_empty() && runs.iter().all(|run| run["agent"] == agent), "{runs:#?}");
    }
}

#[test]
fn another_path_is_a_rename_on_disk_and_costs_nothing() {
    let net = OneTree::start("", "");
    for n in 0..20 {
        net.write(&format!("d{}/f{n}", n % 3), prose(n, 2_000));
    }
    net.publish_and_sync();
    let before = inodes(&net.mirror());
    let network = fs::read_to_string(net.testbed.path("network.toml")).unwrap();
    net.testbed.apply(&format!("{network}path = \"linux/moved\"\n"));

    let dry = net.agent.command(&["sync", "--dry-run"]).output().unwrap();
    assert!(dry.status.success(), "{}", told(&dry));
    assert!(told(&dry).contains("linux/moved"), "{}", told(&dry));
    assert_eq!(inodes(&net.mirror()), before, "a dry run moved the tree");

    net.agent.sync();
    let moved = net.agent.published("linux/moved");
    assert_eq!(inodes(&moved), before);
    assert!(!net.mirror().exists());

    net.write("d1/new", "later");
    let run = net.publish_and_sync();
    assert_eq!(fs::read(moved.join("d1/new")).unwrap(), b"later");
    let received: u64 = ["pack", "whole", "rsync"].iter().map(|way| bytes_by(&run, way)).sum();
    assert!(received < 5_000, "{run:#}");
    let after = inodes(&moved);
    let kept = before.iter().filter(|(path, _)| moved.join(path).is_file());
    for (path, inode) in kept {
        assert_eq!(after.get(path), Some(inode), "{} came again", path.display());
    }
    assert!(!net.mirror().exists());
}

#[test]
fn a_disabled_assignment_stops_and_its_files_stay() {
    let net = OneTree::start("", "");
    net.write("f", "first");
    net.publish_and_sync();
    let before = inodes(&net.agent.storage.join("pub"));
    net.testbed.ctl(&["disable", "tree@site"]);
    net.write("f", "second");
    net.publish();
    let output = net.agent.run_once();
    assert!(told(&output).contains("disabled"), "{}", told(&output));
    assert_eq!(inodes(&net.agent.storage.join("pub")), before);
    assert_eq!(fs::read(net.mirror().join("f")).unwrap(), b"first");

    net.testbed.ctl(&["enable", "tree@site"]);
    net.agent.sync();
    net.assert_same();
}

#[test]
fn an_ended_grant_stops_an_assignment_and_its_files_stay() {
    let net = OneTree::start("", "");
    net.write("f", "first");
    net.publish_and_sync();
    let before = inodes(&net.agent.storage.join("pub"));
    net.testbed.ctl(&["delete", "assignment", "tree@site"]);
    net.testbed.ctl(&["delete", "grant", "tree@site"]);
    net.write("f", "second");
    net.publish();
    net.agent.sync();
    assert_eq!(inodes(&net.agent.storage.join("pub")), before);
    let status = succeed(&mut net.agent.command(&["status"]));
    assert!(status.contains("unassigned"), "{status}");
}

#[test]
fn purging_an_ended_assignment_spares_the_one_that_took_over_its_files() {
    let net = Testbed::start();
    write(&net.path("upstream/one/f"), "same");
    write(&net.path("upstream/two/f"), "same");
    let definitions = trees(&net, &["one", "two"]);
    net.apply(&(definitions.clone() + &assignment("one", "path = \"here\"")));
    let publisher = net.enroll_publisher("build");
    let _publishing = net.run_publisher(&publisher);
    let agent = net.enroll_agent("agent", "site");
    net.publish(&publisher, "one");
    net.publish(&publisher, "two");
    agent.sync();
    net.ctl(&["delete", "assignment", "one@site"]);
    net.apply(&(definitions + &assignment("two", "path = \"here\"")));
    agent.sync();

    let refused = agent.command(&["purge", "one"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(1), "{}", told(&refused));
    assert!(told(&refused).contains("two@site"), "{}", told(&refused));
    assert_eq!(fs::read(agent.published("here/f")).unwrap(), b"same");
}

#[test]
fn f26_a_disabled_assignment_makes_nothing_and_asks_nobody() {
    let net = OneTree::start("", "path = \"deep/down/tree\"\nenabled = false");
    net.write("f", "content");
    net.publish();
    net.agent.sync();
    assert!(net.testbed.runs("tree@site").is_empty(), "it is not even begun");
    let asked = net.agent.command(&["sync", "tree", "--output", "json"]).output().unwrap();
    assert_eq!(asked.status.code(), Some(1), "{}", told(&asked));
    let reports: serde_json::Value = serde_json::from_slice(&asked.stdout).unwrap();
    assert_eq!(reports[0]["result"], "SYNC_DISABLED", "{reports:#}");
    assert_eq!(reports[0]["ways"].as_array().map_or(0, Vec::len), 0, "{reports:#}");
    assert!(!net.agent.published("deep").exists());
    net.testbed.ctl(&["enable", "tree@site"]);
    net.agent.sync();
    assert_eq!(fs::read(net.agent.published("deep/down/tree/f")).unwrap(), b"content");
}

#[test]
fn f42_runs_that_make_the_same_parent_at_once_do_not_fail_each_other() {
    let net = Testbed::start();
    let names: Vec<String> = (0..8).map(|n| format!("t{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut definitions = trees(&net, &names);
    for tree in &names {
        write(&net.path(&format!("upstream/{tree}/f")), tree);
        definitions += &assignment(tree, &format!("path = \"a/b/c/d/e/{tree}\""));
    }
    net.apply(&definitions);
    let publisher = net.enroll_publisher("build");
    let _publishing = net.run_publisher(&publisher);
    for tree in &names {
        net.publish(&publisher, tree);
    }
    let agent = net.enroll_agent("agent", "site");
    let text = fs::read_to_string(&agent.config).unwrap();
    fs::write(&agent.config, format!("parallel = 8\n{text}")).unwrap();
    agent.sync();
    for tree in &names {
        let published = agent.published(&format!("a/b/c/d/e/{tree}/f"));
        assert_eq!(fs::read_to_string(published).unwrap(), *tree);
    }
}

#[test]
fn f51_an_assignment_has_one_run_at_a_time_however_it_is_asked_for() {
    let net = OneTree::start("", "");
    let counted = net.testbed.make_dir("counted");
    let (hook, seen, go) = (net.testbed.path("hook"), counted.join("seen"), net.testbed.path("go"));
    let (count, wait) = (seen.display(), go.display());
    let script =
        format!("#!/bin/sh\necho run >> {count}\nuntil test -e {wait}; do sleep 0.05; done\n");
    fs::write(&hook, script).unwrap();
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
    net.configure_agent(&format!("writable = [{counted:?}]\n[hooks]\nbefore = [{hook:?}]"));
    let _agent = net.testbed.run_agent(&net.agent);
    net.write("f", prose(1, 3_000));
    net.publish();
    let begun = || fs::read_to_string(&seen).unwrap_or_default().lines().count();
    wait_until("a run to begin", || begun() == 1);
    // A newer target, an admin's wish, and somebody at the site, while it goes on.
    net.write("f", prose(2, 3_000));
    net.publish();
    net.testbed.ctl(&["sync", "tree@site"]);
    let mut asked = net.agent.command(&["sync", "tree"]);
    let mut asked = asked.stdout(std::process::Stdio::null()).spawn().unwrap();
    wait_until("the newer target to be known", || {
        let status = succeed(&mut net.agent.command(&["status", "--output", "json"]));
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        status["assignments"][0]["target"]["generation"] == 2
    });
    assert_eq!(begun(), 1, "no second one begins");
    fs::write(&go, "").unwrap();
    net.testbed.wait_for_generation("tree@site", 2);
    assert!(asked.wait().unwrap().success());
    net.assert_same();
}
