//! Which orders are believed.
//!
//! A coordinator that was broken into, or an old copy of one, can say anything. What it says is
//! obeyed only as far as it is signed by whom it must be: the head by the key that was pinned at
//! enrollment, the content of each tree by its publisher; and only forward, never back. A head
//! that has expired makes a tree stale: what was planned is finished, nothing new is begun, and
//! the mirror goes on serving.

use certs::signing::{self, VerifyingKey};
use jiff::Timestamp;
use protocol::{
    digest::Digest,
    dsse::Envelope,
    generation::Version,
    name::{IdentityName, NetworkName, TreeName},
    pack::JOINED_GAP_BYTES,
    spec::AssignmentName,
    statement::{Claim, Head, Offer, Statement},
    v1::agent::{AgentOrders, AssignmentOrder, Origin, Target},
};

use crate::ledger::{GoesBack, Marks};

/// Most assignments of one agent.
const MAX_ASSIGNMENTS: usize = 10_000;
/// Most offers of one assignment that are looked at.
const MAX_OFFERS: usize = 256;

/// Who must have signed what.
#[derive(Debug, Clone)]
pub struct Trust {
    /// The network that was joined.
    pub network: NetworkName,
    /// Who we are in it.
    pub agent: IdentityName,
    /// The key that heads are checked with, pinned at enrollment.
    pub head_key: VerifyingKey,
}

/// Orders whose head and numbers were verified.
#[derive(Debug, Clone)]
pub struct Orders {
    /// The orders themselves.
    pub wanted: AgentOrders,
    /// The verified head.
    pub head: Head,
}

/// A target whose statement and offers were verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// What the publisher states.
    pub statement: Statement,
    /// What leads there.
    pub offers: Vec<Offer>,
}

/// Why orders, or the target of an assignment, are not believed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The head is not signed by the pinned key.
    #[error(
        "the coordinator's head is not signed by the key that was pinned at enrollment; nothing is changed"
    )]
    Head(#[source] signing::Error),
    /// The head of another network.
    #[error("the coordinator's head is of network {found}, but this agent joined {wanted}")]
    Network {
        /// Named in the head.
        found: NetworkName,
        /// Joined.
        wanted: NetworkName,
    },
    /// Orders for someone else.
    #[error("the coordinator's orders are for agent {found}, but this is {wanted}")]
    Agent {
        /// Named in the orders.
        found: IdentityName,
        /// Who we are.
        wanted: IdentityName,
    },
    /// Older than what was believed before.
    #[error(transparent)]
    GoesBack(#[from] GoesBack),
    /// More than any site has.
    #[error("the coordinator's orders name more than {MAX_ASSIGNMENTS} assignments")]
    TooMany,
    /// Nobody is known to sign for the tree.
    #[error("tree {tree}: its publisher has registered no signing key yet")]
    NoKey {
        /// Which tree.
        tree: TreeName,
    },
    /// The statement is not the publisher's.
    #[error(
        "tree {tree}: the statement of its generation is not signed by publisher {publisher}; nothing is changed"
    )]
    Statement {
        /// Which tree.
        tree: TreeName,
        /// Who should have signed.
        publisher: IdentityName,
        /// What is wrong.
        source: signing::Error,
    },
    /// The statement is not the one that the head names.
    #[error(
        "tree {tree}: the orders carry another statement than the signed head names; nothing is changed"
    )]
    NotTheHeads {
        /// Which tree.
        tree: TreeName,
    },
    /// The head says nothing about a tree of the orders.
    #[error("tree {tree}: the signed head does not name it; nothing is changed")]
    NotInHead {
        /// Which tree.
        tree: TreeName,
    },
}

impl Orders {
    /// Verifies orders and raises the marks, which must be stored before the orders are followed.
    ///
    /// Whether the head has expired is not asked here: see [`Orders::is_stale`].
    pub fn verify(wanted: AgentOrders, trust: &Trust, marks: &mut Marks) -> Result<Self, Error> {
        if wanted.agent != trust.agent {
            return Err(Error::Agent { found: wanted.agent, wanted: trust.agent.clone() });
        }
        if wanted.assignments.len() > MAX_ASSIGNMENTS {
            return Err(Error::TooMany);
        }
        let head: Head = open(&wanted.head, trust.head_key).map_err(Error::Head)?;
        if head.network != trust.network {
            return Err(Error::Network { found: head.network, wanted: trust.network.clone() });
        }
        let mut raised = marks.clone();
        raised.raise_revision(head.restore_epoch, head.revision)?;
        *marks = raised;
        Ok(Self { wanted, head })
    }

    /// Whether the head has expired: nothing new is begun on its word.
    pub fn is_stale(&self, now: Timestamp) -> bool {
        self.head.expires <= now
    }

    /// The order for one assignment.
    pub fn order(&self, name: &AssignmentName) -> Option<&AssignmentOrder> {
        self.wanted.assignments.iter().find(|order| order.name == *name)
    }

