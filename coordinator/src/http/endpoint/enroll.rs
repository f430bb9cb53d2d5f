//! `POST /enroll` ← `EnrollRequest` → `EnrollResponse`; on the enroll port, where only the server is
//! known: whoever proves an invite's secret. Problem `invite-refused` otherwise.

use axum::{Extension, extract::State};
use certs::tls::Exporter;
use protocol::v1::enroll::{EnrollRequest, EnrollResponse, MAX_REQUEST_LEN};

use crate::http::{Rules, error::Error, extract::Json};

pub(in crate::http) async fn post(
    State(api): Rules,
    Extension(exporter): Extension<Exporter>,
    Json(request): Json<EnrollRequest, MAX_REQUEST_LEN>,
) -> Result<axum::Json<EnrollResponse>, Error> {
    Ok(axum::Json(api.app.enroll(&request, &exporter).await?))
}
