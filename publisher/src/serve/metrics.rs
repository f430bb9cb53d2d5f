//! What monitoring reads from a publisher.

use std::sync::atomic::{AtomicU64, Ordering};

use http::StatusCode;
use protocol::open_metrics::{Kind, Text};

use super::readers;
use crate::state::State;

/// Answers, counted.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    classes: [AtomicU64; 6],
    bytes: AtomicU64,
}

impl Metrics {
    /// Counts one answer with the length of its body.
    pub(super) fn count(&self, status: StatusCode, bytes: u64) {
        if let Some(class) = self.classes.get(usize::from(status.as_u16() / 100)) {
            class.fetch_add(1, Ordering::Relaxed);
        }
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Everything as OpenMetrics text.
    pub(super) fn render(&self, state: &State) -> String {
        let mut text = Text::default();
        text.family("mirrornet_requests", Kind::Counter, "Requests by class of status.");
        for (class, count) in self.classes.iter().enumerate().skip(1) {
            let class = format!("{class}xx");
            let count = count.load(Ordering::Relaxed);
            text.sample("mirrornet_requests_total", &[("class", &class)], count);
        }
        let help = "Bytes of the bodies that were answered, rsync apart.";
        text.family("mirrornet_answered_bytes", Kind::Counter, help);
        text.sample("mirrornet_answered_bytes_total", &[], self.bytes.load(Ordering::Relaxed));
        let identity = state.identity.current();
        let help = "When the certificate ends, in seconds since 1970.";
        text.gauge("mirrornet_certificate_end_seconds", help, identity.not_after.as_second());
        if let Some(orders) = state.orders.follow().borrow().clone() {
            let help = "When the coordinator was last heard, in seconds since 1970.";
            text.gauge("mirrornet_coordinator_heard_seconds", help, orders.confirmed.as_second());
            text.gauge("mirrornet_revision", "Number of the orders.", orders.orders.revision.0);
        }
        let silence = state.orders.silence();
        let help = "How long the coordinator has not answered, in seconds; 0 while it does.";
        let lasts = silence.map_or(0, |silence| silence.lasts.as_secs());
        text.gauge("mirrornet_coordinator_silent_seconds", help, lasts);
        let help = "Whether readers are served: the coordinator was heard recently enough.";
        text.gauge("mirrornet_ready", help, u8::from(is_ready(state).is_ok()));
        let trees = state.catalog.trees();
        text.family("mirrornet_generation", Kind::Gauge, "The newest generation that is served.");
        for (tree, served) in &trees {
            if let Some(newest) = served.generations.last() {
                let tree = tree.to_string();
                text.sample("mirrornet_generation", &[("tree", &tree)], newest.generation.0);
            }
        }
        text.family("mirrornet_kept_generations", Kind::Gauge, "Generations with content.");
        for (tree, served) in &trees {
            let (tree, kept) = (tree.to_string(), served.generations.len());
            text.sample("mirrornet_kept_generations", &[("tree", &tree)], kept);
        }
        let help = "Generations that points lead to and that the coordinator was not told of yet.";
        text.family("mirrornet_untold_generations", Kind::Gauge, help);
        for (tree, served) in &trees {
            let tree = tree.to_string();
            text.sample("mirrornet_untold_generations", &[("tree", &tree)], served.untold);
        }
        text.finish()
    }
}

/// Whether readers are served, or why not.
pub(super) fn is_ready(state: &State) -> Result<(), String> {
    let orders = state.orders.follow().borrow().clone();
    readers::check_age(orders.as_deref(), state.now(), state.config.readers_max_age)
        .map(drop)
        .map_err(|problem| problem.detail)
}
