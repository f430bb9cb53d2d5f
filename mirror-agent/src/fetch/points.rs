//! Publication points: where the same bytes can be had, in the order in which they are asked.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use protocol::client::HttpSource;

/// A point is asked last for the rest of the run once it has failed so often.
const MAX_FAILURES: usize = 3;

/// One place that has the trees' files.
pub struct Point {
    /// For reports: `origin`, or the base URL.
    pub name: String,
    /// `https://HOST[:PORT][/PATH]`, without a slash at the end.
    pub base: String,
    http: HttpSource,
    failures: AtomicUsize,
    received: AtomicU64,
}

impl Point {
    /// A point at `base`, reached by the clients of `http`.
    pub fn new(name: impl Into<String>, base: &str, http: HttpSource) -> Self {
        Self {
            name: name.into(),
            base: base.trim_end_matches('/').to_owned(),
            http,
            failures: AtomicUsize::new(0),
            received: AtomicU64::new(0),
        }
    }

    /// The client for the next request.
    pub fn client(&self) -> reqwest::Client {
        (self.http)()
    }

    /// Bytes of content and metadata that came from here.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Counts bytes that came.
    pub fn count(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Remembers that this point gave nothing, or nothing good.
    pub fn note_failure(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    fn is_tired(&self) -> bool {
        self.failures.load(Ordering::Relaxed) >= MAX_FAILURES
    }
}

impl std::fmt::Debug for Point {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Point").field("name", &self.name).field("base", &self.base).finish()
    }
}

/// All points of one tree.
#[derive(Debug, Default)]
pub struct Points(Vec<Point>);

impl Points {
    /// Points in the order of preference, the origin last.
    pub fn new(points: Vec<Point>) -> Self {
        Self(points)
    }

    /// Whether there is none: the publisher has not announced where it is.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The points to ask now: those that keep failing come last.
    pub fn in_order(&self) -> impl Iterator<Item = &Point> {
        let fresh = self.0.iter().filter(|point| !point.is_tired());
        fresh.chain(self.0.iter().filter(|point| point.is_tired()))
    }

    /// Bytes that came from all of them.
    pub fn received(&self) -> u64 {
        self.0.iter().map(Point::received).sum()
    }

    /// The publisher itself, which alone has whole content.
    pub fn origin(&self) -> Option<&Point> {
        self.0.iter().find(|point| point.name == ORIGIN)
    }
}

/// Name of the point that is the publisher itself.
pub const ORIGIN: &str = "origin";
