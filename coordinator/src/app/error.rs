//! Why something was not done, in terms of the rules; HTTP is at the edge.

use protocol::error::Finding;

use crate::db;

/// Why a request was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The rules say no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Definitions have errors; nothing was stored.
    #[error("the definitions have {} errors; nothing was stored", .0.len())]
    Definitions(Vec<Finding>),
    /// The database failed.
    #[error(transparent)]
    Database(#[from] db::Error),
    /// A certificate could not be made.
    #[error("no certificate could be made")]
    Authority(#[from] certs::authority::Error),
    /// A head could not be signed.
    #[error("the head could not be signed")]
    Signing(#[from] certs::signing::Error),
    /// The system gives no randomness.
    #[error(transparent)]
    Random(#[from] certs::NoRandomness),
    /// An answer could not be written.
    #[error("an answer could not be written as JSON")]
    Answer(#[from] serde_json::Error),
}

/// What the rules say no to, for the one who asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// What was sent makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// The certificate is none of ours, or its time is over.
    #[error("{0}")]
    Unauthenticated(String),
    /// The identity was revoked.
    #[error("{0}")]
    Revoked(String),
    /// The identity may not do that.
    #[error("{0}")]
    Forbidden(String),
    /// There is no such thing, or it is not for this identity to see.
    #[error("{0}")]
    NotFound(String),
    /// The statement does not follow the current one.
    #[error("{0}")]
    ParentMismatch(String),
    /// It conflicts with what is there.
    #[error("{0}")]
    Conflict(String),
    /// The invite is not accepted.
    #[error("{0}")]
    Invite(String),
    /// Not now.
    #[error("{0}")]
    Unavailable(String),
}
