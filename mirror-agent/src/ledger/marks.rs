//! High-water marks: numbers below which nothing is believed any more.

use std::collections::BTreeMap;

use protocol::{
    digest::Digest,
    generation::{RestoreEpoch, Revision, Version},
    name::TreeName,
};
use serde::{Deserialize, Serialize};

/// The highest numbers that were ever believed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Marks {
    /// Of the coordinator's restores.
    pub restore_epoch: RestoreEpoch,
    /// Of wanted state within that epoch.
    pub revision: Revision,
    /// Of each tree's content.
    pub trees: BTreeMap<TreeName, Mark>,
}

/// The highest generation of one tree that was believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Mark {
    /// Which generation.
    pub version: Version,
    /// What it is: one generation never has two manifests.
    pub manifest: Digest,
}

/// Numbers that go back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GoesBack {
    /// An older wanted state.
    #[error(
        "the coordinator's orders went back from revision {held} to {offered} in restore epoch {epoch}; refused: was it restored without 'coordinator restore'?"
    )]
    Revision {
        /// Believed before.
        held: Revision,
        /// Offered now.
        offered: Revision,
        /// The epoch of both.
        epoch: RestoreEpoch,
    },
    /// An older restore epoch.
    #[error(
        "the coordinator's orders went back from restore epoch {held} to {offered}; refused: an old copy of its database is running"
    )]
    RestoreEpoch {
        /// Believed before.
        held: RestoreEpoch,
        /// Offered now.
        offered: RestoreEpoch,
    },
    /// Older content.
    #[error(
        "the head names generation {offered} of tree {tree}, but {held} was seen already; refused: content never goes back without a new epoch"
    )]
    Generation {
        /// Which tree.
        tree: TreeName,
        /// Believed before.
        held: Version,
        /// Offered now.
        offered: Version,
    },
    /// Other content under the same number.
    #[error(
        "generation {version} of tree {tree} was announced with two different manifests; refused: two publishers may be signing for one tree"
    )]
    Changed {
        /// Which tree.
        tree: TreeName,
        /// Which generation.
        version: Version,
    },
}

impl Marks {
    /// Raises the marks of wanted state, or refuses to go back.
    pub fn raise_revision(
        &mut self,
        epoch: RestoreEpoch,
        revision: Revision,
    ) -> Result<(), GoesBack> {
        if epoch < self.restore_epoch {
            return Err(GoesBack::RestoreEpoch { held: self.restore_epoch, offered: epoch });
        }
        if epoch == self.restore_epoch && revision < self.revision {
            return Err(GoesBack::Revision { held: self.revision, offered: revision, epoch });
        }
        (self.restore_epoch, self.revision) = (epoch, revision);
        Ok(())
    }

    /// Raises the mark of a tree's content, or refuses to go back.
    pub fn raise_tree(
        &mut self,
        tree: &TreeName,
        version: Version,
        manifest: Digest,
    ) -> Result<(), GoesBack> {
        if let Some(mark) = self.trees.get(tree) {
            if version < mark.version {
                let (tree, held) = (tree.clone(), mark.version);
                return Err(GoesBack::Generation { tree, held, offered: version });
            }
            if version == mark.version && manifest != mark.manifest {
                return Err(GoesBack::Changed { tree: tree.clone(), version });
            }
        }
        self.trees.insert(tree.clone(), Mark { version, manifest });
        Ok(())
    }
}
