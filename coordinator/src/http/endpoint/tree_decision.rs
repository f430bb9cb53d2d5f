//! `POST /v1/trees/{tree}/approve` and `…/reject` ← `HoldDecision` → 204; role admin. The manifest is
//! named by its digest, so that nothing else is approved by mistake.

use axum::{extract::State, http::StatusCode};
use protocol::{name::TreeName, v1::definitions::HoldDecision};

use crate::http::{
    Rules,
    auth::Admin,
    error::Error,
    extract::{Json, Path},
};

pub(in crate::http) async fn approve(
    State(api): Rules,
    Admin(caller): Admin,
    Path(tree): Path<TreeName>,
    Json(hold): Json<HoldDecision>,
) -> Result<StatusCode, Error> {
    api.app.decide_hold(&caller, &tree, &hold.manifest, true).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(in crate::http) async fn reject(
    State(api): Rules,
    Admin(caller): Admin,
    Path(tree): Path<TreeName>,
    Json(hold): Json<HoldDecision>,
) -> Result<StatusCode, Error> {
    api.app.decide_hold(&caller, &tree, &hold.manifest, false).await?;
    Ok(StatusCode::NO_CONTENT)
}
