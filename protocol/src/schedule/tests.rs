use super::*;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn lisbon() -> TimeZone {
    TimeZone::get("Europe/Lisbon").unwrap()
}

fn cron(text: &str) -> Schedule {
    Schedule::Cron(text.parse().unwrap())
}

/// All slots that a look every five minutes finds in `hours` hours.
fn slots(schedule: &Schedule, from: &str, hours: i64, zone: &TimeZone) -> Vec<String> {
    let mut seen: Vec<Timestamp> = Vec::new();
    for minute in (0..hours * 60).step_by(5) {
        let now = later(at(from), SignedDuration::from_mins(minute));
        if let Some(slot) = schedule.slot(now, zone) {
            assert!(slot.begins <= now && now < slot.ends, "{schedule} at {now}: {slot:?}");
            if seen.last().is_none_or(|last| *last < slot.begins) {
                seen.push(slot.begins);
            }
        }
    }
    seen.iter().map(Timestamp::to_string).collect()
}

#[test]
fn f50_sync_hours_are_the_hours_of_the_day_that_the_number_divides() {
    let due = |hours| {
        let hours = SyncHours(hours);
        (0..24).filter(|hour| hours.includes(*hour)).collect::<Vec<i8>>()
    };
    assert_eq!(due(0), Vec::<i8>::new());
    assert_eq!(due(1), (0..24).collect::<Vec<_>>());
    assert_eq!(due(5), [0, 5, 10, 15, 20]);
    assert_eq!(due(6), [0, 6, 12, 18]);
    assert_eq!(due(12), [0, 12]);
    assert_eq!(due(24), [0]);
    assert_eq!(due(25), [0]);
}

#[test]
fn sync_hours_are_hours_of_the_sites_own_day() {
    let zone = TimeZone::get("Asia/Kolkata").unwrap();
    let slots = slots(&Schedule::SyncHours(SyncHours(12)), "2026-03-01T00:00:00Z", 24, &zone);
    // Half past six in the evening in UTC is midnight there.
    assert_eq!(slots, ["2026-03-01T06:30:00Z", "2026-03-01T18:30:00Z"]);
}

#[test]
fn an_hour_that_comes_twice_is_due_once_and_one_that_is_skipped_never() {
    // Lisbon goes from 02:00 back to 01:00 on October 25, and from 01:00 to 02:00 on March 29.
    let every = Schedule::SyncHours(SyncHours(1));
    let autumn = slots(&every, "2026-10-24T23:00:00Z", 4, &lisbon());
    assert_eq!(autumn, ["2026-10-24T23:00:00Z", "2026-10-25T00:00:00Z", "2026-10-25T02:00:00Z"]);
    let spring = slots(&every, "2026-03-29T00:00:00Z", 3, &lisbon());
    assert_eq!(spring.len(), 3);
}

#[test]
fn a_cron_expression_means_what_cron_means() {
    let cases: [(&str, &str, i64, &[&str]); 6] = [
        ("30 2 * * *", "2026-06-01T00:00:00Z", 24, &["2026-06-01T02:30:00Z"]),
        (
            "0 */8 * * *",
            "2026-06-01T00:00:00Z",
            24,
            &["2026-06-01T00:00:00Z", "2026-06-01T08:00:00Z", "2026-06-01T16:00:00Z"],
        ),
        // June 1, 2026 is a Monday.
        (
            "0 4 * * tue-wed",
            "2026-06-01T00:00:00Z",
            72,
            &["2026-06-02T04:00:00Z", "2026-06-03T04:00:00Z"],
        ),
        // Either day counts where both are given.
        (
            "0 4 1 * wed",
            "2026-06-01T00:00:00Z",
            72,
            &["2026-06-01T04:00:00Z", "2026-06-03T04:00:00Z"],
        ),
        ("0 4 * * 7", "2026-06-06T00:00:00Z", 48, &["2026-06-07T04:00:00Z"]),
        ("@daily", "2026-06-01T12:00:00Z", 24, &["2026-06-02T00:00:00Z"]),
    ];
    for (text, from, hours, expected) in cases {
        assert_eq!(slots(&cron(text), from, hours, &TimeZone::UTC), expected, "{text}");
    }
}

