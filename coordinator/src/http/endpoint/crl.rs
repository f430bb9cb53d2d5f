//! `GET /v1/crl` → the certificate revocation lists of both authorities, PEM; every role, and at
//! the enroll port anyone: third parties that check them have no identity here.

use axum::{
    extract::State,
    http::header,
    response::{IntoResponse as _, Response},
};

use crate::http::{Rules, error::Error};

pub(in crate::http) async fn get(State(api): Rules) -> Result<Response, Error> {
    let lists = api.app.revocation_lists()?;
    Ok(([(header::CONTENT_TYPE, "application/x-pem-file")], lists).into_response())
}
