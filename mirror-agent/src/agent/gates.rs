//! What keeps a run that is due from beginning: a server that is down, a budget that is used up.

use jiff::tz::TimeZone;
use protocol::{
    schedule,
    v1::agent::{AssignmentOrder, Origin, RsyncdOrigin},
};

use super::Agent;
use crate::{fetch::retries, orders::Orders};

impl Agent {
    /// Whether a run that is due may begin now. What an admin asks for begins in any case.
    pub(super) fn lets_through(&self, order: &AssignmentOrder) -> bool {
        if self.line.check().is_err() {
            return false;
        }
        let Origin::Rsyncd(from) = &order.origin else { return true };
        let mut state = self.lock();
        state.breakers.entry(server(from)).or_default().lets_through(certs::clock::now())
    }

    /// A run for a stock server's tree ended.
    pub(super) fn note_reached(&self, order: &AssignmentOrder, reached: bool) {
        let Origin::Rsyncd(from) = &order.origin else { return };
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

fn server(from: &RsyncdOrigin) -> String {
    format!("{}:{}", from.host, from.port)
}
