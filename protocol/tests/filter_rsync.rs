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

use case::Case;

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
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                let scratch = scratch();
                while !failed.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        break;
                    }
                    let case =
                        generate::case(seed.wrapping_mul(0x1_0000_0001).wrapping_add(number));
                    if oracle::compare(&case, scratch.path()).is_err() {
                        failed.store(true, Ordering::Relaxed);
                        let small = shrink(case, scratch.path());
                        let why = oracle::compare(&small, scratch.path()).unwrap_err();
                        panic!("case {number} of seed {seed} differs:\n{why}\n{}", small.as_test());
                    }
                }
            });
        }
    });
    println!("no difference in {count} cases, {:.1} s", started.elapsed().as_secs_f64());
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
