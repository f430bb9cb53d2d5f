//! Whose orders a change concerns.

use std::collections::BTreeSet;

use jiff::Timestamp;
use protocol::{
    name::{IdentityName, SiteName},
    role::Role,
    v1::{agent::AgentOrders, publisher::PublisherOrders},
};

use super::{agent, is_autonomous, publisher, relay};
use crate::{app::picture::Picture, db::Topic};

/// Which agents a change can concern at all.
#[derive(Debug, Clone, Copy)]
pub enum Among<'a> {
    /// Any.
    All,
    /// Those of one site, of its relay and of those that it serves: one of its agents came, went or
    /// changed its certificate.
    Site(&'a SiteName),
    /// None: the change is about someone else.
    Nobody,
}

/// The agents and publishers whose orders differ between two pictures.
pub fn concerned(
    before: &Picture,
    after: &Picture,
    among: Among<'_>,
    now: Timestamp,
) -> Vec<Topic> {
    let mut topics = Vec::new();
    for name in agents(before, after, among) {
        let orders = |picture| agent_orders(picture, &name, now);
        if orders(before) != orders(after) {
            topics.push(Topic::Agent(name));
        }
    }
    for name in names(before, after, |role, _| role == Role::Publisher) {
        let orders = |picture| without_numbers(publisher(picture, &name, now));
        if orders(before) != orders(after) {
            topics.push(Topic::Publisher(name));
        }
    }
    topics
}

fn agents(before: &Picture, after: &Picture, among: Among<'_>) -> BTreeSet<IdentityName> {
    names(before, after, |role, site| {
        role == Role::Agent
            && match among {
                Among::All => true,
                Among::Site(wanted) => site.is_some_and(|site| {
                    let near = |picture: &Picture| {
                        relay::are_near(&picture.wanted.definitions, site, wanted)
                    };
                    near(before) || near(after)
                }),
                Among::Nobody => false,
            }
    })
}

fn names(
    before: &Picture,
    after: &Picture,
    wanted: impl Fn(Role, Option<&SiteName>) -> bool,
) -> BTreeSet<IdentityName> {
    let all = before.fleet.identities().chain(after.fleet.identities());
    all.filter(|identity| wanted(identity.role, identity.site.as_ref()))
        .map(|identity| identity.name.clone())
        .collect()
}

/// What an agent is told, but for numbers, and what the head says beside it: which of the assignments'
/// trees are autonomous.
fn agent_orders(
    picture: &Picture,
    name: &IdentityName,
    now: Timestamp,
) -> Option<(AgentOrders, Vec<bool>)> {
    let site = picture.fleet.identity(Role::Agent, name)?.site.as_ref()?;
    let orders = AgentOrders {
        revision: Default::default(),
        restore_epoch: Default::default(),
        root: Default::default(),
        ..agent::unsigned(picture, name, site, now)
    };
    let trees = orders.assignments.iter().map(|order| &order.name.tree);
    let autonomous = trees.map(|tree| is_autonomous(picture, tree)).collect();
    Some((orders, autonomous))
}

/// The numbers differ in every revision; they alone wake nobody.
fn without_numbers(orders: PublisherOrders) -> PublisherOrders {
    PublisherOrders { revision: Default::default(), restore_epoch: Default::default(), ..orders }
}
