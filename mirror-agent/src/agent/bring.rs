//! What happens in one run: how it begins, what brings its tree, and what becomes of a mistake.

use std::{any::Any, panic::AssertUnwindSafe};

use futures_util::FutureExt as _;
use protocol::{
    spec::AssignmentName,
    v1::agent::{AssignmentOrder, Origin, RunResult},
};

use super::{Agent, leases::Lease, runs::Error};
use crate::{observed, orders::Verified, published, report::Run};

impl Agent {
    /// Brings an assignment to its target, or to what its upstream shows.
    pub(super) async fn bring(
        &self,
        order: &AssignmentOrder,
        target: Option<&Verified>,
        lease: Option<Lease>,
        run: &Run,
    ) -> Result<published::Outcome, Error> {
        if !run.is_dry() {
            self.before(order, run).await?;
        }
        match (&order.origin, target) {
            (Origin::Publisher(from), Some(target))
                if order.together.is_some() && !run.is_dry() =>
            {
                self.sync_together(order, from, target, run).await
            }
            (Origin::Publisher(from), Some(target)) => {
                published::sync(self, order, from, target, run).await.map_err(Error::from)
            }
            (Origin::Publisher(_), None) => Ok((RunResult::UpToDate, None)),
            (Origin::Rsyncd(_), _) => {
                let work = observed::ranked::sync_ranked(self, order, run);
                let outcome = match lease {
                    None => Ok(work.await),
                    Some(lease) => lease.hold(work).await,
                };
                outcome.map_err(Error::from).and_then(|done| done.map_err(Error::from))
            }
        }
    }

    /// Begins a run. Only what may change a tree has a log: it would else replace one that tells how
    /// the tree came to be what it is.
    pub(super) fn begin(&self, name: &AssignmentName, dry: bool) -> Run {
        let run = Run::begin(name.clone(), dry, self.progress(name));
        if dry {
            return run;
        }
        let log = self.logs.begin(name, run.id());
        run.with_log(log)
    }
}

/// Lets a mistake of ours end the run that made it, and nothing else: it is recorded like any other
/// failure, and the next run begins anew.
pub(super) async fn unharmed<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    // Nothing of the run outlives it; what it shares is behind locks that go on after a panic.
    AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|panic| {
        Err(Error::Mistake(said_by(panic.as_ref()).unwrap_or("it said nothing").to_owned()))
    })
}

fn said_by(panic: &(dyn Any + Send)) -> Option<&str> {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_mistake_of_ours_fails_its_run_with_the_cause_and_nothing_else() {
        let ended =
            unharmed(async { if true { panic!("index {} of 2", 3) } else { Ok(()) } }).await;
        let text = ended.unwrap_err().to_string();
        assert!(text.contains("index 3 of 2") && text.contains("please report it"), "{text}");
        assert!(matches!(unharmed(async { Ok(7) }).await, Ok(7)));
        let failed = unharmed::<()>(async { Err(Error::NothingHeld) }).await;
        assert!(matches!(failed, Err(Error::NothingHeld)));
    }
}
