//! `GET /v1/roots?after=N` → `Roots`; every role.
//! `POST /v1/roots` ← `Envelope` → `Roots`; role admin. Makes the next root document current.
//! `GET /v1/roots/draft` → `RootDraft`; roles admin and viewer.

use axum::extract::State;
use protocol::{
    dsse::Envelope,
    generation::RootNumber,
    v1::roots::{RootDraft, Roots},
};
use serde::Deserialize;

use crate::http::{
    Rules,
    auth::{Admin, Anyone, Reader},
    error::Error,
    extract::{Json, Query},
};

/// Where the list begins.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct After {
    #[serde(default)]
    after: RootNumber,
}

pub(in crate::http) async fn get(
    State(api): Rules,
    Anyone(_): Anyone,
    Query(After { after }): Query<After>,
) -> Result<axum::Json<Roots>, Error> {
    Ok(axum::Json(api.app.roots(after).await?))
}

pub(in crate::http) async fn post(
    State(api): Rules,
    Admin(caller): Admin,
    Json(root): Json<Envelope>,
) -> Result<axum::Json<Roots>, Error> {
    Ok(axum::Json(api.app.publish_root(&caller, &root).await?))
}

pub(in crate::http) async fn draft(
    State(api): Rules,
    Reader: Reader,
) -> Result<axum::Json<RootDraft>, Error> {
    Ok(axum::Json(api.app.root_draft()))
}
