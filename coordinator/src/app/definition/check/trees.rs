//! Trees: intervals, guards, and what has no effect where the tree comes from.

use protocol::{
    filter::{Filter, Level, Origin},
    name::SourceName,
    path::TreePath,
    spec::{EncoderChoice, GuardSpec, Layout, TreeSpec, UpstreamKind},
    units::{Span, Threshold},
    v1::definitions::Kind,
};

use super::Subject;
use crate::app::{definition::findings::Findings, effective};

/// Most sources that a tree falls back to.
const MAX_FALLBACK: usize = 8;
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
        check_times(subject, tree, findings);
        check_fallback(subject, tree, findings);
        check_private(subject, tree, findings);
        warn_of_guard(&format!("tree {name}"), &tree.guard, warnings);
        warn_of_what_has_no_effect(subject, tree, warnings);
    }
    for (name, source) in &subject.next.sources {
        if subject.place(Kind::Source, name.as_str()).is_some() {
            warn_of_guard(&format!("source {name}"), &source.guard, warnings);
        }
    }
    check_network(subject, findings);
    for (name, network) in &subject.next.networks {
        if subject.place(Kind::Network, name.as_str()).is_some() {
            warn_of_guard(&format!("network {name}"), &network.guard, warnings);
        }
    }
    for name in subject.next.trees.keys() {
        check_must_contain(subject, name, findings);
    }
}

/// When a tree is due is said once, and what is looked for lies in it.
fn check_times(subject: &Subject<'_>, tree: &TreeSpec, findings: &mut Findings) {
    let name = tree.name.as_str();
    let said = [
        ("interval", tree.interval.is_some()),
        ("schedule", tree.schedule.is_some()),
        ("sync-hours", tree.sync_hours.is_some()),
    ];
    let said: Vec<&str> = said.iter().filter(|(_, is_set)| *is_set).map(|(key, _)| *key).collect();
    if let [first, second, ..] = said[..] {
        let message =
            format!("tree {name}: `{first}` and `{second}` both say when it is due; keep one");
        findings.push(subject.spot(Kind::Tree, name, second), message);
    }
    for (index, pattern) in tree.quick_list.iter().enumerate() {
        // Wildcards aside it has to be a path below the tree.
        if let Err(error) = TreePath::parse(pattern.as_bytes()) {
            let spot = subject.spot(Kind::Tree, name, &format!("quick-list.{index}"));
            let message = format!(
                "tree {name}: quick-list names {pattern:?}, but {error}; write it relative to the tree, as in \"project/trace/*\""
            );
            findings.push(spot, message);
        }
    }
}

/// Only what a stock daemon shows can be had from another one that shows the same.
fn check_fallback(subject: &Subject<'_>, tree: &TreeSpec, findings: &mut Findings) {
    let name = tree.name.as_str();
    let upstream = |source: &SourceName| {
        let source = subject.next.sources.get(source)?;
        subject.next.upstreams.get(&source.upstream)
    };
    let is_stock =
        |source| upstream(source).is_none_or(|upstream| upstream.kind == UpstreamKind::Rsyncd);
    let mut refuse = |message: &str| {
        let spot = subject.spot(Kind::Tree, name, "fallback");
        findings.push(spot, format!("tree {name}: {message}"));
    };
    if tree.fallback.is_empty() {
        return;
    }
    if tree.layout != Layout::Simple {
        refuse(
            "fallback is for layout = \"simple\": a server that lags would lack versions, which then could not be told from removed ones",
        );
    }
    if tree.fallback.len() > MAX_FALLBACK {
        refuse("fallback names more than 8 sources; keep the best ones");
    }
    if !is_stock(&tree.source) || !tree.fallback.iter().all(is_stock) {
        refuse(
            "fallback is for sources of kind = \"rsyncd\" alone: what a publisher signs comes from its points, and a second publisher goes on where the first one ended",
        );
    }
    let mut seen = vec![&tree.source];
    for source in &tree.fallback {
        if seen.contains(&source) {
            refuse("fallback names a source twice, or the tree's own; name each once");
        }
        seen.push(source);
        if upstream(source).is_some_and(|upstream| upstream.max_connections.is_some()) {
            refuse(
                "the upstream of a fallback has max-connections, which counts for a tree's first source only; name another one",
            );
        }
    }
}

/// Only a publisher encrypts: whoever relies on it must not be mistaken.
fn check_private(subject: &Subject<'_>, tree: &TreeSpec, findings: &mut Findings) {
    let source = subject.next.sources.get(&tree.source);
    let upstream = source.and_then(|source| subject.next.upstreams.get(&source.upstream));
    if tree.private && upstream.is_some_and(|upstream| upstream.kind == UpstreamKind::Rsyncd) {
        let name = tree.name.as_str();
        let message = format!(
            "tree {name}: private is for trees of a publisher, which encrypts what it brings to a point; what a stock rsync daemon serves is as private as that daemon keeps it"
        );
        findings.push(subject.spot(Kind::Tree, name, "private"), message);
    }
}

/// A coordinator serves one network, so a second `[[network]]` is a slip of the pen.
fn check_network(subject: &Subject<'_>, findings: &mut Findings) {
    let names: Vec<_> = subject.next.networks.keys().collect();
    let [first, .., last] = names[..] else { return };
    let spot = subject
        .spot(Kind::Network, last.as_str(), "name")
        .or_else(|| subject.spot(Kind::Network, first.as_str(), "name"));
    let message = format!(
        "there are two networks, {first} and {last}, but a coordinator serves one; keep the [[network]] with the name that it was made with, and `mirrorctl delete network` the other"
    );
    findings.push(spot, message);
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
        if !tree.quick_list.is_empty() {
            warnings.push(format!(
                "tree {}: `quick-list` has no effect, because a publisher tells what changed",
                tree.name
            ));
        }
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
