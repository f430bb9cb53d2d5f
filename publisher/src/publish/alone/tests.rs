use std::time::Duration;

use protocol::digest::Digest;

use super::*;

const AFTER: Duration = Duration::from_secs(3600);
const MOST: Duration = Duration::from_secs(7 * 24 * 3600);

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn order(autonomous: bool) -> TreeOrder {
    let order = serde_json::json!({
        "tree": "fedora", "path": "/srv/fedora", "layout": "simple", "limit": [],
        "encoders": "auto", "interval": "1h", "guard": {}, "epoch": 1, "publish-requests": 0,
        "rules": Digest::of(b"rules"), "autonomous": autonomous,
    });
    serde_json::from_value(order).unwrap()
}

fn silence(lasts: Duration, failures: u32) -> Silence {
    Silence { since: at(10_000), lasts, failures }
}

/// At `now`, of an autonomous tree whose orders were confirmed at 9,990.
fn leave(silence: Option<Silence>, now: i64) -> Leave {
    judge(&order(true), silence, (at(9_990), at(now)), (AFTER, MOST))
}

#[test]
fn only_an_autonomous_tree_goes_on_and_only_after_a_long_silence() {
    let long = silence(AFTER, 100);
    assert_eq!(leave(Some(long), 13_600), Leave::Since(at(10_000)));
    assert_eq!(leave(None, 13_600), Leave::Waits, "the coordinator answers");
    let short = silence(AFTER.saturating_sub(Duration::from_secs(1)), 100);
    assert_eq!(leave(Some(short), 13_600), Leave::Waits);
    assert_eq!(leave(Some(silence(AFTER, 2)), 13_600), Leave::Waits, "asked twice, hours apart");
    let bound = judge(&order(false), Some(long), (at(9_990), at(13_600)), (AFTER, MOST));
    assert_eq!(bound, Leave::Waits);
    let old = TreeOrder { rules: None, ..order(true) };
    let unnamed = judge(&old, Some(long), (at(9_990), at(13_600)), (AFTER, MOST));
    assert_eq!(unnamed, Leave::Waits, "a coordinator that could not judge it later");
}

#[test]
fn nobody_goes_on_by_orders_that_are_too_old_whatever_the_clock_says() {
    let long = Some(silence(AFTER, 100));
    let week = i64::try_from(MOST.as_secs()).unwrap();
    assert_eq!(leave(long, 9_990 + week), Leave::Since(at(10_000)));
    assert_eq!(leave(long, 9_991 + week), Leave::TooLong);
    // The clock was set back: a little is the clock's business, more hides how old orders are.
    assert_eq!(leave(long, 9_900), Leave::Since(at(10_000)));
    assert_eq!(leave(long, 9_000), Leave::TooLong);
    // It was set back, and a week went by all the same.
    let silent = silence(MOST + Duration::from_secs(1), 100);
    assert_eq!(leave(Some(silent), 9_990), Leave::TooLong);
}
