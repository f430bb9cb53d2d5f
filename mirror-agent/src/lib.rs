//! The daemon of a mirror site: it enrolls, follows its orders, and keeps trees.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

pub mod calendar;
pub mod config;
pub mod enroll;
pub mod fetch;
pub mod guard;
pub mod ledger;
pub mod orders;
pub mod reconcile;
pub mod report;
pub mod route;
pub mod rsync;
pub mod stage;

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
