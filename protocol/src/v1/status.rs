//! How the network is: `GET /v1/status` → [`NetworkStatus`] (roles admin and viewer).

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::agent::RunResult;
use crate::{
    generation::{Revision, Version},
    name::{IdentityName, NetworkName},
    spec::AssignmentName,
};

/// The whole network at a glance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NetworkStatus {
    /// Which network.
    pub network: NetworkName,
    /// The wanted state.
    pub revision: Revision,
    /// When this was looked up.
    pub now: Timestamp,
    /// Every assignment, by site and tree.
    pub assignments: Vec<AssignmentStatus>,
    /// Things that need an admin: holds, silent agents, failing runs, certificates about to end.
    #[serde(default)]
    pub attention: Vec<String>,
}

/// One assignment: what it should hold, and what its agent says it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AssignmentStatus {
    /// `TREE@SITE`.
    pub name: AssignmentName,
    /// The agent that holds it, once one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<IdentityName>,
    /// Why it is not carried out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<String>,
    /// Whether all of its runs are dry runs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run_only: bool,
    /// The current generation of the tree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Version>,
    /// What the last receipt says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holds: Option<Version>,
    /// How the last run ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_result: Option<RunResult>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_run: Option<Timestamp>,
    /// Since when a run fetches or changes, as its agent said; absent when none is known to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<Timestamp>,
    /// When a run last succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_success: Option<Timestamp>,
    /// When the agent was last heard of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<Timestamp>,
}
