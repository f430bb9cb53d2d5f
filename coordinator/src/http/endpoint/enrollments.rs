//! `GET /v1/enrollments` → `Page<EnrollmentStatus>`; roles admin and viewer; operators of
//! their site.
//! `POST /v1/enrollments/{fingerprint}/approve` and `…/reject` → 204; roles admin and, of
//! agents of its site, operator. The enrollment is
//! named by its keys, so that no others are approved by mistake.

use axum::{Json, extract::State, http::StatusCode};
use protocol::{
    fingerprint::KeyFingerprint,
    v1::{Page, identities::EnrollmentStatus},
};
use serde::Deserialize;

use crate::http::{
    Rules,
    auth::{ScopedReader, SiteManager},
    error::Error,
    extract::{Path, Query, Window},
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct Wanted {
    cursor: Option<String>,
    limit: Option<u64>,
}

pub(in crate::http) async fn get(
    State(api): Rules,
    ScopedReader(scope): ScopedReader,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Page<EnrollmentStatus>>, Error> {
    let window = Window::new(wanted.cursor.as_deref(), wanted.limit)?;
    Ok(Json(window.page(api.app.enrollments(&scope).await?)))
}

pub(in crate::http) async fn approve(
    State(api): Rules,
    SiteManager(caller): SiteManager,
    Path(keys): Path<KeyFingerprint>,
) -> Result<StatusCode, Error> {
    api.app.decide_enrollment(&caller, &keys, true).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(in crate::http) async fn reject(
    State(api): Rules,
    SiteManager(caller): SiteManager,
    Path(keys): Path<KeyFingerprint>,
) -> Result<StatusCode, Error> {
    api.app.decide_enrollment(&caller, &keys, false).await?;
    Ok(StatusCode::NO_CONTENT)
}
