//! What monitoring sees of each daemon.

use std::{fs, path::Path};

use certs::{
    dial::Dialer, identity::directory::Identity, live::http_client, tls::ServerExpectation,
};
use tests::{fixture::OneTree, programs::program, wait_for};

fn get(http: &reqwest::Client, url: &str) -> (u16, String) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let answer = http.get(url).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    })
}

fn as_identity(data: &Path, expected: &ServerExpectation) -> reqwest::Client {
    certs::install_provider();
    http_client(&Identity::load(data).unwrap(), expected, &Dialer::default()).unwrap()
}

/// One sample of an OpenMetrics text.
fn sample(text: &str, name: &str) -> Option<f64> {
    assert!(text.ends_with("# EOF\n"), "{text}");
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    line.parse().ok()
}

#[test]
fn the_coordinator_and_a_publisher_tell_admins_and_viewers_how_they_are() {
    let net = OneTree::start("", "");
    net.write("f", "content");
    net.publish_and_sync();
    let admin = net.testbed.coordinator_data().join("admin");
    let coordinator = as_identity(&admin, &ServerExpectation::Coordinator);
    let api = format!("https://{}", net.testbed.api());
    for path in ["/healthz", "/readyz"] {
        assert_eq!(get(&coordinator, &format!("{api}{path}")).0, 200, "{path}");
    }
    let (status, text) = get(&coordinator, &format!("{api}/metrics"));
    assert_eq!(status, 200);
    assert_eq!(sample(&text, "mirrornet_identities{role=\"agent\"}"), Some(1.0), "{text}");

    let build = ServerExpectation::publisher("build".parse().unwrap());
    let address = fs::read_to_string(net.publisher.data.join("listen")).unwrap();
    let url = |path: &str| format!("https://{}{path}", address.trim());
    let (agent, admin) = (as_identity(&net.agent.data, &build), as_identity(&admin, &build));
    for who in [&agent, &admin] {
        assert_eq!(get(who, &url("/healthz")), (200, "ok\n".into()));
        assert_eq!(get(who, &url("/readyz")), (200, "ok\n".into()));
    }
    assert_eq!(get(&agent, &url("/metrics")).0, 403);
    let (status, text) = get(&admin, &url("/metrics"));
    assert_eq!(status, 200, "{text}");
    assert_eq!(sample(&text, "mirrornet_generation{tree=\"tree\"}"), Some(1.0), "{text}");
    assert_eq!(sample(&text, "mirrornet_ready"), Some(1.0));
    assert!(sample(&text, "mirrornet_answered_bytes_total") > Some(0.0), "{text}");
    assert!(sample(&text, "mirrornet_requests_total{class=\"4xx\"}") >= Some(1.0), "{text}");
}

#[test]
fn a_publisher_that_knows_no_readers_is_alive_and_not_ready() {
    let net = OneTree::start("", "");
    let OneTree { mut testbed, publisher, publishing, agent, .. } = net;
    assert!(publishing.stop().success());
    testbed.kill_coordinator();
    for entry in fs::read_dir(&publisher.data).unwrap().filter_map(Result::ok) {
        if entry.file_name().to_string_lossy().starts_with("orders") {
            fs::remove_file(entry.path()).unwrap();
        }
    }
    let _publishing = testbed.run_publisher(&publisher);
    let build = ServerExpectation::publisher("build".parse().unwrap());
    let address = fs::read_to_string(publisher.data.join("listen")).unwrap();
    let http = as_identity(&agent.data, &build);
    assert_eq!(get(&http, &format!("https://{}/healthz", address.trim())).0, 200);
    let (status, text) = get(&http, &format!("https://{}/readyz", address.trim()));
    assert!(status == 503 && text.contains("has not heard from its coordinator"), "{text}");
}

#[test]
fn an_agent_answers_monitoring_where_it_was_told_to_and_nowhere_else() {
    let net = OneTree::start("", "");
    net.write("f", "content");
    net.publish();
    let mut quiet = net.testbed.run_agent(&net.agent);
    quiet.wait_for_log("running");
    assert!(!net.agent.data.join("listen").exists());
    assert!(quiet.stop().success());

    let mut run = program("mirror-agent");
    run.args(["run", "--monitor", "127.0.0.1:0", "--config"]).arg(&net.agent.config);
    let mut agent = tests::Daemon::start("mirror-agent", &mut run, &net.testbed.path("monitored"));
    let address = agent.address_in(&net.agent.data.join("listen"));
    agent.wait_for_log(&format!("listening on {address}"));
    net.testbed.wait_for_generation("tree@site", 1);
    certs::install_provider();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = |path: &str| format!("http://{address}{path}");
    assert_eq!(get(&http, &url("/healthz")), (200, "ok\n".into()));
    assert_eq!(get(&http, &url("/readyz")), (200, "ok\n".into()));
    let current = "mirrornet_assignment{assignment=\"tree@site\",state=\"current\"}";
    let text = wait_for("the metrics to say that the tree is current", || {
        let (status, text) = get(&http, &url("/metrics"));
        assert_eq!(status, 200);
        (sample(&text, current) == Some(1.0)).then_some(text)
    });
    assert_eq!(sample(&text, "mirrornet_held_generation{assignment=\"tree@site\"}"), Some(1.0));
    assert_eq!(sample(&text, "mirrornet_files{assignment=\"tree@site\"}"), Some(1.0));
    assert_eq!(get(&http, &url("/nothing")).0, 404);
    assert!(agent.stop().success());
}

#[test]
fn a_site_sees_its_own_status_in_a_browser_while_the_coordinator_is_away() {
    let mut net = OneTree::start("", "");
    net.write("f", "content");
    net.publish_and_sync();
    net.testbed.kill_coordinator();
    net.configure_agent("monitor = \"127.0.0.1:0\"");
    let mut daemon = net.testbed.run_agent(&net.agent);
    let address = daemon.address_in(&net.agent.data.join("listen"));
    certs::install_provider();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = |path: &str| format!("http://{address}{path}");
    let status: serde_json::Value = wait_for("the agent to notice", || {
        let (code, text) = get(&http, &url("/status"));
        assert_eq!(code, 200, "{text}");
        let status: serde_json::Value = serde_json::from_str(&text).unwrap();
        status["trouble"].is_string().then_some(status)
    });
    assert_eq!(status["assignments"][0]["name"], "tree@site", "{status:#}");
    assert_eq!(status["assignments"][0]["held"]["generation"], 1, "{status:#}");
    let (code, page) = get(&http, &url("/"));
    assert_eq!(code, 200);
    assert!(page.contains("tree@site") && page.contains("class=\"bad\""), "{page}");
    assert!(!page.contains("<script"), "{page}");
    let (_, posted) = get(&http, &url("/nothing"));
    assert!(posted.contains("/status"), "{posted}");
}