#[test]
fn cron_times_move_with_the_clocks_as_cron_does_it() {
    // 01:30 is skipped on March 29 and comes twice on October 25.
    let spring = slots(&cron("30 1 * * *"), "2026-03-28T22:00:00Z", 6, &lisbon());
    assert_eq!(spring, ["2026-03-29T01:00:00Z"]);
    let autumn = slots(&cron("30 1 * * *"), "2026-10-24T22:00:00Z", 8, &lisbon());
    assert_eq!(autumn, ["2026-10-25T00:30:00Z"]);
    // What goes through every hour goes through both.
    let autumn = slots(&cron("30 * * * *"), "2026-10-25T00:00:00Z", 3, &lisbon());
    let hourly = ["23:30", "00:30", "01:30", "02:30"];
    assert_eq!(autumn.iter().map(|at| &at[11..16]).collect::<Vec<_>>(), hourly);
}

#[test]
fn a_slot_that_passed_is_not_made_up() {
    let nightly = cron("0 2 * * *");
    let slot = |text| nightly.slot(at(text), &TimeZone::UTC).map(|slot| slot.begins);
    assert_eq!(slot("2026-06-01T01:59:59Z"), None);
    assert_eq!(slot("2026-06-01T02:59:59Z"), Some(at("2026-06-01T02:00:00Z")));
    assert_eq!(slot("2026-06-01T03:00:00Z"), None);
}

#[test]
fn the_next_slot_is_found_however_far_it_is() {
    let cases = [
        ("0 0 29 2 *", "2026-03-01T00:00:00Z", "2028-02-29T00:00:00Z"),
        ("5 4 1 1 *", "2026-01-01T04:05:00Z", "2027-01-01T04:05:00Z"),
        ("*/10 * * * *", "2026-01-01T04:05:00Z", "2026-01-01T04:10:00Z"),
        ("59 23 31 12 *", "2026-01-01T00:00:00Z", "2026-12-31T23:59:00Z"),
        ("0 0 * * sun", "2026-06-01T12:34:56Z", "2026-06-07T00:00:00Z"),
    ];
    for (text, after, expected) in cases {
        assert_eq!(cron(text).next(at(after), &TimeZone::UTC), Some(at(expected)), "{text}");
    }
    let hours = Schedule::SyncHours(SyncHours(7));
    let next = hours.next(at("2026-06-01T21:10:00Z"), &TimeZone::UTC);
    assert_eq!(next, Some(at("2026-06-02T00:00:00Z")));
    assert_eq!(
        Schedule::SyncHours(SyncHours(0)).next(at("2026-06-01T00:00:00Z"), &TimeZone::UTC),
        None
    );
}

#[test]
fn what_is_no_expression_says_so() {
    for text in [
        "",
        "* * * *",
        "* * * * * *",
        "60 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "* * * 13 *",
        "* * * * 8",
        "*/0 * * * *",
        "5-1 * * * *",
        "a * * * *",
        "1- * * * *",
        ",1 * * * *",
        "0 0 30 2 *",
        "0 0 31 4,6,9,11 *",
        "@often",
        "+1 * * * *",
        "001 * * * *",
    ] {
        assert!(text.parse::<Cron>().is_err(), "{text:?}");
    }
    assert!("1".repeat(10_000).parse::<Cron>().is_err());
}

#[test]
fn what_is_due_more_often_has_the_shorter_period() {
    let hours = |hours| SignedDuration::from_hours(hours);
    assert_eq!(Schedule::SyncHours(SyncHours(6)).period(), hours(6));
    assert_eq!(Schedule::SyncHours(SyncHours(99)).period(), hours(24));
    assert_eq!(cron("0 2 * * *").period(), hours(24));
    assert_eq!(cron("*/15 * * * *").period(), SignedDuration::from_mins(15));
}
