//! `sync`, `enable` and `disable`: what an assignment is told.

use clap::Args;
use protocol::{client, spec::AssignmentName, v1::definitions::ApplyResult};

use super::{error::Error, print::Print, select::Selectors, session::Session};

/// Bring an assignment to its target now, without waiting for the next occasion.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  mirrorctl sync fedora@lisbon\n  mirrorctl sync --site lisbon --site porto --source linux --force"
)]
pub(super) struct Sync {
    #[command(flatten)]
    which: Which,
}

/// Carry an assignment out again.
///
/// With --dryrun every run of it is a dry run, which is reported and changes nothing, until it is
/// enabled without.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  mirrorctl enable fedora@lisbon\n  mirrorctl enable --tree fedora\n  mirrorctl enable fedora@lisbon --dryrun"
)]
pub(super) struct Enable {
    #[command(flatten)]
    which: Which,
    /// For dry runs only.
    #[arg(long, visible_alias = "dry-run")]
    dryrun: bool,
}

/// Stop carrying an assignment out; its published files stay as they are.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  mirrorctl disable fedora@lisbon debian@lisbon\n  mirrorctl disable --upstream kernel --force"
)]
pub(super) struct Disable {
    #[command(flatten)]
    which: Which,
}

#[derive(Debug, Args)]
struct Which {
    /// Assignments. Without any, those that the selectors name are listed and agreed to first.
    #[arg(value_name = "TREE@SITE")]
    assignments: Vec<AssignmentName>,
    #[command(flatten)]
    selectors: Selectors,
    /// Do not ask.
    #[arg(long, short, visible_alias = "yes", short_alias = 'y')]
    force: bool,
}

impl Sync {
    pub(super) async fn run(self, session: &Session, print: &mut Print) -> Result<(), Error> {
        self.which.tell("sync", "will be synced", session, print).await
    }
}

impl Enable {
    pub(super) async fn run(self, session: &Session, print: &mut Print) -> Result<(), Error> {
        let (verb, done) = match self.dryrun {
            true => ("enable-dry-run", "is enabled for dry runs only"),
            false => ("enable", "is enabled"),
        };
        self.which.tell(verb, done, session, print).await
    }
}

impl Disable {
    pub(super) async fn run(self, session: &Session, print: &mut Print) -> Result<(), Error> {
        self.which.tell("disable", "is disabled; its files stay", session, print).await
    }
}

impl Which {
    async fn tell(
        self,
        verb: &str,
        done: &str,
        session: &Session,
        print: &mut Print,
    ) -> Result<(), Error> {
        let api = session.api(print).await?;
        let is_named = !self.assignments.is_empty() && self.selectors.is_empty();
        let names = match is_named {
            true => self.assignments,
            false => self.selectors.and(&self.assignments).select(&api).await?,
        };
        if names.is_empty() {
            return Err(Error::Other(anyhow::anyhow!("no assignment is selected")));
        }
        if !is_named && !self.force {
            names.iter().for_each(|name| print.note(&name.to_string()));
            let assignments = if names.len() == 1 { "assignment" } else { "assignments" };
            if !print.ask(&format!("{verb} {} {assignments}?", names.len()))? {
                print.note("Answer with --force where nobody can be asked.");
                return Err(Error::Declined);
            }
        }
        let mut failed = 0;
        for name in &names {
            // What one of them lacks must not keep the others from what was asked for them.
            match api.tell_assignment(name, verb).await {
                Ok(result) => print.result(&result, |result| shown(name, done, result))?,
                Err(error) if names.len() == 1 => return Err(error.into()),
                Err(error @ client::Error::Transport { .. }) => return Err(error.into()),
                Err(error) => {
                    failed += 1;
                    print.note(&format!("{name}: {error}"));
                }
            }
        }
        match failed {
            0 => Ok(()),
            failed => {
                Err(Error::Incomplete(format!("{verb} failed for {failed} of {}", names.len())))
            }
        }
    }
}

fn shown(name: &AssignmentName, done: &str, result: &ApplyResult) -> String {
    let warnings = result.warnings.iter().map(|warning| format!("warning: {warning}\n"));
    let warnings: String = warnings.collect();
    format!("{warnings}{name} {done} (revision {})", result.revision)
}
