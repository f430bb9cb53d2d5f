//! `rotate-secret`: other keys for a private tree.

use clap::Args;
use protocol::name::TreeName;

use super::{error::Error, print::Print, session::Session};

/// Draw all keys of a private tree from another secret.
///
/// For when keys of it may have become known: from an agent's disk, or a backup that was opened. The
/// publisher brings everything to publication points anew, encrypted otherwise and under other names;
/// agents that may read the tree follow by themselves. What lay there before goes after the
/// publisher's `collect-after`; whoever has the old keys can read it until then.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  mirrorctl rotate-secret fedora")]
pub(super) struct RotateSecret {
    /// Which tree.
    tree: TreeName,
}

impl RotateSecret {
    pub(super) async fn run(self, session: &Session, print: &mut Print) -> Result<(), Error> {
        let tree = self.tree;
        let result = session.api(print).await?.rotate_tree_secret(&tree).await?;
        print.result(&result, |result| {
            format!(
                "tree {tree} has another secret (revision {}); its publisher brings everything to its points anew",
                result.revision
            )
        })
    }
}
