//! `PUT /v1/agent/presence` ← `Presence` → 204; role agent, about itself: where it relays.

use axum::{extract::State, http::StatusCode};
use protocol::v1::publisher::Presence;

use crate::http::{Rules, auth::Agent, error::Error, extract::Json};

pub(in crate::http) async fn put(
    State(api): Rules,
    Agent(caller): Agent,
    Json(presence): Json<Presence, { 16 << 10 }>,
) -> Result<StatusCode, Error> {
    api.app.set_presence(&caller, &presence).await?;
    Ok(StatusCode::NO_CONTENT)
}
