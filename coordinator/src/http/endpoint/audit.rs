//! `GET /v1/audit?cursor=N` → `Page<AuditEntry>`, the oldest first; roles admin and viewer.

use axum::{Json, extract::State};
use protocol::v1::{Page, audit::AuditEntry};
use serde::Deserialize;

use crate::http::{
    Rules,
    auth::Reader,
    error::Error,
    extract::{Query, Window},
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
) -> Result<Json<Page<AuditEntry>>, Error> {
    // Entries are numbered without gaps from 1, so their number is their place.
    let window = Window::new(wanted.cursor.as_deref(), wanted.limit)?;
    let items = api.app.audit_log(window.skip, window.limit).await?;
    Ok(Json(Page { next: window.next(items.len()), items }))
}
