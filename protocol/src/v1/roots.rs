//! The root documents: who may sign what.
//!
//! - `GET /v1/roots?after=N` → [`Roots`] (every role)
//! - `POST /v1/roots` ← [`Envelope`] → [`Roots`] (role admin): makes the next root current
//! - `GET /v1/roots/draft` → [`RootDraft`] (admin, viewer): what the next root should say

use serde::{Deserialize, Serialize};

use crate::{dsse::Envelope, generation::RootNumber, root::Root};

/// Most roots in one answer.
pub const MAX_ROOTS: usize = 16;

/// Root documents, the oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Roots {
    /// Signed [`Root`]s in a row, at most [`MAX_ROOTS`].
    pub roots: Vec<Envelope>,
    /// The newest there is.
    pub newest: RootNumber,
    /// Whether the coordinator holds a key that is enough to sign the next one.
    pub online: bool,
}

/// What the next root should say, for whoever holds the keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RootDraft {
    /// The current root.
    pub current: Envelope,
    /// The next root, unsigned.
    pub next: Root,
    /// How it differs, for people; nothing where the current one is as it should be.
    pub changes: Vec<String>,
}
