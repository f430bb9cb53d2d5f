//! Definitions that name each other.

use protocol::{spec::OnEnd, v1::definitions::Kind};

use super::Subject;
use crate::app::{
    definition::{
        findings::Findings, plan::Context, set::Definitions, spec::Spec, suggest::did_you_mean,
    },
    effective::granted,
};

/// What a definition names: kind, name, and the key that does.
fn named_by(spec: &Spec) -> Vec<(Kind, String, &'static str)> {
    match spec {
        Spec::Network(_) | Spec::Upstream(_) => Vec::new(),
        Spec::Site(spec) => {
            let relay = spec.relay.iter();
            relay.map(|relay| (Kind::Site, relay.to_string(), "relay")).collect()
        }
        Spec::Source(spec) => vec![(Kind::Upstream, spec.upstream.to_string(), "upstream")],
        Spec::Tree(spec) => {
            let fallback = spec.fallback.iter().map(|name| (name, "fallback"));
            let named = std::iter::once((&spec.source, "source")).chain(fallback);
            named.map(|(name, key)| (Kind::Source, name.to_string(), key)).collect()
        }
        Spec::Grant(spec) => vec![
            (Kind::Site, spec.site.to_string(), "site"),
            (Kind::Tree, spec.tree.to_string(), "tree"),
        ],
        Spec::Assignment(spec) => vec![
            (Kind::Site, spec.site.to_string(), "site"),
            (Kind::Tree, spec.tree.to_string(), "tree"),
        ],
    }
}

fn each(definitions: &Definitions) -> impl Iterator<Item = Spec> + '_ {
    let of_kind = move |kind| {
        let names = definitions.names(kind).into_iter();
        names.filter_map(move |name| definitions.get(kind, &name))
    };
    Kind::ALL.into_iter().flat_map(of_kind)
}

/// Every name must be that of a definition.
pub(super) fn check(subject: &Subject<'_>, findings: &mut Findings) {
    for spec in each(subject.next) {
        let (kind, name) = (spec.kind(), spec.name());
        for (wanted, target, key) in named_by(&spec) {
            if subject.is_known(wanted, &target) {
                continue;
            }
            let near = did_you_mean(&target, subject.next.names(wanted));
            let message = format!(
                "{} {name} names {wanted} {target}, which is not defined{near}; define it with [[{wanted}]] or correct the name",
                kind.as_str(),
                wanted = wanted.as_str(),
            );
            findings.push(subject.spot(kind, &name, key), message);
        }
    }
}

/// What is removed may not be named by what stays.
pub(in crate::app::definition) fn after_removal(
    stored: &Definitions,
    next: &Definitions,
    (kind, name): (Kind, &str),
    context: &Context,
    findings: &mut Findings,
) -> Vec<String> {
    let mut users = Vec::new();
    for spec in each(next) {
        if named_by(&spec).iter().any(|(of, target, _)| *of == kind && target == name) {
            users.push(format!("{} {}", spec.kind().as_str(), spec.name()));
        }
    }
    if !users.is_empty() {
        let (kind, list) = (kind.as_str(), shortened(&users));
        findings.push(None, format!("{kind} {name} is still named by {list}; delete those first"));
    }
    let mut warnings = Vec::new();
    warn_of_removals(stored, next, &mut warnings);
    for assignment in next.assignments.values().filter(|assignment| assignment.enabled) {
        let name = assignment.name();
        let stops = granted(stored, &name, context.now) && !granted(next, &name, context.now);
        if stops {
            warnings.push(format!(
                "assignment {name} stops, because its grant goes; its files stay as they are"
            ));
        }
    }
    warnings
}

/// Says what becomes of the files of assignments that go.
pub(super) fn warn_of_removals(
    stored: &Definitions,
    next: &Definitions,
    warnings: &mut Vec<String>,
) {
    for (name, spec) in &stored.assignments {
        if next.assignments.contains_key(name) {
            continue;
        }
        warnings.push(match spec.on_end {
            OnEnd::Keep => format!(
                "assignment {name} ends; its files stay published at site {}, and nothing updates them",
                spec.site
            ),
            OnEnd::Trash => format!(
                "assignment {name} ends; its files at site {} go to the trash (on-end = \"trash\")",
                spec.site
            ),
        });
    }
}

fn shortened(names: &[String]) -> String {
    const SHOWN: usize = 10;
    match names.len().checked_sub(SHOWN) {
        Some(more) if more > 0 => format!("{} and {more} more", names[..SHOWN].join(", ")),
        _ => names.join(", "),
    }
}
