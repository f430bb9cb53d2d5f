//! What admins define.
//!
//! - `POST /v1/definitions` ← [`ApplyRequest`] → [`ApplyResult`], or problem `invalid-definition`
//!   with every finding and nothing stored (role admin)
//! - `GET /v1/definitions/{kind}` → [`Page`](super::Page)`<`[`Definition`]`>` (roles admin, viewer)
//! - `GET /v1/definitions/{kind}/{name}` → [`Definition`] (roles admin, viewer)
//! - `DELETE /v1/definitions/{kind}/{name}` → [`ApplyResult`] (role admin)
//! - `GET /v1/imported/{system}` → [`Imported`] (roles admin, viewer)
//! - `GET /v1/assignments/{name}/effective` → [`Effective`] (roles admin, viewer)
//! - `POST /v1/assignments/{name}/enable`, `…/disable`, `…/sync` → [`ApplyResult`] (role admin)
//! - `POST /v1/trees/{tree}/publish` → [`ApplyResult`] (role admin)
//! - `POST /v1/trees/{tree}/approve`, `…/reject` ← [`HoldDecision`] → 204 (role admin)

use serde::{Deserialize, Serialize};

use crate::{digest::Digest, generation::Revision};

/// Kinds of definitions, as they are named in files, URLs and commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Kind {
    /// The network itself: what holds for all of it.
    Network,
    /// A server that trees come from.
    Upstream,
    /// A group of trees.
    Source,
    /// A tree.
    Tree,
    /// A place that hosts mirrors.
    Site,
    /// A permission.
    Grant,
    /// An order.
    Assignment,
}

impl Kind {
    /// Every kind, in the order in which they refer to each other.
    pub const ALL: [Self; 7] = [
        Self::Network,
        Self::Upstream,
        Self::Source,
        Self::Tree,
        Self::Site,
        Self::Grant,
        Self::Assignment,
    ];

    /// As written in files, URLs and commands.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::Upstream => "upstream",
            Self::Source => "source",
            Self::Tree => "tree",
            Self::Site => "site",
            Self::Grant => "grant",
            Self::Assignment => "assignment",
        }
    }
}

/// Definition files, as they are on the admin's disk: the coordinator parses them, so that every
/// finding has its file and line, and every client has the same parser.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ApplyRequest {
    /// The files.
    pub files: Vec<DefinitionFile>,
    /// The files that `filter-file` and `limit-file` refer to, each named by its path from the
    /// directory of the file that refers to it, with that directory in front.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rule_files: Vec<DefinitionFile>,
    /// Only say what would change.
    #[serde(default)]
    pub dry_run: bool,
    /// Also remove what the files do not name.
    #[serde(default)]
    pub prune: bool,
    /// Only if the wanted state is still this one, so that what an admin agreed to is what happens;
    /// else problem `conflict`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_revision: Option<Revision>,
    /// What the files were made of, to be kept as it is with what they define.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub imported: Option<Imported>,
}

/// The configuration of another mirroring system, as it was when definitions were made of it. Nothing
/// follows from it any more: what is defined holds, whatever it says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Imported {
    /// Which system.
    pub system: System,
    /// Its document, to the byte.
    pub document: String,
}

/// Mirroring systems whose configurations can be taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum System {
    /// PulpDist: a site configuration, JSON.
    Pulpdist,
}

impl System {
    /// Every system.
    pub const ALL: [Self; 1] = [Self::Pulpdist];

    /// As written in URLs and commands.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pulpdist => "pulpdist",
        }
    }
}

/// One definition file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DefinitionFile {
    /// The name for findings.
    pub name: String,
    /// TOML.
    pub text: String,
}

/// What an apply changed, or would change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ApplyResult {
    /// The wanted state after it.
    pub revision: Revision,
    /// Nothing was stored.
    #[serde(default)]
    pub dry_run: bool,
    /// The changes, in the order of kinds and names.
    pub changes: Vec<Change>,
    /// Things that are allowed but probably not meant.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// One definition that changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Change {
    /// Kind of definition.
    pub kind: Kind,
    /// Its name (`TREE@SITE` for grants and assignments).
    pub name: String,
    /// What happens to it.
    pub action: Action,
    /// Each field that differs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<FieldChange>,
}

/// What happens to a definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Action {
    /// It is new.
    Add,
    /// It changes.
    Change,
    /// It goes.
    Remove,
}

/// One field before and after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FieldChange {
    /// Key in the definition file.
    pub field: String,
    /// Before; absent where it was unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<serde_json::Value>,
    /// After; absent where it is unset now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<serde_json::Value>,
}

/// A stored definition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Definition {
    /// Kind of definition.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// The wanted state in which it changed last.
    pub revision: Revision,
    /// The `*Spec` of [`spec`](crate::spec).
    pub spec: serde_json::Value,
}

/// Every setting of an assignment, and the level that decided it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Effective {
    /// `TREE@SITE`.
    pub name: String,
    /// The settings, in a fixed order.
    pub settings: Vec<EffectiveSetting>,
    /// The rules, in the order in which they are asked.
    pub rules: Vec<EffectiveRule>,
    /// Why it is not carried out, for an admin; absent when it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<String>,
}

/// One setting with its provenance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EffectiveSetting {
    /// Key.
    pub key: String,
    /// Value.
    pub value: serde_json::Value,
    /// `default`, or the definition that set it, for example `site lisbon`.
    pub from: String,
}

/// One filter rule with its provenance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EffectiveRule {
    /// The rule's text.
    pub rule: String,
    /// The definition and key that it stands in, for example `tree fedora, limit`.
    pub from: String,
}

/// What an admin decided about a held manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HoldDecision {
    /// Exactly this manifest.
    pub manifest: Digest,
}
