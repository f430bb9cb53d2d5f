//! When something is due. Rates and windows of the day have their place here.

use std::time::Duration;

use jiff::Timestamp;

use crate::fetch::retries::backoff;

/// First wait after a failed run.
const FIRST_RETRY: Duration = Duration::from_secs(15);
/// Longest wait after failed runs.
const LONGEST_RETRY: Duration = Duration::from_secs(30 * 60);

/// When a stock server is asked again: after the interval, give or take a tenth, so that the sites
/// of a network do not come together.
pub fn next_look(now: Timestamp, interval: Duration, chance: f64) -> Timestamp {
    later(now, interval.mul_f64(0.9 + 0.2 * chance.clamp(0.0, 1.0)))
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
        assert_eq!(seconds(next_look(Timestamp::UNIX_EPOCH, interval, 0.0)), 540.0);
        assert_eq!(seconds(next_look(Timestamp::UNIX_EPOCH, interval, 1.0)), 660.0);
    }

    #[test]
    fn failed_runs_are_tried_ever_less_often_but_always_again() {
        let wait = |failures| seconds(next_try(Timestamp::UNIX_EPOCH, failures, 0.0));
        assert_eq!((wait(1), wait(2), wait(3)), (15.0, 30.0, 60.0));
        assert_eq!(wait(1_000), 1_800.0);
    }
}