    /// Verifies the target of one assignment and raises its tree's mark, which must be stored
    /// before the target is followed. `None` while there is no generation yet.
    pub fn target(
        &self,
        order: &AssignmentOrder,
        marks: &mut Marks,
    ) -> Result<Option<Verified>, Error> {
        let (Some(target), Origin::Publisher(origin)) = (&order.target, &order.origin) else {
            return Ok(None);
        };
        let tree = &order.name.tree;
        let named =
            self.head.trees.get(tree).ok_or_else(|| Error::NotInHead { tree: tree.clone() })?;
        let key = origin.key.ok_or_else(|| Error::NoKey { tree: tree.clone() })?;
        let statement = open_statement(target, tree, &origin.publisher, key)?;
        let version = Version { epoch: statement.epoch, generation: statement.generation };
        if named.statement != target.statement.payload_digest()
            || named.version != version
            || named.manifest != statement.manifest
            || statement.tree != *tree
        {
            return Err(Error::NotTheHeads { tree: tree.clone() });
        }
        marks.raise_tree(tree, version, statement.manifest)?;
        let offers = target.offers.iter().take(MAX_OFFERS);
        // A bad offer costs a way, not the target: there are others.
        let offers = offers.filter_map(|offer| open_offer(offer, tree, key)).collect();
        Ok(Some(Verified { statement, offers }))
    }
}

impl Verified {
    /// The generation.
    pub fn version(&self) -> Version {
        Version { epoch: self.statement.epoch, generation: self.statement.generation }
    }

    /// The chain of packs that leads from a held manifest (or from nothing) to the target and is
    /// expected to cost least, requests counted; empty when none leads there.
    ///
    /// `share` is the part of the tree, from 0 to 1, that the site keeps. What exactly it draws
    /// from a pack only the index tells, and fetching the indexes of packs that are not used would
    /// cost what the choice can save.
    pub fn chain(&self, from: Option<Digest>, share: f64) -> Vec<&Offer> {
        let chain = self.cheapest(from, share);
        if !chain.is_empty() || from.is_none() || from == Some(self.statement.manifest) {
            return chain;
        }
        // What is held helps nobody here, but the files that changed can be drawn from a pack of
        // everything. Its index names every file: not worth it for a tree of small ones.
        let chain = self.cheapest(None, share);
        let index: u64 = chain.iter().map(|offer| offer.index_length).sum();
        if index > self.statement.bytes / WHOLE_INDEX_SHARE { Vec::new() } else { chain }
    }

    fn cheapest(&self, from: Option<Digest>, share: f64) -> Vec<&Offer> {
        // A few dozen offers at most: relax every edge as often as a chain may be long.
        let mut best: std::collections::HashMap<Option<Digest>, (u64, Vec<&Offer>)> =
            std::collections::HashMap::from([(from, (0, Vec::new()))]);
        for _ in 0..MAX_CHAIN {
            let known = best.clone();
            for offer in &self.offers {
                if let Some((cost, path)) = known.get(&offer.from) {
                    let cost = cost.saturating_add(expected_bytes(offer, share));
                    let to = Some(offer.to);
                    if best.get(&to).is_none_or(|(other, _)| cost < *other) {
                        let mut path = path.clone();
                        path.push(offer);
                        best.insert(to, (cost, path));
                    }
                }
            }
        }
        best.remove(&Some(self.statement.manifest)).map(|(_, path)| path).unwrap_or_default()
    }
}

/// Index, expected part of the frames, and what asking for both costs.
fn expected_bytes(offer: &Offer, share: f64) -> u64 {
    const REQUESTS: u64 = 2;
    let frames = offer.length.saturating_sub(offer.index_length);
    let drawn = (frames as f64 * share.clamp(0.0, 1.0)) as u64;
    offer.index_length.saturating_add(drawn).saturating_add(REQUESTS * JOINED_GAP_BYTES)
}

/// A pack from nothing is used by whoever holds something if its index is not more than this part
/// of the tree's content.
const WHOLE_INDEX_SHARE: u64 = 50;

/// Most packs that are applied one after the other.
const MAX_CHAIN: usize = 8;

fn open<T: Claim>(envelope: &Envelope, key: VerifyingKey) -> Result<T, signing::Error> {
    signing::verify(envelope, T::PAYLOAD_TYPE, &[key], T::MAX_LEN).map(|verified| verified.content)
}

fn open_statement(
    target: &Target,
    tree: &TreeName,
    publisher: &IdentityName,
    key: VerifyingKey,
) -> Result<Statement, Error> {
    open(&target.statement, key).map_err(|source| Error::Statement {
        tree: tree.clone(),
        publisher: publisher.clone(),
        source,
    })
}

fn open_offer(envelope: &Envelope, tree: &TreeName, key: VerifyingKey) -> Option<Offer> {
    match open::<Offer>(envelope, key) {
        Ok(offer) if offer.tree == *tree && offer.encryption.is_none() => Some(offer),
        Ok(_) => None,
        Err(error) => {
            tracing::warn!(%tree, %error, "an offer is not the publisher's; it is not used");
            None
        }
    }
}

#[cfg(test)]
mod tests;
