//! Who may read what through this relay.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use certs::{
    clock,
    identity::{PeerIdentity, Serial},
    tls::ConnectionRegistry,
};
use jiff::{SignedDuration, Timestamp};
use protocol::{
    error::{Problem, ProblemKind},
    name::TreeName,
    role::Role,
    units::Span,
    v1::publisher::Reader,
};
use tokio_util::sync::CancellationToken;

use crate::agent::Agent;

/// How long who is not named yet waits for orders that name it: a renewed certificate, or a new grant,
/// may be used before this agent has heard of it.
const GRACE: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(100);

/// What this agent was told about those whom it serves, and when the coordinator last stood by it.
struct Known<'a> {
    readers: &'a [Reader],
    heard: Option<Timestamp>,
}

/// Trees that a peer may read.
fn trees_of(
    known: &Known<'_>,
    peer: &PeerIdentity,
    now: Timestamp,
    max_age: Span,
) -> Result<BTreeSet<TreeName>, Problem> {
    if peer.role != Role::Agent {
        return Err(ProblemKind::Forbidden
            .with(format!("a relay serves agents; this certificate is of the {peer}")));
    }
    let max_age = SignedDuration::try_from(max_age.duration()).unwrap_or(SignedDuration::MAX);
    if known.heard.is_none_or(|heard| now.duration_since(heard) > max_age) {
        return Err(ProblemKind::Unavailable.with(
            "this relay has not heard from its coordinator for too long to know who may still read",
        ));
    }
    let serial = peer.serial.to_string();
    let mut named = known.readers.iter();
    match named.find(|reader| reader.serial == serial && reader.identity == peer.name) {
        Some(reader) => Ok(reader.trees.iter().cloned().collect()),
        None => Err(ProblemKind::Forbidden.with(format!(
            "the coordinator does not name the certificate {serial} of {peer} among those whom this \
             relay serves: it was revoked or replaced, its site has no live grant, or another relay"
        ))),
    }
}

/// Makes sure that a peer may read a tree at this moment.
///
/// # Errors
/// What to answer to a peer that may not.
pub(super) async fn check(
    agent: &Agent,
    peer: &PeerIdentity,
    tree: &TreeName,
) -> Result<(), Problem> {
    let until = tokio::time::Instant::now() + GRACE;
    loop {
        match check_now(agent, peer, tree) {
            Err(problem)
                if problem.kind == ProblemKind::Forbidden
                    && peer.role == Role::Agent
                    && tokio::time::Instant::now() < until =>
            {
                tokio::time::sleep(LOOK).await;
            }
            checked => return checked,
        }
    }
}

/// The same as it stands now: for what is under way already.
pub(super) fn check_now(
    agent: &Agent,
    peer: &PeerIdentity,
    tree: &TreeName,
) -> Result<(), Problem> {
    let orders = agent.orders();
    let readers = orders.as_ref().map_or(&[][..], |orders| &orders.wanted.readers);
    let known = Known { readers, heard: agent.heard() };
    let trees = trees_of(&known, peer, clock::now(), agent.config.relay.readers_max_age)?;
    if trees.contains(tree) {
        return Ok(());
    }
    Err(ProblemKind::Forbidden.with(format!(
        "{peer} may not read {tree} here: its site, or that of this relay, has no live grant for it, or \
         no assignment"
    )))
}

/// Closes the open connections of certificates that are no longer served, or with less than before.
pub(super) async fn close_lost(
    agent: Arc<Agent>,
    registry: Arc<ConnectionRegistry>,
    shutdown: CancellationToken,
) {
    let mut before: Option<Arc<crate::orders::Orders>> = None;
    loop {
        let now = agent.orders();
        if let Some(now) = now
            && before.as_ref().is_none_or(|before| !Arc::ptr_eq(before, &now))
        {
            let earlier = before.as_ref().map_or(&[][..], |before| &before.wanted.readers);
            for serial in lost(earlier, &now.wanted.readers) {
                let closed = registry.close(&serial);
                tracing::info!(%serial, closed, "reads less than before; its connections are closed");
            }
            before = Some(now);
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(LOOK * 5) => {}
        }
    }
}

fn lost(before: &[Reader], now: &[Reader]) -> Vec<Serial> {
    let still = |reader: &Reader| -> BTreeSet<&TreeName> {
        let named = now.iter().filter(|other| other.serial == reader.serial);
        named.flat_map(|other| &other.trees).collect()
    };
    let lost = before.iter().filter(|reader| {
        let still = still(reader);
        reader.trees.iter().any(|tree| !still.contains(tree))
    });
    lost.filter_map(|reader| reader.serial.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(serial: &str, name: &str, trees: &[&str]) -> Reader {
        Reader {
            serial: serial.into(),
            identity: name.parse().unwrap(),
            site: "porto".parse().unwrap(),
            trees: trees.iter().map(|tree| tree.parse().unwrap()).collect(),
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
    fn a_relay_serves_named_certificates_with_their_trees_while_the_coordinator_is_heard() {
        let readers = [reader("5a", "a", &["one", "two"]), reader("5b", "b", &[])];
        let ask = |role, name, serial, heard: Option<i64>| {
            let heard = heard.map(|hours| Timestamp::from_second(hours * 3_600).unwrap());
            let known = Known { readers: &readers, heard };
            let now = Timestamp::from_second(100 * 3_600).unwrap();
            trees_of(&known, &peer(role, name, serial), now, Span::from_secs(86_400))
                .map(|trees| trees.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
                .map_err(|problem| problem.status)
        };
        assert_eq!(ask(Role::Agent, "a", "5a", Some(99)), Ok("one two".into()));
        assert_eq!(ask(Role::Agent, "b", "5b", Some(99)), Ok(String::new()));
        assert_eq!(ask(Role::Agent, "a", "5c", Some(99)), Err(403), "a serial that nobody named");
        assert_eq!(ask(Role::Agent, "b", "5a", Some(99)), Err(403), "a serial of another");
        assert_eq!(ask(Role::Publisher, "a", "5a", Some(99)), Err(403));
        assert_eq!(ask(Role::Agent, "a", "5a", Some(75)), Err(503), "silent for too long");
        assert_eq!(ask(Role::Agent, "a", "5a", None), Err(503), "never heard");
    }

    #[test]
    fn connections_end_when_their_certificate_reads_less() {
        let before = [reader("5a", "a", &["one"]), reader("5b", "b", &["one"])];
        let now = [reader("5a", "a", &["one", "two"])];
        let closed: Vec<_> = lost(&before, &now).iter().map(ToString::to_string).collect();
        assert_eq!(closed, ["5b"]);
        assert!(lost(&[], &now).is_empty());
    }
}
