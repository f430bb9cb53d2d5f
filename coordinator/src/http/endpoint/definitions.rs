//! `POST /v1/definitions` ← `ApplyRequest` → `ApplyResult`; role admin. Problem `invalid-definition`
//! with every finding, and nothing stored, when anything is wrong.
//!
//! `GET /v1/definitions/{kind}` → `Page<Definition>`; roles admin and viewer; operators what
//! concerns their site.

use axum::extract::State;
use protocol::v1::{
    Page,
    definitions::{ApplyRequest, ApplyResult, Definition, Kind},
};
use serde::Deserialize;

use crate::http::{
    Rules,
    auth::{Admin, ScopedReader},
    error::Error,
    extract::{Json, Path, Query, Window},
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct Wanted {
    cursor: Option<String>,
    limit: Option<u64>,
}

pub(in crate::http) async fn post(
    State(api): Rules,
    Admin(caller): Admin,
    Json(request): Json<ApplyRequest, { 8 << 20 }>,
) -> Result<axum::Json<ApplyResult>, Error> {
    Ok(axum::Json(api.app.apply(&caller, &request).await?))
}

pub(in crate::http) async fn get(
    State(api): Rules,
    ScopedReader(scope): ScopedReader,
    Path(kind): Path<Kind>,
    Query(wanted): Query<Wanted>,
) -> Result<axum::Json<Page<Definition>>, Error> {
    let window = Window::new(wanted.cursor.as_deref(), wanted.limit)?;
    Ok(axum::Json(window.page(api.app.definitions(kind, &scope))))
}
