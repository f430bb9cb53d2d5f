//! `POST /v1/trees/{tree}/holds` ← `HoldReport` → 204; role publisher, for its own trees.

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
    Json(hold): Json<HoldReport, { 16 << 10 }>,
) -> Result<StatusCode, Error> {
    api.app.report_hold(&caller, &tree, &hold).await?;
    Ok(StatusCode::NO_CONTENT)
}
