//! What the programs say to each other, and nothing else.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]
//!
//! Names, paths, digests, filters, manifests, packs, statements and the API's types live here, so
//! that the coordinator, a publisher and an agent can never disagree about them. Nothing in this
//! crate touches a disk or a network (the feature `client` adds the typed HTTP client), and every
//! decoder is written for hostile input: bounded before it allocates, and without a panic.

pub mod calendar;
#[cfg(feature = "client")]
pub mod client;
pub mod config;
pub mod digest;
pub mod dsse;
pub mod error;
pub mod filter;
pub mod fingerprint;
pub mod generation;
pub mod hold;
pub mod hub;
pub mod key;
pub mod latest;
pub mod manifest;
#[cfg(test)]
mod mutate;
pub mod name;
pub mod open_metrics;
#[cfg(feature = "openapi")]
mod openapi;
pub mod origin;
pub mod pack;
pub mod path;
pub mod point;
pub mod role;
pub mod root;
pub mod schedule;
pub mod spec;
pub mod statement;
pub mod symlinks;
pub mod transfer;
pub mod units;
pub mod v1;
pub mod wire;
