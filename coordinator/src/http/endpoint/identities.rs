//! `GET /v1/identities?role=` → `Page<IdentityStatus>`; roles admin and viewer;
//! operators of their site.

use axum::{Json, extract::State};
use protocol::{
    role::Role,
    v1::{Page, identities::IdentityStatus},
};
use serde::Deserialize;

use crate::http::{
    Rules,
    auth::ScopedReader,
    error::Error,
    extract::{Query, Window},
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct Wanted {
    role: Option<Role>,
    cursor: Option<String>,
    limit: Option<u64>,
}

pub(in crate::http) async fn get(
    State(api): Rules,
    ScopedReader(scope): ScopedReader,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Page<IdentityStatus>>, Error> {
    let window = Window::new(wanted.cursor.as_deref(), wanted.limit)?;
    Ok(Json(window.page(api.app.identities(wanted.role, &scope))))
}
