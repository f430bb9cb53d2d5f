//! What a filter does to all paths there could be.
//!
//! To tell an admin that a rule can never take effect, one has to look at every possible path. All
//! patterns are finite automata, so the paths fall into finitely many kinds: those that leave every
//! pattern in the same state. The kinds are visited breadth first, one byte at a time, and at each
//! it is noted which rule decides about an entry there. Some lists have too many kinds; then the
//! search ends at a fixed amount of work and says so, and nothing is claimed.

use std::collections::{HashSet, VecDeque};

use super::{
    Filter,
    pattern::Machine,
    rule::{Action, Choice, RuleRef, Side},
};

/// Most words of state that are advanced before the search gives up: a small part of a second.
pub(super) const MAX_WORK: usize = 5_000_000;

/// What was found out about one rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Some entry that a walk comes to is decided by this rule in its list.
    pub(super) decides: bool,
    /// A rule that decides before this one about an entry that both cover.
    pub(super) overruled_by: Option<usize>,
    /// A rule that leaves out a directory above an entry that this rule covers.
    pub(super) cut_off_by: Option<usize>,
}

/// All that was found out.
pub(super) struct Reach<'a> {
    pub(super) rules: Vec<Looked<'a>>,
    pub(super) found: Vec<Found>,
    /// Some directory at the top is kept.
    pub(super) keeps_top_directory: bool,
    /// A rule that leaves out a directory at the top.
    pub(super) top_directory_left_out_by: Option<usize>,
}

/// A rule that is looked at.
pub(super) struct Looked<'a> {
    pub(super) source: &'a RuleRef,
    pub(super) choice: &'a Choice,
    pub(super) in_limit: bool,
    machine: Machine,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Kind {
    states: Box<[u64]>,
    /// At the first byte of a component.
    fresh: bool,
    /// In the first component.
    top: bool,
    /// The rule that left out a directory on the way.
    cut_off_by: Option<usize>,
}

impl<'a> Reach<'a> {
    /// Looks at the rules of `filter` that speak to `side` and that `of_interest` picks; `None`
    /// when that takes more than `max_work`.
    pub(super) fn explore(
        filter: &'a Filter,
        side: Side,
        max_work: usize,
        of_interest: impl Fn(bool, usize) -> bool,
    ) -> Option<Self> {
        let lists = [(true, &filter.0.limit), (false, &filter.0.selection)];
        let mut rules = Vec::new();
        for (in_limit, list) in lists {
            for (at, rule) in list.rules().iter().enumerate() {
                if let Action::Choice(choice) = &rule.action
                    && choice.sides.speaks_to(side)
                    && of_interest(in_limit, at)
                {
                    let (source, machine) = (&rule.source, choice.pattern.machine());
                    rules.push(Looked { source, choice, in_limit, machine });
                }
            }
        }
        let found = vec![Found::default(); rules.len()];
        let mut reach =
            Self { rules, found, keeps_top_directory: false, top_directory_left_out_by: None };
        reach.visit_all(side, max_work).then_some(reach)
    }

    fn visit_all(&mut self, side: Side, max_work: usize) -> bool {
        let bytes = self.distinct_bytes();
        let words: usize = self.rules.iter().map(|rule| rule.machine.words()).sum();
        let cost = (bytes.len() + 2) * (words + self.rules.len()).max(1);
        let mut states = vec![0; words].into_boxed_slice();
        self.each(&mut states, |machine, now| machine.start(now));
        let first = Kind { states, fresh: true, top: true, cut_off_by: None };
        let mut seen = HashSet::from([first.clone()]);
        let mut queue = VecDeque::from([first]);
        let mut work = 0;
        while let Some(kind) = queue.pop_front() {
            work += cost;
            if work > max_work {
                return false;
            }
            let mut next = Vec::new();
            if !kind.fresh {
                self.note(&kind, false);
                let left_out_by = self.note(&kind, true);
                let mut inside = kind.clone();
                self.each(&mut inside.states, |machine, now| machine.step(now, b'/'));
                inside.fresh = true;
                inside.top = false;
                // What may be removed is asked about wherever it lies.
                if side == Side::Sender {
                    inside.cut_off_by = inside.cut_off_by.or(left_out_by);
                }
                next.push(inside);
            }
            for &byte in &bytes {
                let mut longer = kind.clone();
                self.each(&mut longer.states, |machine, now| machine.step(now, byte));
                longer.fresh = false;
                next.push(longer);
            }
            for kind in next {
                if seen.insert(kind.clone()) {
                    queue.push_back(kind);
                }
            }
        }
        true
    }

    /// Notes who decides about an entry of this kind; returns the rule that leaves it out.
    fn note(&mut self, kind: &Kind, is_dir: bool) -> Option<usize> {
        let (mut limit, mut selection) = (None, None);
        let mut covering = Vec::new();
        let mut states = &kind.states[..];
        for (at, rule) in self.rules.iter().enumerate() {
            let (now, rest) = states.split_at(rule.machine.words());
            states = rest;
            if rule.machine.matches(now, is_dir) != rule.choice.negated {
                covering.push(at);
                let first = if rule.in_limit { &mut limit } else { &mut selection };
                *first = first.or(Some(at));
            }
        }
        let left_out = |at: &usize| !self.rules[*at].choice.include;
        let wall = limit.filter(left_out);
        let left_out_by = wall.or(selection.filter(left_out));
        for at in covering {
            let first = if self.rules[at].in_limit { limit } else { wall.or(selection) };
            let found = &mut self.found[at];
            if kind.cut_off_by.is_some() {
                found.cut_off_by = found.cut_off_by.or(kind.cut_off_by);
            } else if first == Some(at) {
                found.decides = true;
            } else {
                found.overruled_by = found.overruled_by.or(first);
            }
        }
        if kind.top && is_dir {
            match left_out_by {
                None => self.keeps_top_directory = true,
                by => self.top_directory_left_out_by = self.top_directory_left_out_by.or(by),
            }
        }
        left_out_by
    }

    fn each(&self, states: &mut [u64], mut act: impl FnMut(&Machine, &mut [u64])) {
        let mut rest = states;
        for rule in &self.rules {
            let (now, after) = rest.split_at_mut(rule.machine.words());
            act(&rule.machine, now);
            rest = after;
        }
    }

    /// One byte of each sort that the patterns can tell apart, without `/` and NUL.
    fn distinct_bytes(&self) -> Vec<u8> {
        let mut seen = HashSet::new();
        let sort = |byte| -> Vec<u64> {
            self.rules.iter().flat_map(|rule| rule.machine.takes(byte)).copied().collect()
        };
        (1..=255).filter(|&byte| byte != b'/' && seen.insert(sort(byte))).collect()
    }
}
