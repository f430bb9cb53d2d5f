//! Who takes part.
//!
//! - `GET /v1/whoami` → [`WhoAmI`] (every role)
//! - `POST /v1/invites` ← [`InviteRequest`] → [`InviteAnswer`] (role admin)
//! - `GET /v1/enrollments` → [`Page`](super::Page)`<`[`EnrollmentStatus`]`>` (admin, viewer)
//! - `POST /v1/enrollments/{fingerprint}/approve`, `…/reject` → 204 (role admin)
//! - `GET /v1/identities?role=` → [`Page`](super::Page)`<`[`IdentityStatus`]`>` (admin, viewer)
//! - `POST /v1/identities/{role}/{name}/revoke` ← [`RevokeRequest`] → [`IdentityStatus`] (admin)
//! - `POST /v1/renew` ← [`RenewRequest`](super::enroll::RenewRequest) →
//!   [`RenewResponse`](super::enroll::RenewResponse) (every role, its own certificate)
//!
//! [`enroll`](super::enroll) has the exchange that turns an invite into a certificate.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    fingerprint::KeyFingerprint,
    name::{IdentityName, NetworkName, SiteName},
    role::Role,
    root::TreePattern,
    units::Span,
};

/// Who the asking identity is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WhoAmI {
    /// The network.
    pub network: NetworkName,
    /// Its role.
    pub role: Role,
    /// Its name.
    pub name: IdentityName,
    /// Its site, for agents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<SiteName>,
    /// Serial number of the certificate that it showed.
    pub serial: String,
    /// When that certificate expires.
    pub not_after: Timestamp,
}

/// Asks for an invite.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct InviteRequest {
    /// Role of the new identity.
    pub role: Role,
    /// Its name.
    pub name: IdentityName,
    /// Its site; needed for agents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<SiteName>,
    /// How long the invite can be used; one hour by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Span>,
    /// Trees that a publisher may sign for; all where none is named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trees: Vec<TreePattern>,
    /// Replace a live identity of that name, which is revoked when the invite is used.
    #[serde(default)]
    pub replace: bool,
    /// Whoever uses it waits until an admin has compared its keys and approved them.
    #[serde(default)]
    pub approve: bool,
}

/// The new invite. The line holds a secret and is shown once.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct InviteAnswer {
    /// What to hand to `enroll --invite`.
    pub invite: String,
    /// When it ends.
    pub expires: Timestamp,
}

impl std::fmt::Debug for InviteAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InviteAnswer").field("expires", &self.expires).finish_non_exhaustive()
    }
}

/// An enrollment that waits for an admin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EnrollmentStatus {
    /// The keys that want to be certified; to be compared with what the program prints.
    pub fingerprint: KeyFingerprint,
    /// Role of the identity that it would become.
    pub role: Role,
    /// Its name.
    pub name: IdentityName,
    /// Its site, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<SiteName>,
    /// Whether a live identity of that name is revoked by it.
    #[serde(default)]
    pub replace: bool,
    /// The admin who made the invite.
    pub invited_by: String,
    /// When it asked first.
    pub asked: Timestamp,
    /// When it ends undecided.
    pub expires: Timestamp,
}

/// Asks to revoke an identity.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RevokeRequest {
    /// Kept in the audit log.
    #[serde(default)]
    pub reason: String,
}

/// An identity as the coordinator knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct IdentityStatus {
    /// Its role.
    pub role: Role,
    /// Its name.
    pub name: IdentityName,
    /// Its site, for agents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<SiteName>,
    /// Serial number of its current certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// When that certificate expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Timestamp>,
    /// When it was revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<Timestamp>,
    /// Why it was revoked.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// When it last asked for anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<Timestamp>,
}
