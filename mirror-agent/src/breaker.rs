//! A server that is down is not asked by every tree that comes from it.

use jiff::Timestamp;

use crate::calendar::next_try;

/// Runs in a row, of whichever trees, that did not reach a server until it is left alone.
const TRIPS: u32 = 3;

/// What is known of one server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Breaker {
    failures: u32,
    /// Nobody asks before this.
    until: Option<Timestamp>,
    /// One run finds out whether it answers again.
    probe: bool,
}

impl Breaker {
    /// Whether a run that is due may begin. Where the server was left alone for its time, one run
    /// may, and the others wait for what it finds.
    pub fn lets_through(&mut self, now: Timestamp) -> bool {
        match self.until {
            None => true,
            Some(until) if now < until || self.probe => false,
            Some(_) => {
                self.probe = true;
                true
            }
        }
    }

    /// A run ended: the server was reached, or was not.
    pub fn note(&mut self, reached: bool, now: Timestamp, chance: f64) {
        self.probe = false;
        if reached {
            *self = Self::default();
            return;
        }
        self.failures = self.failures.saturating_add(1);
        if self.failures >= TRIPS {
            self.until = Some(next_try(now, self.failures, chance));
        }
    }

    /// A run that was let through ended before it asked.
    pub fn forget_probe(&mut self) {
        self.probe = false;
    }

    /// Until when it is left alone.
    pub fn open_until(&self) -> Option<Timestamp> {
        self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_server_that_is_down_is_asked_by_one_run_at_a_time_and_ever_less_often() {
        let mut breaker = Breaker::default();
        for _ in 0..2 {
            assert!(breaker.lets_through(at(0)));
            breaker.note(false, at(0), 0.0);
        }
        assert!(breaker.lets_through(at(0)));
        breaker.note(false, at(0), 0.0);
        // The third failure leaves it alone for 60 s.
        assert_eq!(breaker.open_until(), Some(at(60)));
        assert!(!breaker.lets_through(at(59)));
        assert!(breaker.lets_through(at(60)));
        assert!(!breaker.lets_through(at(60)), "a second probe");
        breaker.note(false, at(60), 0.0);
        assert_eq!(breaker.open_until(), Some(at(180)));
        assert!(breaker.lets_through(at(180)));
        breaker.note(true, at(180), 0.0);
        assert!(breaker.lets_through(at(180)) && breaker.lets_through(at(180)));
    }
}
