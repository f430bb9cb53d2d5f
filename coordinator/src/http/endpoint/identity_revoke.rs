//! `POST /v1/identities/{role}/{name}/revoke` ← `RevokeRequest` → `IdentityStatus`; role admin.
//! Effective at the next request; open connections are closed.

use axum::extract::State;
use protocol::{
    name::IdentityName,
    role::Role,
    v1::identities::{IdentityStatus, RevokeRequest},
};

use crate::http::{
    Rules,
    auth::Admin,
    error::Error,
    extract::{Json, Path},
};

pub(in crate::http) async fn post(
    State(api): Rules,
    Admin(caller): Admin,
    Path((role, name)): Path<(Role, IdentityName)>,
    Json(request): Json<RevokeRequest>,
) -> Result<axum::Json<IdentityStatus>, Error> {
    Ok(axum::Json(api.app.revoke(&caller, role, &name, &request).await?))
}
