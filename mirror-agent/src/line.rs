//! The site's line: one rate and one budget for everything that comes over it.
//!
//! HTTP transfers and rsync's pipe draw from the same bucket, so that a site which gave us
//! 2 MiB/s sees 2 MiB/s, however many trees come at a time and by whichever way. The rate is
//! looked up on the site's wall clock while a transfer goes on: a window that begins slows down
//! what is under way. Where several agents share a site, each takes its equal part; that may leave
//! some of the line unused, and never uses more.
//!
//! What came in a month is written down in the ledger. Once the budget is used up, transfers end
//! and nothing new is begun until the site's next month, or until an admin raises the budget.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use jiff::{Timestamp, tz::TimeZone};
use protocol::{
    calendar::{Calendar, month},
    schedule,
    units::ByteSize,
    v1::agent::AgentOrders,
};
use serde::{Deserialize, Serialize};

/// Most that is read at a time, in bytes.
const PIECE: usize = 64 << 10;
/// The rate is looked up again at least so often.
const LOOK: Duration = Duration::from_secs(1);
/// Unused rate is kept for so long, which evens out short pauses.
const BURST: Duration = Duration::from_millis(250);

/// What the site's admin gave us.
#[derive(Debug, Clone, PartialEq)]
pub struct Terms {
    calendar: Calendar,
    zone: TimeZone,
    budget: Option<u64>,
    sharers: u32,
}

/// What came in one month.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Account {
    /// `2026-11`, of the site's calendar.
    pub month: String,
    /// Bytes that came, over all connections.
    pub received: u64,
}

/// The month's budget is used up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the site's budget for {month} is used up ({received} of {budget} received); nothing more is fetched before {until}, unless an admin raises the site's 'budget'"
)]
pub struct BudgetUsed {
    /// The month.
    pub month: String,
    /// What came.
    pub received: ByteSize,
    /// What this agent may receive.
    pub budget: ByteSize,
    /// When the next month begins.
    pub until: Timestamp,
}

/// The line of one agent, shared by all its transfers.
#[derive(Debug)]
pub struct Line {
    started: Instant,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    terms: Terms,
    account: Account,
    bucket: Bucket,
    is_saved: bool,
}

/// Bytes that came too early. Times are those of a clock that never jumps.
#[derive(Debug, Default)]
struct Bucket {
    debt: f64,
    at: Duration,
}

impl Terms {
    /// Those of the orders.
    pub fn of(orders: &AgentOrders) -> Self {
        Self {
            calendar: Calendar::new(&orders.bandwidth, orders.default_rate),
            zone: schedule::zone(orders.timezone.as_deref()),
            budget: orders.budget.map(|budget| budget.0.0),
            sharers: orders.sharers.max(1),
        }
    }

    /// Bytes per second at an instant; `None` is as fast as it goes.
    fn rate(&self, now: Timestamp) -> Option<f64> {
        let rate = self.calendar.rate(now, &self.zone).0?;
        Some((rate.0 as f64 / f64::from(self.sharers)).max(1.0))
    }

    fn share(&self) -> Option<u64> {
        self.budget.map(|budget| budget / u64::from(self.sharers))
    }
}

impl Default for Terms {
    fn default() -> Self {
        Self { calendar: Calendar::new(&[], None), zone: TimeZone::UTC, budget: None, sharers: 1 }
    }
}

impl Line {
    /// A line without limits until it is told its terms; `account` is what came before.
    pub fn new(account: Account) -> Self {
        let state =
            State { terms: Terms::default(), account, bucket: Bucket::default(), is_saved: true };
        Self { started: Instant::now(), state: Mutex::new(state) }
    }

    /// From now on these terms hold, also for what is under way.
    pub fn set_terms(&self, terms: Terms) {
        self.lock().terms = terms;
    }

    /// Whether anything may come at all.
    pub fn check(&self) -> Result<(), BudgetUsed> {
        self.lock().check(certs::clock::now())
    }

