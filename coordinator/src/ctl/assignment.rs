//! `sync`, `enable` and `disable`: what an assignment is told.

use clap::Args;
use protocol::{spec::AssignmentName, v1::definitions::ApplyResult};

use super::{error::Error, print::Print, session::Session};

/// Bring an assignment to its target now, without waiting for the next occasion.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  mirrorctl sync fedora@lisbon")]
pub(super) struct Sync {
    #[command(flatten)]
    which: Which,
}

/// Carry an assignment out again.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  mirrorctl enable fedora@lisbon")]
pub(super) struct Enable {
    #[command(flatten)]
    which: Which,
}

/// Stop carrying an assignment out; its published files stay as they are.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  mirrorctl disable fedora@lisbon debian@lisbon")]
pub(super) struct Disable {
    #[command(flatten)]
    which: Which,
}

#[derive(Debug, Args)]
struct Which {
    /// Assignments.
    #[arg(required = true, value_name = "TREE@SITE")]
    assignments: Vec<AssignmentName>,
}

impl Sync {
    pub(super) async fn run(self, session: &Session, print: &mut Print) -> Result<(), Error> {
        self.which.tell("sync", "will be synced", session, print).await
    }
}

impl Enable {
    pub(super) async fn run(self, session: &Session, print: &mut Print) -> Result<(), Error> {
        self.which.tell("enable", "is enabled", session, print).await
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
        for name in &self.assignments {
            let result = api.tell_assignment(name, verb).await?;
            print.result(&result, |result| shown(name, done, result))?;
        }
        Ok(())
    }
}

fn shown(name: &AssignmentName, done: &str, result: &ApplyResult) -> String {
    let warnings = result.warnings.iter().map(|warning| format!("warning: {warning}\n"));
    let warnings: String = warnings.collect();
    format!("{warnings}{name} {done} (revision {})", result.revision)
}
