//! `GET /v1/publisher/orders?revision=N&wait=60s` → `PublisherOrders`; role publisher, its own only. 304 when nothing
//! newer than N came within the wait.

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse as _, Response},
};

use crate::http::{
    Rules,
    auth::Publisher,
    error::Error,
    extract::{Poll, Query},
};

pub(in crate::http) async fn get(
    State(api): Rules,
    Publisher(caller): Publisher,
    Query(poll): Query<Poll>,
) -> Result<Response, Error> {
    let orders = api.app.publisher_orders(&caller, poll.revision, poll.wait()).await?;
    Ok(match orders {
        Some(orders) => Json(orders).into_response(),
        None => StatusCode::NOT_MODIFIED.into_response(),
    })
}
