//! `POST /v1/assignments/{name}/undelete` ← `UndeleteRequest` → `ApplyResult`; role admin.

use axum::extract::State;
use protocol::{
    spec::AssignmentName,
    v1::{agent::UndeleteRequest, definitions::ApplyResult},
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
    Path(name): Path<AssignmentName>,
    Json(request): Json<UndeleteRequest>,
) -> Result<axum::Json<ApplyResult>, Error> {
    Ok(axum::Json(api.app.request_undelete(&caller, &name, request).await?))
}
