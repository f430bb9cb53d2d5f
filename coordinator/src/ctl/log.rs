//! `log`: how a run went, in its agent's own words.

use clap::Args;
use protocol::{
    spec::AssignmentName,
    v1::history::{LogOf, RunStatus},
};

use super::{
    error::Error,
    history::{is_missing, log_of},
    print::Print,
    select::Selectors,
    session::Session,
};

/// Show the log of each assignment's latest run, as its agent wrote it.
///
/// A log comes with the report of its run, so this shows runs that are over; what a run does now is
/// shown at its site, by 'mirror-agent log TREE --follow'.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  mirrorctl log fedora@lisbon\n  mirrorctl log fedora@lisbon --success\n  mirrorctl log --site lisbon --changed"
)]
pub(super) struct Log {
    /// Only of these assignments.
    #[arg(value_name = "TREE@SITE")]
    assignments: Vec<AssignmentName>,
    #[command(flatten)]
    selectors: Selectors,
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
        let api = session.api(print).await?;
        if let ([one], true) = (&self.assignments[..], self.selectors.is_empty()) {
            let run = api.run_log(one, of).await?;
            return print.result(&run, |run: &RunStatus| run.report.log.clone());
        }
        let names = self.selectors.and(&self.assignments).select(&api).await?;
        let mut runs = Vec::new();
        for name in &names {
            match api.run_log(name, of).await {
                Ok(run) => runs.push(run),
                // What has no such run keeps no other from being shown.
                Err(error) if is_missing(&error) => print.note(&error.to_string()),
                Err(error) => return Err(error.into()),
            }
        }
        if runs.is_empty() {
            return Err(Error::Other(anyhow::anyhow!("there is no such log")));
        }
        print.result(&runs, |runs| runs.iter().map(log_of).collect::<Vec<_>>().join("\n"))
    }
}
