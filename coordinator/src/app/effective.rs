//! What is in force: every setting and every rule of an assignment or a tree, merged, and for each
//! the definition that decided it.
//!
//! There is one merge, and it is here: agents and publishers are told what it gives, `describe`
//! prints the same with its provenance, and checks at definition time ask it too. What is closer
//! to the site's own copy wins: assignment, tree, source, site, default. Rules are not overridden
//! but put in order (filters of assignment and tree, then excludes of assignment, tree, source and
//! site), all within the tree's limit.

mod assignment;
mod guard;
mod setting;
mod tree;
mod versions;

use jiff::Timestamp;
use protocol::{
    filter::Level,
    name::{IdentityName, SiteName},
    spec::{AssignmentName, GrantSpec},
    units::{Span, Threshold},
};

pub(in crate::app) use assignment::published_path;
pub use assignment::{EffectiveAssignment, NoAgent, assignment, filter_levels};
pub use tree::{EffectiveTree, tree};
pub use versions::{DEFAULT_FINISHED, DEFAULT_STATUS_FILE};

use crate::app::definition::Definitions;

/// How often a publisher scans a tree where nothing is set.
pub const DEFAULT_SCAN_INTERVAL: Span = Span::from_secs(10 * 60);
/// How often a stock rsync daemon is asked where nothing is set: it is somebody else's machine.
pub const DEFAULT_ASK_INTERVAL: Span = Span::from_secs(60 * 60);
/// Most files that one step may remove where nothing is set.
pub const DEFAULT_MAX_DELETE_FILES: Threshold = Threshold::Percent(10);
/// Most bytes that one step may remove where nothing is set.
pub const DEFAULT_MAX_DELETE_BYTES: Threshold = Threshold::Percent(25);
/// How long a retired tree is left alone where nothing is set.
pub const DEFAULT_LINGER: Span = Span::from_secs(15 * 60);
/// How long removed paths stay readable where nothing is set.
pub const DEFAULT_KEEP_WITHDRAWN: Span = Span::from_secs(15 * 60);

/// Agents that are enrolled and not revoked, each with its site, the oldest enrollment first.
///
/// The order matters: where an assignment names no agent, the oldest of the site holds it, so that
/// enrolling another one moves nothing.
pub type Agents = [(IdentityName, SiteName)];

/// Whether the site may hold the tree now.
pub fn granted(definitions: &Definitions, name: &AssignmentName, now: Timestamp) -> bool {
    definitions.grants.get(name).is_some_and(|grant| is_live(grant, now))
}

/// Whether a grant holds at that time.
pub fn is_live(grant: &GrantSpec, now: Timestamp) -> bool {
    grant.until.is_none_or(|until| now < until)
}

/// Whether there is no rule in any of the levels.
pub fn keeps_everything(levels: &[Level]) -> bool {
    levels.iter().all(|level| level.rules.is_empty())
}

#[cfg(test)]
mod tests;
