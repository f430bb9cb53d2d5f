//! Events: told once when something turns, also when the receiver or the coordinator was away.

use std::{collections::BTreeSet, fs, os::unix::fs::PermissionsExt as _};

use serde_json::Value;
use tests::{
    Sink, Testbed,
    fixture::{OneTree, prose},
    sink::Got,
    wait_for, wait_until,
};

const SECRET: &str = "a secret of the receiver and this network";

/// A network whose coordinator tells a sink what happens; the secret lies in the directory.
fn start(sink: &Sink) -> (OneTree, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    fs::write(&secret, format!("{SECRET}\n")).unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let testbed = Testbed::start_with(&format!(
        r#"
[[webhooks]]
name = "ops"
url = "{}/hook"
secret-file = {secret:?}
events = ["run-started", "run-finished", "run-failed", "run-recovered", "generation-published",
          "identity-revoked"]
"#,
        sink.url()
    ));
    (OneTree::start_in(testbed, "", ""), dir)
}

fn event(got: &Got) -> Value {
    serde_json::from_str(&got.body).unwrap()
}

/// Kinds and subjects of what was taken, in the order in which it came first: who is killed before it
/// noted an answer sends it again.
fn taken(sink: &Sink) -> Vec<String> {
    let mut known = BTreeSet::new();
    let mut taken: Vec<_> = sink.got().into_iter().filter(|got| got.status == 200).collect();
    taken.retain(|got| known.insert(got.headers["webhook-id"].clone()));
    let told = |event: Value| format!("{} {}", event["kind"].as_str().unwrap(), event["subject"]);
    taken.iter().map(|got| told(event(got)).replace('"', "")).collect()
}

fn assert_signed(got: &Got) {
    let header = |name: &str| got.headers.get(name).unwrap().clone();
    assert_eq!(header("webhook-id"), event(got)["id"].as_str().unwrap());
    let message =
        [&header("webhook-id"), ".", &header("webhook-timestamp"), ".", &got.body].concat();
    let tag = certs::mac::hmac_sha256(SECRET.as_bytes(), message.as_bytes());
    let tag = serde_json::to_value(protocol::dsse::Bytes(tag.to_vec())).unwrap();
    let expected = format!("v1,{}", tag.as_str().unwrap());
    assert_eq!(header("webhook-signature"), expected);
}

#[test]
fn what_a_receiver_did_not_take_is_told_again_in_order_also_by_a_coordinator_that_was_restarted() {
    let sink = Sink::start(503);
    let (mut net, _secret) = start(&sink);
    let refused = net.testbed.path("not-a-directory");
    let config = fs::read_to_string(&net.agent.config).unwrap();
    // Something in the way of the tree makes its runs fail.
    fs::write(&refused, "#!/bin/sh\nexit 1\n").unwrap();
    fs::set_permissions(&refused, fs::Permissions::from_mode(0o755)).unwrap();
    net.configure_agent(&format!("[hooks]\nbefore = [{refused:?}]"));
    net.write("f", prose(1, 3_000));
    net.publish();
    for _ in 0..3 {
        assert_eq!(net.agent.run_once().status.code(), Some(1));
    }
    fs::write(&net.agent.config, config).unwrap();
    net.agent.sync();
    let first = sink.wait_for("a first try", |got| got.body.contains("run-failed"));
    assert_signed(&first);
    assert_eq!(first.request, "POST /hook");
    wait_until("another try of the same event", || {
        sink.got()
            .iter()
            .filter(|got| got.headers["webhook-id"] == first.headers["webhook-id"])
            .count()
            > 1
    });
    assert!(!sink.got().iter().any(|got| got.body.contains("run-recovered")), "it overtook");

    net.testbed.kill_coordinator();
    sink.answer(200);
    net.testbed.start_coordinator();
    let expected = [
        "generation-published tree",
        "run-failed tree@site",
        "run-started tree@site",
        "run-recovered tree@site",
        "run-finished tree@site",
    ];
    wait_until("everything to be told", || taken(&sink).len() == expected.len());
    let mut told = taken(&sink);
    let tree = told.iter().position(|told| told == expected[0]).unwrap();
    told.remove(tree);
    assert_eq!(told, expected[1..], "those of one subject in their order");
    for got in sink.got() {
        assert_signed(&got);
    }
    let failed = sink.got().iter().map(event).find(|e| e["kind"] == "run-failed").unwrap();
    assert!(failed["details"]["error"].as_str().unwrap().contains("hooks.before"), "{failed:#}");

    let ended = sink.got().iter().map(event).find(|e| e["kind"] == "run-finished").unwrap();
    let details = &ended["details"];
    assert_eq!((&details["result"], &details["added"]), (&"SYNC_COMPLETED".into(), &"1".into()));
    assert!(details["received-bytes"].as_str().unwrap().parse::<u64>().unwrap() > 0, "{ended:#}");
    // Where no webhook is, the log has the same: on a server that is journald.
    let log = fs::read_to_string(net.testbed.path("coordinator.log")).unwrap();
    for kind in ["run-failed", "run-recovered", "run-finished"] {
        let line = log.lines().find(|line| line.contains(&format!("event=\"{kind}\"")));
        assert!(line.is_some_and(|line| line.contains("tree@site")), "{kind}: {log}");
    }

    let events = net.testbed.ctl_json(&["events", "--subject", "tree@site"]);
    let kinds: Vec<_> = events.as_array().unwrap().iter().map(|event| &event["kind"]).collect();
    assert_eq!(kinds, ["run-failed", "run-started", "run-recovered", "run-finished"]);
    // Runs that change nothing are no events.
    net.agent.sync();
    let again = net.testbed.ctl_json(&["events", "--subject", "tree@site"]);
    assert_eq!(again, events);
}

