//! Errors as the API sends them: RFC 9457 problem details with a stable `type`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Media type of a [`Problem`].
pub const PROBLEM_JSON: &str = "application/problem+json";

/// What went wrong, for people and for programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Problem {
    /// Stable kind; serialized as `urn:mirrornet:problem:KIND`.
    #[serde(rename = "type")]
    pub kind: ProblemKind,
    /// Short, the same for every problem of the kind.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// This occurrence: what, for which tree or site, and what to do.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// Several findings, where a request has several (definition files).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Finding>,
}

/// One finding in what was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Finding {
    /// File, as the sender named it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Line, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// What is wrong and what to do.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.file, self.line) {
            (Some(file), Some(line)) => write!(f, "{file}:{line}: {}", self.message),
            (Some(file), None) => write!(f, "{file}: {}", self.message),
            (None, _) => f.write_str(&self.message),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.detail.is_empty() { &self.title } else { &self.detail })?;
        self.errors.iter().try_for_each(|finding| write!(f, "\n  {finding}"))
    }
}

impl std::error::Error for Problem {}

// A `tt`, because the schema's derive does not see through a `literal` that a macro passes on.
macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident $text:tt $status:literal $title:literal;)*) => {
        /// Stable kinds of problems. Programs branch on these, never on texts.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        pub enum ProblemKind {
            $($(#[$doc])* #[serde(rename = $text)] $kind,)*
            /// A kind that this program does not know yet.
            #[serde(other, rename = "urn:mirrornet:problem:unknown")]
            Unknown,
        }

        impl ProblemKind {
            /// A problem of this kind.
            pub fn with(self, detail: impl Into<String>) -> Problem {
                let (status, title) = match self {
                    $(Self::$kind => ($status, $title),)*
                    Self::Unknown => (500, "unknown problem"),
                };
                Problem {
                    kind: self, title: title.into(), status, detail: detail.into(), errors: vec![],
                }
            }
        }
    };
}

kinds! {
    /// The request cannot be understood.
    BadRequest "urn:mirrornet:problem:bad-request" 400 "the request cannot be understood";
    /// Definitions have errors; see `errors`.
    InvalidDefinition "urn:mirrornet:problem:invalid-definition" 422 "the definitions have errors; nothing was stored";
    /// No live certificate.
    Unauthenticated "urn:mirrornet:problem:unauthenticated" 401 "this certificate is not accepted here";
    /// The certificate has ended.
    Expired "urn:mirrornet:problem:expired" 401 "this certificate has expired";
    /// The certificate was revoked.
    Revoked "urn:mirrornet:problem:revoked" 403 "this identity was revoked";
    /// The role or grant does not allow it.
    Forbidden "urn:mirrornet:problem:forbidden" 403 "this identity may not do that";
    /// There is no such thing, or it is not for this identity to see.
    NotFound "urn:mirrornet:problem:not-found" 404 "there is no such thing here";
    /// The statement's parent is not current.
    ParentMismatch "urn:mirrornet:problem:parent-mismatch" 409 "the tree has moved on";
    /// It exists already, or is in use.
    Conflict "urn:mirrornet:problem:conflict" 409 "that conflicts with what is there";
    /// The invite was used, has expired or is for another name.
    InviteRefused "urn:mirrornet:problem:invite-refused" 403 "the invite is not accepted";
    /// The body is larger than this endpoint accepts.
    TooLarge "urn:mirrornet:problem:too-large" 413 "the request is too large";
    /// The upstream's file is no longer the announced one; plan again to the newest generation.
    SourceMoved "urn:mirrornet:problem:source-moved" 410 "the file has changed at its upstream since";
    /// Try again later.
    Unavailable "urn:mirrornet:problem:unavailable" 503 "not available at the moment; try again";
    /// A fault of the server, logged there.
    Internal "urn:mirrornet:problem:internal" 500 "the server failed; its log says why";
}
