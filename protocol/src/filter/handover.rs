//! Our rules in the hands of a real rsync.
//!
//! rsync knows one list, we have two that must both keep an entry. Whenever one list can say the
//! same, it is made; where none can, what is handed over is the limit alone. That is wider, never
//! narrower: nothing outside the limit is asked for, and who uses the result applies the filter to
//! what comes. A caller that names what it wants (`--files-from`) loses nothing either way.
//!
//! Rules are written in the short form with one space, which reads the same in rsync 3.1 to 3.5.
//! They go as arguments, without a shell, or, when they are many, through a file whose rules end
//! in NUL bytes (`--from0`), because a pattern may hold any other byte.

use std::{ffi::OsString, os::unix::ffi::OsStringExt};

use super::{
    Filter,
    list::List,
    rule::{Action, Rule, SharedRule},
};

/// Rules for rsync; see the [method](Filter::rsync_rules).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RsyncRules {
    /// The rules, in order, as after `--filter`.
    pub lines: Vec<Vec<u8>>,
    /// Whether rsync then keeps exactly what the filter keeps, and not more.
    pub exact: bool,
}

impl Filter {
    /// The rules that make rsync decide as this filter does.
    pub fn rsync_rules(&self) -> RsyncRules {
        let (limit, selection) = (effective(&self.0.limit), effective(&self.0.selection));
        // Excludes in front of one list count whatever the other list says, so they may go before
        // both. What is left can be one list when it is left in one list only.
        let (limit_front, limit_rest) = split_front(limit);
        let (selection_front, selection_rest) = split_front(selection);
        let exact = limit_rest.is_empty() || selection_rest.is_empty();
        let parts: &[&[SharedRule]] = if exact {
            &[limit_front, selection_front, limit_rest, selection_rest]
        } else {
            &[limit_front, limit_rest]
        };
        let lines = parts.iter().flat_map(|part| part.iter()).map(|rule| rule.canonical());
        RsyncRules { lines: lines.collect(), exact }
    }
}

impl RsyncRules {
    /// The rules as arguments for `Command::args`.
    pub fn arguments(&self) -> Vec<OsString> {
        let argument = |line: &Vec<u8>| OsString::from_vec([b"--filter=", &line[..]].concat());
        self.lines.iter().map(argument).collect()
    }

    /// The rules as a file for `--from0 --filter='merge FILE'`. Note that `--from0` then counts for
    /// a `--files-from` list as well.
    pub fn file(&self) -> Vec<u8> {
        self.lines.iter().flat_map(|line| line.iter().copied().chain([0])).collect()
    }
}

/// The list without the includes at its end, which change nothing.
fn effective(list: &List) -> &[SharedRule] {
    let rules = list.rules();
    let end = rules.iter().rposition(|rule| !is_choice(rule, true)).map_or(0, |last| last + 1);
    &rules[..end]
}

/// The leading excludes, and the rest.
fn split_front(rules: &[SharedRule]) -> (&[SharedRule], &[SharedRule]) {
    rules.split_at(rules.iter().take_while(|rule| is_choice(rule, false)).count())
}

fn is_choice(rule: &Rule, include: bool) -> bool {
    matches!(&rule.action, Action::Choice(choice) if choice.include == include)
}
