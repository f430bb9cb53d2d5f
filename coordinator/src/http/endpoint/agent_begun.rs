//! `POST /v1/agent/runs/begun` ← `RunBegun` → 204; role agent, for assignments of its site. What comes
//! after the run's report is not told.

use axum::{extract::State, http::StatusCode};
use protocol::v1::agent::RunBegun;

use crate::http::{Rules, auth::Agent, error::Error, extract::Json};

pub(in crate::http) async fn post(
    State(api): Rules,
    Agent(caller): Agent,
    Json(begun): Json<RunBegun>,
) -> Result<StatusCode, Error> {
    api.app.run_begun(&caller, &begun).await?;
    Ok(StatusCode::NO_CONTENT)
}
