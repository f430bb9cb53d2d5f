//! Which assignments are meant.

use protocol::spec::AssignmentName;

use super::Agent;
use crate::{ledger, reconcile};

/// Which assignments are worked on without being due.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Forced {
    /// Those that are due.
    #[default]
    Due,
    /// All of them.
    All,
    /// Those of one tree: `TREE`, or `TREE@SITE`.
    Tree(String),
}

impl Forced {
    pub(crate) fn includes(&self, name: &AssignmentName) -> bool {
        match self {
            Self::Due => false,
            Self::All => true,
            Self::Tree(tree) => name.tree.as_str() == tree || name.to_string() == *tree,
        }
    }
}

/// A tree that this agent knows nothing of.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no tree {tree} is assigned to this agent; 'mirror-agent status' lists what is")]
pub struct NoSuchTree {
    /// What was asked for.
    pub tree: String,
}

impl Agent {
    /// Names of all assignments of a tree, or of all trees.
    pub fn names_of(&self, tree: Option<&str>) -> Result<Vec<AssignmentName>, crate::Failure> {
        let names = self.names()?;
        let Some(tree) = tree else { return Ok(names) };
        let forced = Forced::Tree(tree.to_owned());
        let found: Vec<_> = names.into_iter().filter(|name| forced.includes(name)).collect();
        if found.is_empty() {
            return Err(NoSuchTree { tree: tree.to_owned() }.into());
        }
        Ok(found)
    }

    /// The one assignment of a tree.
    pub(crate) fn name_of(&self, tree: &str) -> Result<AssignmentName, crate::Failure> {
        only(self.names_of(Some(tree))?, tree)
    }

    pub(super) fn names(&self) -> Result<Vec<AssignmentName>, ledger::Error> {
        let records = self.ledger.records()?;
        let orders = self.orders();
        let ordered = orders.as_ref().map_or(&[][..], |orders| &orders.wanted.assignments);
        Ok(reconcile::assignments(ordered, &records).into_iter().cloned().collect())
    }
}

/// The only one of these assignments of a tree.
pub(crate) fn only(
    names: Vec<AssignmentName>,
    tree: &str,
) -> Result<AssignmentName, crate::Failure> {
    match <[AssignmentName; 1]>::try_from(names) {
        Ok([name]) => Ok(name),
        Err(names) if names.is_empty() => Err(NoSuchTree { tree: tree.to_owned() }.into()),
        Err(names) => {
            let names: Vec<_> = names.iter().map(ToString::to_string).collect();
            Err(crate::Failure::Several { tree: tree.to_owned(), names: names.join(", ") })
        }
    }
}
