//! `POST /v1/trees/{tree}/holds` ← `HoldReport` → 204, and `DELETE /v1/trees/{tree}/holds` → 204 when
//! nothing is held any more; role publisher, for its own trees.

use axum::{extract::State, http::StatusCode};
use protocol::{name::TreeName, v1::publisher::HoldReport};

use crate::http::{
    Rules,
    auth::Publisher,
    error::Error,
    extract::{Json, Path},
};

pub(in crate::http) async fn post(
    State(api): Rules,
    Publisher(caller): Publisher,
    Path(tree): Path<TreeName>,
    Json(hold): Json<HoldReport, { 64 << 10 }>,
) -> Result<StatusCode, Error> {
    api.app.report_hold(&caller, &tree, &hold).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(in crate::http) async fn delete(
    State(api): Rules,
    Publisher(caller): Publisher,
    Path(tree): Path<TreeName>,
) -> Result<StatusCode, Error> {
    api.app.end_holds(&caller, &tree).await?;
    Ok(StatusCode::NO_CONTENT)
}
