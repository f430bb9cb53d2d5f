//! Turns: how many threads compress at a time, over all packs that are being written.
//!
//! Compressing takes far more memory than anything else here, and packs of several trees are
//! written at the same time. Dividing the memory between them would leave cores idle whenever
//! there is only one, so each has as many threads as fit, and a thread takes a turn before a task.

use std::sync::{Condvar, Mutex, PoisonError};

/// What the comparison of a large file with its old version takes, beside the threads.
const COMPARISON: u64 = 96 << 20;
/// What a thread takes at the highest level: tables, prefix, content and result.
const WORKER: u64 = 176 << 20;

/// The highest level whose tables for a segment and its prefix take about a third of that.
const FRUGAL_LEVEL: i32 = 9;

/// A number of turns.
#[derive(Debug)]
pub struct Turns {
    free: Mutex<usize>,
    changed: Condvar,
}

impl Turns {
    /// As many as fit into `memory` bytes while `packs` packs are written at the same time, at
    /// least one.
    pub fn within(memory: u64, packs: u64) -> Self {
        let comparisons = COMPARISON * packs.saturating_sub(1);
        let fitting = Self::fitting(memory.saturating_sub(comparisons));
        Self { free: Mutex::new(fitting), changed: Condvar::new() }
    }

    /// Threads that fit into the memory of one pack, at least one.
    pub(super) fn fitting(memory: u64) -> usize {
        let fitting = memory.saturating_sub(COMPARISON) / WORKER;
        usize::try_from(fitting).unwrap_or(usize::MAX).max(1)
    }

    /// The highest zstd level for which a thread has room.
    pub(super) fn highest_level(memory: u64) -> i32 {
        if memory < COMPARISON + WORKER { FRUGAL_LEVEL } else { i32::MAX }
    }

    /// Waits for a turn; it ends with what is returned.
    pub(super) fn take(&self) -> Turn<'_> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_while(free, |free| *free == 0);
        *waited.unwrap_or_else(PoisonError::into_inner) -= 1;
        Turn(self)
    }
}

/// Somebody's turn.
pub(super) struct Turn<'a>(&'a Turns);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn never_more_work_than_there_are_turns() {
        assert_eq!(Turns::fitting(0), 1);
        assert_eq!(Turns::fitting(512 << 20), 2);
        let turns = Turns::within(512 << 20, 2);
        assert_eq!(*turns.free.lock().unwrap(), 1);
        let turns = Turns { free: Mutex::new(2), changed: Condvar::new() };
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let _turn = turns.take();
                        most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        std::thread::yield_now();
                        now.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert!(most.into_inner() <= 2);
    }
}
