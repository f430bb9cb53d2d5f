//! The whole network, as real processes, against real rsync, proxies and databases.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test that cannot go on should say so"
)]

mod access;
mod adopt;
mod assignments;
mod autonomous;
mod bad_start;
mod bombs;
mod certificates;
mod chains;
mod confined;
mod consumers;
mod crash;
mod damage;
mod docs;
mod enrollment;
mod events;
mod fallback;
mod filters;
mod first_sync;
mod group;
mod guards;
mod hooks;
mod hostile_rsync;
mod hub;
mod inside;
mod interrupted;
mod jigdo;
mod large;
mod layouts;
mod left_behind;
mod line;
mod linked;
mod logs;
mod make;
mod monitoring;
mod moves;
mod no_deletion;
mod outage;
mod packaging;
mod parts;
mod points;
mod postgres;
mod private;
mod protected;
mod proxy;
mod relay;
mod restore;
mod resume;
mod rotation;
mod savings;
mod schedules;
mod stock;
mod storage;
mod strict;
mod symlinks;
mod together;
mod told;
mod tools;
mod transport;
mod trash;
mod trust;
mod unchanged;
mod update;
mod verbs;
mod verify;
mod withdrawn;
