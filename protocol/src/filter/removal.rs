//! What a mirror may remove: rsync's `--delete`, as a pure function.
//!
//! An entry that the upstream does not have is removed, unless a rule that speaks to the receiver
//! leaves it out: then it stays, with all that is inside, and so do the directories above it. A
//! name that a filter leaves out is thus never removed by surprise; who wants that says so with
//! [`Filter::removing_excluded`].

use std::io;

use super::{
    Filter, Walk, WalkError,
    rule::{Question, Side},
};
use crate::path::TreePath;

/// What the upstream's selection has under a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Nothing.
    Nothing,
    /// A directory.
    Directory,
    /// Anything else.
    Other,
}

/// How a directory that was met is treated.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Both have it: what is inside is compared.
    Compared,
    /// It goes, with all that may go from inside of it.
    Removed,
    /// Something else takes its place, so what is inside goes.
    Replaced,
    /// It stays as it is.
    Untouched,
}

struct Open {
    path: TreePath,
    fate: Fate,
    /// Where the directory stands in the list of what is removed.
    listed_at: Option<usize>,
}

impl Filter {
    /// The filter for a mirror that does not keep what its filter leaves out, as with rsync's
    /// `--delete-excluded`: rules without a side of their own no longer protect. Rules that name
    /// the receiver still do.
    pub fn removing_excluded(&self) -> Self {
        let sender_only = |list: &super::list::List| {
            list.rules().iter().map(|rule| std::sync::Arc::new(rule.for_sender())).collect()
        };
        Self::of(sender_only(&self.0.limit), sender_only(&self.0.selection))
    }

    /// The entries of a mirror that are removed so that it holds what is `wanted`, parents before
    /// what is inside of them. `local` is all that the mirror holds, in path order, with `true` for
    /// directories. `read` answers for the mirror's rule files as in [`Walk::enter`], by their path;
    /// a filter without `:` rules never asks.
    pub fn removals(
        &self,
        local: impl IntoIterator<Item = (TreePath, bool)>,
        wanted: impl Fn(&TreePath) -> Wanted,
        mut read: impl FnMut(Option<&TreePath>, &[u8]) -> io::Result<Option<Vec<u8>>>,
    ) -> Result<Vec<TreePath>, WalkError> {
        let mut walk = Walk::new(self, Side::Receiver);
        walk.enter(None, |name| read(None, name))?;
        let mut open: Vec<Open> = Vec::new();
        let mut removed: Vec<Option<TreePath>> = Vec::new();
        for (path, is_dir) in local {
            while open.last().is_some_and(|dir| !path.is_inside(&dir.path)) {
                leave(&mut open, &mut walk);
            }
            let around = open.last().map_or(Fate::Compared, |dir| dir.fate);
            let fate = fate(&walk, &path, is_dir, around, wanted(&path));
            if fate == Fate::Untouched {
                // Whatever holds something that stays has to stay.
                for dir in &open {
                    dir.listed_at.into_iter().for_each(|at| removed[at] = None);
                }
            }
            let listed_at = (fate == Fate::Removed).then_some(removed.len());
            if listed_at.is_some() {
                removed.push(Some(path.clone()));
            }
            if is_dir {
                if fate != Fate::Untouched {
                    walk.enter(Some(&path), |name| read(Some(&path), name))?;
                }
                open.push(Open { path, fate, listed_at });
            }
        }
        Ok(removed.into_iter().flatten().collect())
    }
}

fn leave(open: &mut Vec<Open>, walk: &mut Walk) {
    if open.pop().is_some_and(|dir| dir.fate != Fate::Untouched) {
        walk.leave();
    }
}

fn fate(walk: &Walk, path: &TreePath, is_dir: bool, around: Fate, wanted: Wanted) -> Fate {
    if around == Fate::Untouched {
        return Fate::Untouched;
    }
    let in_removed_directory = matches!(around, Fate::Removed | Fate::Replaced);
    match wanted {
        Wanted::Directory if !in_removed_directory && is_dir => Fate::Compared,
        Wanted::Other if !in_removed_directory && is_dir => Fate::Replaced,
        Wanted::Directory | Wanted::Other if !in_removed_directory => Fate::Untouched,
        _ => {
            let question = Question { side: Side::Receiver, in_removed_directory };
            let kept = walk.ask(path, is_dir, question).kept;
            if kept { Fate::Removed } else { Fate::Untouched }
        }
    }
}
