//! Programs that the kernel keeps to their directories.

use std::{fs, os::unix::fs::PermissionsExt};

use serde_json::Value;
use tests::{
    fixture::{OneTree, prose},
    network::bytes_by,
    programs::succeed,
};

const REQUIRED: &str = "confine = \"required\"";

fn is_skipped() -> bool {
    let skipped = !filetree::confine::is_available();
    if skipped {
        eprintln!("skipped: this kernel has no Landlock");
    }
    skipped
}

/// A network whose site holds old versions of what is published, and no pack that leads there: what
/// is missing comes by rsync.
fn waiting_for_rsync() -> OneTree {
    let mut net = OneTree::start("", "");
    net.configure_publisher(REQUIRED);
    net.configure_agent(REQUIRED);
    let write =
        |from: u64| (0..10).for_each(|n| net.write(&format!("d/f{n}"), prose(from + n, 20_000)));
    write(0);
    net.publish_and_sync();
    write(100);
    net.publish();
    for pack in fs::read_dir(net.publisher.data.join("trees/tree/packs")).unwrap() {
        fs::remove_file(pack.unwrap().path()).unwrap();
    }
    net
}

#[test]
fn a_network_whose_programs_have_to_be_confined_works_and_says_so() {
    if is_skipped() {
        return;
    }
    let net = waiting_for_rsync();
    let run = net.sync();
    assert!(bytes_by(&run, "rsync") > 0, "{run:#}");
    net.assert_same();
    let mut agent = net.testbed.run_agent(&net.agent);
    agent.wait_for_log("running");
    let said = succeed(&mut net.agent.command(&["status", "--output", "json"]));
    let status: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(status["confined"], "full", "{status:#}");
    let kept = fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
    assert!(kept.lines().any(|line| line == "NoNewPrivs:\t1"), "{kept}");
    let said = succeed(&mut net.agent.command(&["check-config"]));
    let confined = said.lines().find(|line| line.starts_with("# confined: by Landlock")).unwrap();
    assert!(confined.contains(net.agent.storage.to_str().unwrap()), "{confined}");
    assert!(agent.stop().success());
}

/// The agent itself is asked to write elsewhere by nobody, so something of the admin's is: a program
/// that inherits the agent's fence, but has no cage of its own.
#[test]
fn what_the_agent_starts_writes_below_its_directories_only() {
    if is_skipped() {
        return;
    }
    let net = waiting_for_rsync();
    let (inside, outside) = (net.agent.data.join("mark"), net.testbed.path("mark"));
    let program = net.testbed.path("rsync-and-more");
    let script =
        format!("#!/bin/sh\ntouch {inside:?} {outside:?} 2>/dev/null\nexec rsync \"$@\"\n");
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    // Asked for its version, the program runs as the agent itself does.
    net.configure_agent(&format!("rsync = {program:?}"));
    net.sync();
    net.assert_same();
    assert!(inside.exists() && !outside.exists());
    net.configure_agent(&format!("writable = [{:?}]", net.testbed.path("")));
    net.agent.sync();
    assert!(outside.exists());
}

#[test]
fn an_admin_who_does_not_want_it_is_told_that_nothing_is_confined() {
    let net = OneTree::start("", "");
    net.configure_agent("confine = \"off\"");
    let said = succeed(&mut net.agent.command(&["check-config"]));
    assert!(said.contains("# confined: not confined, as configured"), "{said}");
    net.write("f", "content");
    net.publish_and_sync();
    net.assert_same();
}
