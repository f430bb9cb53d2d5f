//! What happened: generations and runs.
//!
//! - `GET /v1/generations?tree=` → [`Page`](super::Page)`<`[`GenerationStatus`]`>`, newest first
//! - `GET /v1/runs?assignment=&tree=&site=` → [`Page`](super::Page)`<`[`RunStatus`]`>`, newest first
//! - `GET /v1/runs/{id}` → [`RunStatus`]
//!
//! Roles admin and viewer.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{agent::RunReport, publisher::Difference};
use crate::{
    digest::Digest,
    generation::Version,
    hold::HoldId,
    name::{IdentityName, TreeName},
    statement::{PackFigures, Parent},
};

/// One generation, or one hold (then without a version).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GenerationStatus {
    /// Which tree.
    pub tree: TreeName,
    /// Its number; absent for a hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<Version>,
    /// Its manifest.
    pub manifest: Digest,
    /// The generation before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Parent>,
    /// Entries.
    pub entries: u64,
    /// Content bytes.
    pub bytes: u64,
    /// When it was published, or held.
    pub created: Timestamp,
    /// Why it was held; absent when it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<String>,
    /// What was held, with figures; absent when it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<HoldStatus>,
    /// Packs that lead to it.
    #[serde(default)]
    pub packs: Vec<PackStatus>,
}

/// What a guard stopped, and how it differs from what is current.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HoldStatus {
    /// Its short name; `mirrorctl approve` and `reject` take it.
    pub id: HoldId,
    /// Who stopped it: the tree's publisher, or the agent of a site.
    pub by: IdentityName,
    /// Files that would be gone.
    pub removed_files: u64,
    /// Their bytes.
    pub removed_bytes: u64,
    /// What would change besides.
    pub difference: Difference,
    /// Nothing could be seen whole, so there is nothing to approve.
    #[serde(default)]
    pub unseen: bool,
}

/// One pack that leads to a generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PackStatus {
    /// Where it starts; absent for a pack from nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Digest>,
    /// Its length, in bytes.
    pub length: u64,
    /// What it took to make and what it saves, as far as its publisher said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub figures: Option<PackFigures>,
}

/// Which of an assignment's runs a log is asked of. Logs of others are not kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogOf {
    /// The latest run.
    #[default]
    Latest,
    /// The run before it.
    Previous,
    /// The latest run that succeeded.
    Success,
    /// The latest run that changed the tree.
    Change,
}

impl LogOf {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Latest, Self::Previous, Self::Success, Self::Change];

    /// Its word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Latest => "latest",
            Self::Previous => "previous",
            Self::Success => "success",
            Self::Change => "change",
        }
    }
}

/// One run, as its agent reported it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RunStatus {
    /// The agent.
    pub agent: IdentityName,
    /// When the report arrived.
    pub received: Timestamp,
    /// The report.
    #[serde(flatten)]
    pub report: RunReport,
}
