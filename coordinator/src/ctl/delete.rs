//! `delete`: removes one definition.

use clap::Args;

use super::{
    apply,
    error::Error,
    kind::{HELP, Subject},
    print::Print,
    session::Session,
};

/// Remove one definition. Published files stay as they are, unless an assignment says otherwise.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  mirrorctl delete assignment fedora@lisbon\n  mirrorctl delete tree fedora"
)]
pub(super) struct Delete {
    #[arg(help = HELP)]
    kind: Subject,
    /// Its name; TREE@SITE for grants and assignments.
    name: String,
}

impl Delete {
    pub(super) async fn run(self, session: &Session, print: &mut Print) -> Result<(), Error> {
        let kind = match self.kind {
            Subject::Definition(kind) => kind,
            Subject::Identity(role) => {
                return Err(Error::Usage(format!(
                    "an identity is shut out, not deleted: mirrorctl revoke {role}/{}",
                    self.name
                )));
            }
            Subject::Generation | Subject::Run => {
                let kind = self.kind.as_str();
                return Err(Error::Usage(format!("a {kind} is history and cannot be deleted")));
            }
        };
        let result = session.api(print).await?.delete_definition(kind, &self.name).await?;
        print.result(&result, apply::shown)
    }
}
