//! Which orders are believed.
//!
//! A coordinator that was broken into, or an old copy of one, can say anything. What it says is
//! obeyed only as far as it is signed by whom it must be: the head by a key that the root names, the
//! content of each tree by its publisher, as the root names it; and only forward, never back. The
//! root was pinned at enrollment, and is followed only by the word of its own keys. A head
//! that has expired makes a tree stale: what was planned is finished, nothing new is begun, and
//! the mirror goes on serving. Only a tree that the last head called autonomous goes on by itself,
//! to newer statements of its publisher that no admin had to approve.

mod mandates;

use std::sync::Arc;

use certs::{
    private,
    root::TrustedRoot,
    signing::{self, VerifyingKey},
};
use jiff::Timestamp;
use protocol::{
    digest::Digest,
    dsse::Envelope,
    generation::{Epoch, Revision, RootNumber, Version},
    name::{IdentityName, NetworkName, SiteName, TreeName},
    pack::JOINED_GAP_BYTES,
    spec::AssignmentName,
    statement::{Claim, Head, Offer, Statement},
    v1::agent::{AgentOrders, AssignmentOrder, Origin},
};
use serde::{Deserialize, Serialize};

use self::mandates::Mandated;
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
    /// Who may sign what: pinned at enrollment, and followed from there.
    pub root: Arc<TrustedRoot>,
}

/// Orders whose head and numbers were verified.
#[derive(Debug, Clone)]
pub struct Orders {
    /// The orders themselves.
    pub wanted: AgentOrders,
    /// The verified head.
    pub head: Head,
    /// The root by which they were verified.
    root: Arc<TrustedRoot>,
    /// What mandates say, where the network has definitions keys.
    mandated: Option<Mandated>,
}

/// A target whose statement and offers were verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// What the publisher states.
    pub statement: Statement,
    /// What leads there.
    pub offers: Vec<Offer>,
    /// Who may sign for the tree.
    pub keys: Vec<VerifyingKey>,
}

/// What a publication point says is the newest: believed only through [`Orders::found`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Found {
    /// A signed statement.
    pub statement: Envelope,
    /// Signed offers of packs that lead there.
    #[serde(default)]
    pub offers: Vec<Envelope>,
}

