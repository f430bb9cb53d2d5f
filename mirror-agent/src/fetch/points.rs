//! Publication points: where the same bytes can be had, and which of them is asked now.
//!
//! The admin's order decides. What was observed only moves a point to the end: while it rests
//! after a failure, or while it is much slower than another. Both are forgotten with time, so that
//! a point that was mended is used again without anyone's doing.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use protocol::{client::HttpSource, point, v1::agent::PointReport};

use super::{
    allowed::Allowed,
    ranges::Error,
    retries::{backoff, chance},
    sealed::Sealed,
};
use crate::line::Line;

/// Name of the point that is the publisher itself.
pub const ORIGIN: &str = point::ORIGIN;

/// How the name of a relay begins, before that of its agent.
pub const RELAY: &str = "relay ";

/// How long a point rests after its first failure; doubled with each that follows.
const FIRST_REST: Duration = Duration::from_secs(5);
/// Longest rest.
const LONGEST_REST: Duration = Duration::from_secs(600);
/// A point so many times slower than the fastest comes behind it.
const MUCH_SLOWER: f64 = 8.0;
/// How long a measured rate counts.
const RATE_COUNTS: Duration = Duration::from_secs(600);
/// A transfer of fewer bytes measures the way, not the rate.
const MEASURED_FROM: u64 = 256 << 10;

/// What was seen of one point, over all runs of a process.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Health {
    /// Failures since it last gave something good.
    failures: u32,
    /// It is asked last until then.
    rests_until: Option<Instant>,
    /// Bytes per second, smoothed, and when it was measured last.
    rate: Option<(f64, Instant)>,
}

impl Health {
    fn is_resting(&self, now: Instant) -> bool {
        self.rests_until.is_some_and(|until| now < until)
    }

    fn rate(&self, now: Instant) -> Option<f64> {
        let (rate, at) = self.rate?;
        (now.duration_since(at) < RATE_COUNTS).then_some(rate)
    }

    fn failed(&mut self, now: Instant, chance: f64) {
        self.failures = self.failures.saturating_add(1);
        self.rests_until = Some(now + backoff(self.failures, FIRST_REST, LONGEST_REST, chance));
    }

    fn gave(&mut self, bytes: u64, took: Duration, now: Instant) {
        (self.failures, self.rests_until) = (0, None);
        if bytes >= MEASURED_FROM {
            let rate = bytes as f64 / took.as_secs_f64().max(0.001);
            let smoothed = self.rate(now).map_or(rate, |before| before * 0.7 + rate * 0.3);
            self.rate = Some((smoothed, now));
        }
    }
}

/// In which order points are asked: a pure decision over what was seen of each, in the admin's
/// order. Gives their numbers.
pub fn order(healths: &[Health], now: Instant) -> Vec<usize> {
    let awake = healths.iter().filter(|health| !health.is_resting(now));
    let fastest = awake.filter_map(|health| health.rate(now)).fold(0.0, f64::max);
    let class = |health: &Health| match health.rate(now) {
        _ if health.is_resting(now) => 2,
        Some(rate) if rate * MUCH_SLOWER < fastest => 1,
        _ => 0,
    };
    let mut numbers: Vec<usize> = (0..healths.len()).collect();
    numbers.sort_by_key(|&number| class(&healths[number]));
    numbers
}

/// Shares what was seen of a point between runs.
pub type SharedHealth = Arc<Mutex<Health>>;

/// One place that has the trees' objects, for one run.
pub struct Point {
    /// For reports: `origin`, or the base URL.
    pub name: String,
    /// `https://HOST[:PORT][/PATH]`, without a slash at the end.
    pub base: String,
    /// Where its answers may lead.
    pub allowed: Allowed,
    /// What its bytes come over.
    pub line: Arc<Line>,
    http: HttpSource,
    /// For where its redirects lead, if that is another client's business.
    elsewhere: Option<HttpSource>,
    /// Where what it has is encrypted.
    sealed: Option<Sealed>,
    health: SharedHealth,
    received: AtomicU64,
    requests: AtomicU64,
    trouble: Mutex<Trouble>,
}

#[derive(Debug, Default)]
struct Trouble {
    failed: u64,
    wrong: u64,
    detail: String,
}

