//! The programme that proves that a mirror is never harmed, with real processes on real disks:
//! kills, errors, readers and full disks. Every harness prints the count that ran;
//! the variables in [`count`] make it larger.
//!
//! What can be shown without processes is shown in `filetree`: loss of power on the file system
//! in memory and on real ones, and errors at every operation.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test that cannot go on should say so"
)]

mod baseline;
mod corpus;
mod full;
mod kills;
mod mapped;
mod mirror;
mod readers;

use std::io::Write;

/// How much to try: what the variable says, else `usual`.
fn count(variable: &str, usual: u64) -> u64 {
    std::env::var(variable).ok().and_then(|n| n.replace('_', "").parse().ok()).unwrap_or(usual)
}

/// Prints what a harness tried and what went wrong, and adds it to the file that
/// `MIRRORNET_FIGURES` names.
fn tell(what: &str, ran: u64, bad: u64) {
    eprintln!("{what}: {ran} tried, {bad} wrong");
    if let Some(path) = std::env::var_os("MIRRORNET_FIGURES") {
        let file = std::fs::File::options().create(true).append(true).open(path);
        writeln!(file.unwrap(), "{what}\t{ran}\t{bad}").unwrap();
    }
}
