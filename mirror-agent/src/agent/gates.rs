//! What keeps a run that is due from beginning: a server that is down, a budget that is used up.

use jiff::tz::TimeZone;
use protocol::{
    schedule,
    v1::agent::{AssignmentOrder, Origin, RsyncdOrigin},
};

use super::Agent;
use crate::{
    breaker::Breaker,
    fetch::retries,
    observed::ranked::{server, servers},
    orders::Orders,
};

impl Agent {
    /// Whether a run that is due may begin now. What an admin asks for begins in any case.
    pub(super) fn lets_through(&self, order: &AssignmentOrder) -> bool {
        if self.line.check().is_err() {
            return false;
        }
        if matches!(order.origin, Origin::Publisher(_)) {
            return true;
        }
        let mut state = self.lock();
        let now = certs::clock::now();
        let mut lets = |from| state.breakers.entry(server(from)).or_default().lets_through(now);
        servers(order).any(|from| lets(from))
    }

    /// Whether a server is not left alone at present.
    pub(crate) fn is_let_through(&self, from: &RsyncdOrigin) -> bool {
        let open_until = self.lock().breakers.get(&server(from)).and_then(Breaker::open_until);
        open_until.is_none_or(|until| until <= certs::clock::now())
    }

    /// A stock server was asked.
    pub(crate) fn note_reached(&self, from: &RsyncdOrigin, reached: bool) {
        let server = server(from);
        let mut state = self.lock();
        let breaker = state.breakers.entry(server.clone()).or_default();
        let before = breaker.open_until();
        breaker.note(reached, certs::clock::now(), retries::chance());
        match (before, breaker.open_until()) {
            (None, Some(until)) => {
                tracing::warn!(%server, %until, "the server cannot be reached; all its trees wait");
            }
            (Some(_), None) => tracing::info!(%server, "the server answers again"),
            _ => {}
        }
    }

    /// A run that was let through has ended, whether or not it came so far as to ask a server.
    pub(super) fn end_probes(&self, order: &AssignmentOrder) {
        let mut state = self.lock();
        for server in servers(order).map(server) {
            if let Some(breaker) = state.breakers.get_mut(&server) {
                breaker.forget_probe();
            }
        }
    }

    /// Writes down what came over the site's line.
    pub(crate) fn save_account(&self) {
        if let Some(account) = self.line.unsaved()
            && let Err(error) = self.ledger.set_account(&account)
        {
            tracing::error!(
                error = crate::chain(&error),
                "what came in this month is not recorded"
            );
        }
    }
}

/// The zone of the site's schedules.
pub(super) fn zone(orders: Option<&Orders>) -> TimeZone {
    schedule::zone(orders.and_then(|orders| orders.wanted.timezone.as_deref()))
}
