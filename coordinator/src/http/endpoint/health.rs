//! `GET /healthz` → 200 while the program runs; `GET /readyz` → 200 while it can answer. Nobody is looked
//! up, so that a load balancer can ask, on the enroll port too.

use axum::{extract::State, http::StatusCode};

use crate::http::Rules;

pub(in crate::http) async fn healthz() -> &'static str {
    "ok\n"
}

pub(in crate::http) async fn readyz(State(api): Rules) -> (StatusCode, &'static str) {
    if api.app.stopping().is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, "stopping\n");
    }
    match api.app.refresh().await {
        Ok(_) => (StatusCode::OK, "ok\n"),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "the database does not answer\n"),
    }
}
