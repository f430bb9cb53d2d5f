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
mod filters;
mod group;
mod guards;
mod interrupted;
mod line;
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
mod storage;
mod tools;
mod transport;
mod trash;
mod trust;
mod unchanged;
mod update;
mod verify;
mod withdrawn;
