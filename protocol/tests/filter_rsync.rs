//! The filter engine beside the real rsync: the same rules on the same trees must keep and remove
//! the same names, whatever the rules and names are.
//!
//! `MIRRORNET_FILTER_CASES` sets how many random cases are tried (2,000 when unset) and
//! `MIRRORNET_FILTER_SEED` where they begin. A case that differs is made as small as it gets and is
//! printed as a test to keep in `filter_rsync/found.rs`.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::{
    path::Path as FsPath,
    process::Command,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Instant,
};

#[path = "filter_rsync/case.rs"]
mod case;
#[path = "filter_rsync/found.rs"]
mod found;
#[path = "filter_rsync/generate.rs"]
mod generate;
#[path = "filter_rsync/known.rs"]
mod known;
#[path = "filter_rsync/oracle.rs"]
mod oracle;

use case::{Case, Way};
use oracle::Agreement;

/// rsync mostly waits for itself, so more run at a time than there are cores.
const AT_A_TIME: u64 = 4;

#[test]
fn random_rules_keep_and_remove_what_rsync_does() {
    let number = |name: &str, default| {
        std::env::var(name).map_or(default, |value| value.parse().expect("a number"))
    };
    let (count, seed) =
        (number("MIRRORNET_FILTER_CASES", 2_000), number("MIRRORNET_FILTER_SEED", 1));
    println!("{} of {count} cases from seed {seed}", version());
    let started = Instant::now();
    let next = AtomicU64::new(0);
    let failed = AtomicBool::new(false);
    let tally = Tally::default();
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                let scratch = scratch();
                while !failed.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        break;
                    }
                    let seed = seed.wrapping_mul(0x1_0000_0001).wrapping_add(number);
                    let case = generate::case(seed);
                    match oracle::compare(&case, scratch.path()) {
                        Ok(agreement) => tally.add(&case, agreement),
                        Err(_) => {
                            failed.store(true, Ordering::Relaxed);
                            let small = shrink(case, scratch.path());
                            let why = oracle::compare(&small, scratch.path()).err();
                            let why = why.unwrap_or_else(|| "not when tried again".to_owned());
                            panic!("case {number} differs:\n{why}\n{}", small.as_test());
                        }
                    }
                }
            });
        }
    });
    println!("{tally}; no difference in {count} cases, {:.1} s", started.elapsed().as_secs_f64());
}

/// What the cases were about, so that a run that tests nothing shows.
#[derive(Default)]
struct Tally {
    transfers: AtomicU64,
    hand_overs: AtomicU64,
    wider: AtomicU64,
    removals: AtomicU64,
    refused: AtomicU64,
}

impl Tally {
    fn add(&self, case: &Case, agreement: Agreement) {
        let counter = match (agreement, case.way) {
            (Agreement::Refused, _) => &self.refused,
            (Agreement::Wider, _) => &self.wider,
            (Agreement::Paths, Way::Written) => &self.transfers,
            (Agreement::Paths, Way::Arguments | Way::File) => &self.hand_overs,
            (Agreement::Paths, Way::Removal { .. }) => &self.removals,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [transfers, hand_overs, wider, removals, refused] =
            [&self.transfers, &self.hand_overs, &self.wider, &self.removals, &self.refused]
                .map(|counter| counter.load(Ordering::Relaxed));
        write!(
            f,
            "{transfers} transfers, {hand_overs} with rules handed over ({wider} more wider than \
             one list can say), {removals} removals, {refused} refused"
        )
    }
}

fn shrink(mut case: Case, scratch: &FsPath) -> Case {
    let smaller = |case: &Case| {
        case.smaller().into_iter().find(|case| oracle::compare(case, scratch).is_err())
    };
    while let Some(next) = smaller(&case) {
        case = next;
    }
    case
}

/// In memory where the machine has such a place, because the trees are many and small.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn version() -> String {
    let output = Command::new("rsync").arg("--version").output().expect("rsync is installed");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().next().unwrap_or_default().to_owned()
}
