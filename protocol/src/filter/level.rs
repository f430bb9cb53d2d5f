//! Levels: where rules come from, so that every decision can name its origin, and the one order
//! in which they are merged.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Rules of one origin, in order.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
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

impl Level {
    /// Filter rules of the definition `label`.
    pub fn rules<S: Into<String>>(
        origin: Origin,
        label: &str,
        rules: impl IntoIterator<Item = S>,
    ) -> Self {
        let rules = rules.into_iter().map(Into::into).collect();
        Self { origin, label: label.to_owned(), kind: LevelKind::Rules, rules }
    }

    /// Bare exclude patterns of the definition `label`.
    pub fn excludes<S: Into<String>>(
        origin: Origin,
        label: &str,
        rules: impl IntoIterator<Item = S>,
    ) -> Self {
        Self { kind: LevelKind::Excludes, ..Self::rules(origin, label, rules) }
    }
}

/// Whose rules a level holds. The order of the variants is the order of merging: what is closer to
/// the site's own copy comes first, so that a site can keep what the defaults leave out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = RuleOrigin))]
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
    /// Rules that were handed over as they are, for example on a command line.
    #[serde(skip_deserializing)]
    Given,
    /// A rule file inside the tree; the label is its path.
    #[serde(skip_deserializing)]
    File,
}

/// How a level's texts are to be read.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum LevelKind {
    /// Rules as `rsync --filter` takes them.
    #[default]
    Rules,
    /// Bare patterns to leave out.
    Excludes,
}

/// The levels of the selection in the order in which they are read: all filter rules, closest level
/// first, then all excludes, closest level first. Whatever order the caller has them in, the result
/// is the same.
pub(super) fn merge_order(levels: &[Level]) -> Vec<&Level> {
    let mut merged: Vec<&Level> =
        levels.iter().filter(|level| level.origin != Origin::Limit).collect();
    merged.sort_by_key(|level| (level.kind, level.origin));
    merged
}

/// Prints `tree 'fedora'`, or `tree` where the level has no label.
pub(super) struct Place<'a>(pub(super) Origin, pub(super) &'a str);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self(origin, "") => write!(f, "{origin}"),
            Self(origin, label) => write!(f, "{origin} '{label}'"),
        }
    }
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
            Self::Given => "given rules",
            Self::File => "rule file",
        })
    }
}