    /// How much is to be read at a time: little on a slow line, so that it flows evenly.
    pub fn piece(&self) -> usize {
        let rate = self.lock().terms.rate(certs::clock::now());
        rate.map_or(PIECE, |rate| ((rate / 8.0) as usize).clamp(512, PIECE))
    }

    /// Counts bytes that came, and returns when more may be read.
    pub async fn took(&self, bytes: usize) -> Result<(), BudgetUsed> {
        let mut wait = self.lock().charge(certs::clock::now(), self.started.elapsed(), bytes)?;
        while !wait.is_zero() {
            tokio::time::sleep(wait.min(LOOK)).await;
            wait = self.lock().charge(certs::clock::now(), self.started.elapsed(), 0)?;
        }
        Ok(())
    }

    /// What came in this month, if it is not written down yet.
    pub fn unsaved(&self) -> Option<Account> {
        let mut state = self.lock();
        let is_saved = std::mem::replace(&mut state.is_saved, true);
        (!is_saved).then(|| state.account.clone())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Line {
    fn default() -> Self {
        Self::new(Account::default())
    }
}

impl State {
    fn check(&mut self, now: Timestamp) -> Result<(), BudgetUsed> {
        let (month, until) = month(now, &self.terms.zone);
        // A clock that was put back must not give the month a second budget.
        if month > self.account.month {
            self.account = Account { month, received: 0 };
        }
        match self.terms.share() {
            Some(budget) if self.account.received >= budget => Err(BudgetUsed {
                month: self.account.month.clone(),
                received: ByteSize(self.account.received),
                budget: ByteSize(budget),
                until,
            }),
            _ => Ok(()),
        }
    }

    /// Counts bytes and tells how long nothing more may be read.
    fn charge(
        &mut self,
        now: Timestamp,
        elapsed: Duration,
        bytes: usize,
    ) -> Result<Duration, BudgetUsed> {
        self.check(now)?;
        if bytes > 0 {
            self.account.received = self.account.received.saturating_add(bytes as u64);
            self.is_saved = false;
        }
        let rate = self.terms.rate(now);
        Ok(self.bucket.charge(elapsed, bytes, rate))
    }
}

impl Bucket {
    fn charge(&mut self, elapsed: Duration, bytes: usize, rate: Option<f64>) -> Duration {
        let passed = elapsed.saturating_sub(self.at);
        self.at = self.at.max(elapsed);
        let Some(rate) = rate else {
            self.debt = 0.0;
            return Duration::ZERO;
        };
        let paid = self.debt - rate * passed.as_secs_f64();
        self.debt = paid.max(-rate * BURST.as_secs_f64()) + bytes as f64;
        Duration::try_from_secs_f64((self.debt / rate).max(0.0)).unwrap_or(Duration::MAX)
    }
}

#[cfg(test)]
mod tests {
    use protocol::spec::{BandwidthWindow, Rate};

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn terms(windows: &[(&str, Option<u64>)], budget: Option<u64>, sharers: u32) -> Terms {
        let windows: Vec<_> = windows
            .iter()
            .map(|(when, rate)| BandwidthWindow {
                when: (*when).into(),
                rate: Rate(rate.map(ByteSize)),
            })
            .collect();
        Terms {
            calendar: Calendar::new(&windows, None),
            zone: TimeZone::get("Europe/Lisbon").unwrap(),
            budget,
            sharers,
        }
    }

    /// A line on a clock of its own: what it lets through, in bytes per hour.
    fn simulate(terms: Terms, from: &str, hours: u64) -> Vec<u64> {
        let (start, step) = (at(from), Duration::from_millis(500));
        let mut state =
            State { terms, account: Account::default(), bucket: Bucket::default(), is_saved: true };
        let mut through = vec![0; usize::try_from(hours).unwrap()];
        let mut elapsed = Duration::ZERO;
        while elapsed < Duration::from_secs(hours * 3600) {
            let now = start.checked_add(jiff::SignedDuration::try_from(elapsed).unwrap()).unwrap();
            let hour = usize::try_from(elapsed.as_secs() / 3600).unwrap();
            // A peer that always has 1,000 bytes more, read as soon as they may be.
            match state.charge(now, elapsed, 0) {
                Ok(Duration::ZERO) => {
                    through[hour] += 1_000;
                    elapsed += state.charge(now, elapsed, 1_000).unwrap().min(LOOK).max(step / 10);
                }
                Ok(wait) => elapsed += wait.min(LOOK),
                Err(_) => elapsed += Duration::from_secs(1),
            }
        }
        through
    }

    fn close(bytes: u64, expected: u64) -> bool {
        bytes.abs_diff(expected) <= expected / 50 + 1_000
    }

    #[test]
    fn one_rate_holds_for_all_and_changes_with_the_window() {
        let through = simulate(
            terms(&[("08-10", Some(1_000)), ("10-12", Some(4_000))], None, 1),
            "2026-01-15T08:00:00Z",
            4,
        );
        let expected = [3_600_000, 3_600_000, 14_400_000, 14_400_000];
        for (bytes, expected) in through.iter().zip(expected) {
            assert!(close(*bytes, expected), "{through:?}");
        }
    }

    #[test]
    fn windows_move_with_the_clocks_of_the_site() {
        // In the night to October 25 the hour from one to two comes twice in Lisbon.
        let slow = terms(&[("01-02", Some(1_000)), ("00-24", Some(3_000))], None, 1);
        let through = simulate(slow.clone(), "2026-10-24T23:00:00Z", 4);
        let expected = [3_600_000 * 3, 3_600_000, 3_600_000, 3_600_000 * 3];
        assert!(through.iter().zip(expected).all(|(b, e)| close(*b, e)), "{through:?}");
        // In the night to March 29 it does not come at all.
        let through = simulate(slow, "2026-03-29T00:00:00Z", 3);
        assert!(through.iter().all(|bytes| close(*bytes, 3_600_000 * 3)), "{through:?}");
    }

    #[test]
    fn agents_of_one_site_share_its_line() {
        let through =
            simulate(terms(&[("00-24", Some(4_000))], None, 4), "2026-01-15T00:00:00Z", 1);
        assert!(close(through[0], 3_600_000), "{through:?}");
    }

    #[test]
    fn a_budget_that_is_used_up_stops_everything_until_the_sites_next_month() {
        let terms = terms(&[("00-24", Some(1_000))], Some(5_400_000), 1);
        // Two hours before the month ends, in Lisbon's winter.
        let through = simulate(terms, "2026-11-30T22:00:00Z", 4);
        assert!(close(through[0], 3_600_000), "{through:?}");
        assert!(close(through[1], 1_800_000), "{through:?}");
        assert!(close(through[2], 3_600_000), "{through:?}");
        assert!(close(through[3], 1_800_000), "{through:?}");
    }

    #[test]
    fn a_clock_that_goes_back_gives_no_second_budget() {
        let mut state = State {
            terms: terms(&[], Some(1_000), 1),
            account: Account::default(),
            bucket: Bucket::default(),
            is_saved: true,
        };
        state.charge(at("2026-11-02T00:00:00Z"), Duration::ZERO, 1_000).unwrap();
        let used = state.check(at("2026-11-02T00:00:01Z")).unwrap_err();
        assert_eq!((used.month.as_str(), used.until), ("2026-11", at("2026-12-01T00:00:00Z")));
        assert!(state.check(at("2026-10-31T00:00:00Z")).is_err());
        // Raised by an admin, it goes on at once.
        state.terms = terms(&[], Some(2_000), 1);
        assert_eq!(state.check(at("2026-11-02T00:00:02Z")), Ok(()));
    }

    #[test]
    fn what_came_is_written_down_once() {
        let line = Line::default();
        assert_eq!(line.unsaved(), None);
        line.lock().charge(at("2026-11-02T00:00:00Z"), Duration::ZERO, 10).unwrap();
        assert_eq!(line.unsaved(), Some(Account { month: "2026-11".into(), received: 10 }));
        assert_eq!(line.unsaved(), None);
    }
}
