//! `make bench`: the figures that this project promises, measured beside rsync and find in the
//! same run. Prints a table with the ratio and its threshold; exits 1 when one is missed.
//!
//! Absolute times say more about a machine than about a program, so every time is shown with its
//! peer's; bytes are counted by the peers themselves or on the sockets, never estimated.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a program for a terminal; what it cannot do it says there"
)]

mod corpus;
mod figure;
mod fleet;
mod handshake;
mod image;
mod kinds;
mod line;
mod memory;
mod nothing;
mod scan;
mod switch;
mod update;

type Bench = fn() -> Vec<figure::Figure>;

fn main() {
    let only = std::env::args().nth(1);
    let benches: &[(&str, Bench)] = &[
        ("update", update::run),
        ("kinds", kinds::run),
        ("line-update", line::update),
        ("line-first", line::first),
        ("line-idle", line::idle),
        ("nothing", nothing::run),
        ("scan", scan::run),
        ("switch", switch::run),
        ("memory", memory::run),
        ("memory-entries", memory::entries),
        ("image", image::run),
        ("memory-stock", memory::stock),
        ("memory-versions", memory::versions),
        ("fleet", fleet::packs),
        ("serving", fleet::serving),
        ("apply", fleet::apply),
        ("handshake", handshake::run),
    ];
    let mut figures = Vec::new();
    for (name, bench) in benches {
        if only.as_deref().is_none_or(|only| only == *name) {
            println!("running {name} …");
            figures.extend(bench());
        }
    }
    println!("\n{}", figure::table(&figures));
    if figures.iter().any(figure::Figure::is_missed) {
        std::process::exit(1);
    }
}
