//! The time, never earlier than what is known to have passed.
//!
//! A machine whose clock battery is dead starts in 1970. Then every certificate is "not yet valid"
//! and every expired head is "still good": the clock is wrong in the one direction that lets an
//! attacker replay the past. So time has a floor: when this program was made, and the newest time
//! that was ever read in something signed and verified. The floor is a fact about time itself and
//! only rises, so one for the whole process is right; whoever has a disk stores it.

use std::sync::atomic::{AtomicI64, Ordering};

use jiff::{SignedDuration, Timestamp};
use rustls_pki_types::UnixTime;

/// Seconds since 1970 at which this version was made, or a little before.
const MADE: i64 = 1_793_491_200;

/// How far a signed time may lift the floor above a clock that has fallen behind it. Bounds what a
/// stolen head key can do to a machine without a clock.
const LONGEST_STEP: SignedDuration = SignedDuration::from_hours(30 * 24);

static FLOOR: AtomicI64 = AtomicI64::new(MADE);

/// The time: that of the system, or the floor where the system's clock has fallen behind it.
pub fn now() -> Timestamp {
    Timestamp::now().max(floor())
}

/// The time before which it cannot be.
pub fn floor() -> Timestamp {
    Timestamp::from_second(FLOOR.load(Ordering::Relaxed)).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Whether the system's clock shows a time that is known to be over.
pub fn is_behind() -> bool {
    Timestamp::now() < floor()
}

/// Raises the floor to a stored one.
pub fn restore_floor(stored: Timestamp) {
    FLOOR.fetch_max(stored.as_second(), Ordering::Relaxed);
}

/// The floor after a verified signature of the time `signed`: raised to it, but not above what a
/// clock that goes says, nor by more than 30 days at once where it does not.
pub fn witness(signed: Timestamp) -> Timestamp {
    let (floor, system) = (floor(), Timestamp::now());
    restore_floor(raised(floor, system, signed));
    self::floor()
}

/// `now` of the TLS library, no earlier than the floor.
pub(crate) fn floored(now: UnixTime) -> UnixTime {
    let floor = u64::try_from(FLOOR.load(Ordering::Relaxed)).unwrap_or(0);
    if now.as_secs() < floor {
        UnixTime::since_unix_epoch(std::time::Duration::from_secs(floor))
    } else {
        now
    }
}

fn raised(floor: Timestamp, system: Timestamp, signed: Timestamp) -> Timestamp {
    let limit = if system >= floor {
        system
    } else {
        floor.saturating_add(LONGEST_STEP).unwrap_or(Timestamp::MAX)
    };
    signed.min(limit).max(floor)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(day: i64) -> Timestamp {
        Timestamp::from_second(MADE + day * 86_400).unwrap()
    }

    #[test]
    fn a_signed_time_lifts_the_floor_of_a_dead_clock_step_by_step() {
        let dead = Timestamp::UNIX_EPOCH;
        assert_eq!(raised(at(0), dead, at(3)), at(3));
        assert_eq!(raised(at(3), dead, at(3000)), at(33));
        assert_eq!(raised(at(3), dead, at(1)), at(3));
    }

    #[test]
    fn a_signed_time_in_the_future_does_not_lift_the_floor_above_a_clock_that_goes() {
        assert_eq!(raised(at(0), at(2), at(3000)), at(2));
        assert_eq!(raised(at(0), at(2), at(1)), at(1));
    }

    #[test]
    fn the_tls_library_is_never_told_a_time_before_the_floor() {
        let early = UnixTime::since_unix_epoch(std::time::Duration::from_secs(5));
        assert!(floored(early).as_secs() >= MADE.unsigned_abs());
        let late = UnixTime::since_unix_epoch(std::time::Duration::from_secs(9_000_000_000));
        assert_eq!(floored(late), late);
    }
}
