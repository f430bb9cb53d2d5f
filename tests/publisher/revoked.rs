//! How soon a publisher refuses whom the coordinator has revoked.

use std::time::{Duration, Instant};

use reqwest::Method;

use crate::reader::Served;

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
