//! High-water marks: numbers below which nothing is believed any more.

use std::collections::BTreeMap;

use jiff::Timestamp;
use protocol::{
    digest::Digest,
    dsse::Envelope,
    generation::{HeadNumber, RestoreEpoch, Revision, Version},
    name::{SiteName, TreeName},
    spec::AssignmentName,
};
use serde::{Deserialize, Serialize};

/// Most generations that a tree can have moved on by: one each minute for two years.
const MAX_STEP: u64 = 1 << 20;

/// The highest numbers that were ever believed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Marks {
    /// Of the coordinator's restores.
    pub restore_epoch: RestoreEpoch,
    /// Of wanted state within that epoch.
    pub revision: Revision,
    /// Of the heads within that epoch.
    pub head: HeadNumber,
    /// The time that is known to have passed; see [`certs::clock`].
    pub time: Option<Timestamp>,
    /// Of each tree's content.
    pub trees: BTreeMap<TreeName, Mark>,
    /// The site, where mandates are followed: those of another one are not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub site: Option<SiteName>,
    /// The newest mandate of each assignment.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub mandates: BTreeMap<AssignmentName, Envelope>,
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
    /// An older head of the same wanted state.
    #[error(
        "the coordinator's head went back from number {held} to {offered}; refused: it was signed earlier"
    )]
    Head {
        /// Believed before.
        held: HeadNumber,
        /// Offered now.
        offered: HeadNumber,
    },
    /// A number so high that nothing could follow it.
    #[error(
        "generation {offered} of tree {tree} follows {held}; refused: no tree has so many generations. If a key was stolen, the root has to put the tree into a new epoch: `mirrorctl root draft --epoch {tree}`"
    )]
    FastForward {
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
    pub fn raise_wanted(
        &mut self,
        epoch: RestoreEpoch,
        revision: Revision,
        head: HeadNumber,
    ) -> Result<(), GoesBack> {
        if epoch < self.restore_epoch {
            return Err(GoesBack::RestoreEpoch { held: self.restore_epoch, offered: epoch });
        }
        if epoch == self.restore_epoch && revision < self.revision {
            return Err(GoesBack::Revision { held: self.revision, offered: revision, epoch });
        }
        if epoch == self.restore_epoch && head < self.head {
            return Err(GoesBack::Head { held: self.head, offered: head });
        }
        (self.restore_epoch, self.revision, self.head) = (epoch, revision, head);
        Ok(())
    }

    /// Forgets what heads said, because the root has taken the trust from all of their keys: a
    /// stolen key may have signed numbers and times that nothing true could ever follow.
    pub fn forget_heads(&mut self) {
        (self.restore_epoch, self.revision, self.head) = Default::default();
        self.time = None;
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
            let step = version.generation.0.saturating_sub(mark.version.generation.0);
            if version.epoch == mark.version.epoch && step > MAX_STEP {
                let (tree, held) = (tree.clone(), mark.version);
                return Err(GoesBack::FastForward { tree, held, offered: version });
            }
        }
        self.trees.insert(tree.clone(), Mark { version, manifest });
        Ok(())
    }
}
