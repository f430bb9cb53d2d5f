//! `apply`: makes the network what the files say.

mod changes;
mod files;

use std::path::PathBuf;

use clap::Args;
use protocol::{
    client::{self, Client},
    error::ProblemKind,
    v1::definitions::{Action, ApplyRequest, ApplyResult},
};

use super::{error::Error, print::Print, session::Session};
pub(super) use changes::shown;
pub(super) use files::read;

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

/// How often an agreed prune is tried again when other things happened in between.
const TRIES: usize = 10;

impl Apply {
    pub(super) async fn run(self, session: &Session, print: &mut Print) -> Result<(), Error> {
        let (files, rule_files) = files::read(&self.files)?;
        let api = session.api(print).await?;
        let (dry_run, prune) = (self.dry_run, self.prune);
        let request =
            ApplyRequest { files, rule_files, dry_run, prune, if_revision: None, imported: None };
        let result = match prune && !dry_run && !self.yes {
            true => apply_agreed(&api, request, print).await?,
            false => api.apply(&request).await?,
        };
        print.result(&result, shown)
    }
}

/// Lists what goes, asks, and carries out exactly that.
///
/// The state is numbered with everything that happens in the network, not only with definitions;
/// so a refusal because of the number is followed by another look, and only another difference
/// ends the attempt.
async fn apply_agreed(
    api: &Client,
    request: ApplyRequest,
    print: &mut Print,
) -> Result<ApplyResult, Error> {
    let dry = ApplyRequest { dry_run: true, ..request.clone() };
    let mut planned = api.apply(&dry).await?;
    let removed = planned.changes.iter().filter(|change| change.action == Action::Remove).count();
    if removed > 0 {
        print.note(&shown(&planned));
        let definitions = if removed == 1 { "definition" } else { "definitions" };
        if !print.ask(&format!("Remove {removed} {definitions}?"))? {
            print.note("Answer with --yes where nobody can be asked.");
            return Err(Error::Declined);
        }
    }
    for _ in 0..TRIES {
        let agreed = ApplyRequest { if_revision: Some(planned.revision), ..request.clone() };
        match api.apply(&agreed).await {
            Err(error) if is_conflict(&error) => {}
            result => return Ok(result?),
        }
        let again = api.apply(&dry).await?;
        if again.changes != planned.changes {
            break;
        }
        planned = again;
    }
    let message = "the definitions were changed by somebody else meanwhile, and nothing was stored; look at the difference again with --dry-run";
    Err(Error::Other(anyhow::anyhow!(message)))
}

fn is_conflict(error: &client::Error) -> bool {
    error.problem().is_some_and(|problem| problem.kind == ProblemKind::Conflict)
}
