//! The central coordinator and mirrorctl.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

pub mod app;
pub mod db;
