//! `GET /v1/runs?assignment=&tree=&site=` → `Page<RunStatus>`, the newest first; roles admin and
//! viewer; operators of their site.

use axum::{Json, extract::State};
use protocol::{
    name::{SiteName, TreeName},
    spec::AssignmentName,
    v1::{Page, history::RunStatus},
};
use serde::Deserialize;

use crate::{
    db::RunFilter,
    http::{
        Rules,
        auth::ScopedReader,
        error::Error,
        extract::{Query, Window},
    },
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct Wanted {
    assignment: Option<AssignmentName>,
    tree: Option<TreeName>,
    site: Option<SiteName>,
    cursor: Option<String>,
    limit: Option<u64>,
}

pub(in crate::http) async fn get(
    State(api): Rules,
    ScopedReader(scope): ScopedReader,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Page<RunStatus>>, Error> {
    let window = Window::new(wanted.cursor.as_deref(), wanted.limit)?;
    let filter = match wanted.assignment {
        Some(AssignmentName { tree, site }) => RunFilter { tree: Some(tree), site: Some(site) },
        None => RunFilter { tree: wanted.tree, site: wanted.site },
    };
    let items = api.app.runs(filter, &scope, window.skip, window.limit).await?;
    Ok(Json(Page { next: window.next(items.len()), items }))
}
