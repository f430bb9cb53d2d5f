//! Who goes first: so many runs at a time, those of the highest priority before the others.

use std::{
    cmp::Reverse,
    collections::BTreeSet,
    pin::pin,
    sync::{Mutex, MutexGuard, PoisonError},
};

use protocol::v1::agent::AssignmentOrder;
use tokio::sync::Notify;

/// The smallest goes first: the highest priority, then the shortest period, then whoever came
/// first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    priority: Reverse<i32>,
    period: u64,
}

impl Rank {
    /// The rank of an assignment's runs.
    pub fn of(order: &AssignmentOrder) -> Self {
        let scheduled = order.schedule.as_ref().map(|schedule| schedule.period().as_secs());
        let period = scheduled.and_then(|seconds| u64::try_from(seconds).ok());
        Self {
            priority: Reverse(order.priority),
            period: period.unwrap_or_else(|| order.interval.duration().as_secs()),
        }
    }

    /// Before or after everything that an admin ordered by priority and period.
    pub const LAST: Self = Self { priority: Reverse(i32::MIN), period: u64::MAX };
}

/// So many at a time.
#[derive(Debug)]
pub struct Turns {
    at_a_time: usize,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    running: usize,
    came: u64,
    waiting: BTreeSet<(Rank, u64)>,
}

/// A turn, until it goes.
#[derive(Debug)]
pub struct Turn<'a>(&'a Turns);

/// A place in the queue; left when whoever waits is no longer interested.
struct Place<'a> {
    turns: &'a Turns,
    ticket: (Rank, u64),
}

impl Turns {
    /// At most so many (at least one) at a time.
    pub fn new(at_a_time: usize) -> Self {
        Self { at_a_time: at_a_time.max(1), state: Mutex::default(), changed: Notify::new() }
    }

    /// Waits for a turn.
    pub async fn take(&self, rank: Rank) -> Turn<'_> {
        let place = {
            let mut state = self.lock();
            state.came += 1;
            let ticket = (rank, state.came);
            state.waiting.insert(ticket);
            Place { turns: self, ticket }
        };
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            {
                let mut state = self.lock();
                if state.running < self.at_a_time && state.waiting.first() == Some(&place.ticket) {
                    state.running += 1;
                    drop(state);
                    // Leaving the queue lets the next one look.
                    drop(place);
                    return Turn(self);
                }
            }
            changed.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.turns.lock().waiting.remove(&self.ticket);
        self.turns.changed.notify_waiters();
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.lock().running -= 1;
        self.0.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn rank(priority: i32, period: u64) -> Rank {
        Rank { priority: Reverse(priority), period }
    }

    #[tokio::test]
    async fn f52_never_more_than_the_limit_and_what_is_due_more_often_goes_first() {
        let turns = Arc::new(Turns::new(4));
        let held: Vec<_> = [(); 4]
            .map(|()| Arc::clone(&turns))
            .into_iter()
            .map(|turns| {
                tokio::spawn(async move {
                    let turn = turns.take(rank(0, 1)).await;
                    tokio::task::yield_now().await;
                    std::mem::forget(turn);
                })
            })
            .collect();
        for task in held {
            task.await.unwrap();
        }
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for (priority, hours) in [(0, 24), (0, 1), (0, 12), (5, 24), (0, 6)] {
            let (turns, order) = (Arc::clone(&turns), Arc::clone(&order));
            let before = turns.lock().waiting.len();
            let waiting = Arc::clone(&turns);
            tasks.push(tokio::spawn(async move {
                let _turn = turns.take(rank(priority, hours)).await;
                assert!(turns.lock().running <= 4);
                order.lock().unwrap().push((priority, hours));
            }));
            while waiting.lock().waiting.len() == before {
                tokio::task::yield_now().await;
            }
        }
        assert!(order.lock().unwrap().is_empty());
        drop(Turn(&turns));
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*order.lock().unwrap(), [(5, 24), (0, 1), (0, 6), (0, 12), (0, 24)]);
    }

    #[tokio::test]
    async fn whoever_gives_up_keeps_nobody_waiting() {
        let turns = Turns::new(1);
        let first = turns.take(rank(0, 1)).await;
        {
            let mut gives_up = pin!(turns.take(rank(9, 1)));
            assert!(futures_util::poll!(gives_up.as_mut()).is_pending());
        }
        drop(first);
        turns.take(rank(0, 1)).await;
        assert_eq!(turns.lock().running, 0);
    }
}
