//! Filters that are rsync's.
//!
//! A filter decides what leaves an upstream, what is in a manifest, what an agent keeps, what a
//! direct rsync transfers and what may be removed. If two of those disagreed about one name, a
//! fallback from one way to another would change a mirror. So there is one engine, without I/O,
//! and it speaks rsync's language to the letter: whoever knows rsync's filter rules knows these,
//! and the rules can be handed to an rsync that does not know us. Where rsync's rule depends on
//! the machine it runs on, the rule is refused with its column and a way out.
//!
//! A filter is two lists that must both keep an entry:
//!
//! - the **limit**, the tree's wall, which nothing below it can widen;
//! - the **selection**, merged from the levels in one order (see [`Level`]), first match wins.
//!
//! Keeping both apart, instead of joining them to one list, is what makes the wall a wall: an
//! include of the selection ends only the search in the selection.
//!
//! Globbing libraries were not used: their wildcards differ from rsync's in slashes, classes and
//! escapes, and a difference is the one thing that must not be. A general regular expression
//! would do, at several times the cost per name and with a cache that grows.

use std::{fmt, sync::Arc};

use crate::{digest::Digest, path::TreePath};

mod error;
mod glob;
mod grammar;
mod handover;
mod level;
mod limit;
mod list;
mod pattern;
pub mod preview;
mod reach;
mod reader;
mod removal;
mod rule;
mod sieve;
mod walk;
mod warnings;

pub use error::{Problem, RuleError, RuleErrors, Unsupported};
pub use handover::RsyncRules;
pub use level::{Level, LevelKind, Origin};
pub use limit::within_limit;
pub use removal::Wanted;
pub use rule::{RuleRef, Side};
pub use walk::{MAX_RULE_FILE, Walk, WalkError};
pub use warnings::{Warning, warnings};

use list::{List, Verdict};
use pattern::Subject;
use reader::Reader;
use rule::{Question, SharedRule, settle_files};

/// Most rules of a filter, all levels together.
pub const MAX_RULES: usize = 20_000;

/// Most text of a filter, all levels together, in bytes.
pub const MAX_TEXT: usize = 1 << 20;

/// A compiled filter; cheap to clone, equal when it means the same.
#[derive(Clone)]
pub struct Filter(Arc<Lists>);

struct Lists {
    limit: List,
    selection: List,
    digest: Digest,
}

/// Whether an entry is kept, and by which rule. No rule: nothing speaks of it, so it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision<'a> {
    /// Whether the entry is kept.
    pub kept: bool,
    /// The rule that decided.
    pub rule: Option<&'a RuleRef>,
}

impl Filter {
    /// Keeps everything.
    pub fn all() -> Self {
        Self::of(Vec::new(), Vec::new())
    }

    /// Reads one list of filter rules, each as after rsync's `--filter`.
    pub fn parse<S: AsRef<[u8]>>(rules: &[S]) -> Result<Self, RuleErrors> {
        Self::parse_numbered(rules.iter().map(AsRef::as_ref).enumerate())
    }

    /// Reads a file of filter rules as rsync's `merge` does: one per line, without the empty lines
    /// and those that begin with `#` or `;`. Errors name the line as the rule's index.
    pub fn parse_file(bytes: &[u8]) -> Result<Self, RuleErrors> {
        Self::parse_numbered(reader::lines(bytes))
    }

    fn parse_numbered<'a>(
        lines: impl Iterator<Item = (usize, &'a [u8])>,
    ) -> Result<Self, RuleErrors> {
        let mut reader = Reader::default();
        let list = settle_files(reader.given(lines), false);
        reader.finish()?;
        Ok(Self::of(Vec::new(), list))
    }

