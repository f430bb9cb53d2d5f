//! When something is due.

use std::time::Duration;

use jiff::{Timestamp, tz::TimeZone};
use protocol::{digest::Digest, schedule::Slot, units::Span, v1::agent::AssignmentOrder};

use crate::fetch::retries::backoff;

/// First wait after a failed run.
const FIRST_RETRY: Duration = Duration::from_secs(15);
/// Longest splay within a slot of an hour.
const MOST_SPLAY: Duration = Duration::from_secs(50 * 60);
/// Longest wait after failed runs.
const LONGEST_RETRY: Duration = Duration::from_secs(30 * 60);

/// When a stock server is asked again: after the interval and a part of the splay, or give or take
/// a tenth where none is set, so that the sites of a network do not come together.
pub fn next_look(
    now: Timestamp,
    interval: Duration,
    splay: Option<Duration>,
    chance: f64,
) -> Timestamp {
    let chance = chance.clamp(0.0, 1.0);
    later(
        now,
        match splay {
            Some(splay) => interval.saturating_add(splay.mul_f64(chance)),
            None => interval.mul_f64(0.9 + 0.2 * chance),
        },
    )
}

/// The slot of an assignment's schedule in which a run is due: begun, with its splay, not over,
/// and not used yet. Without a schedule there is none.
pub fn due_slot(
    order: &AssignmentOrder,
    used: Option<Timestamp>,
    now: Timestamp,
    zone: &TimeZone,
) -> Option<Slot> {
    let slot = order.schedule.as_ref()?.slot(now, zone)?;
    let splay = order.splay.map_or(Duration::ZERO, Span::duration).mul_f64(part_of(order));
    // Never so late that the slot is over.
    let begins = later(slot.begins, splay.min(MOST_SPLAY));
    (begins <= now && used.is_none_or(|used| used < slot.begins)).then_some(slot)
}

/// The part of the splay that one assignment always waits, from 0 to 1.
fn part_of(order: &AssignmentOrder) -> f64 {
    let digest = Digest::of(order.name.to_string().as_bytes());
    let bytes = digest.as_bytes();
    f64::from(u16::from_be_bytes([bytes[0], bytes[1]])) / f64::from(u16::MAX)
}

/// When a run that failed `failures` times in a row is tried again.
pub fn next_try(now: Timestamp, failures: u32, chance: f64) -> Timestamp {
    later(now, backoff(failures, FIRST_RETRY, LONGEST_RETRY, chance))
}

fn later(now: Timestamp, wait: Duration) -> Timestamp {
    now.saturating_add(wait).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(at: Timestamp) -> f64 {
        at.as_millisecond() as f64 / 1_000.0
    }

    #[test]
    fn looks_are_spread_around_the_interval() {
        let interval = Duration::from_secs(600);
        let look =
            |splay, chance| seconds(next_look(Timestamp::UNIX_EPOCH, interval, splay, chance));
        assert_eq!((look(None, 0.0), look(None, 1.0)), (540.0, 660.0));
        let splay = Some(Duration::from_secs(300));
        assert_eq!((look(splay, 0.0), look(splay, 1.0)), (600.0, 900.0));
    }

    #[test]
    fn failed_runs_are_tried_ever_less_often_but_always_again() {
        let wait = |failures| seconds(next_try(Timestamp::UNIX_EPOCH, failures, 0.0));
        assert_eq!((wait(1), wait(2), wait(3)), (15.0, 30.0, 60.0));
        assert_eq!(wait(1_000), 1_800.0);
    }
}
