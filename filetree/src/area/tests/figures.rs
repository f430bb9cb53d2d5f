//! How much a harness tries, and how it says so.

use std::{
    io::Write,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

/// What a harness tried and what went wrong.
pub(super) struct Figure<'a> {
    pub(super) what: &'a str,
    pub(super) ran: u64,
    pub(super) bad: u64,
}

/// How much to try: what the variable says, else `usual`.
pub(super) fn count(variable: &str, usual: u64) -> u64 {
    std::env::var(variable).ok().and_then(|n| n.replace('_', "").parse().ok()).unwrap_or(usual)
}

/// Whether everything is to be tried, however long it takes.
pub(super) fn is_full() -> bool {
    std::env::var_os("MIRRORNET_TEST_FULL").is_some()
}

/// Prints a figure, and adds it to the file that `MIRRORNET_FIGURES` names.
pub(super) fn tell(figure: &Figure<'_>) {
    let line = format!("{}\t{}\t{}", figure.what, figure.ran, figure.bad);
    eprintln!("{}: {} tried, {} wrong", figure.what, figure.ran, figure.bad);
    if let Some(path) = std::env::var_os("MIRRORNET_FIGURES") {
        let file = std::fs::File::options().create(true).append(true).open(path);
        writeln!(file.unwrap(), "{line}").unwrap();
    }
}

/// Does `work` for every item on several threads; results in the order of the items.
pub(super) fn parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some((at, item)) = {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    items.get(at).map(|item| (at, item))
                } {
                    let result = work(item);
                    results.lock().unwrap().push((at, result));
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap();
    results.sort_by_key(|(at, _)| *at);
    results.into_iter().map(|(_, result)| result).collect()
}
