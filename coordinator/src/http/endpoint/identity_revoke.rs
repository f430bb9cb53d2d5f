//! `POST /v1/identities/{role}/{name}/revoke` ← `RevokeRequest` → `IdentityStatus`; roles admin
//! and, for agents of its site, operator.
//! Effective at the next request; open connections are closed.

use axum::extract::State;
use protocol::{
    name::IdentityName,
    role::Role,
    v1::identities::{IdentityStatus, RevokeRequest},
};

use crate::http::{
    Rules,
    auth::SiteManager,
    error::Error,
    extract::{Json, Path},
};

pub(in crate::http) async fn post(
    State(api): Rules,
    SiteManager(caller): SiteManager,
    Path((role, name)): Path<(Role, IdentityName)>,
    Json(request): Json<RevokeRequest>,
) -> Result<axum::Json<IdentityStatus>, Error> {
    Ok(axum::Json(api.app.revoke(&caller, role, &name, &request).await?))
}
