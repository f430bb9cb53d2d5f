//! Levels: where rules come from, so that every decision can name its origin.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Rules of one origin, in order.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Level {
    /// Whose rules these are.
    pub origin: Origin,
    /// Name of the definition that holds them, for example `lisbon`; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub label: String,
    /// How the texts are to be read.
    #[serde(default)]
    pub kind: LevelKind,
    /// One rule, or one pattern, each.
    pub rules: Vec<String>,
}

/// Whose rules a level holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// The tree's wall; combined with all others by "and", never by order.
    Limit,
    /// The assignment.
    Assignment,
    /// The tree.
    Tree,
    /// The source.
    Source,
    /// The site.
    Site,
    /// The network.
    Network,
}

/// How a level's texts are to be read.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum LevelKind {
    /// Rules as `rsync --filter` takes them.
    #[default]
    Rules,
    /// Bare patterns to leave out.
    Excludes,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Limit => "limit",
            Self::Assignment => "assignment",
            Self::Tree => "tree",
            Self::Source => "source",
            Self::Site => "site",
            Self::Network => "network",
        })
    }
}
