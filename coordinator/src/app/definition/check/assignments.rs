//! Assignments and grants: paths, agents, permissions, groups and modes.

use std::collections::BTreeMap;

use protocol::{
    name::SiteName,
    path::TreePath,
    spec::{AssignmentName, AssignmentSpec},
    v1::definitions::Kind,
};

use super::{Subject, mode};
use crate::app::{
    definition::{findings::Findings, suggest::did_you_mean},
    effective::{granted, is_live, published_path},
};

/// The agent's own directory beside and inside of what it publishes.
const RESERVED: &[u8] = b".mirrornet";

/// Checks grants and assignments.
pub(super) fn check(subject: &Subject<'_>, findings: &mut Findings, warnings: &mut Vec<String>) {
    for (name, grant) in &subject.next.grants {
        let is_in_files = subject.place(Kind::Grant, &name.to_string()).is_some();
        if is_in_files && !is_live(grant, subject.context.now) {
            warnings.push(format!("grant {name} has ended already; set `until` to a later time"));
        }
    }
    for (name, spec) in &subject.next.assignments {
        check_values(subject, spec, findings);
        check_agent(subject, spec, findings, warnings);
        let now = subject.context.now;
        let is_in_files = subject.place(Kind::Assignment, &name.to_string()).is_some();
        let matters = is_in_files || granted(subject.stored, name, now);
        if matters && !subject.next.grants.contains_key(name) {
            warnings.push(format!(
                "assignment {name} has no grant and will not be carried out; add a [[grant]] with site = \"{}\" and tree = \"{}\"",
                spec.site, spec.tree
            ));
        }
    }
    check_overlaps(subject, findings);
}

fn check_values(subject: &Subject<'_>, spec: &AssignmentSpec, findings: &mut Findings) {
    let name = spec.name().to_string();
    if subject.place(Kind::Assignment, &name).is_none() {
        return;
    }
    let mut refuse = |key: &str, message: String| {
        let spot = subject.spot(Kind::Assignment, &name, key);
        findings.push(spot, format!("assignment {name}: {message}"));
    };
    if let Some(path) = &spec.path
        && let Some(message) = reserved_component(path)
    {
        refuse("path", format!("path {path} {message}"));
    }
    if let Some(group) = &spec.group
        && !is_group_name(group)
    {
        let message = "write a name, not a number: numbers differ between hosts";
        refuse("group", format!("{group:?} is not the name of a group; {message}"));
    }
    if let Some(chmod) = &spec.chmod
        && let Err(error) = mode::check(chmod)
    {
        refuse("chmod", format!("chmod {chmod:?}: {error}"));
    }
}

/// Why a path may not be used, where it may not.
pub(super) fn reserved_component(path: &TreePath) -> Option<&'static str> {
    path.components()
        .any(|component| component == RESERVED)
        .then_some("has a component '.mirrornet', which belongs to the agent; use another name")
}

fn is_group_name(group: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    let begins = group.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    begins && group.len() <= 32 && group.bytes().all(plain)
}

/// An assignment is held by exactly one agent of its site.
fn check_agent(
    subject: &Subject<'_>,
    spec: &AssignmentSpec,
    findings: &mut Findings,
    warnings: &mut Vec<String>,
) {
    let name = spec.name();
    // What is only stored was right when it was defined, and agents come and go since.
    let Some(place) = subject.place(Kind::Assignment, &name.to_string()) else { return };
    let agents = &subject.context.agents;
    let at_site: Vec<_> =
        agents.iter().filter(|(_, site)| *site == spec.site).map(|(agent, _)| agent).collect();
    let site = &spec.site;
    match &spec.agent {
        None if at_site.len() > 1 => {
            let list: Vec<_> = at_site.iter().map(|agent| agent.as_str()).collect();
            let message = format!(
                "assignment {name}: site {site} has several agents ({}); say which holds it with `agent = \"{}\"`",
                list.join(", "),
                list[0]
            );
            findings.push(Some(&place.head), message);
        }
        None => {}
        Some(agent) if at_site.contains(&agent) => {}
        Some(agent) => {
            let elsewhere = agents.iter().find(|(name, _)| name == agent);
            if let Some((_, other)) = elsewhere {
                let message = format!(
                    "assignment {name}: agent {agent} belongs to site {other}, not to {site}; name an agent of {site}"
                );
                findings.push(Some(place.of("agent")), message);
            } else if at_site.is_empty() {
                warnings.push(format!(
                    "assignment {name}: agent {agent} is not enrolled yet; `mirrorctl invite --role agent --name {agent} --site {site}`"
                ));
            } else {
                let near = did_you_mean(agent.as_str(), &at_site);
                let message = format!(
                    "assignment {name}: site {site} has no agent {agent}{near}; enroll it first, or correct the name"
                );
                findings.push(Some(place.of("agent")), message);
            }
        }
    }
}

/// Paths of one site never equal or contain each other, over the whole state that would result.
fn check_overlaps(subject: &Subject<'_>, findings: &mut Findings) {
    let mut by_site: BTreeMap<&SiteName, Vec<(TreePath, AssignmentName)>> = BTreeMap::new();
    for (name, spec) in &subject.next.assignments {
        let Some(site) = subject.next.sites.get(&spec.site) else { continue };
        match published_path(spec, site) {
            Some(path) => by_site.entry(&site.name).or_default().push((path, name.clone())),
            // A prefix that is not a path is a finding of its own.
            None if TreePath::parse(site.prefix.as_bytes()).is_err() => {}
            None => findings.push(
                subject.spot(Kind::Assignment, &name.to_string(), "path"),
                format!("assignment {name}: its path with the site's prefix in front is too long"),
            ),
        }
    }
    for (site, mut paths) in by_site {
        paths.sort();
        // What is inside of a path follows it directly in this order.
        let mut outer: Option<(TreePath, AssignmentName)> = None;
        for (path, name) in paths {
            let Some((above, other)) = &outer else {
                outer = Some((path, name));
                continue;
            };
            let relation = if path == *above {
                "equals"
            } else if path.is_inside(above) {
                "lies inside of"
            } else {
                outer = Some((path, name));
                continue;
            };
            let text = |name: &AssignmentName| name.to_string();
            // The finding stands where the admin is writing, whichever of the two that is.
            let spot = subject
                .spot(Kind::Assignment, &text(&name), "path")
                .or_else(|| subject.spot(Kind::Assignment, &text(other), "path"))
                .or_else(|| subject.spot(Kind::Site, site.as_str(), "prefix"));
            let message = format!(
                "assignment {name}: its path {path} {relation} {above} of assignment {other}; paths of one site must be apart, so change one of the two"
            );
            findings.push(spot, message);
        }
    }
}
