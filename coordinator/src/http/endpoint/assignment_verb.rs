//! `POST /v1/assignments/{name}/enable`, `…/enable-dry-run`, `…/disable` and `…/sync` →
//! `ApplyResult`; roles admin and, at its site, operator.

use axum::{Json, extract::State};
use protocol::{spec::AssignmentName, v1::definitions::ApplyResult};
use serde::Deserialize;

use crate::{
    app::definition::Enabling,
    http::{Rules, auth::SiteManager, error::Error, extract::Path},
};

/// What an assignment can be told.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::http) enum Verb {
    Enable,
    EnableDryRun,
    Disable,
    Sync,
}

pub(in crate::http) async fn post(
    State(api): Rules,
    SiteManager(caller): SiteManager,
    Path((name, verb)): Path<(AssignmentName, Verb)>,
) -> Result<Json<ApplyResult>, Error> {
    Ok(Json(match verb {
        Verb::Enable => api.app.set_enabled(&caller, &name, Enabling::Enable).await?,
        Verb::EnableDryRun => api.app.set_enabled(&caller, &name, Enabling::DryRunOnly).await?,
        Verb::Disable => api.app.set_enabled(&caller, &name, Enabling::Disable).await?,
        Verb::Sync => api.app.request_sync(&caller, &name).await?,
    }))
}
