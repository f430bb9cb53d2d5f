//! `POST /enroll` and `POST /renew` on the enroll port, and `POST /v1/renew` on the API.
//!
//! Enrollment turns an invite into a certificate over TLS in which only the server is known;
//! renewal replaces a certificate that is still good, over mutual TLS. Asking again with the same
//! certificate request gives the same certificate, so a lost answer costs nothing.
//!
//! A certificate that has ended opens nothing any more. For some time its key may still sign a
//! [`LateRenewRequest`], which goes to the enroll port.
//!
//! An enrollment by an invite that wants approval is answered with 202 and [`EnrollPending`] until an
//! admin has decided; the program asks again, with the same keys, until then.

use serde::{Deserialize, Serialize};

use crate::{
    dsse::{Bytes, Envelope},
    fingerprint::KeyFingerprint,
    key::VerifyingKey,
    name::{IdentityName, NetworkName},
    role::Role,
};

/// What an enrolling program sends. At most [`MAX_REQUEST_LEN`] bytes of JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EnrollRequest {
    /// Which invite is used.
    pub invite: String,
    /// What the sending program is, so that an invite for something else is refused before it is
    /// used up. None: whatever the invite says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// Keys to be certified.
    #[serde(flatten)]
    pub keys: KeysToCertify,
    /// The key that this identity will sign statements or receipts with.
    pub signing_key: VerifyingKey,
    /// 16 random bytes or more.
    pub nonce: Bytes,
    /// Proof that the sender knows the invite's secret, bound to this TLS connection, to the keys
    /// and to the nonce.
    pub proof: Bytes,
}

/// The keys of an enrollment or a renewal. Of a certificate request only the public key counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct KeysToCertify {
    /// PKCS #10 request (DER) of the client key.
    pub csr: Bytes,
    /// PKCS #10 request (DER) of the server key; publishers only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_csr: Option<Bytes>,
    /// Host names or addresses under which a publisher is reached.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub server_names: Vec<String>,
}

/// The certificates that answer an enrollment or a renewal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Certificates {
    /// The client certificate and its issuers below the root, PEM.
    pub chain: String,
    /// The server certificate and its issuers below the root, PEM; publishers only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_chain: Option<String>,
    /// The network's roots, PEM.
    pub ca: String,
}

/// What the coordinator answers to an enrollment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EnrollResponse {
    /// The network that was joined.
    pub network: NetworkName,
    /// The role that the invite gave.
    pub role: Role,
    /// The name that the invite gave.
    pub name: IdentityName,
    /// The certificates.
    #[serde(flatten)]
    pub certificates: Certificates,
    /// Where the API is: `https://HOST:PORT`.
    pub api_url: String,
    /// Signed [`Root`](crate::root::Root): what is pinned, and all later trust follows from.
    pub root: Envelope,
}

/// What the coordinator answers, with status 202, while an admin has to approve the enrollment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EnrollPending {
    /// The keys that were asked for. A program compares this with its own and shows that one.
    pub fingerprint: KeyFingerprint,
}

/// What a program sends to replace a certificate that is still good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RenewRequest {
    /// Keys to be certified; new ones each time.
    #[serde(flatten)]
    pub keys: KeysToCertify,
}

/// What a program sends to the enroll port to replace a certificate that has ended. At most
/// [`MAX_REQUEST_LEN`] bytes of JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LateRenewRequest {
    /// The client certificate that has ended, then its issuers below the root, DER.
    pub chain: Vec<Bytes>,
    /// Keys to be certified; new ones each time.
    #[serde(flatten)]
    pub keys: KeysToCertify,
    /// 16 random bytes or more.
    pub nonce: Bytes,
    /// By the key of that certificate, over this TLS connection, the keys and the nonce.
    pub signature: Bytes,
}

/// What the coordinator answers to a renewal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RenewResponse {
    /// The certificates.
    #[serde(flatten)]
    pub certificates: Certificates,
    /// Where the enroll port is: `https://HOST:PORT`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enroll_url: Option<String>,
}

/// Longest enrollment or renewal request, in bytes.
pub const MAX_REQUEST_LEN: usize = 64 * 1024;
/// Longest answer to one, in bytes.
pub const MAX_RESPONSE_LEN: usize = 256 * 1024;
