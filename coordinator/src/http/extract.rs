//! Reading requests: every body bounded, every refusal a problem.

use std::{error::Error as _, sync::Arc, time::Duration};

use axum::{
    extract::{FromRequest, FromRequestParts, Request},
    http::{header, request::Parts},
};
use protocol::{
    error::ProblemKind,
    generation::Revision,
    units::Span,
    v1::{MAX_WAIT_SECONDS, Page},
};
use serde::{Deserialize, de::DeserializeOwned};

use super::{Api, error::Error};

/// Longest time for a request's body to arrive.
const BODY_DEADLINE: Duration = Duration::from_secs(30);
/// Longest body where nothing else is said, in bytes.
const BODY: usize = 1 << 20;
/// Entries of a page where nothing else is said, and the most.
const PAGE: u64 = 100;
const MAX_PAGE: u64 = 1000;

/// A JSON body of at most `MAX` bytes.
pub(super) struct Json<T, const MAX: usize = BODY>(pub T);

/// The path's parameters.
pub(super) struct Path<T>(pub T);

/// The query's parameters; unknown ones are errors where the type says so.
pub(super) struct Query<T>(pub T);

/// Query of a long poll.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Poll {
    /// What the asker knows; 0 for nothing.
    #[serde(default)]
    pub revision: Revision,
    /// How long to wait for something newer; not at all where it is absent.
    #[serde(default)]
    wait: Option<Span>,
}

impl Poll {
    pub(super) fn wait(&self) -> Duration {
        let asked = self.wait.map_or(Duration::ZERO, Span::duration);
        asked.min(Duration::from_secs(MAX_WAIT_SECONDS))
    }
}

/// Where a page begins, and how long it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    /// Entries before it.
    pub skip: u64,
    /// Entries in it; none where none are asked for.
    pub limit: u64,
}

impl Window {
    /// From a query. A cursor is whatever an earlier page said.
    pub(super) fn new(cursor: Option<&str>, limit: Option<u64>) -> Result<Self, Error> {
        let skip = match cursor {
            None => 0,
            Some(text) => text.parse().map_err(|_| {
                ProblemKind::BadRequest.with("the cursor is not one that an earlier page gave")
            })?,
        };
        Ok(Self { skip, limit: limit.unwrap_or(PAGE).min(MAX_PAGE) })
    }

    /// The page of a list that is at hand as a whole.
    pub(super) fn page<T>(self, items: Vec<T>) -> Page<T> {
        let size = |number| usize::try_from(number).unwrap_or(usize::MAX);
        let items: Vec<T> =
            items.into_iter().skip(size(self.skip)).take(size(self.limit)).collect();
        Page { next: self.next(items.len()), items }
    }

    /// Cursor of the page after one with `count` entries; none when that one was not full.
    pub(super) fn next(self, count: usize) -> Option<String> {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        (self.limit > 0 && count >= self.limit)
            .then(|| self.skip.saturating_add(self.limit).to_string())
    }
}

impl<T: DeserializeOwned, const MAX: usize> FromRequest<Arc<Api>> for Json<T, MAX> {
    type Rejection = Error;

    async fn from_request(request: Request, _: &Arc<Api>) -> Result<Self, Error> {
        let content_type = request.headers().get(header::CONTENT_TYPE);
        let is_json = content_type
            .and_then(|value| value.to_str().ok())
            .is_some_and(|value| value.split(';').next() == Some("application/json"));
        if !is_json {
            let message = "the body must be JSON, with the header content-type: application/json";
            return Err(ProblemKind::BadRequest.with(message).into());
        }
        let reading = axum::body::to_bytes(request.into_body(), MAX);
        let body = match tokio::time::timeout(BODY_DEADLINE, reading).await {
            Ok(Ok(body)) => body,
            Ok(Err(error)) if is_too_long(&error) => {
                let message = format!("the body is longer than {MAX} bytes");
                return Err(ProblemKind::TooLarge.with(message).into());
            }
            Ok(Err(_)) => {
                return Err(ProblemKind::BadRequest.with("the body ended too early").into());
            }
            Err(_) => {
                let seconds = BODY_DEADLINE.as_secs();
                let message = format!("the body did not arrive within {seconds} s");
                return Err(ProblemKind::BadRequest.with(message).into());
            }
        };
        serde_json::from_slice(&body).map(Self).map_err(|error| {
            ProblemKind::BadRequest.with(format!("the body cannot be read: {error}")).into()
        })
    }
}

impl<T: DeserializeOwned + Send> FromRequestParts<Arc<Api>> for Path<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, Error> {
        match axum::extract::Path::from_request_parts(parts, api).await {
            Ok(axum::extract::Path(value)) => Ok(Self(value)),
            Err(error) => Err(ProblemKind::NotFound.with(error.body_text()).into()),
        }
    }
}

impl<T: DeserializeOwned> FromRequestParts<Arc<Api>> for Query<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, Error> {
        match axum::extract::Query::from_request_parts(parts, api).await {
            Ok(axum::extract::Query(value)) => Ok(Self(value)),
            Err(error) => Err(ProblemKind::BadRequest.with(error.body_text()).into()),
        }
    }
}

fn is_too_long(error: &axum::Error) -> bool {
    error.source().is_some_and(|source| source.is::<http_body_util::LengthLimitError>())
}
