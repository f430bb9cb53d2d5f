//! Certificates that are real, but not for what they are used for.

use std::{fs, path::Path, process::Output};

use certs::{
    dial::Dialer, identity::directory::Identity, live::http_client, tls::ServerExpectation,
};
use tests::{
    Testbed,
    fixture::{OneTree, published},
    network::inodes,
    programs::{program, told},
};

fn refused(output: &Output, words: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr).to_lowercase();
    assert!(!output.status.success(), "{}", told(output));
    assert_ne!(output.status.code(), Some(101), "it panicked\n{}", told(output));
    for word in words {
        assert!(said.contains(word), "no {word:?}:\n{}", told(output));
    }
}

/// Asks a publisher as whoever the identity in `data` is, and gives status and body.
fn ask_publisher(data: &Path, address: &str, path: &str) -> (u16, String) {
    certs::install_provider();
    let identity = Identity::load(data).unwrap();
    let expected = ServerExpectation::publisher("build".parse().unwrap());
    let http = http_client(&identity, &expected, &Dialer::default()).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let answer = http.get(format!("https://{address}{path}")).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    })
}

#[test]
fn an_agent_of_another_network_with_the_same_name_gets_nowhere() {
    let net = OneTree::start("", "");
    net.write("f", "content");
    net.publish();
    let other = Testbed::start();
    other.apply("[[site]]\nname = \"site\"\n");
    let foreign = other.enroll_agent("agent", "site");
    let membership = foreign.data.join("identity/identity.json");
    let text = fs::read_to_string(&membership).unwrap();
    let (theirs, ours) = (other.api().to_string(), net.testbed.api().to_string());
    assert!(text.contains(&theirs), "{text}");
    fs::write(&membership, text.replace(&theirs, &ours)).unwrap();
    refused(&foreign.run_once(), &["coordinator", "certificate"]);
    assert!(!foreign.published("tree").exists());
}

#[test]
fn each_program_refuses_an_identity_of_another_role_and_names_it() {
    let net = OneTree::start("", "");
    let mut agent = program("mirror-agent");
    agent.args(["run", "--once", "--data"]).arg(&net.publisher.data);
    agent.arg("--storage").arg(net.testbed.make_dir("elsewhere"));
    let OneTree { testbed, publisher, publishing, agent: enrolled, .. } = net;
    assert!(publishing.stop().success());
    refused(&agent.output().unwrap(), &["publisher"]);

    let mut publish = program("publisher");
    publish.args(["run", "--listen", "127.0.0.1:0", "--data"]).arg(&enrolled.data);
    refused(&publish.output().unwrap(), &["agent"]);

    let mut ctl = program("mirrorctl");
    ctl.arg("--identity").arg(&enrolled.data).arg("status");
    refused(&ctl.output().unwrap(), &["agent"]);
    drop((testbed, publisher));
}

#[test]
fn admins_and_viewers_read_nothing_from_a_publisher() {
    let net = OneTree::start("", "");
    net.write("f", "content");
    net.publish_and_sync();
    let invite = net.testbed.invite(&["--role", "viewer", "--name", "eve"]);
    let viewer = net.testbed.path("viewer");
    let login =
        program("mirrorctl").args(["login", &invite, "--identity"]).arg(&viewer).output().unwrap();
    assert!(login.status.success(), "{}", told(&login));
    let address = fs::read_to_string(net.publisher.data.join("listen")).unwrap();
    let before = inodes(&net.agent.storage.join("pub"));
    let (status, text) = ask_publisher(&net.agent.data, address.trim(), "/trees/tree/latest");
    assert_eq!(status, 200, "{text}");
    for data in [net.testbed.coordinator_data().join("admin"), viewer] {
        for path in ["/trees/tree/latest", "/trees/nosuch/latest"] {
            let (status, text) = ask_publisher(&data, address.trim(), path);
            assert_eq!(status, 403, "{path}: {text}");
        }
    }
    assert_eq!(inodes(&net.agent.storage.join("pub")), before);
}

#[test]
fn a_name_that_was_enrolled_anew_ends_the_old_identity() {
    let net = OneTree::start("", "");
    net.write("f", "content");
    net.publish_and_sync();
    let stolen = net.testbed.path("copy");
    fs::rename(&net.agent.data, &stolen).unwrap();
    let as_agent = ["--role", "agent", "--name", "agent", "--site", "site"];
    let kept = net.testbed.ctl_fails(&[&["invite"], &as_agent[..]].concat());
    assert!(kept.contains("agent"), "{kept}");
    let invite = net.testbed.invite(&[&as_agent[..], &["--replace"]].concat());
    let enroll = program("mirror-agent")
        .args(["enroll", "--invite", &invite, "--data"])
        .arg(&net.agent.data)
        .output()
        .unwrap();
    assert!(enroll.status.success(), "{}", told(&enroll));
    let mut old = program("mirror-agent");
    old.args(["run", "--once", "--storage"]).arg(net.testbed.make_dir("elsewhere"));
    refused(&old.arg("--data").arg(&stolen).output().unwrap(), &["revoked"]);
    net.agent.sync();
    net.assert_same();
}

#[test]
fn the_root_key_is_taken_off_the_coordinator_and_new_publishers_wait_for_it() {
    let mut testbed = Testbed::start();
    let upstream = testbed.make_dir("upstream/tree");
    fs::write(upstream.join("f"), "content").unwrap();
    let source = testbed.path("upstream");
    testbed.apply(&published(&source, "", ""));
    let agent = testbed.enroll_agent("agent", "site");
    let file = |name: &str| testbed.path(name).display().to_string();
    let (safe, next) = (file("safe.key"), file("next.json"));
    let online = testbed.coordinator_data().join("root.key").display().to_string();
    let new = testbed.ctl(&["root", "key", &safe]);
    let shown = testbed.ctl(&["root", "show"]);
    let old = shown.lines().find(|line| line.contains("ed25519:")).unwrap().trim().to_owned();
    let draft = ["root", "draft", "--add-key", new.trim(), "--drop-key", &old, "--out", &next];
    testbed.ctl(&draft);
    let unsigned = testbed.ctl_fails(&["root", "publish", &next]);
    assert!(unsigned.contains("not signed by enough"), "{unsigned}");
    testbed.ctl(&["root", "sign", &next, "--key", &online]);
    testbed.ctl(&["root", "sign", &next, "--key", &safe]);
    testbed.ctl(&["root", "publish", &next]);
    testbed.kill_coordinator();
    fs::remove_file(testbed.coordinator_data().join("root.key")).unwrap();
    testbed.start_coordinator();

    // Whatever this coordinator says now, it lets nobody sign.
    let publisher = testbed.enroll_publisher("build");
    let _publishing = testbed.run_publisher(&publisher);
    testbed.publish(&publisher, "tree");
    refused(&agent.run_once(), &["lets publisher build sign nothing", "mirrorctl root draft"]);
    assert!(!agent.published("tree").exists());
    let third = testbed.path("third.json").display().to_string();
    let changes = testbed.ctl(&["root", "draft", "--out", &third]);
    assert!(changes.contains("lets publisher build sign for *"), "{changes}");
    testbed.ctl(&["root", "sign", &third, "--key", &safe]);
    testbed.ctl(&["root", "publish", &third]);
    agent.sync();
    assert_eq!(fs::read_to_string(agent.published("tree").join("f")).unwrap(), "content");
}
