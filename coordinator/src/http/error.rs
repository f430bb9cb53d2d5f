//! The one place where refusals become HTTP.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use protocol::error::{PROBLEM_JSON, Problem, ProblemKind};

use crate::app::{self, Refusal};

/// An answer that says no.
#[derive(Debug)]
pub(super) struct Error(Problem);

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        let kind = match &refusal {
            Refusal::Invalid(_) => ProblemKind::BadRequest,
            Refusal::Unauthenticated(_) => ProblemKind::Unauthenticated,
            Refusal::Revoked(_) => ProblemKind::Revoked,
            Refusal::Forbidden(_) => ProblemKind::Forbidden,
            Refusal::NotFound(_) => ProblemKind::NotFound,
            Refusal::ParentMismatch(_) => ProblemKind::ParentMismatch,
            Refusal::Conflict(_) => ProblemKind::Conflict,
            Refusal::Invite(_) => ProblemKind::InviteRefused,
            Refusal::Unavailable(_) => ProblemKind::Unavailable,
        };
        Self(kind.with(refusal.to_string()))
    }
}

impl From<app::Error> for Error {
    fn from(error: app::Error) -> Self {
        match error {
            app::Error::Refused(refusal) => refusal.into(),
            app::Error::Definitions(findings) => {
                let detail = match findings.len() {
                    1 => "one error".into(),
                    count => format!("{count} errors"),
                };
                let mut problem = ProblemKind::InvalidDefinition.with(detail);
                problem.errors = findings;
                Self(problem)
            }
            app::Error::Database(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "a request failed");
                Self(ProblemKind::Unavailable.with(
                    "the coordinator's database does not answer as it should; its log says why",
                ))
            }
            error => {
                tracing::error!(error = &error as &dyn std::error::Error, "a request failed");
                Self(ProblemKind::Internal.with(""))
            }
        }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let status =
            StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self.0).unwrap_or_default();
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
        }
        response
    }
}
