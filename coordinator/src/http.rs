//! The API over mutual TLS, and the enroll port.
//!
//! Handlers translate: from a request to a call of [`crate::app`], and from its answer or refusal
//! to HTTP. No rule stands here. Each endpoint is a file whose header is its contract.

mod auth;
mod endpoint;
mod error;
mod extract;
mod log;
mod metrics;
mod openapi;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Request, State},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::{get, post, put},
};
use protocol::error::ProblemKind;

use self::{endpoint as at, error::Error, metrics::Metrics};
use crate::app::App;

/// Longest time for any request: more than the longest poll.
const DEADLINE: Duration = Duration::from_secs(protocol::v1::MAX_WAIT_SECONDS + 30);

/// What every handler has.
pub(crate) struct Api {
    app: Arc<App>,
    metrics: Metrics,
}

impl Api {
    pub(crate) fn new(app: Arc<App>) -> Arc<Self> {
        Arc::new(Self { app, metrics: Metrics::default() })
    }
}

/// The API.
pub(crate) fn api(api: &Arc<Api>) -> Router {
    let assignment = "/v1/assignments/{name}";
    let authenticated = Router::new()
        .route("/v1/whoami", get(at::whoami::get))
        .route("/v1/renew", post(at::renew::post))
        .route("/v1/agent/orders", get(at::agent_orders::get))
        .route("/v1/agent/presence", put(at::agent_presence::put))
        .route("/v1/agent/leases", post(at::agent_leases::post))
        .route("/v1/agent/runs/begun", post(at::agent_begun::post))
        .route("/v1/agent/runs", post(at::agent_runs::post))
        .route("/v1/publisher/orders", get(at::publisher_orders::get))
        .route("/v1/publisher/presence", put(at::publisher_presence::put))
        .route("/v1/trees/{tree}/statements", post(at::tree_statements::post))
        .route("/v1/trees/{tree}/offers", post(at::tree_offers::post))
        .route("/v1/trees/{tree}/statements/{from}", get(at::tree_history::get))
        .route("/v1/trees/{tree}/key", get(at::tree_key::get))
        .route("/v1/trees/{tree}/holds", post(at::tree_holds::post).delete(at::tree_holds::delete))
        .route("/v1/trees/{tree}/approve", post(at::tree_decision::approve))
        .route("/v1/trees/{tree}/reject", post(at::tree_decision::reject))
        .route("/v1/trees/{tree}/publish", post(at::tree_publish::post))
        .route("/v1/trees/{tree}/secret", post(at::tree_secret::post))
        .route("/v1/definitions", post(at::definitions::post))
        .route("/v1/definitions/{kind}", get(at::definitions::get))
        .route(
            "/v1/definitions/{kind}/{name}",
            get(at::definition::get).delete(at::definition::delete),
        )
        .route("/v1/imported/{system}", get(at::imported::get))
        .route(&format!("{assignment}/effective"), get(at::assignment_effective::get))
        .route(&format!("{assignment}/undelete"), post(at::assignment_undelete::post))
        .route(&format!("{assignment}/log"), get(at::assignment_log::get))
        .route(&format!("{assignment}/{{verb}}"), post(at::assignment_verb::post))
        .route("/v1/mandates", post(at::mandates::post))
        .route("/v1/invites", post(at::invites::post))
        .route("/v1/enrollments", get(at::enrollments::get))
        .route("/v1/enrollments/{fingerprint}/approve", post(at::enrollments::approve))
        .route("/v1/enrollments/{fingerprint}/reject", post(at::enrollments::reject))
        .route("/v1/identities", get(at::identities::get))
        .route("/v1/identities/{role}/{name}/revoke", post(at::identity_revoke::post))
        .route("/v1/audit", get(at::audit::get))
        .route("/v1/crl", get(at::crl::get))
        .route("/v1/roots", get(at::roots::get).post(at::roots::post))
        .route("/v1/roots/draft", get(at::roots::draft))
        .route("/v1/generations", get(at::generations::get))
        .route("/v1/events", get(at::events::get))
        .route("/v1/runs", get(at::runs::get))
        .route("/v1/runs/{id}", get(at::run::get))
        .route("/v1/status", get(at::status::get))
        .route("/v1/openapi.json", get(at::openapi::get))
        .route("/metrics", get(at::metrics::get))
        .layer(middleware::from_fn_with_state(Arc::clone(api), auth::authenticate));
    finish(authenticated.merge(health()), api)
}

/// The enroll port.
pub(crate) fn enroll(api: &Arc<Api>) -> Router {
    let open = Router::new()
        .route("/enroll", post(at::enroll::post))
        .route("/renew-after-expiry", post(at::renew_late::post))
        .route("/v1/crl", get(at::crl::get));
    finish(open.merge(health()), api)
}

fn health() -> Router<Arc<Api>> {
    Router::new()
        .route("/healthz", get(at::health::healthz))
        .route("/readyz", get(at::health::readyz))
}

fn finish(router: Router<Arc<Api>>, api: &Arc<Api>) -> Router {
    router
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn(deadline))
        .layer(middleware::from_fn_with_state(Arc::clone(api), log::requests))
        .with_state(Arc::clone(api))
}

async fn not_found(request: Request) -> Error {
    let path = request.uri().path();
    ProblemKind::NotFound
        .with(format!("there is no {path} here; /v1/openapi.json lists what there is"))
        .into()
}

async fn method_not_allowed(request: Request) -> Error {
    let (method, path) = (request.method(), request.uri().path());
    let mut problem = ProblemKind::BadRequest
        .with(format!("{path} does not take {method}; see /v1/openapi.json"));
    problem.status = 405;
    problem.into()
}

async fn deadline(request: Request, next: Next) -> Response {
    match tokio::time::timeout(DEADLINE, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let seconds = DEADLINE.as_secs();
            let late = ProblemKind::Unavailable.with(format!("not answered within {seconds} s"));
            Error::from(late).into_response()
        }
    }
}

/// What handlers take to reach the rules.
type Rules = State<Arc<Api>>;
