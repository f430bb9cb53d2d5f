//! `POST /v1/assignments/{name}/enable`, `…/disable` and `…/sync` → `ApplyResult`; roles admin
//! and, at its site, operator.

use axum::{Json, extract::State};
use protocol::{spec::AssignmentName, v1::definitions::ApplyResult};
use serde::Deserialize;

use crate::http::{Rules, auth::SiteManager, error::Error, extract::Path};

/// What an assignment can be told.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::http) enum Verb {
    Enable,
    Disable,
    Sync,
}

pub(in crate::http) async fn post(
    State(api): Rules,
    SiteManager(caller): SiteManager,
    Path((name, verb)): Path<(AssignmentName, Verb)>,
) -> Result<Json<ApplyResult>, Error> {
    Ok(Json(match verb {
        Verb::Enable => api.app.set_enabled(&caller, &name, true).await?,
        Verb::Disable => api.app.set_enabled(&caller, &name, false).await?,
        Verb::Sync => api.app.request_sync(&caller, &name).await?,
    }))
}
