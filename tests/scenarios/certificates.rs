//! Certificates that end: renewed in time by running daemons, refused afterwards.

use std::{process::Command, time::Instant};

use tests::{
    Testbed,
    fixture::{OneTree, noise},
    programs::{program, succeed, told},
    wait_until,
};

/// The serial number of the certificate that an identity has now.
fn serial(net: &Testbed, kind: &str, name: &str) -> String {
    let identity = net.ctl_json(&["describe", kind, name]);
    let serial = identity["serial"].as_str().or_else(|| identity["status"]["serial"].as_str());
    serial.unwrap_or_else(|| panic!("no serial in {identity:#}")).to_owned()
}

fn fails(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{command:?}\n{}", told(&output));
    String::from_utf8_lossy(&output.stderr).to_lowercase()
}

#[test]
fn running_daemons_renew_their_certificates_and_work_goes_on() {
    let made = Instant::now();
    let net = OneTree::start_in(Testbed::start_with("certificate-life = \"20s\""), "", "");
    let mut agent = net.testbed.run_agent(&net.agent);
    net.write("f", "first");
    net.publish();
    net.testbed.wait_for_generation("tree@site", 1);
    let identities = [("agent", "agent"), ("publisher", "build")];
    let first = identities.map(|(kind, name)| serial(&net.testbed, kind, name));
    wait_until("both daemons to have other certificates, and the first ones to have ended", || {
        let now = identities.map(|(kind, name)| serial(&net.testbed, kind, name));
        now.iter().zip(&first).all(|(now, first)| now != first) && made.elapsed().as_secs() > 22
    });
    agent.wait_for_log("certificate renewed");
    assert!(net.publishing.log().contains("showing this server certificate"));

    // Orders, manifest, pack and report: nothing of it could go over a connection of before.
    net.write("f", "second");
    net.publish();
    net.testbed.wait_for_generation("tree@site", 2);
    net.assert_same();
    let status = succeed(&mut net.agent.command(&["status", "--output", "json"]));
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert!(status["trouble"].is_null(), "{status:#}");
    assert!(agent.stop().success());
}

#[test]
fn a_transfer_that_outlives_its_certificate_goes_on_with_the_next_ones() {
    const LENGTH: u64 = 16 << 20;
    let net = OneTree::start_in(Testbed::start_with("certificate-life = \"6s\""), "", "");
    net.testbed.apply("[[site]]\nname = \"site\"\ndefault-rate = \"1MiB/s\"\n");
    net.write("large", noise(1, LENGTH as usize));
    net.publish();
    let before = serial(&net.testbed, "agent", "agent");
    let mut agent = net.testbed.run_agent(&net.agent);
    let run = net.testbed.wait_for_generation("tree@site", 1);
    let time = |key: &str| run[key].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let took = time("ended").duration_since(time("started"));
    assert!(took.as_secs() > 12, "two lives of a certificate: {took:?}");
    net.assert_same();
    let came: u64 = run["ways"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|way| way["received-bytes"].as_u64())
        .sum();
    assert!(came < LENGTH + LENGTH / 10, "nothing comes twice: {came}");
    assert_ne!(serial(&net.testbed, "agent", "agent"), before);
    agent.wait_for_log("certificate renewed");
    assert!(agent.stop().success());
}

#[test]
fn a_certificate_that_has_ended_is_refused_and_each_program_says_so() {
    let settings = "certificate-life = \"6s\"\nrenew-after-expiry = \"0s\"";
    let net = OneTree::start_in(Testbed::start_with(settings), "", "");
    let invite = net.testbed.invite(&["--role", "viewer", "--name", "eve"]);
    let viewer = net.testbed.path("viewer");
    let mut login = program("mirrorctl");
    succeed(login.args(["login", &invite, "--identity"]).arg(&viewer));
    let OneTree { testbed, publisher, publishing, agent, .. } = net;
    assert!(publishing.stop().success());
    let made = Instant::now();
    wait_until("the certificates to end", || made.elapsed().as_secs() > 7);

    let mut status = program("mirrorctl");
    status.arg("--identity").arg(&viewer).arg("status");
    let mut publish = program("publisher");
    publish.args(["run", "--config"]).arg(&publisher.config);
    for command in [&mut agent.command(&["run", "--once"]), &mut status] {
        let said = fails(command);
        assert!(said.contains("expired") && said.contains("clock"), "{said}");
    }
    let mut publishing = tests::Daemon::start("publisher", &mut publish, &testbed.path("late.log"));
    publishing.wait_for_log("expired");
    assert!(!agent.published("tree").exists());
}

#[test]
fn machines_that_were_off_when_their_certificates_ended_come_back_by_themselves() {
    let net = OneTree::start_in(Testbed::start_with("certificate-life = \"6s\""), "", "");
    net.write("f", "content");
    let invite = net.testbed.invite(&["--role", "viewer", "--name", "eve"]);
    let viewer = net.testbed.path("viewer");
    succeed(program("mirrorctl").args(["login", &invite, "--identity"]).arg(&viewer));
    let OneTree { testbed, publisher, publishing, agent, .. } = net;
    assert!(publishing.stop().success());
    let made = Instant::now();
    wait_until("the certificates to end", || made.elapsed().as_secs() > 7);

    let publishing = testbed.run_publisher(&publisher);
    testbed.publish(&publisher, "tree");
    let once = agent.run_once();
    assert!(once.status.success(), "{}", told(&once));
    assert_eq!(std::fs::read(agent.published("tree").join("f")).unwrap(), b"content");
    let mut status = program("mirrorctl");
    succeed(status.arg("--identity").arg(&viewer).arg("status"));
    let log = testbed.ctl(&["audit"]);
    assert_eq!(log.matches("renew-after-expiry").count(), 3, "{log}");
    drop(publishing);
}

#[test]
fn a_life_that_nobody_can_mean_is_refused() {
    let mut check = program("coordinator");
    check.args(["check-config", "--renew-after-expiry", "91d"]);
    assert!(fails(&mut check).contains("renew-after-expiry"));
    for life in ["1s", "400d"] {
        let mut check = program("coordinator");
        check.args(["check-config", "--certificate-life", life]);
        let said = fails(&mut check);
        assert!(said.contains("certificate-life") && said.contains("5s"), "{said}");
    }
}
