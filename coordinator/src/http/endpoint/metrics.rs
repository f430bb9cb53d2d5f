//! `GET /metrics` → OpenMetrics text; roles admin and viewer.

use axum::{
    extract::State,
    http::header,
    response::{IntoResponse as _, Response},
};

use crate::http::{Rules, auth::Reader};

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub(in crate::http) async fn get(State(api): Rules, _: Reader) -> Response {
    ([(header::CONTENT_TYPE, OPEN_METRICS)], api.metrics.render(&api.app)).into_response()
}
