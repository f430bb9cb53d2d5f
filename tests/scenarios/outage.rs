//! With parts broken, mirrors keep what they have and go on when they can.

use std::fs;

use tests::{
    fixture::{OneTree, prose},
    programs::{program, told},
    wait_until,
};

#[test]
fn an_agent_starts_and_finishes_its_target_without_the_coordinator() {
    let mut net = OneTree::start("", "");
    net.write("f", prose(1, 50_000));
    net.publish_and_sync();
    net.testbed.kill_coordinator();
    let agent = net.testbed.run_agent(&net.agent);
    let status = || net.agent.command(&["status", "--output", "json"]).output().unwrap();
    wait_until("the agent to tell its status", || status().status.success());
    let told = String::from_utf8_lossy(&status().stdout).into_owned();
    assert!(told.contains("tree@site"), "{told}");
    net.assert_same();
    net.write("g", "later");
    net.testbed.start_coordinator();
    net.testbed.publish(&net.publisher, "tree");
    net.testbed.wait_for_generation("tree@site", 2);
    net.assert_same();
    assert!(agent.stop().success());
}

#[test]
fn a_run_that_ended_without_the_coordinator_is_reported_when_it_is_back() {
    let mut net = OneTree::start("", "");
    net.write("f", prose(1, 2_000_000));
    net.publish();
    // The orders are on disk before the coordinator goes.
    let mut agent = net.testbed.run_agent(&net.agent);
    wait_until("the tree to arrive", || net.mirror().join("f").exists());
    net.testbed.kill_coordinator();
    agent.wait_for_log("coordinator");
    net.testbed.start_coordinator();
    net.testbed.wait_for_generation("tree@site", 1);
}

#[test]
fn a_publisher_serves_on_without_the_coordinator() {
    let mut net = OneTree::start("", "");
    net.write("f", prose(1, 50_000));
    net.publish_and_sync();
    net.write("f", prose(2, 50_000));
    net.publish();
    let orders = net.agent.command(&["sync", "--dry-run"]).output().unwrap();
    assert!(orders.status.success(), "{}", told(&orders));
    net.testbed.kill_coordinator();
    let output = net.agent.command(&["sync"]).output().unwrap();
    assert!(output.status.success(), "{}", told(&output));
    net.assert_same();
}

#[test]
fn a_publisher_that_is_gone_leaves_the_mirror_as_it_is_and_says_so() {
    let net = OneTree::start("", "");
    net.write("f", "first");
    net.publish_and_sync();
    net.write("f", "second");
    net.publish();
    let OneTree { testbed, publishing, agent, .. } = net;
    publishing.kill();
    let output = agent.run_once();
    assert!(!output.status.success(), "{}", told(&output));
    assert_eq!(fs::read(agent.published("tree/f")).unwrap(), b"first");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("tree"), "{said}");
    drop(testbed);
}

#[test]
fn an_empty_upstream_is_held_and_deletes_nothing() {
    let net = OneTree::start("", "");
    for n in 0..20 {
        net.write(&format!("f{n}"), prose(n, 100));
    }
    net.publish_and_sync();
    fs::remove_dir_all(&net.upstream).unwrap();
    fs::create_dir(&net.upstream).unwrap();
    let mut publish = program("publisher");
    publish.args(["publish", "tree", "--wait", "--data"]).arg(&net.publisher.data);
    let output = publish.output().unwrap();
    assert!(!output.status.success(), "an empty tree was published\n{}", told(&output));
    assert!(told(&output).contains("held"), "{}", told(&output));
    net.agent.sync();
    assert_eq!(fs::read_dir(net.mirror()).unwrap().count(), 20);
    let generations = net.testbed.ctl(&["get", "generation", "tree"]);
    assert!(generations.contains("hold-"), "{generations}");
    assert!(generations.contains("the tree has no files"), "{generations}");
}
