//! A tree that several stock servers have: which one is asked.
//!
//! They are asked in their order, and the next one only while those before it cannot be had. A run
//! takes everything from one of them: listing, content, and the second listing that must agree. What
//! one of them was doing when it broke off is thrown away, so no generation is ever of two.
//!
//! Mirrors of one upstream are not equally fresh. Whoever goes from one to another must not go back
//! in time with it: consumers would see updates vanish, and a package manager that has the newer
//! index refuses the older one. Nothing is signed there, so times have to do. A server other than
//! the one that what is held was taken from is followed only if none of the tree's `quick-list`
//! files is older there than here or, where there are none, if its newest file is not older than the
//! newest that is held.

use jiff::Timestamp;
use protocol::{
    manifest::Manifest,
    path::TreePath,
    v1::agent::{AssignmentOrder, Origin, RsyncdOrigin},
};

use super::{Error, STAGE, quick, sync};
use crate::{
    agent::Agent,
    apply::Site,
    published::Outcome,
    report::Run,
    rsync::listing::{Listed, ListedKind, Listing, NANOS},
};

/// Most servers that are asked beside the first.
const MAX_FALLBACK: usize = 8;

/// `HOST:PORT` of a server.
pub(crate) fn server(from: &RsyncdOrigin) -> String {
    format!("{}:{}", from.host, from.port)
}

/// The servers of an assignment, the first one first; none where a publisher has it.
pub(crate) fn servers(order: &AssignmentOrder) -> impl Iterator<Item = &RsyncdOrigin> {
    let first = match &order.origin {
        Origin::Rsyncd(from) => Some(from),
        Origin::Publisher(_) => None,
    };
    let fallback = order.fallback.iter().take(MAX_FALLBACK);
    first.into_iter().flat_map(move |first| std::iter::once(first).chain(fallback.clone()))
}

/// Brings one assignment to what the first of its servers shows that can be had.
pub(crate) async fn sync_ranked(
    agent: &Agent,
    order: &AssignmentOrder,
    run: &Run,
) -> Result<Outcome, Error> {
    let mut first = None;
    let open: Vec<_> = servers(order).filter(|server| agent.is_let_through(server)).collect();
    // Where all are left alone somebody asked for this run.
    let asked = if open.is_empty() { servers(order).collect() } else { open };
    let mut asked = asked.into_iter().peekable();
    while let Some(server) = asked.next() {
        let result = sync(agent, order, server, run).await;
        agent.note_reached(server, result.as_ref().err().is_none_or(Error::reached));
        match (result, asked.peek()) {
            (Err(error), Some(next)) if error.lets_another_try() => {
                run.notice(format!(
                    "{}; {} is asked instead",
                    crate::chain(&error),
                    self::server(next)
                ));
                forget_stage(agent, order);
                first.get_or_insert(error);
            }
            // Why the first one could not be had says more than why the last one could not.
            (Err(error), None) if error.lets_another_try() => {
                return Err(first.unwrap_or(error));
            }
            (result, _) => return result,
        }
    }
    Err(first.unwrap_or(Error::NoServer))
}

/// What one server had sent is not gone on with by another.
fn forget_stage(agent: &Agent, order: &AssignmentOrder) {
    let site = Site::open(&agent.config, &order.name.to_string(), &order.path);
    if let Ok(work) = site.and_then(|site| site.scratch()) {
        std::fs::remove_dir_all(work.join(STAGE)).ok();
    }
}

/// Refuses to go back in time with another server than the one that what is held came from.
pub(super) fn check_time(
    agent: &Agent,
    order: &AssignmentOrder,
    from: &RsyncdOrigin,
    listing: &Listing,
    held: &Manifest,
) -> Result<(), Error> {
    let record = agent.ledger.record(&order.name)?;
    let taken_from = record.and_then(|record| record.taken_from);
    if taken_from.is_none_or(|taken_from| taken_from == server(from)) {
        return Ok(());
    }
    match older(listing, held, &order.quick_list) {
        None => Ok(()),
        Some((path, there, here)) => Err(Error::Behind {
            tree: order.name.tree.clone(),
            host: server(from),
            path,
            there,
            here,
        }),
    }
}

/// A file that shows that a listing is of an earlier time than what is held.
fn older(
    listing: &Listing,
    held: &Manifest,
    quick_list: &[String],
) -> Option<(TreePath, Timestamp, Timestamp)> {
    let time = |seconds: i64| Timestamp::from_second(seconds).unwrap_or_default();
    let filter = quick::filter(quick_list).filter(|_| !quick_list.is_empty());
    let quick: Vec<_> = held
        .entries()
        .iter()
        .filter(|entry| entry.is_file())
        .filter(|entry| filter.as_ref().is_some_and(|it| it.keeps(&entry.path, false)))
        .filter_map(|entry| Some((entry, listing.get(&entry.path)?)))
        .collect();
    if !quick.is_empty() {
        let is_older = |(entry, listed): &&(&protocol::manifest::Entry, &Listed)| {
            listed.mtime < entry.mtime.div_euclid(NANOS)
        };
        let (entry, listed) = quick.iter().find(is_older)?;
        let here = entry.mtime.div_euclid(NANOS);
        return Some((entry.path.clone(), time(listed.mtime), time(here)));
    }
    let is_file = |listed: &&Listed| matches!(listed.kind, ListedKind::File { .. });
    let there = listing.entries().iter().filter(is_file).map(|listed| listed.mtime).max();
    let newest =
        held.entries().iter().filter(|entry| entry.is_file()).max_by_key(|entry| entry.mtime)?;
    let here = newest.mtime.div_euclid(NANOS);
    let there = there.unwrap_or(i64::MIN);
    (there < here).then(|| (newest.path.clone(), time(there), time(here)))
}
