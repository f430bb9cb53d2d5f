//! Fetching for others what this agent does not hold, from where it fetches itself.

use std::{io, ops::Range, sync::Arc};

use protocol::{
    name::TreeName,
    v1::agent::{AssignmentOrder, Origin, PublisherOrigin},
};

use super::cache::Fetch;
use crate::{
    agent::Agent,
    fetch::{
        points::Points,
        ranges::{Ask, Error},
        retries::get_accepted,
    },
    published,
};

/// This agent's order for a tree that it may pass on, and where the tree comes from.
pub(super) fn order_of(
    agent: &Agent,
    tree: &TreeName,
) -> Option<(AssignmentOrder, PublisherOrigin)> {
    let orders = agent.orders()?;
    let mut held = orders.wanted.assignments.iter().filter(|order| order.stopped.is_none());
    held.find_map(|order| match &order.origin {
        Origin::Publisher(from) if order.name.tree == *tree => Some((order.clone(), from.clone())),
        _ => None,
    })
}

/// One object of a tree, wherever this agent gets such things.
pub(super) struct Through {
    points: Points,
    agent: Arc<Agent>,
    path: String,
    length: u64,
}

impl Through {
    /// Asks how long the object is. `only_members` leaves out whoever is not known by a certificate of
    /// the network: for what is not named by its bytes.
    pub(super) async fn find(
        agent: &Arc<Agent>,
        (tree, from): (&TreeName, &PublisherOrigin),
        path: String,
        only_members: bool,
    ) -> Result<Self, Error> {
        let mut through = Self::known(agent, (tree, from), path, only_members, 0)?;
        through.length = length(agent, &through.points, &through.path).await?;
        Ok(through)
    }

    /// The same for an object of which it is known how long it is.
    pub(super) fn known(
        agent: &Arc<Agent>,
        (tree, from): (&TreeName, &PublisherOrigin),
        path: String,
        only_members: bool,
        length: u64,
    ) -> Result<Self, Error> {
        let unreachable = |_| Error::Missing { url: path.clone() };
        let left_out = |why| tracing::debug!(why, "a point is left out");
        let mut points = published::points(agent, tree, from, left_out).map_err(unreachable)?;
        // At other points of a private tree everything has other names and lengths.
        if only_members || from.private {
            points = points.only_members();
        }
        Ok(Self { points, agent: Arc::clone(agent), path, length })
    }

    /// How long the object is, in bytes.
    pub(super) fn length(&self) -> u64 {
        self.length
    }
}

impl Fetch for Through {
    async fn fetch(&self, range: Range<u64>) -> io::Result<Vec<u8>> {
        let wanted = range.end - range.start;
        let ask = Ask { total: Some(self.length), ..Ask::part(self.path.clone(), range) };
        let accept = |bytes: Vec<u8>| {
            if bytes.len() as u64 == wanted { Ok(bytes) } else { Err("it is shorter than it was") }
        };
        let fetched =
            get_accepted(self.points.all_in_order(), &ask, self.agent.patience, accept).await;
        fetched.map(|(bytes, _)| bytes).map_err(io::Error::other)
    }
}

/// Asks point after point how long something is.
async fn length(agent: &Agent, points: &Points, path: &str) -> Result<u64, Error> {
    let mut last = Error::Missing { url: path.to_owned() };
    for point in points.in_order() {
        let url = format!("{}{path}", point.base);
        let asking = point.client().head(&url).header("accept-encoding", "identity").send();
        last = match tokio::time::timeout(agent.patience.silence, asking).await {
            Err(_) => Error::Slow { url, received: 0, seconds: agent.patience.silence.as_secs() },
            Ok(Err(source)) => Error::Transport { url, source },
            Ok(Ok(answer)) => {
                let length = answer.headers().get("content-length");
                let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
                match (answer.status().as_u16(), length) {
                    (200, Some(length)) => return Ok(length),
                    (200, None) => Error::Wrong { url, what: "it does not say how long it is" },
                    (404 | 410, _) => Error::Missing { url },
                    (status @ (401 | 403), _) => Error::Refused { url, status },
                    (status, _) => Error::Status { url, status },
                }
            }
        };
        point.note_failure(&last);
    }
    Err(last)
}
