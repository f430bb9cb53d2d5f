//! How soon a publisher refuses whom the coordinator has revoked.

use std::time::{Duration, Instant};

use reqwest::Method;

use tests::{fixture::noise, wait_until};

use crate::reader::{Reader, Served};

/// No request that begins later than this after a revocation was answered may be served.
const AT_PUBLISHERS: Duration = Duration::from_secs(60);

/// As many as are asked for: `make bench` tries fifty.
fn revocations() -> usize {
    let asked = std::env::var("MIRRORNET_REVOCATIONS").ok();
    asked.map_or(5, |asked| asked.parse().unwrap())
}

#[test]
fn a_publisher_serves_nobody_for_long_who_was_revoked() {
    let network = Served::start("", "");
    network.write("one/f", "content");
    network.publish("one");
    let mut slowest = Duration::ZERO;
    let count = revocations();
    for number in 0..count {
        let name = format!("bad-{number}");
        let bad = network.reader("agent", &name);
        assert_eq!(bad.get("/trees/one/latest", &[]).status, 200);
        network.testbed.ctl(&["revoke", &format!("agent/{name}"), "--reason", "test"]);
        let revoked = Instant::now();
        // On its open connection, without pause.
        loop {
            let asked = Instant::now();
            let served = bad.try_ask(Method::GET, "/trees/one/latest", &[]);
            if !served.is_ok_and(|answered| answered.status == 200) {
                break;
            }
            slowest = slowest.max(asked.duration_since(revoked));
            assert!(slowest <= AT_PUBLISHERS, "{name} is still served");
        }
        // And on a new one; the first try may still be made on the one that was closed.
        let again = || bad.try_ask(Method::GET, "/trees/one/latest", &[]);
        assert_eq!(again().or_else(|_| again()).unwrap().status, 403);
    }
    eprintln!(
        "{count} revocations: the last request that the publisher served began {slowest:?} later"
    );
}

#[test]
fn a_download_that_runs_ends_when_whoever_began_it_is_revoked() {
    const LENGTH: usize = 64 << 20;
    let network = Served::start("", "");
    network.write("one/large", noise(1, LENGTH));
    network.publish("one");
    let bad = network.reader("agent", "bad");
    let path = Reader::content_path("one", &bad.latest("one").manifest, b"large");
    assert_eq!(bad.get(&path, &[]).body.len(), LENGTH, "as long as nobody is revoked");
    let mut download = bad.begin(&path);
    let mut read = bad.piece(&mut download).unwrap().unwrap();
    network.testbed.ctl(&["revoke", "agent/bad", "--reason", "test"]);
    let revoked = Instant::now();
    wait_until("the publisher to hear of it", || {
        !bad.try_ask(Method::GET, "/trees/one/latest", &[]).is_ok_and(|told| told.status == 200)
    });
    let broken = loop {
        match bad.piece(&mut download) {
            Ok(Some(piece)) => read += piece,
            Ok(None) => break false,
            Err(_) => break true,
        }
    };
    // What was under way in buffers may still come; the rest never does.
    assert!(broken && read < LENGTH, "{read} bytes came");
    assert!(revoked.elapsed() <= AT_PUBLISHERS, "{:?}", revoked.elapsed());
}
