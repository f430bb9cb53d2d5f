//! What a filter would do to a tree: each entry with the rule that decided, and sums by rule.
//!
//! This is what an admin looks at before a rule goes out to the sites. It is fed with a listing, so
//! that a directory, a manifest and a remote listing are all previewed by the same code.

use std::{fmt, io};

use serde::Serialize;

use super::{
    Filter,
    rule::{RuleRef, Side},
    walk::{Walk, WalkError},
};
use crate::path::TreePath;

/// Goes through a listing in path order.
pub struct Preview<R> {
    walk: Walk,
    read: R,
    /// Directories entered, and below them at most one that is left out.
    open: Vec<TreePath>,
    left_out: Option<(TreePath, RuleRef)>,
    tally: Tally,
}

/// What becomes of one entry, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Explanation {
    /// Whether it is kept.
    pub kept: bool,
    /// The rule that decided; none when no rule speaks of it.
    pub rule: Option<RuleRef>,
    /// The directory above the entry that is left out and takes it along.
    pub through: Option<TreePath>,
}

/// How much there is of something.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Count {
    /// Directories.
    pub directories: u64,
    /// Everything else.
    pub files: u64,
    /// Sizes of the files together.
    pub bytes: u64,
}

/// Sums over a listing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Tally {
    /// All that is kept.
    pub kept: Count,
    /// All that is left out.
    pub left_out: Count,
    /// What each rule decided about, in the order of levels and rules.
    pub by_rule: Vec<RuleTally>,
    /// What no rule speaks of, which is kept.
    pub unspoken: Count,
}

/// What one rule decided about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct RuleTally {
    /// The rule.
    pub rule: RuleRef,
    /// What it keeps.
    pub kept: Count,
    /// What it leaves out, with all that lies in the directories it leaves out.
    pub left_out: Count,
}

impl<R> Preview<R>
where
    R: FnMut(Option<&TreePath>, &[u8]) -> io::Result<Option<Vec<u8>>>,
{
    /// A preview of `filter`. `read` answers for the tree's rule files: the directory (`None`: the
    /// root) and the base name. A filter without `:` rules never asks.
    pub fn new(filter: &Filter, mut read: R) -> Result<Self, WalkError> {
        let mut walk = Walk::new(filter, Side::Sender);
        walk.enter(None, |name| read(None, name))?;
        Ok(Self { walk, read, open: Vec::new(), left_out: None, tally: Tally::default() })
    }

    /// The next entry of the listing; `bytes` is the size of a file. What lies below a directory
    /// that is left out may be listed, so that it is counted, or not.
    pub fn visit(
        &mut self,
        path: &TreePath,
        is_dir: bool,
        bytes: u64,
    ) -> Result<Explanation, WalkError> {
        while self.open.last().is_some_and(|dir| !path.is_inside(dir)) {
            self.open.pop();
            self.walk.leave();
        }
        self.left_out.take_if(|(dir, _)| !path.is_inside(dir));
        let explanation = if let Some((dir, rule)) = &self.left_out {
            Explanation { kept: false, rule: Some(rule.clone()), through: Some(dir.clone()) }
        } else {
            let decision = self.walk.decide(path, is_dir);
            Explanation { kept: decision.kept, rule: decision.rule.cloned(), through: None }
        };
        if is_dir && explanation.kept {
            let read = &mut self.read;
            self.walk.enter(Some(path), |name| read(Some(path), name))?;
            self.open.push(path.clone());
        } else if is_dir
            && self.left_out.is_none()
            && let Some(rule) = &explanation.rule
        {
            self.left_out = Some((path.clone(), rule.clone()));
        }
        self.tally.add(&explanation, is_dir, bytes);
        Ok(explanation)
    }

    /// The sums over all that was visited.
    pub fn finish(self) -> Tally {
        self.tally
    }
}

impl Tally {
    fn add(&mut self, explanation: &Explanation, is_dir: bool, bytes: u64) {
        let add = |count: &mut Count| {
            if is_dir {
                count.directories += 1;
            } else {
                count.files += 1;
                count.bytes = count.bytes.saturating_add(bytes);
            }
        };
        add(if explanation.kept { &mut self.kept } else { &mut self.left_out });
        let Some(rule) = &explanation.rule else {
            return add(&mut self.unspoken);
        };
        let place = |rule: &RuleRef| (rule.origin, rule.label.clone(), rule.index);
        let found = self.by_rule.binary_search_by_key(&place(rule), |tally| place(&tally.rule));
        let at = found.unwrap_or_else(|at| {
            let (kept, left_out) = (Count::default(), Count::default());
            self.by_rule.insert(at, RuleTally { rule: rule.clone(), kept, left_out });
            at
        });
        let tally = &mut self.by_rule[at];
        add(if explanation.kept { &mut tally.kept } else { &mut tally.left_out });
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.kept { "kept" } else { "left out" })?;
        if let Some(dir) = &self.through {
            write!(f, " with the directory {dir}/")?;
        }
        match &self.rule {
            Some(rule) => write!(f, " by {rule}"),
            None => f.write_str(", since no rule speaks of it"),
        }
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { directories, files, bytes } = self;
        write!(f, "{files} files, {directories} directories, {bytes} bytes")
    }
}

/// One line per rule and two sums.
impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for RuleTally { rule, kept, left_out } in &self.by_rule {
            for (what, count) in [("keeps", kept), ("leaves out", left_out)] {
                if *count != Count::default() {
                    writeln!(f, "{rule}: {what} {count}")?;
                }
            }
        }
        writeln!(f, "no rule: keeps {}", self.unspoken)?;
        writeln!(f, "kept: {}", self.kept)?;
        write!(f, "left out: {}", self.left_out)
    }
}