impl Point {
    /// A point at `base`, reached by the clients of `http`.
    pub fn new(name: impl Into<String>, base: &str, http: HttpSource) -> Self {
        Self {
            name: name.into(),
            base: base.trim_end_matches('/').to_owned(),
            allowed: Allowed::none(),
            line: Arc::default(),
            http,
            elsewhere: None,
            sealed: None,
            health: SharedHealth::default(),
            received: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            trouble: Mutex::default(),
        }
    }

    /// The same, following redirects as `allowed` lets it.
    pub fn allowing(self, allowed: Allowed) -> Self {
        Self { allowed, ..self }
    }

    /// The same, whose redirects are followed by another client: one that does not show who we are.
    pub fn redirecting_by(self, elsewhere: HttpSource) -> Self {
        Self { elsewhere: Some(elsewhere), ..self }
    }

    /// The same, with what earlier runs saw of it.
    pub fn with_health(self, health: SharedHealth) -> Self {
        Self { health, ..self }
    }

    /// The same, over that line.
    pub fn over(self, line: &Arc<Line>) -> Self {
        Self { line: Arc::clone(line), ..self }
    }

    /// The same, where what it has is encrypted.
    pub fn sealed_by(self, sealed: Sealed) -> Self {
        Self { sealed: Some(sealed), ..self }
    }

    /// How what it has is encrypted, where it is.
    pub fn sealed(&self) -> Option<&Sealed> {
        self.sealed.as_ref()
    }

    /// The client for the next request.
    pub fn client(&self) -> reqwest::Client {
        self.requests.fetch_add(1, Ordering::Relaxed);
        (self.http)()
    }

    /// The client for where a redirect leads.
    pub fn client_elsewhere(&self) -> reqwest::Client {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.elsewhere.as_ref().map_or_else(|| (self.http)(), |elsewhere| elsewhere())
    }

    /// Whether it is the publisher itself.
    pub fn is_origin(&self) -> bool {
        self.name == ORIGIN
    }

    /// Whether it is an agent of the site's relay.
    pub fn is_relay(&self) -> bool {
        self.name.starts_with(RELAY)
    }

    /// Whether it is known by its certificate and has whole content: the publisher, or a relay.
    pub fn is_member(&self) -> bool {
        self.is_origin() || self.is_relay()
    }

    /// What counts for the order: a relay spares the publisher, so it is left only while it fails,
    /// however fast others are.
    fn health(&self) -> Health {
        let health = *lock(&self.health);
        if self.is_relay() { Health { rate: None, ..health } } else { health }
    }

    /// Bytes of content and metadata that came from here.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Counts bytes that came.
    pub fn count(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// It gave what was asked for, and that was good.
    pub fn note_good(&self, bytes: u64, took: Duration) {
        lock(&self.health).gave(bytes, took, Instant::now());
    }

    /// It gave nothing, or nothing good.
    pub fn note_failure(&self, error: &Error) {
        // What is not there yet, or no longer, says nothing about the point.
        let says_nothing = matches!(
            error,
            Error::Missing { .. } | Error::Sink { .. } | Error::Budget { .. } | Error::Key { .. }
        );
        if !says_nothing {
            lock(&self.health).failed(Instant::now(), chance());
        }
        let mut trouble = lock(&self.trouble);
        match error {
            Error::Sink { .. } | Error::Budget { .. } => return,
            Error::Wrong { .. } | Error::Long { .. } => trouble.wrong += 1,
            _ => trouble.failed += 1,
        }
        trouble.detail = crate::chain(error);
        if matches!(error, Error::Wrong { .. } | Error::Long { .. }) {
            tracing::warn!(point = self.name, reason = trouble.detail, "gave something wrong");
        }
    }

    fn report(&self) -> PointReport {
        let trouble = lock(&self.trouble);
        PointReport {
            point: self.name.clone(),
            requests: self.requests.load(Ordering::Relaxed),
            received_bytes: self.received(),
            failed: trouble.failed,
            wrong: trouble.wrong,
            detail: trouble.detail.clone(),
        }
    }
}

impl std::fmt::Debug for Point {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Point").field("name", &self.name).field("base", &self.base).finish()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All points of one tree, for one run.
#[derive(Debug, Default)]
pub struct Points(Vec<Point>);

impl Points {
    /// Points in the order that the admin gave.
    pub fn new(points: Vec<Point>) -> Self {
        Self(points)
    }

