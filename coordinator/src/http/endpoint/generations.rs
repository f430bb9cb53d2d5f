//! `GET /v1/generations?tree=` → `Page<GenerationStatus>`, the newest first, holds before all; roles
//! admin and viewer; operators of a tree that was granted to their site.

use axum::{Json, extract::State};
use protocol::{
    name::TreeName,
    v1::{Page, history::GenerationStatus},
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
    tree: Option<TreeName>,
    cursor: Option<String>,
    limit: Option<u64>,
}

pub(in crate::http) async fn get(
    State(api): Rules,
    ScopedReader(scope): ScopedReader,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Page<GenerationStatus>>, Error> {
    let window = Window::new(wanted.cursor.as_deref(), wanted.limit)?;
    let items =
        api.app.generations(wanted.tree.as_ref(), &scope, window.skip, window.limit).await?;
    // Holds have no number and stand beside the page's entries.
    let counted = items.iter().filter(|item| item.version.is_some()).count();
    Ok(Json(Page { next: window.next(counted), items }))
}
