//! `GET /v1/status` → `NetworkStatus`; roles admin and viewer.

use axum::{Json, extract::State};
use protocol::v1::status::NetworkStatus;

use crate::http::{Rules, auth::Reader, error::Error};

pub(in crate::http) async fn get(
    State(api): Rules,
    _: Reader,
) -> Result<Json<NetworkStatus>, Error> {
    Ok(Json(api.app.status().await?))
}
