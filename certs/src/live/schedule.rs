//! When a certificate is renewed, and when a failed try is repeated.

use jiff::{SignedDuration, Timestamp};

use crate::authority::BACKDATED;

const FIRST_WAIT: SignedDuration = SignedDuration::from_secs(5);
const LONGEST_WAIT: SignedDuration = SignedDuration::from_mins(10);

/// Half of the certificate's life, give or take a tenth of it; `chance` is from 0 to 1.
pub(super) fn renewal(not_before: Timestamp, not_after: Timestamp, chance: f64) -> Timestamp {
    // The life that counts began when the certificate was made.
    let issued = not_before.saturating_add(BACKDATED).unwrap_or(not_before);
    let life = not_after.duration_since(issued).max(SignedDuration::ZERO);
    let part = 0.4 + 0.2 * chance.clamp(0.0, 1.0);
    let wait = SignedDuration::from_secs_f64(life.as_secs_f64() * part);
    issued.saturating_add(wait).unwrap_or(not_after)
}

/// How long to wait after `failures` tries in a row failed before this one: anything up to a limit
/// that doubles from 5 s to 10 min, by `chance` from 0 to 1, but at least a second.
pub(super) fn backoff(failures: u32, chance: f64) -> SignedDuration {
    let limit = FIRST_WAIT.saturating_mul(1 << failures.min(16)).min(LONGEST_WAIT);
    let wait = limit.as_secs_f64() * chance.clamp(0.0, 1.0);
    SignedDuration::from_secs_f64(wait.max(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn renewal_comes_between_four_and_six_tenths_of_the_life() {
        let made = 1_000_000;
        let (start, end) = (at(made - 300), at(made + 1000));
        assert_eq!(renewal(start, end, 0.0), at(made + 400));
        assert_eq!(renewal(start, end, 0.5), at(made + 500));
        assert_eq!(renewal(start, end, 1.0), at(made + 600));
    }

    #[test]
    fn a_life_that_makes_no_sense_is_renewed_at_once() {
        assert!(renewal(at(1_000_000), at(0), 1.0) <= at(1_000_300));
    }

    #[test]
    fn waits_double_up_to_ten_minutes_and_are_spread() {
        let limits = [0, 1, 6, 7, 40].map(|failures| backoff(failures, 1.0).as_secs());
        assert_eq!(limits, [5, 10, 320, 600, 600]);
        assert_eq!(backoff(9, 0.5).as_secs(), 300);
        assert_eq!(backoff(0, 0.0).as_secs(), 1);
    }
}
