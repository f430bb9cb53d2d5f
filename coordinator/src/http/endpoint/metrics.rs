//! `GET /metrics` → OpenMetrics text; roles admin and viewer.

use axum::{
    extract::State,
    http::header,
    response::{IntoResponse as _, Response},
};

use protocol::open_metrics::MEDIA_TYPE;

use crate::http::{Rules, auth::Reader};

pub(in crate::http) async fn get(State(api): Rules, _: Reader) -> Response {
    ([(header::CONTENT_TYPE, MEDIA_TYPE)], api.metrics.render(&api.app)).into_response()
}
