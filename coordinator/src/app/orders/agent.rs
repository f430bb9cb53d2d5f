//! Orders for agents.

use std::collections::BTreeMap;

use certs::signing::{self, SigningKey};
use jiff::{SignedDuration, Timestamp};
use protocol::{
    dsse::{Bytes, Envelope},
    generation::Version,
    name::{IdentityName, NetworkName, SiteName},
    role::Role,
    spec::AssignmentName,
    statement::{Claim as _, Head, HeadTree},
    v1::agent::{AgentOrders, AssignmentOrder, Origin, Target},
};

use super::{publisher::is_autonomous, relay};
use crate::app::picture::Picture;

/// Everything that one agent has to do, with a head that counts for `head_life`. An agent whose head
/// has ended keeps serving and changes nothing, but for trees that go on by themselves.
pub fn agent(
    picture: &Picture,
    network: &NetworkName,
    name: &IdentityName,
    site: &SiteName,
    (head_key, head_life): (&SigningKey, SignedDuration),
    now: Timestamp,
) -> Result<AgentOrders, signing::Error> {
    let mut orders = unsigned(picture, name, site, now);
    orders.head = head(picture, network, &orders.assignments, (head_key, head_life), now)?;
    Ok(orders)
}

/// The same with an empty head.
pub(super) fn unsigned(
    picture: &Picture,
    name: &IdentityName,
    site: &SiteName,
    now: Timestamp,
) -> AgentOrders {
    let spec = picture.wanted.definitions.sites.get(site);
    AgentOrders {
        revision: picture.revision,
        restore_epoch: picture.restore_epoch,
        root: picture.root.root().number,
        agent: name.clone(),
        site: site.clone(),
        head: Envelope {
            payload_type: String::new(),
            payload: Bytes(Vec::new()),
            signatures: Vec::new(),
        },
        default_rate: spec.and_then(|site| site.default_rate),
        bandwidth: spec.map(|site| site.bandwidth.clone()).unwrap_or_default(),
        budget: spec.and_then(|site| site.budget),
        timezone: spec.and_then(|site| site.timezone.clone()),
        sharers: u32::try_from(picture.fleet.agents_at(site).len()).unwrap_or(u32::MAX).max(1),
        readers: relay::readers(picture, name, site, now),
        assignments: assignments(picture, name, now),
        mandates: match picture.root.root().definition_keys.is_empty() {
            true => Vec::new(),
            false => picture.wanted.mandates_of(site).cloned().collect(),
        },
    }
}

/// The orders for every assignment that the agent holds.
fn assignments(picture: &Picture, agent: &IdentityName, now: Timestamp) -> Vec<AssignmentOrder> {
    let order = |name: &AssignmentName| {
        let mut order = picture.effective(name, now)?.order;
        order.sync_requests = picture.wanted.sync_requests(name);
        order.undelete = picture.wanted.undeletes(name).to_vec();
        order.approved = picture.contents.tree(&name.tree).approvals(Some(&name.site));
        if let Origin::Publisher(origin) = &mut order.origin {
            let publisher = picture.fleet.identity(Role::Publisher, &origin.publisher);
            if let Some(publisher) = publisher.filter(|publisher| publisher.revoked.is_none()) {
                origin.address.clone_from(&publisher.advertise);
            }
            origin.relays = relay::relays(picture, name, now);
            // Nobody is told about the content of what it may not read.
            order.target = match order.stopped {
                None => target(picture, name),
                Some(_) => None,
            };
        }
        Some(order)
    };
    picture.assignments_of(agent).iter().filter_map(order).collect()
}

fn target(picture: &Picture, name: &AssignmentName) -> Option<Target> {
    let contents = picture.contents.tree(&name.tree);
    let current = contents.current()?;
    Some(Target { statement: current.statement.clone(), offers: contents.offers_to_current() })
}

/// The newest generation that the site has confirmed to hold. Its own receipts only: nobody can
/// hold back another.
fn confirmed(picture: &Picture, name: &AssignmentName) -> Option<Version> {
    let receipt = picture.receipts.get(name)?;
    (!receipt.observed).then_some(receipt.version)
}

fn head(
    picture: &Picture,
    network: &NetworkName,
    assignments: &[AssignmentOrder],
    (key, life): (&SigningKey, SignedDuration),
    now: Timestamp,
) -> Result<Envelope, signing::Error> {
    let tree = |order: &AssignmentOrder| {
        let target = order.target.as_ref()?;
        let current = picture.contents.tree(&order.name.tree).current()?;
        let place = HeadTree {
            version: current.version,
            statement: target.statement.payload_digest(),
            manifest: current.manifest,
            min: confirmed(picture, &order.name),
            autonomous: is_autonomous(picture, &order.name.tree),
        };
        Some((order.name.tree.clone(), place))
    };
    let head = Head {
        network: network.clone(),
        number: picture.head_number,
        root: picture.root.root().number,
        restore_epoch: picture.restore_epoch,
        revision: picture.revision,
        issued: now,
        expires: now.saturating_add(life).unwrap_or(Timestamp::MAX),
        trees: assignments.iter().filter_map(tree).collect::<BTreeMap<_, _>>(),
    };
    signing::sign_json(key, Head::PAYLOAD_TYPE, &head)
}
