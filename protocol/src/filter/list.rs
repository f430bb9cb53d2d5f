//! An ordered list of rules, of which the first that matches decides.

use std::{collections::HashMap, sync::Arc};

use super::{
    pattern::Subject,
    rule::{Action, Choice, Question, Rule, SharedRule},
    sieve::Sieve,
};

/// Below this many literal rules, the sieve is faster than two hashes per entry.
const INDEX_FROM: usize = 64;

/// The rule that decided and whether it includes; `None` when no rule speaks of the entry.
pub(super) type Verdict<'a> = Option<(&'a Rule, bool)>;

/// A compiled list.
#[derive(Default)]
pub(super) struct List {
    rules: Vec<SharedRule>,
    /// Rules that cover one base name only, by that name.
    names: HashMap<Box<[u8]>, Vec<usize>>,
    /// Rules that cover one path only, by that path.
    paths: HashMap<Box<[u8]>, Vec<usize>>,
    /// All others, in order.
    tried: Vec<usize>,
    sieve: Sieve,
}

impl List {
    pub(super) fn new(rules: Vec<SharedRule>) -> Self {
        let mut list = Self { rules, ..Self::default() };
        let literals = list.rules.iter().filter(|rule| key(rule).is_some()).count();
        if literals < INDEX_FROM {
            list.tried = (0..list.rules.len()).collect();
            list.sieve = Sieve::new(&list.rules, &list.tried);
            return list;
        }
        for (at, rule) in list.rules.iter().enumerate() {
            match key(rule) {
                Some(Key::Name(name)) => list.names.entry(name.into()).or_default().push(at),
                Some(Key::Path(path)) => list.paths.entry(path.into()).or_default().push(at),
                None => list.tried.push(at),
            }
        }
        list.sieve = Sieve::new(&list.rules, &list.tried);
        list
    }

    pub(super) fn rules(&self) -> &[SharedRule] {
        &self.rules
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The first rule that decides about `subject`, and whether it includes. `file_rules` answers
    /// for the rule files at their place in the list.
    pub(super) fn first<'a>(
        &'a self,
        subject: Subject<'_>,
        question: Question,
        file_rules: &dyn Fn(&[u8]) -> Verdict<'a>,
    ) -> Verdict<'a> {
        let mut best = None;
        if !self.names.is_empty() {
            best = self.indexed(self.names.get(subject.name()), subject, question);
        }
        if !self.paths.is_empty() {
            let other = self.indexed(self.paths.get(subject.path), subject, question);
            best = match (best, other) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
        }
        for at in self.sieve.candidates(subject).map(|index| self.tried[index]) {
            if best.is_some_and(|best| best < at) {
                break;
            }
            match &self.rules[at].action {
                Action::Choice(choice) if choice.applies(subject, question) => {
                    best = Some(at);
                    break;
                }
                Action::Choice(_) => {}
                Action::RuleFile(file) => {
                    if let Some(found) = file_rules(&file.name) {
                        return Some(found);
                    }
                }
            }
        }
        best.and_then(|at| match &self.rules[at].action {
            Action::Choice(choice) => Some((Arc::as_ref(&self.rules[at]), choice.include)),
            Action::RuleFile(_) => None,
        })
    }

    fn indexed(
        &self,
        hits: Option<&Vec<usize>>,
        subject: Subject<'_>,
        question: Question,
    ) -> Option<usize> {
        hits?.iter().copied().find(|&at| match &self.rules[at].action {
            Action::Choice(choice) => choice.applies(subject, question),
            Action::RuleFile(_) => false,
        })
    }
}

enum Key<'a> {
    Name(&'a [u8]),
    Path(&'a [u8]),
}

/// What the rule can be looked up by. A negated rule covers everything else, so it has to be tried.
fn key(rule: &Rule) -> Option<Key<'_>> {
    let Action::Choice(Choice { negated: false, pattern, .. }) = &rule.action else {
        return None;
    };
    pattern.literal_name().map(Key::Name).or_else(|| pattern.literal_path().map(Key::Path))
}
