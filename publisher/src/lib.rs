//! The upstream daemon: makes generations, packs and serves them.
//!
//! The life of a change begins here (`docs/architecture`): a tree is looked at until it has
//! [settled](settle), a [guard] decides whether it may become a generation, its content is retained
//! in a private [view], its manifest and packs are [generated](generate) and verified at every
//! [publication point](points), and only then is it [announced](publish). What is served, over
//! HTTPS and by rsync, are announced generations, to those whom the coordinator's [orders] name.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

pub mod catalog;
pub mod cli;
pub mod config;
pub mod consumers;
pub mod control;
mod durable;
pub mod generate;
pub mod guard;
mod hub;
pub mod ledger;
pub mod orders;
pub mod points;
pub mod publish;
pub mod retention;
mod running;
pub mod serve;
pub mod settle;
mod signatures;
mod state;
pub mod view;

pub use running::{Error, Running, start, start_at};
pub use state::Clock;
use state::error_chain;
