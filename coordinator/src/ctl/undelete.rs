//! `undelete`: what lies in the trash of a site, and is wanted back.

use clap::Args;
use protocol::{path::TreePath, spec::AssignmentName, v1::agent::UndeleteRequest};

use super::{error::Error, print::Print, session::Session};

/// Bring back what a site moved to its trash: what the upstream removed, or local content.
///
/// The agent moves it back to its place, where nothing is, and reports. Nothing is overwritten. On the
/// site's machine 'mirror-agent trash' lists what there is.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  mirrorctl undelete fedora@lisbon releases/39\n  mirrorctl undelete fedora@lisbon --from 1764316800-removed-104857600"
)]
pub(super) struct Undelete {
    /// Whose trash.
    #[arg(value_name = "TREE@SITE")]
    assignment: AssignmentName,
    /// A file or directory, by its path in the tree; everything without it.
    #[arg(value_parser = TreePath::parse_text)]
    path: Option<TreePath>,
    /// Only from this batch.
    #[arg(long, value_name = "BATCH")]
    from: Option<String>,
}

impl Undelete {
    pub(super) async fn run(self, session: &Session, print: &mut Print) -> Result<(), Error> {
        let Self { assignment, path, from } = self;
        if path.is_none() && from.is_none() {
            return Err(Error::Usage("name a path, or with --from a batch of the trash".into()));
        }
        let request = UndeleteRequest { path, from };
        let result = session.api(print).await?.undelete(&assignment, &request).await?;
        print.result(&result, |result| {
            format!(
                "{assignment}: its agent is told (revision {}); `mirrorctl history {assignment}` shows what came back",
                result.revision
            )
        })
    }
}
