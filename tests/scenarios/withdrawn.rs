//! Removed paths stay readable for `keep-withdrawn`, and go by themselves when their time is up.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Instant,
};

use serde_json::Value;
use tests::{Nginx, fixture::OneTree, nginx::Scheme, wait_for, wait_until};

/// Long enough for a busy machine to look twice.
const KEEP: u64 = 12;

/// What the running agent says of its assignment; nothing while it starts.
fn status(net: &OneTree) -> Option<Value> {
    let output = net.agent.command(&["status", "--output", "json"]).output().unwrap();
    let status: Value = serde_json::from_slice(&output.stdout).ok()?;
    Some(status["assignments"][0].clone())
}

/// What nginx answers for a path: the code, and the body.
fn get(port: u16, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    write!(stream, "GET /{path} HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// Publishes generation `n`: an index that names one package, and that package.
fn publish(net: &OneTree, n: u32) {
    if n > 1 {
        fs::remove_dir_all(net.upstream.join(format!("v{}", n - 1))).unwrap();
    }
    net.write(&format!("v{n}/package"), format!("package {n}"));
    net.write("index", format!("v{n}/package"));
    (0..30).for_each(|other| net.write(&format!("other/f{other}"), "other"));
    net.publish();
}

fn holds(net: &OneTree, index: &str) {
    wait_until(&format!("the mirror to hold {index}"), || {
        fs::read_to_string(net.mirror().join("index")).is_ok_and(|text| text == index)
    });
}

#[test]
fn a_client_with_an_older_index_finds_what_it_names_until_the_time_is_up() {
    let net = OneTree::start("", &format!("keep-withdrawn = \"{KEEP}s\""));
    publish(&net, 1);
    let mut agent = net.testbed.run_agent(&net.agent);
    holds(&net, "v1/package");
    let root = format!("root {};", net.mirror().display());
    let nginx = Nginx::start(&net.testbed.path("nginx"), Scheme::Plain, "", &root);
    let (_, index) = get(nginx.port(), "index");

    publish(&net, 2);
    holds(&net, "v2/package");
    let switched = Instant::now();
    assert_eq!(get(nginx.port(), &index), (200, "package 1".into()));
    assert_eq!(get(nginx.port(), "v2/package"), (200, "package 2".into()));
    let run = net.testbed.wait_for_generation("tree@site", 2);
    assert_eq!(run["changes"]["deleted"], 2, "counted once, when it is removed: {run:#}");
    // A restart neither forgets it nor lets it go.
    agent.kill();
    agent = net.testbed.run_agent(&net.agent);
    let kept = wait_for("the agent to answer", || {
        status(&net).filter(|status| status["state"] == "current")
    });
    assert_eq!(kept["withdrawn"]["paths"], 2, "the package and its directory: {kept:#}");
    let (code, body) = get(nginx.port(), &index);
    if switched.elapsed().as_secs() + 2 < KEEP {
        assert_eq!((code, body.as_str()), (200, "package 1"));
    }

    wait_until("the removed path to go", || get(nginx.port(), &index).0 == 404);
    assert!(switched.elapsed().as_secs() + 2 >= KEEP, "it went after {:?}", switched.elapsed());
    net.assert_same();
    let runs = wait_for("the report of it", || {
        let runs = net.testbed.runs("tree@site");
        (runs[0]["kind"] == "withdraw").then_some(runs)
    });
    assert_eq!(runs[0]["result"], "SYNC_COMPLETED", "{:#}", runs[0]);
    assert!(runs[0]["notices"].to_string().contains("2 removed paths are gone"), "{:#}", runs[0]);
    assert_eq!(status(&net).unwrap()["withdrawn"], Value::Null);
    assert!(agent.stop().success());
}

#[test]
fn an_agent_that_is_started_by_the_clock_lets_removed_paths_go_as_well() {
    let net = OneTree::start("", "keep-withdrawn = \"4s\"");
    publish(&net, 1);
    net.agent.sync();
    publish(&net, 2);
    let run = net.sync();
    assert!(run["notices"].to_string().contains("2 removed paths stay readable"), "{run:#}");
    assert!(net.mirror().join("v1/package").exists());
    wait_until("the time to be up", || {
        net.agent.sync();
        !net.mirror().join("v1").exists()
    });
    net.assert_same();
}
