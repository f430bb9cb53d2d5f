//! Filter rules and exclude patterns: each as it will be read, then all as they are merged.

mod together;

use protocol::{
    filter::{Filter, Level, LevelKind, Origin},
    v1::definitions::Kind,
};

use super::Subject;
use crate::app::definition::findings::Findings;

/// Rules of one key of one definition.
struct Rules<'a> {
    kind: Kind,
    name: String,
    key: &'static str,
    origin: Origin,
    reading: LevelKind,
    rules: &'a [String],
}

/// Checks the rules of the files' definitions one by one, then those of trees and assignments
/// together.
pub(super) fn check(subject: &Subject<'_>, findings: &mut Findings, warnings: &mut Vec<String>) {
    let mut readable = true;
    for rules in lists(subject) {
        if subject.place(rules.kind, &rules.name).is_some() {
            readable &= check_list(subject, &rules, findings);
        }
    }
    if readable {
        together::check(subject, findings, warnings);
    }
}

fn check_list(subject: &Subject<'_>, rules: &Rules<'_>, findings: &mut Findings) -> bool {
    let level = Level {
        origin: rules.origin,
        label: rules.name.clone(),
        kind: rules.reading,
        rules: rules.rules.to_vec(),
    };
    let Err(errors) = Filter::build(&[level]) else { return true };
    for error in errors.0 {
        let spot = subject.spot(rules.kind, &rules.name, &format!("{}.{}", rules.key, error.index));
        let message = format!(
            "{} {}, {} rule {}, column {}: '{}': {}",
            rules.kind.as_str(),
            rules.name,
            rules.key,
            error.index + 1,
            error.column,
            error.text,
            error.problem
        );
        findings.push(spot, message);
    }
    false
}

fn lists<'a>(subject: &Subject<'a>) -> Vec<Rules<'a>> {
    use LevelKind::{Excludes, Rules as InOrder};
    let next = subject.next;
    let mut lists = Vec::new();
    let mut add = |kind, name: String, key, origin, reading, rules: &'a [String]| {
        if !rules.is_empty() {
            lists.push(Rules { kind, name, key, origin, reading, rules });
        }
    };
    for (name, tree) in &next.trees {
        add(Kind::Tree, name.to_string(), "limit", Origin::Limit, InOrder, &tree.limit);
        add(Kind::Tree, name.to_string(), "filter", Origin::Tree, InOrder, &tree.filter);
        add(Kind::Tree, name.to_string(), "exclude", Origin::Tree, Excludes, &tree.exclude);
    }
    for (name, source) in &next.sources {
        add(Kind::Source, name.to_string(), "exclude", Origin::Source, Excludes, &source.exclude);
    }
    for (name, site) in &next.sites {
        add(Kind::Site, name.to_string(), "exclude", Origin::Site, Excludes, &site.exclude);
    }
    for (name, spec) in &next.assignments {
        let (kind, origin) = (Kind::Assignment, Origin::Assignment);
        add(kind, name.to_string(), "filter", origin, InOrder, &spec.filter);
        add(kind, name.to_string(), "exclude", origin, Excludes, &spec.exclude);
    }
    lists
}
