//! A whole network on this machine: the programs as real processes, on ports that the system
//! gives, in a directory that goes away.
//!
//! The demonstration, the scenarios and the benchmarks all stand on [`Testbed`], so that what a
//! newcomer sees is what the tests check. Nothing here waits by sleeping alone: [`wait_until`]
//! looks for a condition until a deadline.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test that cannot go on should say so"
)]

pub mod apache;
pub mod balancer;
pub mod cluster;
pub mod compare;
pub mod daemon;
pub mod encoders;
pub mod fixture;
pub mod image;
pub mod link;
pub mod network;
pub mod nginx;
pub mod programs;
pub mod rsyncd;
pub mod sink;
pub mod sshd;
pub mod stores;
pub mod valve;

pub use apache::Apache;
pub use balancer::Balancer;
pub use daemon::Daemon;
pub use link::{Host, Line, Link};
pub use network::Testbed;
pub use nginx::Nginx;
pub use rsyncd::Rsyncd;
pub use sink::Sink;

use std::time::{Duration, Instant};

/// Longest time that anything on one machine may take before it counts as hung.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Looks for `condition` until it holds.
///
/// # Panics
/// With `what`, when it does not hold within [`PATIENCE`].
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    wait_for(what, || condition().then_some(()));
}

/// Looks for a value until there is one.
///
/// # Panics
/// With `what`, when there is none within [`PATIENCE`].
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
