//! The publisher as its readers see it: real processes, mutual TLS, and the real rsync as client.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on should say so")]

mod alone;
mod gate;
mod holds;
mod https;
mod numbers;
mod pointers;
mod reader;
mod revoked;
mod rsync;
