//! `POST /v1/agent/runs` ← `RunReport` → 204; role agent, for assignments of its site. The same
//! report again changes nothing.

use axum::{extract::State, http::StatusCode};
use protocol::v1::agent::RunReport;

use crate::http::{Rules, auth::Agent, error::Error, extract::Json};

pub(in crate::http) async fn post(
    State(api): Rules,
    Agent(caller): Agent,
    Json(report): Json<RunReport>,
) -> Result<StatusCode, Error> {
    api.app.report_run(&caller, &report).await?;
    Ok(StatusCode::NO_CONTENT)
}
