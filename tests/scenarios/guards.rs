//! What an agent's own guard stops, and what makes it let go.

use std::fs;

use serde_json::Value;
use tests::{
    fixture::{OneTree, prose},
    network::inodes,
    programs::told,
};

const LOOSE: &str = "guard = { max-delete-files = \"100%\", max-delete-bytes = \"100%\" }";

/// A site that holds a hundred files.
fn held(tree: &str) -> OneTree {
    let net = OneTree::start(tree, "");
    for n in 0..100 {
        net.write(&format!("f{n:03}"), prose(n, 500));
    }
    net.publish_and_sync();
    net
}

fn remove(net: &OneTree, files: std::ops::Range<u64>) {
    for n in files {
        fs::remove_file(net.upstream.join(format!("f{n:03}"))).unwrap();
    }
}

/// The only hold there is, as `get generations` tells it.
fn the_hold(net: &OneTree) -> Value {
    let list = net.testbed.ctl_json(&["get", "generations", "tree"]);
    let list = list.as_array().unwrap().iter();
    let holds: Vec<&Value> = list.filter(|item| item["hold"].is_object()).collect();
    assert_eq!(holds.len(), 1, "{holds:#?}");
    holds[0].clone()
}

#[test]
fn a_step_that_no_guard_let_pass_waits_at_the_agent_until_it_is_approved() {
    let net = held(LOOSE);
    remove(&net, 0..60);
    net.publish();
    // The guard is set right again: what went out under the wrong one stops at the mirrors.
    let text = fs::read_to_string(net.testbed.path("network.toml")).unwrap();
    net.testbed.apply(&text.replace(LOOSE, ""));
    let before = inodes(&net.mirror());
    let output = net.agent.run_once();
    assert!(!output.status.success(), "{}", told(&output));
    assert!(told(&output).contains("60 of 100 files would be removed"), "{}", told(&output));
    assert_eq!(inodes(&net.mirror()), before);

    let hold = the_hold(&net);
    let id = hold["hold"]["id"].as_str().unwrap().to_owned();
    assert_eq!(hold["hold"]["by"], "agent");
    assert_eq!(hold["hold"]["removed-files"], 60);
    assert_eq!(hold["hold"]["difference"]["of-files"], 100);
    assert_eq!(hold["hold"]["difference"]["removed"][0], "f000");
    let status = net.testbed.ctl(&["status"]);
    assert!(status.contains("tree@site is held") && status.contains(&id), "{status}");
    net.testbed.ctl(&["approve", &id]);
    let run = net.sync();
    assert_eq!(run["result"], "SYNC_COMPLETED", "{run:#}");
    assert!(run["notices"].to_string().contains("approved by admin"), "{run:#}");
    net.assert_same();
    assert!(!net.testbed.ctl(&["status"]).contains("is held"), "it is over");
}

#[test]
fn small_steps_that_a_publisher_vouched_for_add_up_without_a_hold() {
    let net = held("");
    for step in 0..6 {
        remove(&net, step * 6..step * 6 + 6);
        net.testbed.ctl(&["status"]);
        net.publish();
    }
    // A day's comparison would stop a seventh; these six are 36 of 100 for an agent that slept.
    let run = net.sync();
    assert_eq!(run["result"], "SYNC_COMPLETED", "{run:#}");
    assert_eq!(run["changes"]["deleted"], 36);
    net.assert_same();
}

#[test]
fn a_rejected_step_stays_where_it_is() {
    let net = held(LOOSE);
    remove(&net, 0..60);
    net.publish();
    let text = fs::read_to_string(net.testbed.path("network.toml")).unwrap();
    let strict = "[[network]]\nname = \"test\"\nguard = { max-delete-files = \"20%\" }\n";
    net.testbed.apply(&(text.replace(LOOSE, "") + strict));
    assert!(!net.agent.run_once().status.success());
    let id = the_hold(&net)["hold"]["id"].as_str().unwrap().to_owned();
    net.testbed.ctl(&["reject", &id]);
    assert!(!net.testbed.ctl(&["status"]).contains("is held (hold-"), "it was decided");
    let before = inodes(&net.mirror());
    assert!(!net.agent.run_once().status.success());
    assert_eq!(inodes(&net.mirror()), before);
    // What the upstream gets back is not removed, so there is nothing left to stop.
    for n in 0..60 {
        net.write(&format!("f{n:03}"), prose(n, 500));
    }
    net.publish();
    let run = net.sync();
    assert_eq!(run["result"], "SYNC_COMPLETED", "{run:#}");
    net.assert_same();
}

#[test]
fn the_guard_of_the_network_holds_where_nothing_closer_is_set() {
    let net = held("");
    let text = fs::read_to_string(net.testbed.path("network.toml")).unwrap();
    let network = "[[network]]\nname = \"test\"\nguard = { max-delete-files = \"60%\", max-delete-bytes = \"60%\" }\n";
    net.testbed.apply(&(text + network));
    let shown = net.testbed.ctl(&["describe", "assignment", "tree@site"]);
    assert!(shown.contains("60%") && shown.contains("network test"), "{shown}");
    tests::wait_until("the publisher to hear of it", || {
        remove_one_more(&net);
        let left = fs::read_dir(&net.upstream).unwrap().count();
        left <= 50
    });
    net.publish();
    let run = net.sync();
    assert_eq!(run["result"], "SYNC_COMPLETED", "{run:#}");
    net.assert_same();
    let two = "[[network]]\nname = \"test\"\n[[network]]\nname = \"other\"\n";
    fs::write(net.testbed.path("two.toml"), two).unwrap();
    let said =
        net.testbed.ctl_fails(&["apply", "-f", net.testbed.path("two.toml").to_str().unwrap()]);
    assert!(said.contains("two networks"), "{said}");
}

fn remove_one_more(net: &OneTree) {
    if let Some(file) = fs::read_dir(&net.upstream).unwrap().filter_map(Result::ok).next() {
        fs::remove_file(file.path()).unwrap();
    }
}
