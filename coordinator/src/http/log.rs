//! One line for each request: who, what, how it ended, how long it took.

use std::{sync::Arc, time::Instant};

use axum::{
    extract::{Request, State},
    http::StatusCode,
    middleware::Next,
    response::Response,
};
use certs::{identity::PeerIdentity, tls::PeerAddr};

use super::Api;

pub(super) async fn requests(
    State(api): State<Arc<Api>>,
    request: Request,
    next: Next,
) -> Response {
    let began = Instant::now();
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let extensions = request.extensions();
    let peer = extensions.get::<Arc<PeerIdentity>>().map(|peer| peer.to_string());
    let address = extensions.get::<PeerAddr>().map(|address| address.0.to_string());
    let response = next.run(request).await;
    let status = response.status();
    api.metrics.count(status);
    let (peer, address) = (peer.unwrap_or_default(), address.unwrap_or_default());
    let ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    // Polls that end without news are most of the traffic and say nothing.
    if status == StatusCode::NOT_MODIFIED || path.ends_with('z') {
        tracing::debug!(peer, address, %method, path, status = status.as_u16(), ms, "request");
    } else {
        tracing::info!(peer, address, %method, path, status = status.as_u16(), ms, "request");
    }
    response
}
