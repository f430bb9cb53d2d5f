//! `POST /v1/mandates` ← `NewMandates` → 204: keeps mandates and hands them to agents; role admin.

use axum::{extract::State, http::StatusCode};
use protocol::v1::mandates::NewMandates;

use crate::http::{Rules, auth::Admin, error::Error, extract::Json};

/// Largest body, in bytes: mandates carry every rule of their assignments.
const MAX: usize = 64 << 20;

pub(in crate::http) async fn post(
    State(api): Rules,
    Admin(caller): Admin,
    Json(new): Json<NewMandates, MAX>,
) -> Result<StatusCode, Error> {
    api.app.put_mandates(&caller, &new).await?;
    Ok(StatusCode::NO_CONTENT)
}
