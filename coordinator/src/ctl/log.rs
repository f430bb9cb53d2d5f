//! `log`: how a run went, in its agent's own words.

use clap::Args;
use protocol::{
    spec::AssignmentName,
    v1::history::{LogOf, RunStatus},
};

use super::{error::Error, print::Print, session::Session};

/// Show the log of an assignment's latest run, as its agent wrote it.
///
/// A log comes with the report of its run, so this shows runs that are over; what a run does now is
/// shown at its site, by 'mirror-agent log TREE --follow'.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  mirrorctl log fedora@lisbon\n  mirrorctl log fedora@lisbon --success"
)]
pub(super) struct Log {
    /// The assignment.
    #[arg(value_name = "TREE@SITE")]
    assignment: AssignmentName,
    /// That of the latest run which succeeded.
    #[arg(long, group = "which")]
    success: bool,
    /// That of the latest run which changed the tree.
    #[arg(long, group = "which")]
    changed: bool,
    /// That of the run before the latest.
    #[arg(long, group = "which")]
    previous: bool,
}

impl Log {
    pub(super) async fn run(self, session: &Session, print: &mut Print) -> Result<(), Error> {
        let of = match (self.success, self.changed, self.previous) {
            (true, ..) => LogOf::Success,
            (_, true, _) => LogOf::Change,
            (.., true) => LogOf::Previous,
            _ => LogOf::Latest,
        };
        let run = session.api(print).await?.run_log(&self.assignment, of).await?;
        print.result(&run, |run: &RunStatus| run.report.log.clone())
    }
}
