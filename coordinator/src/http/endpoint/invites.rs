//! `POST /v1/invites` ← `InviteRequest` → `InviteAnswer`; roles admin and, for agents
//! of its site, operator. The answer holds a secret and is given once.

use axum::extract::State;
use protocol::v1::identities::{InviteAnswer, InviteRequest};

use crate::http::{Rules, auth::SiteManager, error::Error, extract::Json};

pub(in crate::http) async fn post(
    State(api): Rules,
    SiteManager(caller): SiteManager,
    Json(request): Json<InviteRequest>,
) -> Result<axum::Json<InviteAnswer>, Error> {
    Ok(axum::Json(api.app.invite(&caller, &request).await?))
}
