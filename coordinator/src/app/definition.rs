//! What admins define, from the text of their files to a wanted state that holds together.
//!
//! Definitions refer to each other, and one that is wrong in itself or beside the others would be
//! found by an agent at night. So everything is checked here, over the whole state that would
//! result, before anything is stored: all findings at once, each with its file and line and with
//! what to do about it. An apply adds and changes; it removes only what an admin asked to prune.
//!
//! The functions here are pure: they are given what is stored and say what should be.

mod check;
mod concern;
mod diff;
mod findings;
mod parse;
mod plan;
mod set;
mod spec;
mod suggest;
pub mod upstream_url;

pub use findings::MAX_FINDINGS;
pub(crate) use parse::rule_file::sent_name;
pub use plan::{Context, Enabling, PlannedApply, plan_apply, plan_delete, plan_enabled};
pub use set::Definitions;
pub use spec::Spec;

#[cfg(test)]
mod tests;