    /// Merges the levels of one assignment, given in any order: limits become the wall; within it
    /// come the filter rules of assignment, tree, source, site and network, then their excludes in
    /// the same order. `!` clears the rules before it in its own level, never another level's.
    pub fn build(levels: &[Level]) -> Result<Self, RuleErrors> {
        let mut reader = Reader::default();
        let limits = levels.iter().filter(|level| level.origin == Origin::Limit);
        let limit = settle_files(limits.flat_map(|level| reader.level(level)).collect(), false);
        let merged = level::merge_order(levels).into_iter();
        let selection = merged.flat_map(|level| reader.level(level)).collect();
        reader.finish()?;
        Ok(Self::of(limit, selection))
    }

    fn of(limit: Vec<SharedRule>, selection: Vec<SharedRule>) -> Self {
        let mut canonical = Vec::new();
        for list in [&limit, &selection] {
            for rule in list {
                canonical.extend(rule.canonical());
                canonical.extend(rule.excluded_go().then_some(1));
                canonical.push(0);
            }
            canonical.push(0);
        }
        let digest = Digest::of(&canonical);
        Self(Arc::new(Lists { limit: List::new(limit), selection: List::new(selection), digest }))
    }

    /// Decides about this entry alone, its parents taken as kept. Rule files inside the tree are
    /// not seen.
    pub fn decide(&self, path: &TreePath, is_dir: bool) -> Decision<'_> {
        self.decide_subject(Subject::new(path.as_bytes(), is_dir), Question::KEPT)
    }

    /// Whether a walk would come to this entry and keep it: itself and every directory above it.
    pub fn keeps(&self, path: &TreePath, is_dir: bool) -> bool {
        if self.is_all() {
            return true;
        }
        let bytes = path.as_bytes();
        let kept = |path, is_dir| self.decide_subject(Subject::new(path, is_dir), Question::KEPT);
        let mut parents = bytes.iter().enumerate().filter(|&(_, &b)| b == b'/');
        parents.all(|(at, _)| kept(&bytes[..at], true).kept) && kept(bytes, is_dir).kept
    }

    /// Whether an entry of a mirror that the upstream does not have must stay. What is inside a
    /// directory that stays is not asked about; see [`Filter::decide`] for the other side.
    pub fn protects(&self, path: &TreePath, is_dir: bool) -> bool {
        !self.decide_subject(Subject::new(path.as_bytes(), is_dir), Question::PROTECTED).kept
    }

    fn decide_subject(&self, subject: Subject<'_>, question: Question) -> Decision<'_> {
        let no_files = |_: &[u8]| None;
        let limit = self.0.limit.first(subject, question, &no_files);
        Decision::of(limit, || self.0.selection.first(subject, question, &no_files))
    }

    /// Whether there is no rule at all.
    pub fn is_all(&self) -> bool {
        self.0.limit.is_empty() && self.0.selection.is_empty()
    }

    /// Names the filter's meaning: equal for equal rules in equal order, whatever they were written
    /// like and whichever level they came from.
    pub fn digest(&self) -> Digest {
        self.0.digest
    }
}

impl<'a> Decision<'a> {
    /// Both lists must keep; the selection is asked only within the limit.
    fn of(limit: Verdict<'a>, selection: impl FnOnce() -> Verdict<'a>) -> Self {
        let decided = match limit {
            Some((_, false)) => limit,
            _ => selection().or(limit),
        };
        let kept = decided.is_none_or(|(_, kept)| kept);
        Self { kept, rule: decided.map(|(rule, _)| &rule.source) }
    }
}

impl Default for Filter {
    fn default() -> Self {
        Self::all()
    }
}

impl PartialEq for Filter {
    fn eq(&self, other: &Self) -> bool {
        self.0.digest == other.0.digest
    }
}

impl Eq for Filter {}

/// One rule per line in rsync's short form, the limit's first and marked as such.
impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = [("limit ", &self.0.limit), ("", &self.0.selection)];
        let lines = lines
            .into_iter()
            .flat_map(|(mark, list)| list.rules().iter().map(move |rule| (mark, rule.canonical())));
        for (at, (mark, line)) in lines.enumerate() {
            let end = if at == 0 { "" } else { "\n" };
            write!(f, "{end}{mark}{}", crate::path::escape(&line))?;
        }
        Ok(())
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Filter({:?})", self.to_string())
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod fuzz;
