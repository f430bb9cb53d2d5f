//! Rules as they are merged: includes that a limit hides, and rules that can never take effect.
//!
//! A tree is looked at alone, with its own rules, and each assignment with all that it inherits. A
//! rule is only held against the definition that wrote it: that a site's rule comes before the
//! tree's is what it is for.

use protocol::{
    filter::{Filter, Level, Origin, RuleRef, Warning, warnings, within_limit},
    spec::{AssignmentSpec, Layout, TreeSpec, UpstreamKind},
    v1::definitions::Kind,
};

use super::Subject;
use crate::app::{
    definition::findings::{Findings, Spot},
    effective,
};

/// Most merged filters that one apply looks at: each may take a good part of a second.
const MAX_LOOKED_AT: usize = 50;

/// One merged filter, and the definition that is held responsible for it.
struct Merged<'a> {
    kind: Kind,
    name: String,
    origins: &'a [Origin],
    filter: &'a [String],
    exclude: &'a [String],
    limit: &'a [String],
    tree: &'a TreeSpec,
    levels: Vec<Level>,
}

/// Checks the trees and assignments that the files define or whose limit they change.
pub(super) fn check(subject: &Subject<'_>, findings: &mut Findings, found: &mut Vec<String>) {
    let trees = subject.next.trees.values().filter_map(|tree| of_tree(subject, tree));
    let assignments =
        subject.next.assignments.values().filter_map(|spec| of_assignment(subject, spec));
    for merged in trees.chain(assignments).take(MAX_LOOKED_AT) {
        merged.check(subject, findings, found);
    }
}

fn of_tree<'a>(subject: &Subject<'a>, tree: &'a TreeSpec) -> Option<Merged<'a>> {
    let name = tree.name.as_str();
    subject.place(Kind::Tree, name)?;
    let levels = vec![
        Level::rules(Origin::Limit, name, &tree.limit),
        Level::rules(Origin::Tree, name, &tree.filter),
        Level::excludes(Origin::Tree, name, &tree.exclude),
    ];
    let (kind, name) = (Kind::Tree, name.to_owned());
    let origins = &[Origin::Limit, Origin::Tree];
    let (filter, exclude, limit) = (&tree.filter, &tree.exclude, &tree.limit);
    Some(Merged { kind, name, origins, filter, exclude, limit, tree, levels })
}

fn of_assignment<'a>(subject: &Subject<'a>, spec: &'a AssignmentSpec) -> Option<Merged<'a>> {
    let name = spec.name().to_string();
    let next = subject.next;
    let is_in_files = subject.place(Kind::Assignment, &name).is_some()
        || subject.place(Kind::Tree, spec.tree.as_str()).is_some();
    let has_rules = !(spec.filter.is_empty() && spec.exclude.is_empty());
    if !(is_in_files && has_rules) {
        return None;
    }
    let tree = next.trees.get(&spec.tree)?;
    let source = next.sources.get(&tree.source)?;
    let levels = effective::filter_levels(spec, tree, source, next.sites.get(&spec.site)?);
    let (filter, exclude) = (&spec.filter, &spec.exclude);
    let (kind, origins, limit) = (Kind::Assignment, &[Origin::Assignment], &[]);
    Some(Merged { kind, name, origins, filter, exclude, limit, tree, levels })
}

impl Merged<'_> {
    fn check(&self, subject: &Subject<'_>, findings: &mut Findings, found: &mut Vec<String>) {
        let at = format!("{} {}", self.kind.as_str(), self.name);
        let filter = match Filter::build(&self.levels) {
            Ok(filter) => filter,
            // Each list reads well by itself, so it is about all of them together.
            Err(errors) => {
                let spot = subject.spot(self.kind, &self.name, "filter");
                for error in errors.0.iter().take(1) {
                    findings.push(spot, format!("{at}, with all its rules: {}", error.problem));
                }
                return;
            }
        };
        if self.kind == Kind::Tree
            && filter.asks_for_rule_files()
            && self.is_of_stock_daemon(subject)
        {
            let spot = subject.spot(self.kind, &self.name, "limit");
            findings.push(
                spot,
                format!(
                    "{at}: limit asks for rule files in the tree (':'), which the publisher's scan \
                     reads, but the upstream is a stock rsync daemon; write their rules into limit"
                ),
            );
            return;
        }
        if let Err(errors) = within_limit(&filter) {
            for error in errors.0.iter().filter(|error| self.origins.contains(&error.origin)) {
                let spot = subject
                    .spot(self.kind, &self.name, &format!("filter.{}", error.index))
                    .or_else(|| subject.spot(Kind::Tree, self.tree.name.as_str(), "limit"));
                let message = format!(
                    "{at}, filter rule {}: '{}': {}",
                    error.index + 1,
                    error.text,
                    error.problem
                );
                findings.push(spot, message);
            }
            return;
        }
        let versions = self.tree.layout != Layout::Simple;
        for warning in warnings(&filter, versions) {
            let rule = match &warning {
                Warning::Overruled { rule, .. }
                | Warning::CutOff { rule, .. }
                | Warning::Impossible { rule } => rule,
                Warning::NoVersionLeft { by } => by,
            };
            let matters = self.origins.contains(&rule.origin)
                || matches!(warning, Warning::NoVersionLeft { .. });
            if matters {
                found.push(match self.spot_of(subject, rule) {
                    Some(spot) => format!("{}:{}: {warning}", spot.file, spot.line),
                    None => warning.to_string(),
                });
            }
        }
    }

    fn is_of_stock_daemon(&self, subject: &Subject<'_>) -> bool {
        let source = subject.next.sources.get(&self.tree.source);
        let upstream = source.and_then(|source| subject.next.upstreams.get(&source.upstream));
        upstream.is_some_and(|upstream| upstream.kind == UpstreamKind::Rsyncd)
    }

    /// The line of a rule, found by its text: filters and excludes are numbered each for itself.
    fn spot_of<'s>(&self, subject: &'s Subject<'_>, rule: &RuleRef) -> Option<&'s Spot> {
        let lists = match rule.origin {
            Origin::Limit => [("limit", self.limit), ("", &[])],
            _ => [("filter", self.filter), ("exclude", self.exclude)],
        };
        let (key, _) =
            lists.into_iter().find(|(_, rules)| rules.get(rule.index) == Some(&rule.text))?;
        subject.spot(self.kind, &self.name, &format!("{key}.{}", rule.index))
    }
}
