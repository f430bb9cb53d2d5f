//! What the ledger knows of an observed generation.

use protocol::v1::agent::{AssignmentOrder, RsyncdOrigin};

use super::{Error, ranked};
use crate::{
    agent::Agent,
    apply::{Rules, Site},
    ledger::{self, Held},
    published::held_of,
};

/// What is held, where the program ended after the switch and before it was written down.
pub(super) fn missing(
    agent: &Agent,
    order: &AssignmentOrder,
    site: &Site,
    rules: &Rules,
) -> Result<Option<Held>, Error> {
    let Some(applied) = site.applied()?.filter(|applied| applied.observed) else { return Ok(None) };
    let recorded = agent.ledger.record(&order.name)?.and_then(|record| record.held);
    if recorded.is_some_and(|held| held.manifest == applied.manifest) {
        return Ok(None);
    }
    let manifest = agent.manifests.get(&applied.manifest);
    let held =
        manifest.map(|manifest| held_of(&manifest, applied.version, applied.manifest, rules, true));
    Ok(held.transpose()?)
}

/// Whether what is held was taken from this server, or nothing is held yet.
pub(super) fn is_usual_server(
    agent: &Agent,
    order: &AssignmentOrder,
    from: &RsyncdOrigin,
) -> Result<bool, Error> {
    let record = agent.ledger.record(&order.name)?;
    let taken_from = record.and_then(|record| record.taken_from);
    Ok(taken_from.is_none_or(|server| server == ranked::server(from)))
}

/// Writes down which server what is held was taken from.
pub(super) fn remember_server(
    agent: &Agent,
    order: &AssignmentOrder,
    from: &RsyncdOrigin,
) -> Result<(), Error> {
    let record = agent.ledger.record(&order.name)?;
    let mut record =
        record.unwrap_or_else(|| ledger::Record::new(order.name.clone(), order.path.clone()));
    let server = Some(ranked::server(from));
    if record.taken_from != server {
        record.taken_from = server;
        agent.ledger.set_record(&record)?;
    }
    Ok(())
}
