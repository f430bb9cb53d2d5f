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
    manifest::{self, Entries, Entry},
    path::TreePath,
    v1::agent::{AssignmentOrder, Origin, RsyncdOrigin},
};

use super::{Error, STAGE, quick, sync};
use crate::{
    agent::Agent,
    apply::Site,
    published::Outcome,
    report::Run,
    rsync::listing::{Listing, NANOS},
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
    held: &dyn Entries,
) -> Result<(), Error> {
    let record = agent.ledger.record(&order.name)?;
    let taken_from = record.and_then(|record| record.taken_from);
    // Who took a server out of the definitions wants what the others have, whatever its age.
    let counts = |taken_from: &String| {
        *taken_from != server(from) && servers(order).any(|other| server(other) == *taken_from)
    };
    if !taken_from.as_ref().is_some_and(counts) {
        return Ok(());
    }
    match older(listing, held, &order.quick_list)? {
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

/// A file that shows that a listing is of an earlier time than what is held, with its time there, or
/// the newest there, and its time here.
type Older = (TreePath, Timestamp, Timestamp);

/// The first such file.
fn older(
    listing: &Listing,
    held: &dyn Entries,
    quick_list: &[String],
) -> Result<Option<Older>, manifest::Error> {
    let time = |seconds: i64| Timestamp::from_second(seconds).unwrap_or_default();
    let filter = quick::filter(quick_list).filter(|_| !quick_list.is_empty());
    let mut has_quick = false;
    let mut newest: Option<Entry> = None;
    for entry in held.each() {
        let entry = entry?;
        if !entry.is_file() {
            continue;
        }
        if filter.as_ref().is_some_and(|filter| filter.keeps(&entry.path, false))
            && let Some(listed) = listing.get(&entry.path)?
        {
            has_quick = true;
            let here = entry.mtime.div_euclid(NANOS);
            if listed.mtime < here {
                return Ok(Some((entry.path, time(listed.mtime), time(here))));
            }
        }
        if newest.as_ref().is_none_or(|newest| newest.mtime <= entry.mtime) {
            newest = Some(entry);
        }
    }
    let Some(newest) = newest.filter(|_| !has_quick) else { return Ok(None) };
    let mut there = i64::MIN;
    for listed in listing.each() {
        let listed = listed?;
        if listed.is_file() {
            there = there.max(listed.mtime);
        }
    }
    let here = newest.mtime.div_euclid(NANOS);
    Ok((there < here).then(|| (newest.path, time(there), time(here))))
}
