//! `apply`: makes the network what the files say.

mod changes;
mod files;

use std::path::PathBuf;

use clap::Args;
use protocol::v1::definitions::{Action, ApplyRequest};

use super::{error::Error, print::Print, session::Session};
pub(super) use changes::shown;

/// Make the definitions in the files the wanted state; prints the difference it makes.
///
/// Adds and changes, and removes nothing unless --prune is given. When anything in any file is
/// wrong, all of it is listed with file and line, and nothing is stored.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  mirrorctl apply -f network.toml --dry-run\n  mirrorctl apply -f trees.toml sites.toml --prune"
)]
pub(super) struct Apply {
    /// Definition files; `-` is standard input.
    #[arg(short, long = "file", required = true, num_args = 1.., value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Only print the difference.
    #[arg(long)]
    dry_run: bool,
    /// Also remove what the files do not name; lists it and asks first.
    #[arg(long)]
    prune: bool,
    /// Do not ask.
    #[arg(long, short)]
    yes: bool,
}

impl Apply {
    pub(super) async fn run(self, session: &Session, print: &mut Print) -> Result<(), Error> {
        let (files, rule_files) = files::read(&self.files)?;
        let api = session.api(print).await?;
        let mut request =
            ApplyRequest { files, rule_files, dry_run: true, prune: self.prune, if_revision: None };
        if self.prune && !self.dry_run && !self.yes {
            let planned = api.apply(&request).await?;
            let removed: Vec<_> =
                planned.changes.iter().filter(|c| c.action == Action::Remove).collect();
            if !removed.is_empty() {
                print.note(&shown(&planned));
                let question = format!("Remove {} definitions?", removed.len());
                if !print.ask(&question)? {
                    print.note("Answer with --yes where nobody can be asked.");
                    return Err(Error::Declined);
                }
                request.if_revision = Some(planned.revision);
            }
        }
        request.dry_run = self.dry_run;
        let result = api.apply(&request).await?;
        print.result(&result, shown)
    }
}