    /// Whether there is none: the publisher has not announced where it is.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The points in the order in which to ask them now.
    pub fn in_order(&self) -> impl Iterator<Item = &Point> {
        let healths: Vec<Health> = self.0.iter().map(Point::health).collect();
        order(&healths, Instant::now()).into_iter().map(|number| &self.0[number])
    }

    /// [`Points::in_order`], together.
    pub fn all_in_order(&self) -> Vec<&Point> {
        self.in_order().collect()
    }

    /// All of them, in the admin's order.
    pub fn iter(&self) -> impl Iterator<Item = &Point> {
        self.0.iter()
    }

    /// The one with that name.
    pub fn named(&self, name: &str) -> Option<&Point> {
        self.0.iter().find(|point| point.name == name)
    }

    /// Bytes that came from each, for what came since ([`Points::since`]).
    pub fn mark(&self) -> Vec<u64> {
        self.0.iter().map(Point::received).collect()
    }

    /// Has some bytes of a point count as what came before the mark, or after it if there are less than
    /// none.
    pub fn shift(&self, mark: &mut [u64], point: &str, bytes: i64) {
        let marked = self.0.iter().zip(mark).filter(|(known, _)| known.name == point);
        marked.for_each(|(_, at)| *at = at.saturating_add_signed(bytes));
    }

    /// Names with the bytes that came since the mark, those that gave none left out.
    pub fn since<'a>(&'a self, mark: &'a [u64]) -> impl Iterator<Item = (&'a str, u64)> {
        let came =
            self.0.iter().zip(mark).map(|(point, before)| {
                (point.name.as_str(), point.received().saturating_sub(*before))
            });
        came.filter(|(_, bytes)| *bytes > 0)
    }

    /// Those that have whole content, in the order in which to ask them now.
    pub fn with_content(&self) -> impl Iterator<Item = &Point> {
        self.in_order().filter(|point| point.is_member())
    }

    /// Only those that are known by their certificates.
    pub fn only_members(self) -> Self {
        Self(self.0.into_iter().filter(Point::is_member).collect())
    }

    /// The publisher itself.
    pub fn origin(&self) -> Option<&Point> {
        self.named(ORIGIN)
    }

    /// What each of them did; those that were not asked are left out.
    pub fn reports(&self) -> Vec<PointReport> {
        self.0.iter().map(Point::report).filter(|report| report.requests > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(events: &[(u64, Duration)], now: Instant) -> Health {
        let mut health = Health::default();
        events.iter().for_each(|(bytes, took)| health.gave(*bytes, *took, now));
        health
    }

    #[test]
    fn the_admins_order_holds_while_nothing_speaks_against_it() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        assert_eq!(order(&[], now), [0; 0]);
        assert_eq!(order(&[Health::default(); 3], now), [0, 1, 2]);
        let [slow, fast] = [1 << 20, 7 << 20].map(|bytes| seen(&[(bytes, second)], now));
        assert_eq!(order(&[slow, fast], now), [0, 1], "somewhat slower is not much slower");
        let tiny = seen(&[(1_000, second)], now);
        assert_eq!(order(&[tiny, fast], now), [0, 1], "a small thing measures nothing");
    }

    #[test]
    fn a_point_rests_longer_with_every_failure_and_is_back_with_its_first_success() {
        let now = Instant::now();
        let mut health = Health::default();
        let mut rests = Vec::new();
        for _ in 0..10 {
            health.failed(now, 0.0);
            rests.push(health.rests_until.unwrap().duration_since(now).as_secs());
            assert_eq!(order(&[health, Health::default()], now), [1, 0]);
        }
        assert_eq!(rests[..4], [5, 10, 20, 40]);
        assert_eq!(rests[9], 600);
        let later = now + LONGEST_REST;
        assert_eq!(order(&[health, Health::default()], later), [0, 1], "it is tried again");
        health.gave(1, Duration::from_millis(1), now);
        assert_eq!(order(&[health, Health::default()], now), [0, 1]);
    }

    #[test]
    fn a_much_slower_point_comes_behind_until_that_is_forgotten() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let slow = seen(&[(300 << 10, second)], now);
        let fast = seen(&[(30 << 20, second)], now);
        assert_eq!(order(&[slow, Health::default(), fast], now), [1, 2, 0]);
        let mut resting = fast;
        resting.failed(now, 0.0);
        assert_eq!(order(&[slow, resting], now), [0, 1], "what rests is no yardstick");
        assert_eq!(order(&[slow, fast], now + RATE_COUNTS), [0, 1]);
    }
}
