//! Whether definitions hold, each in itself and all beside each other.
//!
//! What stands in the files is checked in itself; what is stored already was. How definitions stand
//! to each other is checked over the whole state that would result, because a file may break what
//! it does not mention.

mod assignments;
mod groups;
mod mode;
mod references;
mod rules;
mod sites;
mod trees;
mod upstreams;
mod versions;

use std::collections::{BTreeMap, BTreeSet};

use protocol::v1::definitions::Kind;

use super::{
    findings::{Findings, Spot},
    parse::Place,
    plan::Context,
    set::Definitions,
};

pub(super) use references::after_removal;

/// What is checked.
pub(super) struct Subject<'a> {
    pub(super) stored: &'a Definitions,
    pub(super) next: &'a Definitions,
    /// Where each definition of the files stands.
    pub(super) places: &'a BTreeMap<(Kind, String), Place>,
    /// All that is named in the files, also what could not be read.
    pub(super) mentioned: &'a BTreeSet<(Kind, String)>,
    pub(super) context: &'a Context,
}

impl Subject<'_> {
    /// Where a definition stands; none when it is only stored.
    fn place(&self, kind: Kind, name: &str) -> Option<&Place> {
        self.places.get(&(kind, name.to_owned()))
    }

    /// The line of one of its keys; none when it is only stored.
    fn spot(&self, kind: Kind, name: &str, key: &str) -> Option<&Spot> {
        self.place(kind, name).map(|place| place.of(key))
    }

    /// Whether there will be such a definition, or would be if the rest of it were right.
    fn is_known(&self, kind: Kind, name: &str) -> bool {
        let mentioned = self.mentioned.contains(&(kind, name.to_owned()));
        mentioned || self.next.get(kind, name).is_some()
    }
}

/// Checks everything and gives the warnings.
pub(super) fn all(subject: &Subject<'_>, findings: &mut Findings) -> Vec<String> {
    let mut warnings = Vec::new();
    references::check(subject, findings);
    upstreams::check(subject, findings, &mut warnings);
    rules::check(subject, findings, &mut warnings);
    trees::check(subject, findings, &mut warnings);
    versions::check(subject, findings, &mut warnings);
    sites::check(subject, findings);
    assignments::check(subject, findings, &mut warnings);
    groups::check(subject, findings, &mut warnings);
    references::warn_of_removals(subject.stored, subject.next, &mut warnings);
    warnings
}
