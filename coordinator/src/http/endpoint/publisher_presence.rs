//! `PUT /v1/publisher/presence` ← `Presence` → 204; role publisher, about itself.

use axum::{extract::State, http::StatusCode};
use protocol::v1::publisher::Presence;

use crate::http::{Rules, auth::Publisher, error::Error, extract::Json};

pub(in crate::http) async fn put(
    State(api): Rules,
    Publisher(caller): Publisher,
    Json(presence): Json<Presence, { 16 << 10 }>,
) -> Result<StatusCode, Error> {
    api.app.set_presence(&caller, &presence).await?;
    Ok(StatusCode::NO_CONTENT)
}
