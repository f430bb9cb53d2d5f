//! Logs of runs: at the site while they grow, and at the coordinator.

use std::{
    fs,
    io::Read as _,
    os::unix::fs::PermissionsExt as _,
    process::{Child, Stdio},
    sync::{Arc, Mutex},
};

use serde_json::Value;
use tests::{
    fixture::{OneTree, prose},
    programs::{succeed, told},
    wait_until,
};

/// `mirror-agent log … --follow`, with what it has printed so far.
struct Follower {
    child: Child,
    seen: Arc<Mutex<String>>,
}

impl Follower {
    fn start(net: &OneTree) -> Self {
        let mut command = net.agent.command(&["log", "tree", "--follow"]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let seen = Arc::new(Mutex::new(String::new()));
        let shared = Arc::clone(&seen);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(len) = stdout.read(&mut buffer)
                && len > 0
            {
                shared.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..len]));
            }
        });
        Self { child, seen }
    }

    fn wait_for(&self, text: &str) {
        wait_until(&format!("the log to say {text:?}"), || {
            self.seen.lock().unwrap().contains(text)
        });
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn a_log_can_be_followed_while_its_run_goes_on_and_is_read_at_the_coordinator_afterwards() {
    let net = OneTree::start("", "");
    let (hook, go) = (net.testbed.path("hook"), net.testbed.path("go"));
    let wait = format!("echo waiting for go; until test -e {}; do sleep 0.05; done", go.display());
    fs::write(&hook, format!("#!/bin/sh\n{wait}\n")).unwrap();
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
    net.configure_agent(&format!("[hooks]\nbefore = [{hook:?}]"));
    net.write("f", prose(1, 3_000));
    net.publish();
    let _agent = net.testbed.run_agent(&net.agent);
    wait_until("the agent's control socket", || net.agent.data.join("control.sock").exists());
    let log = || succeed(&mut net.agent.command(&["log"]));
    wait_until("the run to begin", || log().contains("waiting for go"));
    let follower = Follower::start(&net);
    follower.wait_for("before: waiting for go");
    assert!(!follower.seen.lock().unwrap().contains("run ended"));
    fs::write(&go, "").unwrap();
    follower.wait_for("run ended: SYNC_COMPLETED");
    drop(follower);
    net.assert_same();
    net.testbed.wait_for_generation("tree@site", 1);

    let central = net.testbed.ctl(&["log", "tree@site"]);
    for part in [
        "run ",
        "tree@site begins",
        "before: waiting for go",
        "by whole from",
        "switch: ",
        "run ended: SYNC_COMPLETED",
    ] {
        assert!(central.contains(part), "{part}: {central}");
    }
    assert_eq!(central, net.testbed.ctl(&["log", "tree@site", "--success"]));
    let said = net.testbed.ctl_fails(&["log", "tree@site", "--previous"]);
    assert!(said.contains("no log of a second run"), "{said}");
    let run = net.testbed.ctl_json(&["log", "tree@site"]);
    assert_eq!(run["result"], "SYNC_COMPLETED", "{run:#}");
}

#[test]
fn the_latest_log_the_one_before_and_that_of_the_last_change_are_kept() {
    let mut net = OneTree::start("", "");
    net.write("f", prose(1, 3_000));
    net.publish_and_sync();
    net.agent.sync();
    assert!(net.publishing.end().success());
    net.testbed.ctl(&["disable", "tree@site"]);
    let forced = net.agent.command(&["sync", "tree"]).output().unwrap();
    assert_eq!(forced.status.code(), Some(1), "{}", told(&forced));

    let log = |args: &[&str]| succeed(&mut net.agent.command(&[&["log", "tree"], args].concat()));
    assert!(log(&[]).contains("run ended: SYNC_DISABLED"), "{}", log(&[]));
    assert!(
        log(&["--previous"]).contains("run ended: SYNC_UP_TO_DATE"),
        "{}",
        log(&["--previous"])
    );
    assert!(log(&["--changed"]).contains("run ended: SYNC_COMPLETED"), "{}", log(&["--changed"]));
    let json = succeed(&mut net.agent.command(&["log", "tree", "--output", "json"]));
    let runs: Vec<Value> = serde_json::from_str(&json).unwrap();
    let kept = |run: &Value| run["log"].as_str().is_some_and(|log| log.contains("run ended"));
    assert!(runs.iter().any(|run| run["result"] == "SYNC_COMPLETED" && kept(run)), "{json}");
    let history = succeed(&mut net.agent.command(&["history", "tree", "-n", "1"]));
    assert_eq!(history.matches("tree@site").count(), 1, "{history}");
}
