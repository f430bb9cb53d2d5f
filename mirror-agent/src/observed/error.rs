//! What a run at a stock server can fail of.

use jiff::Timestamp;
use protocol::{manifest, path::TreePath};

use crate::{
    apply, fetch::manifest::Error as StoreError, gather, guard::Held as Guarded,
    rsync::child::Error as RsyncError, versions,
};

/// Why a run did not bring a tree to what its upstream shows.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk.
    #[error(transparent)]
    Apply(#[from] apply::Error),
    /// What the agent remembers.
    #[error(transparent)]
    Ledger(#[from] crate::ledger::Error),
    /// The agent's copy of a manifest.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Staging.
    #[error(transparent)]
    Gather(#[from] gather::Error),
    /// rsync.
    #[error("tree {tree}: rsync://{host}/{path} cannot be mirrored")]
    Rsync {
        /// Which tree.
        tree: protocol::name::TreeName,
        /// The server, with its port.
        host: String,
        /// Module and path.
        path: String,
        /// Why.
        source: RsyncError,
    },
    /// The guard.
    #[error("tree {tree}: {source}")]
    Held {
        /// Which tree.
        tree: protocol::name::TreeName,
        /// What it saw.
        #[source]
        source: Guarded,
    },
    /// Another server than before shows an earlier state of the tree.
    #[error(
        "tree {tree}: {host} shows an earlier state than is held ({path} is of {there} there, of {here} here), so nothing is taken from it"
    )]
    Behind {
        /// Which tree.
        tree: protocol::name::TreeName,
        /// The server.
        host: String,
        /// A file that shows it.
        path: TreePath,
        /// Its time there, or the newest time there.
        there: Timestamp,
        /// Its time here.
        here: Timestamp,
    },
    /// There is no server to ask.
    #[error("the tree has no server that could be asked; 'mirrorctl describe' shows its upstreams")]
    NoServer,
    /// The upstream changed while it was read.
    #[error("tree {tree}: {path} changed at the upstream while it was fetched; it is tried again")]
    Unsettled {
        /// Which tree.
        tree: protocol::name::TreeName,
        /// One path that did.
        path: TreePath,
    },
    /// A file was listed and did not come.
    #[error("tree {tree}: rsync did not bring {path}, though the upstream lists it")]
    NotBrought {
        /// Which tree.
        tree: protocol::name::TreeName,
        /// Which file.
        path: TreePath,
    },
    /// A file that came cannot be read.
    #[error("what rsync brought of {path} cannot be read")]
    Read {
        /// Which file.
        path: TreePath,
        /// Why.
        source: filetree::fs::Error,
    },
    /// The directory of versions.
    #[error(transparent)]
    Versions(#[from] versions::Error),
    /// The listing makes no tree.
    #[error("the upstream's listing makes no tree")]
    Manifest(#[from] manifest::Error),
}

impl Error {
    /// Whether another server that has the same tree may have better luck: this one could not be
    /// had, or is behind.
    pub(super) fn lets_another_try(&self) -> bool {
        matches!(self, Self::Rsync { .. } | Self::Behind { .. })
    }

    /// Whether the server was reached: what it said, or what came of it, is another matter.
    pub fn reached(&self) -> bool {
        match self {
            Self::Rsync { source, .. } => {
                !matches!(source, RsyncError::Connection(_) | RsyncError::Silent { .. })
            }
            _ => true,
        }
    }
}
