//! Who may take part, and who no longer.

use std::{fs, time::Instant};

use tests::{
    Testbed,
    fixture::OneTree,
    programs::{program, told},
};

fn enroll(net: &Testbed, dir: &str, invite: &str) -> std::process::Output {
    program("mirror-agent")
        .args(["enroll", "--invite", invite, "--data"])
        .arg(net.path(dir))
        .output()
        .unwrap()
}

fn refused(output: &std::process::Output, word: &str) {
    let said = String::from_utf8_lossy(&output.stderr).to_lowercase();
    assert!(!output.status.success() && said.contains(word), "no {word:?}:\n{}", told(output));
}

#[test]
fn an_invite_is_used_once() {
    let net = Testbed::start();
    net.apply("[[site]]\nname = \"site\"\n");
    let invite = net.invite(&["--role", "agent", "--name", "a1", "--site", "site"]);
    let first = enroll(&net, "first", &invite);
    assert!(first.status.success(), "{}", told(&first));
    refused(&enroll(&net, "second", &invite), "invite");
}

#[test]
fn an_invite_that_has_expired_is_refused() {
    let net = Testbed::start();
    net.apply("[[site]]\nname = \"site\"\n");
    let invite = net.invite(&["--role", "agent", "--name", "a1", "--site", "site", "--ttl", "1s"]);
    let made = Instant::now();
    tests::wait_until("the invite to expire", || made.elapsed().as_millis() > 1_200);
    refused(&enroll(&net, "late", &invite), "expired");
}

#[test]
fn an_invite_for_another_role_is_refused() {
    let net = Testbed::start();
    let invite = net.invite(&["--role", "publisher", "--name", "build"]);
    refused(&enroll(&net, "agent", &invite), "publisher");
}

#[test]
fn an_invite_of_another_network_does_not_reach_this_one() {
    let (net, other) = (Testbed::start(), Testbed::start());
    net.apply("[[site]]\nname = \"site\"\n");
    let invite = net.invite(&["--role", "agent", "--name", "a1", "--site", "site"]);
    let (here, there) = (net.enroll().to_string(), other.enroll().to_string());
    assert!(invite.contains(&here), "{invite}");
    let output = enroll(&net, "a", &invite.replace(&here, &there));
    assert!(!output.status.success(), "{}", told(&output));
    assert!(!net.path("a/identity").exists());
}

#[test]
fn a_revoked_agent_is_refused_at_once_and_keeps_its_files() {
    let net = OneTree::start("", "");
    net.write("f", "content");
    net.publish_and_sync();
    let agent = net.testbed.run_agent(&net.agent);
    net.testbed.ctl(&["revoke", "agent/agent", "--reason", "test"]);
    net.write("f", "secret of tomorrow");
    net.publish();
    let output = net.agent.command(&["sync"]).output().unwrap();
    drop(agent);
    refused(&net.agent.run_once(), "revoked");
    let _ = output;
    assert_eq!(fs::read(net.mirror().join("f")).unwrap(), b"content");
}

#[test]
fn a_viewer_looks_and_does_not_touch() {
    let net = Testbed::start();
    let invite = net.invite(&["--role", "viewer", "--name", "eve"]);
    let viewer = net.path("viewer");
    let login =
        program("mirrorctl").args(["login", &invite, "--identity"]).arg(&viewer).output().unwrap();
    assert!(login.status.success(), "{}", told(&login));
    let as_viewer = |args: &[&str]| {
        program("mirrorctl").arg("--identity").arg(&viewer).args(args).output().unwrap()
    };
    let status = as_viewer(&["status"]);
    assert!(status.status.success(), "{}", told(&status));
    refused(&as_viewer(&["invite", "--role", "admin", "--name", "eve2"]), "may not");
}

#[test]
fn an_agent_is_served_only_what_it_was_assigned() {
    let net = OneTree::start("", "");
    net.write("f", "content");
    net.publish_and_sync();
    net.testbed.apply("[[site]]\nname = \"elsewhere\"\n");
    let stranger = net.testbed.enroll_agent("stranger", "elsewhere");
    let output = stranger.run_once();
    assert!(output.status.success(), "{}", told(&output));
    assert!(!stranger.published("tree").exists());
}

#[test]
fn an_invite_that_wants_approval_waits_for_an_admin_who_compared_the_keys() {
    let net = Testbed::start();
    net.apply("[[site]]\nname = \"site\"\n");
    let invite = ["--role", "agent", "--name", "a1", "--site", "site", "--approve"];
    let invite = net.invite(&invite);
    let log = net.path("enrolling.log");
    let mut enrolling = program("mirror-agent")
        .args(["enroll", "--invite", &invite, "--data"])
        .arg(net.path("agent"))
        .stderr(fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let keys = tests::wait_for("the keys to compare", || {
        let said = fs::read_to_string(&log).unwrap();
        let (_, rest) = said.split_once("approve-enrollment ")?;
        rest.split_once('\n').map(|(keys, _)| keys.to_owned())
    });
    assert!(net.ctl(&["enrollments"]).contains(&keys));
    assert!(net.ctl(&["status"]).contains(&keys));
    assert!(!net.path("agent/identity").exists());
    net.ctl(&["approve-enrollment", &keys]);
    let ended = tests::wait_for("the enrollment to end", || enrolling.try_wait().unwrap());
    assert!(ended.success(), "{}", fs::read_to_string(&log).unwrap());
    assert!(net.ctl(&["get", "agents"]).contains("a1"));
    assert_eq!(net.ctl(&["enrollments"]).trim(), "no enrollment waits");
}
