//! The central coordinator and mirrorctl.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

pub mod app;
pub mod authorities;
mod backup;
pub mod cli;
pub mod config;
pub mod ctl;
pub mod db;
mod http;
mod init;
pub mod journal;
mod server;
pub mod webhooks;

pub use self::{
    backup::{back_up, key_file_of, restore, verify},
    config::Config,
    init::{InitOptions, init},
    server::{Error, Running, start, start_at},
};
