//! Logs of runs: of each assignment only those that somebody asks for.

use protocol::{
    spec::AssignmentName,
    v1::{
        agent::{RunReport, RunResult},
        history::LogOf,
    },
};
use uuid::Uuid;

use super::{Error, Transaction, execute, from_json, parsed, row, rows, to_json, to_micros};

impl Transaction {
    /// Keeps the log of a report, and of the assignment's older logs those that [`LogOf`] names.
    pub async fn put_run_log(&mut self, report: &RunReport) -> Result<(), Error> {
        execute!(
            self,
            "INSERT INTO run_logs (run, tree, site, result, ended, log)
             VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (run) DO NOTHING",
            report.id.to_string(),
            report.assignment.tree.as_str(),
            report.assignment.site.as_str(),
            to_json("run", &report.result)?,
            to_micros(report.ended),
            report.log.as_str(),
        )?;
        let logged = self.logged(&report.assignment).await?;
        let keep: Vec<Uuid> =
            LogOf::ALL.into_iter().filter_map(|which| chosen(&logged, which)).collect();
        for (run, _) in logged.iter().filter(|(run, _)| !keep.contains(run)) {
            execute!(self, "DELETE FROM run_logs WHERE run = $1", run.to_string())?;
        }
        Ok(())
    }

    /// Which run's log that is, and its text.
    pub async fn run_log(
        &mut self,
        name: &AssignmentName,
        which: LogOf,
    ) -> Result<Option<(Uuid, String)>, Error> {
        let Some(run) = chosen(&self.logged(name).await?, which) else { return Ok(None) };
        let sql = "SELECT log FROM run_logs WHERE run = $1";
        Ok(row!(self, (String,), sql, run.to_string())?.map(|(log,)| (run, log)))
    }

    /// Runs whose logs are kept, with their results, the newest first.
    async fn logged(&mut self, name: &AssignmentName) -> Result<Vec<(Uuid, RunResult)>, Error> {
        let sql = "SELECT run, result FROM run_logs WHERE tree = $1 AND site = $2
            ORDER BY ended DESC, run DESC";
        let found = rows!(self, (String, String), sql, name.tree.as_str(), name.site.as_str())?;
        let read = |(run, result): (String, String)| {
            Ok((parsed("run", &run)?, from_json("run", &result)?))
        };
        found.into_iter().map(read).collect()
    }
}

/// The run that is meant, of those that are kept.
fn chosen(logged: &[(Uuid, RunResult)], which: LogOf) -> Option<Uuid> {
    use RunResult::{Completed, Partial, UpToDate};
    let is_meant = |result: RunResult| match which {
        LogOf::Latest | LogOf::Previous => true,
        LogOf::Success => matches!(result, UpToDate | Completed),
        LogOf::Change => matches!(result, Completed | Partial),
    };
    let mut meant = logged.iter().filter(|(_, result)| is_meant(*result)).map(|(run, _)| *run);
    meant.nth(usize::from(which == LogOf::Previous))
}
