//! `POST /v1/renew` ← `RenewRequest` → `RenewResponse`; every role, for its own certificate.
//! The same request again gives the same certificate.

use axum::extract::State;
use protocol::v1::enroll::{MAX_REQUEST_LEN, RenewRequest, RenewResponse};

use crate::http::{Rules, auth::Anyone, error::Error, extract::Json};

pub(in crate::http) async fn post(
    State(api): Rules,
    Anyone(caller): Anyone,
    Json(request): Json<RenewRequest, MAX_REQUEST_LEN>,
) -> Result<axum::Json<RenewResponse>, Error> {
    Ok(axum::Json(api.app.renew(&caller, &request).await?))
}
