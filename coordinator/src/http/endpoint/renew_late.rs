//! `POST /renew` ← `LateRenewRequest` → `RenewResponse`; on the enroll port, where only the server is
//! known: whoever signs with the key of a certificate that ended not long ago. The same request again
//! gives the same certificate.

use axum::{Extension, extract::State};
use certs::tls::Exporter;
use protocol::v1::enroll::{LateRenewRequest, MAX_REQUEST_LEN, RenewResponse};

use crate::http::{Rules, error::Error, extract::Json};

pub(in crate::http) async fn post(
    State(api): Rules,
    Extension(exporter): Extension<Exporter>,
    Json(request): Json<LateRenewRequest, MAX_REQUEST_LEN>,
) -> Result<axum::Json<RenewResponse>, Error> {
    Ok(axum::Json(api.app.renew_late(&request, &exporter).await?))
}
