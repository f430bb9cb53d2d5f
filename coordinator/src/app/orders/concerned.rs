//! Whose orders a change concerns.

use std::collections::BTreeSet;

use jiff::Timestamp;
use protocol::{
    name::{IdentityName, SiteName},
    role::Role,
    v1::publisher::{PublisherOrders, Reader},
};

use super::{agent, publisher, relay};
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
        let assignments = |picture| agent::assignments(picture, &name, now);
        if assignments(before) != assignments(after)
            || default_rate(before, &name) != default_rate(after, &name)
            || readers(before, &name, now) != readers(after, &name, now)
        {
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

/// Whom it serves as a relay.
fn readers(picture: &Picture, agent: &IdentityName, now: Timestamp) -> Vec<Reader> {
    let site = picture.fleet.identity(Role::Agent, agent).and_then(|found| found.site.as_ref());
    site.map_or_else(Vec::new, |site| relay::readers(picture, agent, site, now))
}

fn default_rate(picture: &Picture, agent: &IdentityName) -> Option<protocol::spec::Rate> {
    let site = picture.fleet.identity(Role::Agent, agent)?.site.as_ref()?;
    picture.wanted.definitions.sites.get(site)?.default_rate
}

/// The numbers differ in every revision; they alone wake nobody.
fn without_numbers(orders: PublisherOrders) -> PublisherOrders {
    PublisherOrders { revision: Default::default(), restore_epoch: Default::default(), ..orders }
}
