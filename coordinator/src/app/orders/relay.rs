//! Relays: which agents serve which others, and with what.
//!
//! An agent relays once it has said where it is reached. It serves the agents of those sites whose
//! definition names its own site, and each of them with the trees that both hold from a publisher: a
//! relay is not told about trees that it may not read, and nobody reads more through one than at the
//! publisher itself.

use std::collections::BTreeSet;

use jiff::Timestamp;
use protocol::{
    name::{IdentityName, SiteName, TreeName},
    role::Role,
    spec::AssignmentName,
    v1::{
        agent::{Origin, Relay},
        publisher::Reader,
    },
};

use super::publisher::readers_of;
use crate::app::{definition::Definitions, picture::Picture};

/// The agents that an assignment's site asks before its publisher, in the order of their enrollment.
pub(super) fn relays(picture: &Picture, name: &AssignmentName, now: Timestamp) -> Vec<Relay> {
    let Some(site) = relay_of(&picture.wanted.definitions, &name.site) else { return Vec::new() };
    let agents = picture.fleet.agents_at(site).iter();
    let relay = |(agent, _): &(IdentityName, SiteName)| {
        let address = picture.fleet.identity(Role::Agent, agent)?.advertise.clone()?;
        let holds = trees(picture, agent, now).contains(&name.tree);
        holds.then(|| Relay { agent: agent.clone(), address })
    };
    agents.filter_map(relay).collect()
}

/// Whom an agent serves as a relay; nobody while it has not said where it is reached.
pub(super) fn readers(
    picture: &Picture,
    agent: &IdentityName,
    site: &SiteName,
    now: Timestamp,
) -> Vec<Reader> {
    let known = picture.fleet.identity(Role::Agent, agent);
    if known.is_none_or(|known| known.advertise.is_none()) {
        return Vec::new();
    }
    let trees: Vec<TreeName> = trees(picture, agent, now).into_iter().collect();
    let served = |reader: &SiteName| relay_of(&picture.wanted.definitions, reader) == Some(site);
    readers_of(picture, &trees, now, served)
}

/// The agents whose orders may change when one of `site` begins or ends to relay: those of the site
/// itself, and of every site that it serves.
pub fn parties(picture: &Picture, site: &SiteName) -> Vec<IdentityName> {
    let definitions = &picture.wanted.definitions;
    let concerned = |other: &SiteName| other == site || relay_of(definitions, other) == Some(site);
    let agents = picture.fleet.agents().into_iter();
    agents.filter(|(_, at)| concerned(at)).map(|(agent, _)| agent).collect()
}

/// Whether a change at one of two sites may change the orders of the other's agents.
pub(super) fn are_near(definitions: &Definitions, one: &SiteName, other: &SiteName) -> bool {
    let serves = |a, b| relay_of(definitions, b) == Some(a);
    one == other || serves(one, other) || serves(other, one)
}

/// The site that serves another one.
fn relay_of<'a>(definitions: &'a Definitions, site: &SiteName) -> Option<&'a SiteName> {
    definitions.sites.get(site)?.relay.as_ref()
}

/// The trees that an agent may read at their publishers.
fn trees(picture: &Picture, agent: &IdentityName, now: Timestamp) -> BTreeSet<TreeName> {
    let merged = picture.assignments_of(agent).iter().filter_map(|name| {
        let order = picture.effective(name, now)?.order;
        let readable = order.stopped.is_none() && matches!(order.origin, Origin::Publisher(_));
        readable.then(|| name.tree.clone())
    });
    merged.collect()
}
