//! Strict networks: what is carried out is what a definitions key has signed.
//!
//! The newest mandate of each assignment is kept with the marks, so that neither an older one nor none
//! at all changes anything. The coordinator still says what is current and what is stopped: that keeps
//! a mirror as it is, which is no harm. What it lists without a mandate is not begun; what it no longer
//! lists is stopped, and has not ended.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{
    dsse::Envelope, key::VerifyingKey, spec::AssignmentName, v1::agent::AgentOrders,
    v1::mandates::Mandate,
};

use super::{Error, MAX_ASSIGNMENTS, Trust, open};
use crate::ledger::Marks;

/// What is known of a strict network's assignments.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Mandated {
    /// Those that have ended by a mandate.
    ended: BTreeSet<AssignmentName>,
    /// Those that the coordinator orders and no mandate does.
    waiting: BTreeSet<AssignmentName>,
}

impl Mandated {
    /// Whether the end of an assignment was signed.
    pub(super) fn has_ended(&self, name: &AssignmentName) -> bool {
        self.ended.contains(name)
    }

    /// What was ordered and waits for a mandate.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &AssignmentName> {
        self.waiting.iter()
    }
}

/// Makes of the coordinator's orders what the mandates say, and keeps the newest of them.
pub(super) fn obey(
    wanted: &mut AgentOrders,
    trust: &Trust,
    marks: &mut Marks,
) -> Result<Mandated, Error> {
    let keys = &trust.root.root().definition_keys;
    let site = marks.site.get_or_insert_with(|| wanted.site.clone()).clone();
    if site != wanted.site {
        return Err(Error::Site { found: wanted.site.clone(), wanted: site });
    }
    if wanted.mandates.len() > MAX_ASSIGNMENTS {
        return Err(Error::TooMany);
    }
    let mut newest: BTreeMap<AssignmentName, (Mandate, Envelope)> = BTreeMap::new();
    for envelope in marks.mandates.values().chain(&wanted.mandates) {
        let Some(mandate) = read(envelope, keys, trust) else { continue };
        let name = mandate.order.name.clone();
        let is_newer = newest.get(&name).is_none_or(|(known, _)| known.number < mandate.number);
        if name.site == site && is_newer {
            newest.insert(name, (mandate, envelope.clone()));
        }
    }
    let told = std::mem::take(&mut wanted.assignments);
    let mut mandated = Mandated::default();
    for order in told.iter().filter(|order| !newest.contains_key(&order.name)) {
        mandated.waiting.insert(order.name.clone());
        tracing::warn!(
            assignment = %order.name,
            "ordered without a mandate of the network's definitions key; it is not carried out"
        );
    }
    for (name, (mandate, _)) in &newest {
        if mandate.ended {
            mandated.ended.insert(name.clone());
        } else if mandate.agent.as_ref().is_none_or(|agent| *agent == trust.agent) {
            wanted.assignments.push(mandate.order(told.iter().find(|order| order.name == *name)));
        }
    }
    marks.mandates = newest.into_iter().map(|(name, (_, envelope))| (name, envelope)).collect();
    Ok(mandated)
}

fn read(envelope: &Envelope, keys: &[VerifyingKey], trust: &Trust) -> Option<Mandate> {
    match open::<Mandate>(envelope, keys) {
        Ok(mandate) => Some(mandate).filter(|mandate| mandate.network == trust.network),
        Err(error) => {
            tracing::warn!(%error, "a mandate is not signed by a definitions key; it does not count");
            None
        }
    }
}
