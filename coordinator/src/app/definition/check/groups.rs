//! Assignments that are switched together: whether one agent can do that.

use std::collections::BTreeMap;

use protocol::{
    name::SiteName,
    spec::{AssignmentSpec, Layout, UpstreamKind},
    v1::definitions::Kind,
};

use super::Subject;
use crate::app::definition::findings::Findings;

/// Most bytes of a group's name.
const MAX_NAME: usize = 64;

/// Checks every group that the files mention.
pub(super) fn check(subject: &Subject<'_>, findings: &mut Findings, warnings: &mut Vec<String>) {
    let mut groups: BTreeMap<(&SiteName, &str), Vec<&AssignmentSpec>> = BTreeMap::new();
    for spec in subject.next.assignments.values() {
        if let Some(group) = &spec.together {
            groups.entry((&spec.site, group)).or_default().push(spec);
        }
    }
    for ((site, group), members) in groups {
        let in_files: Vec<&AssignmentSpec> = members
            .iter()
            .copied()
            .filter(|spec| subject.place(Kind::Assignment, &spec.name().to_string()).is_some())
            .collect();
        let mut refuse = |spec: &AssignmentSpec, message: String| {
            let name = spec.name().to_string();
            let spot = subject.spot(Kind::Assignment, &name, "together");
            findings.push(spot, format!("assignment {name}: {message}"));
        };
        for spec in &in_files {
            if !is_name(group) {
                let message = "write letters, digits, '-', '_' and '.', at most 64";
                refuse(spec, format!("together = {group:?} is not a name; {message}"));
            }
            if let Some(message) = cannot_wait(subject, spec) {
                refuse(spec, format!("together = {group:?}: {message}"));
            }
            let other = members.iter().find(|other| other.agent != spec.agent);
            if let Some(other) = other {
                let message = "one agent has to hold all that are switched together";
                refuse(
                    spec,
                    format!(
                        "together = {group:?}: {} names another agent; {message}",
                        other.name()
                    ),
                );
            }
        }
        if members.len() == 1 && !in_files.is_empty() {
            warnings.push(format!(
                "assignment {}: nothing else at site {site} says together = {group:?}, so it is switched alone",
                members[0].name()
            ));
        }
    }
}

/// Why a tree cannot be held back until others are ready.
fn cannot_wait(subject: &Subject<'_>, spec: &AssignmentSpec) -> Option<String> {
    let tree = subject.next.trees.get(&spec.tree)?;
    let source = subject.next.sources.get(&tree.source)?;
    let upstream = subject.next.upstreams.get(&source.upstream)?;
    if tree.layout != Layout::Simple {
        return Some(format!("tree {} has versions, which switch one by one", tree.name));
    }
    (upstream.kind != UpstreamKind::Publisher).then(|| {
        format!(
            "tree {} comes from a stock rsync server, which does not keep a generation until others are ready",
            tree.name
        )
    })
}

fn is_name(group: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    !group.is_empty() && group.len() <= MAX_NAME && group.bytes().all(plain)
}
