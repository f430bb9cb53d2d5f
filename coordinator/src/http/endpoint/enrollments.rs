//! `GET /v1/enrollments` → `Page<EnrollmentStatus>`; roles admin and viewer.
//! `POST /v1/enrollments/{fingerprint}/approve` and `…/reject` → 204; role admin. The enrollment is
//! named by its keys, so that no others are approved by mistake.

use axum::{Json, extract::State, http::StatusCode};
use protocol::{
    fingerprint::KeyFingerprint,
    v1::{Page, identities::EnrollmentStatus},
};
use serde::Deserialize;

use crate::http::{
    Rules,
    auth::{Admin, Reader},
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
    _: Reader,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Page<EnrollmentStatus>>, Error> {
    let window = Window::new(wanted.cursor.as_deref(), wanted.limit)?;
    Ok(Json(window.page(api.app.enrollments().await?)))
}

pub(in crate::http) async fn approve(
    State(api): Rules,
    Admin(caller): Admin,
    Path(keys): Path<KeyFingerprint>,
) -> Result<StatusCode, Error> {
    api.app.decide_enrollment(&caller, &keys, true).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(in crate::http) async fn reject(
    State(api): Rules,
    Admin(caller): Admin,
    Path(keys): Path<KeyFingerprint>,
) -> Result<StatusCode, Error> {
    api.app.decide_enrollment(&caller, &keys, false).await?;
    Ok(StatusCode::NO_CONTENT)
}