/// Why orders, or the target of an assignment, are not believed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The head is not signed by a key that the root names.
    #[error(
        "the coordinator's head is not signed by a key that the network's root names; nothing is changed"
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
    /// A head beside an older root.
    #[error(
        "the coordinator's head belongs to root {named}, but only root {known} is known; nothing is changed until the later one was seen"
    )]
    NewerRoot {
        /// Named in the head.
        named: RootNumber,
        /// The newest that is believed.
        known: RootNumber,
    },
    /// A head that belongs to other orders.
    #[error(
        "the coordinator's orders are of revision {orders}, but their signed head is of revision {head}; nothing is changed"
    )]
    OtherHead {
        /// Of the orders.
        orders: Revision,
        /// Of the head.
        head: Revision,
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
    /// Orders of another site, where that would change whose mandates count.
    #[error(
        "the coordinator's orders are for site {found}, but this agent has followed mandates of {wanted}; enroll it anew to move it"
    )]
    Site {
        /// Named in the orders.
        found: SiteName,
        /// Whose mandates are followed.
        wanted: SiteName,
    },
    /// More than any site has.
    #[error("the coordinator's orders name more than {MAX_ASSIGNMENTS} assignments")]
    TooMany,
    /// Nobody is known to sign for the tree.
    #[error(
        "tree {tree}: root {root} of the network lets publisher {publisher} sign nothing for it; whoever keeps the root key has to: `mirrorctl root draft`"
    )]
    NoKey {
        /// Which tree.
        tree: TreeName,
        /// Who publishes it.
        publisher: IdentityName,
        /// The root that was asked.
        root: RootNumber,
    },
    /// Numbers of an epoch that the root does not name.
    #[error(
        "tree {tree}: its statement is of epoch {found}, but root {root} of the network puts it into epoch {wanted}; nothing is changed"
    )]
    Epoch {
        /// Which tree.
        tree: TreeName,
        /// In the statement.
        found: Epoch,
        /// In the root.
        wanted: Epoch,
        /// The root that was asked.
        root: RootNumber,
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
    ///
    /// In a strict network the assignments become those of the mandates.
    pub fn verify(
        mut wanted: AgentOrders,
        trust: &Trust,
        marks: &mut Marks,
    ) -> Result<Self, Error> {
        if wanted.agent != trust.agent {
            return Err(Error::Agent { found: wanted.agent, wanted: trust.agent.clone() });
        }
        if wanted.assignments.len() > MAX_ASSIGNMENTS {
            return Err(Error::TooMany);
        }
        let root = trust.root.root();
        let head: Head = open(&wanted.head, &root.head_keys).map_err(Error::Head)?;
        if head.network != trust.network {
            return Err(Error::Network { found: head.network, wanted: trust.network.clone() });
        }
        if head.root > root.number {
            return Err(Error::NewerRoot { named: head.root, known: root.number });
        }
        if (head.restore_epoch, head.revision) != (wanted.restore_epoch, wanted.revision) {
            return Err(Error::OtherHead { orders: wanted.revision, head: head.revision });
        }
        let mut raised = marks.clone();
        raised.raise_wanted(head.restore_epoch, head.revision, head.number)?;
        let mandated = match root.definition_keys.is_empty() {
            true => None,
            false => Some(mandates::obey(&mut wanted, trust, &mut raised)?),
        };
        *marks = raised;
        Ok(Self { wanted, head, root: Arc::clone(&trust.root), mandated })
    }

    /// Whether an assignment that is not among the orders may have its files taken away: in a strict
    /// network only where its end was signed.
    pub fn may_trash(&self, name: &AssignmentName) -> bool {
        self.mandated.as_ref().is_none_or(|mandated| mandated.has_ended(name))
    }

    /// Whether nothing is carried out but what a definitions key has signed.
    pub fn is_strict(&self) -> bool {
        self.mandated.is_some()
    }

    /// What the coordinator orders and no mandate does, in a strict network: it is not carried out.
    pub fn without_mandate(&self) -> Vec<AssignmentName> {
        self.mandated.iter().flat_map(Mandated::waiting).cloned().collect()
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
        let keys = self.keys(tree, &origin.publisher)?;
        let statement = open_statement(&target.statement, tree, &origin.publisher, &keys)?;
        let version = Version { epoch: statement.epoch, generation: statement.generation };
        if named.statement != target.statement.payload_digest()
            || named.version != version
            || named.manifest != statement.manifest
            || statement.tree != *tree
        {
            return Err(Error::NotTheHeads { tree: tree.clone() });
        }
        self.check_epoch(tree, statement.epoch)?;
        check_confirmed(tree, named.min, version)?;
        marks.raise_tree(tree, version, statement.manifest)?;
        let offers = open_offers(&target.offers, tree, &keys);
        Ok(Some(Verified { statement, offers, keys }))
    }

    /// Whether this assignment may follow statements that no head names, while none that is valid
    /// can be had.
    pub fn is_autonomous(&self, order: &AssignmentOrder, now: Timestamp) -> bool {
        self.is_stale(now)
            && order.stopped.is_none()
            && self.head.trees.get(&order.name.tree).is_some_and(|named| named.autonomous)
    }

    /// Verifies a statement that was found at a publication point, and raises its tree's mark,
    /// which must be stored before it is followed. `None` when it is not newer than what is known,
    /// or waits for somebody: an approval counts only on the coordinator's word.
    pub fn found(
        &self,
        order: &AssignmentOrder,
        found: &Found,
        marks: &mut Marks,
        now: Timestamp,
    ) -> Result<Option<Verified>, Error> {
        let Origin::Publisher(origin) = &order.origin else { return Ok(None) };
        let tree = &order.name.tree;
        let Some(named) = self.head.trees.get(tree).filter(|_| self.is_autonomous(order, now))
        else {
            return Ok(None);
        };
        let keys = self.keys(tree, &origin.publisher)?;
        let statement = open_statement(&found.statement, tree, &origin.publisher, &keys)?;
        if statement.tree != *tree {
            return Err(Error::NotTheHeads { tree: tree.clone() });
        }
        self.check_epoch(tree, statement.epoch)?;
        let version = Version { epoch: statement.epoch, generation: statement.generation };
        if version <= named.version
            || statement.expires <= now
            || statement.guard.approved_by.is_some()
        {
            return Ok(None);
        }
        check_confirmed(tree, named.min, version)?;
        marks.raise_tree(tree, version, statement.manifest)?;
        let offers = open_offers(&found.offers, tree, &keys);
        Ok(Some(Verified { statement, offers, keys }))
    }

    /// The generation of what was found at a publication point, if its publisher signed it and the
    /// tree is one that may go on by that alone.
    pub fn went_on_to(&self, order: &AssignmentOrder, found: &Found) -> Option<Version> {
        let Origin::Publisher(origin) = &order.origin else { return None };
        let tree = &order.name.tree;
        self.head.trees.get(tree).filter(|named| named.autonomous)?;
        let keys = self.keys(tree, &origin.publisher).ok()?;
        let statement = earlier_statement(&found.statement, tree, &keys)?;
        Some(Version { epoch: statement.epoch, generation: statement.generation })
    }

    fn keys(&self, tree: &TreeName, publisher: &IdentityName) -> Result<Vec<VerifyingKey>, Error> {
        let root = self.root.root();
        let keys = root.keys_for(publisher, tree);
        if keys.is_empty() {
            let (tree, publisher) = (tree.clone(), publisher.clone());
            return Err(Error::NoKey { tree, publisher, root: root.number });
        }
        Ok(keys)
    }

    fn check_epoch(&self, tree: &TreeName, found: Epoch) -> Result<(), Error> {
        let root = self.root.root();
        let wanted = root.epoch(tree);
        if found == wanted {
            return Ok(());
        }
        Err(Error::Epoch { tree: tree.clone(), found, wanted, root: root.number })
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

    /// The pack that has everything.
    pub fn of_everything(&self) -> Option<&Offer> {
        self.offers.iter().find(|offer| offer.from.is_none() && offer.to == self.statement.manifest)
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
    let frames = offer.total_length().saturating_sub(offer.index_length);
    let drawn = (frames as f64 * share.clamp(0.0, 1.0)) as u64;
    offer.index_length.saturating_add(drawn).saturating_add(REQUESTS * JOINED_GAP_BYTES)
}

/// A pack from nothing is used by whoever holds something if its index is not more than this part
/// of the tree's content.
const WHOLE_INDEX_SHARE: u64 = 50;

/// Most packs that are applied one after the other.
const MAX_CHAIN: usize = 8;

fn open<T: Claim>(envelope: &Envelope, keys: &[VerifyingKey]) -> Result<T, signing::Error> {
    signing::verify(envelope, T::PAYLOAD_TYPE, keys, T::MAX_LEN).map(|verified| verified.content)
}

/// What the coordinator knows to be held is as good a mark as our own, which a lost disk takes.
fn check_confirmed(
    tree: &TreeName,
    confirmed: Option<Version>,
    offered: Version,
) -> Result<(), GoesBack> {
    match confirmed {
        Some(held) if offered < held => {
            Err(GoesBack::Generation { tree: tree.clone(), held, offered })
        }
        _ => Ok(()),
    }
}

fn open_statement(
    statement: &Envelope,
    tree: &TreeName,
    publisher: &IdentityName,
    keys: &[VerifyingKey],
) -> Result<Statement, Error> {
    open(statement, keys).map_err(|source| Error::Statement {
        tree: tree.clone(),
        publisher: publisher.clone(),
        source,
    })
}

/// A statement of an earlier generation, if the tree's publisher signed it. That it has expired
/// meanwhile does not matter: it tells what was, not what is to be.
pub(crate) fn earlier_statement(
    envelope: &Envelope,
    tree: &TreeName,
    keys: &[VerifyingKey],
) -> Option<Statement> {
    open::<Statement>(envelope, keys).ok().filter(|statement| statement.tree == *tree)
}

/// A bad offer costs a way, not the target: there are others.
fn open_offers(offers: &[Envelope], tree: &TreeName, keys: &[VerifyingKey]) -> Vec<Offer> {
    offers.iter().take(MAX_OFFERS).filter_map(|offer| open_offer(offer, tree, keys)).collect()
}

/// What lies at points in a way that this program cannot open is of no use to it.
fn is_known(encryption: Option<&str>) -> bool {
    encryption.is_none_or(|scheme| scheme == private::SCHEME)
}

fn open_offer(envelope: &Envelope, tree: &TreeName, keys: &[VerifyingKey]) -> Option<Offer> {
    match open::<Offer>(envelope, keys) {
        Ok(offer) if offer.tree == *tree && is_known(offer.encryption.as_deref()) => Some(offer),
        Ok(_) => None,
        Err(error) => {
            tracing::warn!(%tree, %error, "an offer is not the publisher's; it is not used");
            None
        }
    }
}

#[cfg(test)]
mod tests;
