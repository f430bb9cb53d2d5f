//! Where the objects of a tree can be had: from relays, points and the publisher itself.

use std::sync::Arc;

use protocol::{
    generation::Generation,
    name::TreeName,
    origin,
    point::PointRef,
    transfer::NoDelta,
    v1::agent::{AssignmentOrder, PublisherOrigin},
};

use super::Error;
use crate::{
    agent::Agent,
    fetch::{
        points::{ORIGIN, Point, Points, RELAY},
        sealed::{Naming, Sealed},
    },
    report::Run,
    rsync::{
        child::Limits,
        connect::{Server, host_and_port, to_first},
        source::Source,
    },
};

/// Most agents of a relay that are asked.
const MAX_RELAYS: usize = 8;

/// Where the tree's objects can be had, as the definitions say and this site's admin allows.
pub(crate) fn points(
    agent: &Agent,
    tree: &TreeName,
    from: &PublisherOrigin,
    notice: impl Fn(String),
) -> Result<Points, Error> {
    let keys = from.private.then(|| agent.keys_of(tree));
    let sealed = |point: Point, naming| match &keys {
        Some(keys) => point.sealed_by(Sealed::new(Arc::clone(keys), naming)),
        None => point,
    };
    let mut points = Vec::new();
    for relay in from.relays.iter().filter(|relay| relay.agent != agent.name()).take(MAX_RELAYS) {
        let base = format!("https://{}", relay.address);
        let http = agent.relay_http(&relay.agent)?;
        let point = Point::new(format!("{RELAY}{}", relay.agent), &base, http).over(&agent.line);
        points.push(point.with_health(agent.health_of(&base)));
    }
    let mut named = from.points.clone();
    if !named.contains(&PointRef::Origin) {
        named.push(PointRef::Origin);
    }
    for point in &named {
        match point {
            PointRef::At(url) => match agent.public_point(url) {
                Ok(point) => points.push(sealed(point, Naming::Public)),
                Err(why) => notice(format!("the point {url} is not asked: {why}")),
            },
            PointRef::Signed => {
                let Some(address) = &from.address else { continue };
                let http = agent.publisher_http(&from.publisher)?;
                let base = format!("https://{address}{}", origin::SIGNED);
                points.push(sealed(agent.signed_point(&base, http), Naming::Own));
            }
            PointRef::Origin => {
                let Some(address) = &from.address else { continue };
                let base = format!("https://{address}");
                let http = agent.publisher_http(&from.publisher)?;
                let origin = Point::new(ORIGIN, &base, http).over(&agent.line);
                points.push(origin.with_health(agent.health_of(&base)));
            }
        }
    }
    if points.is_empty() {
        return Err(Error::NoAddress { publisher: from.publisher.clone() });
    }
    Ok(Points::new(points))
}

/// Direct rsync of one generation from the publisher, or why it is not possible.
pub(crate) fn rsync_source(
    agent: &Agent,
    order: &AssignmentOrder,
    from: &PublisherOrigin,
    generation: Generation,
    run: &Run,
) -> Result<Source, NoDelta> {
    if agent.rsync.is_none() {
        return Err(NoDelta::NoRsync);
    }
    let path = origin::rsync_module(&order.name.tree, generation);
    let servers = servers(agent, from, &path).ok_or(NoDelta::PointUnreachable)?;
    Ok(Source {
        connect: to_first(agent.dialer.clone(), Arc::clone(&agent.identity), servers),
        line: Arc::clone(&agent.line),
        host: from.publisher.to_string(),
        path,
        user: None,
        password_file: None,
        compress: true,
        programs: agent.programs.clone(),
        limits: Limits::default(),
        log: run.log().clone(),
    })
}

/// Who has a module of the publisher, in the order in which to ask: the site's relays, and the
/// publisher itself. `None` while nobody has said where it is.
pub(crate) fn servers(agent: &Agent, from: &PublisherOrigin, module: &str) -> Option<Vec<Server>> {
    let own = agent.name();
    let relays = from.relays.iter().filter(|relay| relay.agent != own).take(MAX_RELAYS);
    let mut servers: Vec<Server> =
        relays.filter_map(|relay| Server::relay(relay, module)).collect();
    if let Some((host, port)) = from.address.as_deref().and_then(host_and_port) {
        servers.push(Server::publisher(from.publisher.clone(), host, port));
    }
    (!servers.is_empty()).then_some(servers)
}
