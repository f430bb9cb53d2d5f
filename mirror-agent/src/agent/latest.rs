//! Trees that go on by themselves: what the publication points call the newest, while no valid head
//! of the coordinator can be had.
//!
//! Asked for only then, at most once in the tree's interval, and bounded like everything that comes
//! from a point. What is found is kept unbelieved: [`Orders::found`] decides each time anew.

use jiff::{SignedDuration, Timestamp};
use protocol::{
    latest::Pointer,
    spec::AssignmentName,
    v1::agent::{AssignmentOrder, Origin, PublisherOrigin},
};

use super::Agent;
use crate::{
    fetch::pointer,
    ledger,
    orders::{Found, Orders},
    published,
};

/// The points are not asked more often.
const SHORTEST: SignedDuration = SignedDuration::from_secs(1);

impl Agent {
    /// Looks at the points of an assignment whose tree goes on by itself, where it is time to.
    pub(super) async fn look_for_latest(&self, name: &AssignmentName) {
        let Some(orders) = self.orders() else { return };
        let Some(order) = orders.order(name) else { return };
        let now = certs::clock::now();
        let Origin::Publisher(from) = &order.origin else { return };
        if !orders.is_autonomous(order, now) || !self.may_look(order, now) {
            return;
        }
        let newest = self.newest_of_points(&orders, order, from).await;
        if let Err(error) = self.note_found(order, newest, now) {
            tracing::error!(assignment = %name, error = crate::chain(&error), "not recorded");
        }
    }

    fn may_look(&self, order: &AssignmentOrder, now: Timestamp) -> bool {
        let record = self.ledger.record(&order.name).ok().flatten();
        record.is_none_or(|record| record.look_again.is_none_or(|at| at <= now))
    }

    /// The newest that any point has and that would be believed.
    async fn newest_of_points(
        &self,
        orders: &Orders,
        order: &AssignmentOrder,
        from: &PublisherOrigin,
    ) -> Option<Found> {
        let points = published::points(self, &order.name.tree, from, |why| {
            tracing::debug!(why, "a point is left out");
        })
        .ok()?;
        let mut newest: Option<(protocol::generation::Version, Found)> = None;
        for point in points.in_order() {
            let found = match pointer::fetch(point, &order.name.tree, self.patience).await {
                Ok(Pointer { statement, offers }) => Found { statement, offers },
                Err(error) => {
                    let (point, error) = (&point.name, crate::chain(&error));
                    tracing::info!(assignment = %order.name, point, error, "no pointer from here");
                    continue;
                }
            };
            // On a copy of the marks: nothing is raised before it is followed.
            let judged = self
                .ledger
                .marks()
                .map(|mut marks| orders.found(order, &found, &mut marks, certs::clock::now()));
            match judged {
                Ok(Ok(Some(verified))) => {
                    let version = verified.version();
                    if newest.as_ref().is_none_or(|(other, _)| *other < version) {
                        newest = Some((version, found));
                    }
                }
                Ok(Ok(None)) => {}
                Ok(Err(error)) => {
                    let (point, error) = (&point.name, crate::chain(&error));
                    tracing::warn!(assignment = %order.name, point, error, "its pointer is refused");
                }
                Err(error) => tracing::error!(error = crate::chain(&error), "no marks"),
            }
        }
        newest.map(|(_, found)| found)
    }

    fn note_found(
        &self,
        order: &AssignmentOrder,
        found: Option<Found>,
        now: Timestamp,
    ) -> Result<(), ledger::Error> {
        let mut record = self.record_of(order)?;
        if found.is_some() {
            record.found = found;
        }
        let wait = SignedDuration::try_from(order.interval.duration()).unwrap_or(SHORTEST);
        record.look_again = now.checked_add(wait.max(SHORTEST)).ok();
        self.ledger.set_record(&record)
    }
}
