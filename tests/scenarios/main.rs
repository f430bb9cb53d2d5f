//! The whole network, as real processes, against real rsync, proxies and databases.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test that cannot go on should say so"
)]

mod adopt;
mod assignments;
mod bad_start;
mod certificates;
mod chains;
mod crash;
mod damage;
mod docs;
mod enrollment;
mod events;
mod fallback;
mod filters;
mod guards;
mod hooks;
mod hub;
mod interrupted;
mod line;
mod logs;
mod make;
mod monitoring;
mod moves;
mod no_deletion;
mod outage;
mod packaging;
mod points;
mod postgres;
mod protected;
mod proxy;
mod schedules;
mod stock;
mod stock_access;
mod storage;
mod tools;
mod transport;
mod trust;
mod unchanged;
mod update;
