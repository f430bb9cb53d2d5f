//! From what is stored and what is asked to what should be stored.

use std::collections::BTreeMap;

use jiff::Timestamp;
use protocol::{
    error::Finding,
    name::{IdentityName, SiteName},
    spec::AssignmentName,
    v1::definitions::{ApplyRequest, Change, Kind},
};

use super::{
    check::{self, Subject},
    diff::diff,
    findings::Findings,
    parse::{self, Place},
    set::Definitions,
    suggest::did_you_mean,
};

/// What the checks need to know beside the definitions.
#[derive(Debug, Clone)]
pub struct Context {
    /// Agents that are enrolled and not revoked, each with its site, the oldest enrollment first.
    pub agents: Vec<(IdentityName, SiteName)>,
    /// The time.
    pub now: Timestamp,
}

/// What an apply or a delete comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedApply {
    /// The whole wanted state after it.
    pub next: Definitions,
    /// What differs from what is stored; empty when nothing does.
    pub changes: Vec<Change>,
    /// Things that are allowed but probably not meant.
    pub warnings: Vec<String>,
}

/// Plans to add and change what the files define and, where the request prunes, to remove the
/// rest.
///
/// # Errors
/// Everything that is wrong; then nothing may be stored.
pub fn plan_apply(
    stored: &Definitions,
    request: &ApplyRequest,
    context: &Context,
) -> Result<PlannedApply, Vec<Finding>> {
    let mut findings = Findings::default();
    let parsed = parse::parse(request, &mut findings);
    let mut next = if request.prune { Definitions::default() } else { stored.clone() };
    let mut places: BTreeMap<(Kind, String), Place> = BTreeMap::new();
    for located in parsed.definitions {
        let (kind, name) = (located.spec.kind(), located.spec.name());
        if let Some(first) = places.get(&(kind, name.clone())) {
            let message = format!(
                "{} {name} is defined twice, first at {}:{}; remove one of the two",
                kind.as_str(),
                first.head.file,
                first.head.line
            );
            findings.push(Some(&located.place.head), message);
            continue;
        }
        places.insert((kind, name), located.place);
        next.insert(located.spec);
    }
    let subject =
        Subject { stored, next: &next, places: &places, mentioned: &parsed.mentioned, context };
    let warnings = check::all(&subject, &mut findings);
    findings.finish()?;
    let changes = diff(stored, &next);
    Ok(PlannedApply { next, changes, warnings })
}

/// Plans to remove one definition.
///
/// # Errors
/// When there is no such definition, or others refer to it.
pub fn plan_delete(
    stored: &Definitions,
    kind: Kind,
    name: &str,
    context: &Context,
) -> Result<PlannedApply, Vec<Finding>> {
    let mut findings = Findings::default();
    let mut next = stored.clone();
    let mut warnings = Vec::new();
    if next.remove(kind, name) {
        warnings = check::after_removal(stored, &next, (kind, name), context, &mut findings);
    } else {
        let near = did_you_mean(name, stored.names(kind));
        findings.push(None, format!("there is no {} {name}{near}", kind.as_str()));
    }
    findings.finish()?;
    let changes = diff(stored, &next);
    Ok(PlannedApply { next, changes, warnings })
}

/// What an assignment is told about being carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enabling {
    /// It is carried out.
    Enable,
    /// It is carried out in dry runs.
    DryRunOnly,
    /// It is not.
    Disable,
}

/// Plans to enable or disable an assignment; none when it is not defined.
pub fn plan_enabled(
    stored: &Definitions,
    name: &AssignmentName,
    enabling: Enabling,
) -> Option<PlannedApply> {
    let mut next = stored.clone();
    let spec = next.assignments.get_mut(name)?;
    spec.enabled = enabling != Enabling::Disable;
    if spec.enabled {
        spec.dry_run_only = enabling == Enabling::DryRunOnly;
    }
    let changes = diff(stored, &next);
    Some(PlannedApply { next, changes, warnings: Vec::new() })
}
