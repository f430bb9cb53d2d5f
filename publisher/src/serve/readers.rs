//! Who may read what.

use std::{collections::BTreeSet, sync::Arc};

use certs::{
    identity::{PeerIdentity, Serial},
    tls::ConnectionRegistry,
};
use jiff::{SignedDuration, Timestamp};
use protocol::{
    error::{Problem, ProblemKind},
    name::TreeName,
    role::Role,
    units::Span,
};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::{orders::Orders, state::State};

/// Trees that a peer may read.
///
/// # Errors
/// What to answer to a peer that may not read anything.
pub(crate) fn trees_of(
    orders: Option<&Orders>,
    peer: &PeerIdentity,
    now: Timestamp,
    max_age: Span,
) -> Result<BTreeSet<TreeName>, Problem> {
    if peer.role != Role::Agent {
        return Err(ProblemKind::Forbidden
            .with(format!("a publisher serves agents; this certificate is of the {peer}")));
    }
    let orders = check_age(orders, now, max_age)?;
    let serial = peer.serial.to_string();
    let reader = orders
        .orders
        .readers
        .iter()
        .find(|reader| reader.serial == serial && reader.identity == peer.name);
    match reader {
        Some(reader) => Ok(reader.trees.iter().cloned().collect()),
        None => Err(ProblemKind::Forbidden.with(format!(
            "the coordinator does not name the certificate {serial} of {peer} among the readers: \
             it was revoked or replaced, or its site has no live grant"
        ))),
    }
}

/// The orders, if they are not too old to know who may still read.
pub(super) fn check_age(
    orders: Option<&Orders>,
    now: Timestamp,
    max_age: Span,
) -> Result<&Orders, Problem> {
    let Some(orders) = orders else {
        return Err(ProblemKind::Unavailable.with(
            "this publisher has not heard from its coordinator yet, so it knows no readers",
        ));
    };
    let max_age = SignedDuration::try_from(max_age.duration()).unwrap_or(SignedDuration::MAX);
    let age = now.duration_since(orders.confirmed);
    if age > max_age {
        return Err(ProblemKind::Unavailable.with(format!(
            "this publisher last heard from its coordinator at {}, which is too long ago to know \
             who may still read",
            orders.confirmed
        )));
    }
    Ok(orders)
}

impl State {
    /// Trees that a peer may read at this moment.
    pub(crate) fn readable(&self, peer: &PeerIdentity) -> Result<BTreeSet<TreeName>, Problem> {
        let orders = self.orders.follow().borrow().clone();
        trees_of(orders.as_deref(), peer, self.now(), self.config.readers_max_age)
    }

    /// The same; of a certificate that no order names the coordinator is asked first. It may have been
    /// made a moment ago, and the news of it be late because the coordinator was just restarted.
    pub(crate) async fn readable_now(
        &self,
        peer: &PeerIdentity,
    ) -> Result<BTreeSet<TreeName>, Problem> {
        match self.readable(peer) {
            Err(refused) if refused.kind == ProblemKind::Forbidden && peer.role == Role::Agent => {
                self.orders.ask_anew().await;
                self.readable(peer)
            }
            known => known,
        }
    }
}

/// Closes the open connections of certificates that are no longer readers, or read less than
/// before: a session that is under way ends with the right to it.
pub(crate) async fn close_lost(
    state: Arc<State>,
    registry: Arc<ConnectionRegistry>,
    shutdown: CancellationToken,
) {
    let mut following = state.orders.follow();
    let mut before = None;
    loop {
        let now = following.borrow_and_update().clone();
        if let Some(orders) = &now {
            for serial in lost(before.as_deref(), orders) {
                let closed = registry.close(&serial);
                info!(%serial, closed, "reads less than before; its connections are closed");
            }
            before = now;
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            changed = following.changed() => if changed.is_err() { return },
        }
    }
}

fn lost(before: Option<&Orders>, now: &Orders) -> Vec<Serial> {
    let trees = |orders: &Orders, serial: &str| -> BTreeSet<TreeName> {
        let named = orders.orders.readers.iter().filter(|reader| reader.serial == serial);
        named.flat_map(|reader| reader.trees.iter().cloned()).collect()
    };
    let readers = before.map(|before| before.orders.readers.iter()).into_iter().flatten();
    readers
        .filter(|reader| {
            let still = trees(now, &reader.serial);
            reader.trees.iter().any(|tree| !still.contains(tree))
        })
        .filter_map(|reader| reader.serial.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use protocol::{
        generation::{RestoreEpoch, Revision},
        v1::publisher::{PublisherOrders, Reader},
    };

    use super::*;

    fn orders(readers: &[(&str, &str, &[&str])]) -> Orders {
        let reader = |&(serial, name, trees): &(&str, &str, &[&str])| Reader {
            serial: serial.into(),
            identity: name.parse().unwrap(),
            site: "lisbon".parse().unwrap(),
            trees: trees.iter().map(|tree| tree.parse().unwrap()).collect(),
        };
        Orders {
            orders: PublisherOrders {
                revision: Revision(1),
                restore_epoch: RestoreEpoch(0),
                upstreams: vec![],
                trees: vec![],
                readers: readers.iter().map(reader).collect(),
            },
            confirmed: Timestamp::UNIX_EPOCH,
        }
    }

    fn peer(role: Role, name: &str, serial: &str) -> PeerIdentity {
        PeerIdentity {
            network: "net".parse().unwrap(),
            role,
            name: name.parse().unwrap(),
            serial: serial.parse().unwrap(),
            not_before: Timestamp::UNIX_EPOCH,
            not_after: Timestamp::MAX,
        }
    }

    #[test]
    fn only_a_named_certificate_reads_and_only_its_trees() {
        let orders = orders(&[("5a", "a", &["one", "two"]), ("5b", "b", &[])]);
        let day = Span::from_secs(86_400);
        let ask = |role, name, serial, hours| {
            let now = Timestamp::UNIX_EPOCH + SignedDuration::from_hours(hours);
            trees_of(Some(&orders), &peer(role, name, serial), now, day)
                .map(|trees| trees.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
                .map_err(|problem| problem.status)
        };
        assert_eq!(ask(Role::Agent, "a", "5a", 1), Ok("one two".into()));
        assert_eq!(ask(Role::Agent, "b", "5b", 1), Ok(String::new()));
        assert_eq!(ask(Role::Agent, "a", "5c", 1), Err(403), "a serial that nobody named");
        assert_eq!(ask(Role::Agent, "b", "5a", 1), Err(403), "a serial of another identity");
        assert_eq!(ask(Role::Admin, "a", "5a", 1), Err(403));
        assert_eq!(ask(Role::Agent, "a", "5a", 25), Err(503), "the coordinator is silent too long");
        let nobody = trees_of(None, &peer(Role::Agent, "a", "5a"), Timestamp::UNIX_EPOCH, day);
        assert_eq!(nobody.unwrap_err().status, 503);
    }

    #[test]
    fn connections_are_closed_when_a_reader_reads_less_and_not_when_it_reads_more() {
        let before = orders(&[("5a", "a", &["one"]), ("5b", "b", &["one"]), ("5c", "c", &["one"])]);
        let now = orders(&[("5a", "a", &["one", "two"]), ("5c", "c", &[])]);
        let closed: Vec<String> =
            lost(Some(&before), &now).iter().map(ToString::to_string).collect();
        assert_eq!(closed, ["5b", "5c"]);
        assert!(lost(None, &now).is_empty());
    }
}
