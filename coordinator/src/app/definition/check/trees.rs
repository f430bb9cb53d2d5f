//! Trees: intervals, guards, and what has no effect where the tree comes from.

use protocol::{
    filter::{Filter, Level, Origin},
    spec::{EncoderChoice, GuardSpec, TreeSpec, UpstreamKind},
    units::{Span, Threshold},
    v1::definitions::Kind,
};

use super::Subject;
use crate::app::{definition::findings::Findings, effective};

/// Shortest interval that is taken.
const MIN_INTERVAL: Span = Span::from_secs(1);

/// Checks the trees, and the guards of sources, of the files.
pub(super) fn check(subject: &Subject<'_>, findings: &mut Findings, warnings: &mut Vec<String>) {
    for (name, tree) in &subject.next.trees {
        if subject.place(Kind::Tree, name.as_str()).is_none() {
            continue;
        }
        if tree.interval.is_some_and(|interval| interval < MIN_INTERVAL) {
            let spot = subject.spot(Kind::Tree, name.as_str(), "interval");
            findings.push(spot, format!("tree {name}: the interval must be at least 1s"));
        }
        warn_of_guard(&format!("tree {name}"), &tree.guard, warnings);
        warn_of_what_has_no_effect(subject, tree, warnings);
    }
    for (name, source) in &subject.next.sources {
        if subject.place(Kind::Source, name.as_str()).is_some() {
            warn_of_guard(&format!("source {name}"), &source.guard, warnings);
        }
    }
    for name in subject.next.trees.keys() {
        check_must_contain(subject, name, findings);
    }
}

/// What a tree must contain may not be what its limit hides: every generation would be held.
fn check_must_contain(
    subject: &Subject<'_>,
    name: &protocol::name::TreeName,
    findings: &mut Findings,
) {
    let Some(tree) = effective::tree(subject.next, name) else { return };
    let limit = Level::rules(Origin::Limit, name.as_str(), &tree.limit);
    let Ok(limit) = Filter::build(&[limit]) else { return };
    for (index, path) in tree.guard.must_contain.iter().enumerate() {
        if limit.keeps(path, false) || limit.keeps(path, true) {
            continue;
        }
        let own = format!("guard.must-contain.{index}");
        let source = subject.next.trees.get(name).map(|tree| tree.source.to_string());
        let spot = subject
            .spot(Kind::Tree, name.as_str(), &own)
            .or_else(|| subject.spot(Kind::Source, source.as_deref().unwrap_or_default(), &own));
        let message = format!(
            "tree {name}: must-contain names {path}, which the tree's limit hides, so that every generation would be held; change one of the two"
        );
        findings.push(spot, message);
    }
}

fn warn_of_guard(of: &str, guard: &GuardSpec, warnings: &mut Vec<String>) {
    let parts = [
        ("max-delete-files", guard.max_delete_files),
        ("max-delete-bytes", guard.max_delete_bytes),
    ];
    for (key, threshold) in parts {
        match threshold {
            Some(Threshold::Percent(100)) => warnings.push(format!(
                "{of}: {key} = \"100%\" stops nothing; a tree that is emptied by mistake would be emptied at every site"
            )),
            Some(Threshold::Count(0) | Threshold::Percent(0)) => warnings.push(format!(
                "{of}: {key} is 0, so that every generation that removes anything waits for an admin"
            )),
            _ => {}
        }
    }
}

fn warn_of_what_has_no_effect(subject: &Subject<'_>, tree: &TreeSpec, warnings: &mut Vec<String>) {
    let source = subject.next.sources.get(&tree.source);
    let upstream = source.and_then(|source| subject.next.upstreams.get(&source.upstream));
    if upstream.is_none_or(|upstream| upstream.kind != UpstreamKind::Rsyncd) {
        return;
    }
    let unused = [
        ("encoders", tree.encoders != EncoderChoice::Auto),
        ("initial-pack", tree.initial_pack),
        ("points", !tree.points.is_empty()),
    ];
    for (key, _) in unused.iter().filter(|(_, is_set)| *is_set) {
        warnings.push(format!(
            "tree {}: `{key}` has no effect, because a stock rsync daemon makes no packs",
            tree.name
        ));
    }
}
