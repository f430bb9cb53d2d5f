//! `GET /v1/agent/orders?revision=N&wait=60s` → `AgentOrders`; role agent, its own only. 304 when nothing
//! newer than N came within the wait.

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse as _, Response},
};

use crate::http::{
    Rules,
    auth::Agent,
    error::Error,
    extract::{Poll, Query},
};

pub(in crate::http) async fn get(
    State(api): Rules,
    Agent(caller): Agent,
    Query(poll): Query<Poll>,
) -> Result<Response, Error> {
    let orders = api.app.agent_orders(&caller, poll.revision, poll.wait()).await?;
    Ok(match orders {
        Some(orders) => Json(orders).into_response(),
        None => StatusCode::NOT_MODIFIED.into_response(),
    })
}
