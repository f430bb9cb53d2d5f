//! `POST /enroll` ← `EnrollRequest` → `EnrollResponse`, or 202 `EnrollPending` while an admin has to
//! approve it; on the enroll port, where only the server is known: whoever proves an invite's secret.
//! Problem `invite-refused` otherwise.

use axum::{
    Extension,
    extract::State,
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use certs::tls::Exporter;
use protocol::v1::enroll::{EnrollRequest, MAX_REQUEST_LEN};

use crate::{
    app::Enrolled,
    http::{Rules, error::Error, extract::Json},
};

pub(in crate::http) async fn post(
    State(api): Rules,
    Extension(exporter): Extension<Exporter>,
    Json(request): Json<EnrollRequest, MAX_REQUEST_LEN>,
) -> Result<Response, Error> {
    Ok(match api.app.enroll(&request, &exporter).await? {
        Enrolled::Member(response) => axum::Json(*response).into_response(),
        Enrolled::Waits(pending) => (StatusCode::ACCEPTED, axum::Json(pending)).into_response(),
    })
}