#[test]
fn what_was_being_sent_when_a_coordinator_was_killed_is_sent_again_soon() {
    let sink = Sink::start(Sink::SILENT);
    let (mut net, _secret) = start(&sink);
    net.write("f", prose(1, 3_000));
    net.publish();
    let first = sink.wait_for("a try", |got| got.body.contains("generation-published"));
    net.testbed.kill_coordinator();
    sink.answer(200);
    net.testbed.start_coordinator();
    let again = sink.wait_for("another try", |got| got.status == 200);
    assert_eq!(again.headers["webhook-id"], first.headers["webhook-id"]);
}

#[test]
fn a_redirect_is_not_followed_and_status_tells_that_a_webhook_takes_nothing() {
    let sink = Sink::start(302);
    let (net, _secret) = start(&sink);
    net.write("f", prose(1, 3_000));
    net.publish();
    let attention = wait_for("the status to tell of the webhook", || {
        let status = net.testbed.ctl_json(&["status"]);
        let texts = status["attention"].as_array().cloned().unwrap_or_default();
        texts.into_iter().find(|text| text.as_str().unwrap().contains("webhook ops"))
    });
    assert!(attention.as_str().unwrap().contains("302"), "{attention}");
    assert!(sink.got().iter().all(|got| got.request == "POST /hook"), "{:?}", sink.got());
}

#[test]
fn who_follows_events_hears_of_a_revoked_identity_at_once() {
    let sink = Sink::start(200);
    let (net, _secret) = start(&sink);
    let mut follow = net.testbed.mirrorctl();
    follow.args(["events", "--follow", "--output", "json"]);
    let out = net.testbed.path("followed");
    let mut child = follow.stdout(fs::File::create(&out).unwrap()).spawn().unwrap();
    net.testbed.ctl(&["revoke", "agent/agent", "--reason", "lost"]);
    wait_until("the event to be shown", || {
        let text = fs::read_to_string(&out).unwrap();
        text.lines().any(|line| {
            let event: Value = serde_json::from_str(line).unwrap_or_default();
            event["kind"] == "identity-revoked" && event["subject"] == "agent/agent"
        })
    });
    child.kill().unwrap();
    child.wait().unwrap();
    let got = sink.wait_for("the event to be told", |got| got.body.contains("identity-revoked"));
    assert_eq!(event(&got)["details"]["reason"], "lost");
}

#[test]
fn a_webhook_without_a_private_secret_keeps_the_coordinator_from_starting() {
    let testbed = Testbed::start();
    let secret = testbed.path("secret");
    fs::write(&secret, SECRET).unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o644)).unwrap();
    let config = testbed.path("other.toml");
    let data = testbed.path("other");
    let mut init = tests::programs::program("coordinator");
    init.args(["init", "--network", "other", "--hostname", "localhost", "--data"]).arg(&data);
    tests::programs::succeed(&mut init);
    for (url, part) in [("http://127.0.0.1:9/", "secret"), ("http://chat.example.org/", "https://")]
    {
        fs::write(
            &config,
            format!(
                "data = {data:?}\nlisten = \"127.0.0.1:0\"\nenroll-listen = \"127.0.0.1:0\"\n\
                 [[webhooks]]\nname = \"ops\"\nurl = \"{url}\"\nsecret-file = {secret:?}\n"
            ),
        )
        .unwrap();
        let mut serve = tests::programs::program("coordinator");
        let output = serve.args(["serve", "--config"]).arg(&config).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", tests::programs::told(&output));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(part) && said.contains("ops"), "{said}");
    }
}
