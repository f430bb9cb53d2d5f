//! `GET /v1/status` → `NetworkStatus`; roles admin and viewer; operators of their
//! site.

use axum::{Json, extract::State};
use protocol::v1::status::NetworkStatus;

use crate::http::{Rules, auth::ScopedReader, error::Error};

pub(in crate::http) async fn get(
    State(api): Rules,
    ScopedReader(scope): ScopedReader,
) -> Result<Json<NetworkStatus>, Error> {
    Ok(Json(api.app.status(&scope).await?))
}
