//! The pages of `docs/reference`, made from the programs or compared with them.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]
//!
//! A reference that is written by hand beside the code is wrong after a month. Each crate therefore
//! has tests that hold its pages against what it really does: a page that can be made from the code
//! is made ([`program`]), one that needs sentences is searched for what the code has
//! ([`configuration`], [`mentions`]). Only tests name this crate, so nothing of it is shipped.

mod configuration;
mod page;
mod program;

pub use configuration::configuration;
pub use page::{check, mentions, read};
pub use program::program;
