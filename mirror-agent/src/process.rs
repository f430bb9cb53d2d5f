//! Processes of other programs: each in a group of its own, which ends as a whole.

pub(crate) mod lines;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::Child;

/// The process group of a child: ended, with everything that was started in it, whenever this goes.
pub(crate) struct Group(Option<Pid>);

impl Group {
    /// The group of a child that was started with `process_group(0)`.
    pub(crate) fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)))
    }

    /// Sends a signal to all of it.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(pid) = self.0 {
            // It may be gone already, which is what is wanted.
            kill_process_group(pid, signal).ok();
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}
