//! The coordinator as its peers meet it: a real one, over real TLS, on ports of loopback.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, unreachable_pub)]

mod access;
mod alone;
mod backups;
mod configuration;
mod definitions;
mod enrolling;
mod mandates;
mod matrix;
mod orders;
mod polling;
mod publishing;
mod reports;
mod roots;
mod rotation;
mod standing;
mod support;
mod tree_keys;
mod wire;
