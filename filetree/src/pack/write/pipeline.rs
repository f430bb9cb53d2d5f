//! Work on all cores, results in order, a bounded number of them in flight.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
};

/// Runs `make`, which sends tasks; `work` turns each into a result on one of `workers` threads;
/// `take` gets the results in the order of the tasks. The first error of any of them ends it all.
///
/// In flight are at most `2 * workers` tasks, so memory is bounded whatever the tasks are.
pub(super) fn run<T, R, E>(
    workers: usize,
    make: impl FnOnce(&Tasks<T>) -> Result<(), E> + Send,
    work: impl Fn(T) -> Result<R, E> + Sync,
    mut take: impl FnMut(R) -> Result<(), E>,
) -> Result<(), E>
where
    T: Send,
    R: Send,
    E: Send,
{
    let (task_sender, task_receiver) = sync_channel::<(u64, T)>(0);
    let (result_sender, result_receiver) = sync_channel::<Message<R, E>>(workers);
    // A token for every task in flight: made before it is sent, given back when it was taken.
    let (token_sender, token_receiver) = sync_channel::<()>(2 * workers);
    // Owned by the workers alone: when they are gone, sending a task fails instead of waiting.
    let task_receiver = Arc::new(Mutex::new(task_receiver));
    thread::scope(|scope| {
        for _ in 0..workers {
            let (results, tasks) = (result_sender.clone(), Arc::clone(&task_receiver));
            let work = &work;
            scope.spawn(move || worker(&tasks, &results, work));
        }
        drop(task_receiver);
        let results = result_sender;
        scope.spawn(move || {
            let tasks = Tasks { sender: task_sender, tokens: token_sender, sent: 0.into() };
            if let Err(error) = make(&tasks) {
                let number = tasks.sent.into_inner();
                // Nobody listens any more only if an earlier error ended it all.
                let _ = results.send((number, Some(Err(error))));
            }
        });
        let taken = in_order(&result_receiver, |result| {
            take(result)?;
            let _ = token_receiver.try_recv();
            Ok(())
        });
        // Whoever still sends finds that nobody listens, and ends.
        drop((result_receiver, token_receiver));
        taken
    })
}

/// A task's number and result; none if its worker panicked.
type Message<R, E> = (u64, Option<Result<R, E>>);

/// Where tasks are sent to.
pub(super) struct Tasks<T> {
    sender: SyncSender<(u64, T)>,
    tokens: SyncSender<()>,
    sent: std::cell::Cell<u64>,
}

impl<T> Tasks<T> {
    /// Sends the next task; `false` when an error has ended it all.
    pub(super) fn send(&self, task: T) -> bool {
        let number = self.sent.get();
        self.sent.set(number + 1);
        self.tokens.send(()).is_ok() && self.sender.send((number, task)).is_ok()
    }
}

fn worker<T, R, E>(
    tasks: &Mutex<Receiver<(u64, T)>>,
    results: &SyncSender<Message<R, E>>,
    work: &(impl Fn(T) -> Result<R, E> + Sync),
) {
    loop {
        let task = match tasks.lock() {
            Ok(tasks) => tasks.recv(),
            // Another worker panicked while it waited; the scope passes that on.
            Err(_) => return,
        };
        let Ok((number, task)) = task else { return };
        let mut answer = Answer { results, message: Some((number, None)) };
        let result = work(task);
        answer.message = None;
        if results.send((number, Some(result))).is_err() {
            return;
        }
    }
}

/// Answers for a worker that panics, so that nobody waits for it.
struct Answer<'a, R, E> {
    results: &'a SyncSender<Message<R, E>>,
    message: Option<Message<R, E>>,
}

impl<R, E> Drop for Answer<'_, R, E> {
    fn drop(&mut self) {
        if let Some(message) = self.message.take() {
            let _ = self.results.send(message);
        }
    }
}

fn in_order<R, E>(
    results: &Receiver<Message<R, E>>,
    mut take: impl FnMut(R) -> Result<(), E>,
) -> Result<(), E> {
    let (mut next, mut early) = (0, BTreeMap::new());
    for (number, result) in results {
        // The scope passes the panic on.
        let Some(result) = result else { return Ok(()) };
        early.insert(number, result);
        while let Some(result) = early.remove(&next) {
            take(result?)?;
            next += 1;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn results_come_in_order_and_few_are_in_flight() {
        let (sent, taken) = (AtomicU64::new(0), AtomicU64::new(0));
        let mut results = Vec::new();
        let done: Result<(), ()> = run(
            3,
            |tasks| {
                for n in 0..500u64 {
                    assert!(tasks.send(n));
                    let in_flight =
                        sent.fetch_add(1, Ordering::SeqCst) + 1 - taken.load(Ordering::SeqCst);
                    assert!(in_flight <= 7, "{in_flight} in flight");
                }
                Ok(())
            },
            |n| Ok(n * 2),
            |n| {
                results.push(n);
                taken.fetch_add(1, Ordering::SeqCst);
                Ok(())
            },
        );
        assert_eq!(done, Ok(()));
        assert_eq!(results, (0..500).map(|n| n * 2).collect::<Vec<_>>());
    }

    #[test]
    fn an_error_anywhere_ends_everything() {
        let forever = |tasks: &Tasks<u64>| {
            while tasks.send(1) {}
            Ok(())
        };
        let failed = run(2, forever, |_| Err::<(), _>("worker"), |()| Ok(()));
        assert_eq!(failed, Err("worker"));
        let failed = run(2, forever, |_| Ok(()), |()| Err("taker"));
        assert_eq!(failed, Err("taker"));
        let failed = run(2, |_: &Tasks<u64>| Err("maker"), |_| Ok(()), |()| Ok(()));
        assert_eq!(failed, Err("maker"));
    }

    #[test]
    #[should_panic(expected = "a scoped thread panicked")]
    fn a_panic_is_passed_on_and_nobody_waits_for_ever() {
        let forever = |tasks: &Tasks<u64>| {
            while tasks.send(1) {}
            Ok(())
        };
        let work = |_| -> Result<(), ()> { panic!("in a worker") };
        let _ = run(2, forever, work, |()| Ok(()));
    }
}
