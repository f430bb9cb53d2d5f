//! What the results of single versions make of a whole run.

use protocol::{path::TreePath, v1::agent::RunResult};

use super::Done;

/// How many versions did what. Versions that were passed over count for nothing.
#[derive(Debug, Default)]
pub struct Tally {
    failed: Vec<(TreePath, String)>,
    changed: usize,
    up_to_date: usize,
    removed: bool,
    withheld: Option<String>,
}

impl Tally {
    /// Counts a version that is complete.
    pub fn add(&mut self, done: Done) {
        match done {
            Done::UpToDate => self.up_to_date += 1,
            Done::Changed => self.changed += 1,
        }
    }

    /// Counts one that could not be brought.
    pub fn fail(&mut self, name: &TreePath, detail: String) {
        self.failed.push((name.clone(), detail));
    }

    /// Notes that something the upstream no longer has was removed, or would be.
    pub fn remove(&mut self) {
        self.removed = true;
    }

    /// Notes that something was to be done that a limit did not allow.
    pub fn withhold(&mut self, why: String) {
        self.withheld = Some(why);
    }

    /// Whether every version that was worked on is complete.
    pub fn is_whole(&self) -> bool {
        self.failed.is_empty() && self.withheld.is_none()
    }

    /// What was left undone, where the run did the rest.
    pub fn undone(&self) -> Option<String> {
        let failed = self.failed.first().map(|(name, detail)| match self.failed.len() {
            1 => format!("version {name} was not brought: {detail}"),
            count => format!("{count} versions were not brought, the first is {name}: {detail}"),
        });
        failed.or_else(|| self.withheld.clone())
    }

    /// How many failed and the first of them, where none is complete.
    pub fn all_failed(&self) -> Option<(usize, &(TreePath, String))> {
        let none = self.changed == 0 && self.up_to_date == 0;
        self.failed.first().filter(|_| none).map(|first| (self.failed.len(), first))
    }

    /// The result of the run, where not all failed.
    pub fn result(&self, is_dry: bool) -> RunResult {
        match (self.is_whole(), self.changed > 0 || self.removed, is_dry) {
            (false, _, false) => RunResult::Partial,
            (false, _, true) => RunResult::PartialDryRun,
            (true, true, false) => RunResult::Completed,
            (true, true, true) => RunResult::CompletedDryRun,
            (true, false, false) => RunResult::UpToDate,
            (true, false, true) => RunResult::UpToDateDryRun,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ra1_one_result_is_made_of_those_of_the_versions() {
        let name = TreePath::parse(b"v1").unwrap();
        let tally = |failed: usize, changed: usize, same: usize, removed: bool| {
            let mut tally = Tally::default();
            (0..failed).for_each(|_| tally.fail(&name, "gone".into()));
            (0..changed).for_each(|_| tally.add(Done::Changed));
            (0..same).for_each(|_| tally.add(Done::UpToDate));
            removed.then(|| tally.remove());
            let result = tally.all_failed().map_or(tally.result(false), |_| RunResult::Failed);
            result
        };
        assert_eq!(tally(0, 0, 0, false), RunResult::UpToDate, "all were passed over");
        assert_eq!(tally(0, 0, 2, false), RunResult::UpToDate);
        assert_eq!(tally(0, 1, 2, false), RunResult::Completed);
        assert_eq!(tally(0, 0, 2, true), RunResult::Completed);
        assert_eq!(tally(1, 0, 1, false), RunResult::Partial);
        assert_eq!(tally(1, 1, 0, false), RunResult::Partial);
        assert_eq!(tally(2, 0, 0, false), RunResult::Failed);
    }
}
