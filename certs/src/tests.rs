//! What has to hold over real connections.

mod connections;
mod enrolling;
mod hostile_bytes;
mod proxying;
mod refusals;
mod refused;
mod renewing;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{Extension, Router, routing::get};
use protocol::error::{Problem, ProblemKind};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{
    dial::Dialer,
    identity::{Identity, PeerIdentity},
    live::http_client,
    testing,
    tls::{Exporter, Limits, PeerAddr, RawProtocol, ServerExpectation, ServerTls, serve},
};

/// Longest wait for something that has to happen.
const SOON: Duration = Duration::from_secs(30);

/// A server of ours on loopback that ends with the test.
struct Running {
    port: u16,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    async fn start(tls: Arc<ServerTls>) -> Self {
        Self::start_with(tls, router(), Vec::new(), Limits::default()).await
    }

    async fn start_with(
        tls: Arc<ServerTls>,
        router: Router,
        raw: Vec<RawProtocol>,
        limits: Limits,
    ) -> Self {
        let (listener, port) = testing::listener().await;
        let stop = CancellationToken::new();
        let task = tokio::spawn(serve(listener, tls, router, raw, limits, stop.clone()));
        Self { port, stop, task }
    }

    fn url(&self, path: &str) -> String {
        format!("https://127.0.0.1:{}{path}", self.port)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
        self.task.abort();
    }
}

/// `/whoami` says who asks; `/hang` says it has begun and never ends.
fn router() -> Router {
    let whoami = |Extension(peer): Extension<Arc<PeerIdentity>>,
                  Extension(PeerAddr(from)): Extension<PeerAddr>,
                  Extension(_): Extension<Exporter>| async move {
        assert_eq!(from.ip(), SocketAddr::from(([127, 0, 0, 1], 0)).ip());
        format!("{} {}", peer.uri(), peer.serial)
    };
    let hang = || async {
        let body = async_stream(b"begun");
        axum::body::Body::new(body)
    };
    Router::new().route("/whoami", get(whoami)).route("/hang", get(hang))
}

/// A body that gives `first` and then nothing, without ending.
fn async_stream(first: &'static [u8]) -> Endless {
    Endless(Some(bytes::Bytes::from_static(first)))
}

struct Endless(Option<bytes::Bytes>);

impl hyper::body::Body for Endless {
    type Data = bytes::Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<Self::Data>, Self::Error>>> {
        match self.0.take() {
            Some(bytes) => std::task::Poll::Ready(Some(Ok(hyper::body::Frame::data(bytes)))),
            None => std::task::Poll::Pending,
        }
    }
}

fn client(identity: &Identity) -> reqwest::Client {
    http_client(identity, &ServerExpectation::Coordinator, &Dialer::default()).unwrap()
}

/// As what kind of problem a new client with that identity is refused.
async fn told(identity: &Identity, server: &Running) -> Option<ProblemKind> {
    let answer = client(identity).get(server.url("/whoami")).send().await.unwrap();
    let problem: Option<Problem> = serde_json::from_slice(&answer.bytes().await.unwrap()).ok();
    problem.map(|problem| problem.kind)
}

/// Ends once `condition` holds.
async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let holds = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(SOON, holds).await.is_ok(), "{what} did not come about");
}
