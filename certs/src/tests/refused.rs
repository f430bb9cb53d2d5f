//! A certificate of ours that is no longer good hears why, every time, and gets nothing else.

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use tokio::{io::AsyncReadExt as _, task::JoinSet, time::timeout};

use super::{ProblemKind, Running, SOON, client, router, told, until};
use crate::{
    dial::Dialer,
    identity::{Identity, Role},
    testing::TestNetwork,
    tls::{self, ALPN_HTTP1, ALPN_RSYNC, Limits, RawProtocol, ServerExpectation, ServerTls},
};

/// How many of `attempts` new clients hear `kind`, while the machine is busy.
async fn count_told(
    identity: &Arc<Identity>,
    server: &Arc<Running>,
    kind: ProblemKind,
    attempts: usize,
) -> usize {
    let mut asking = JoinSet::new();
    for _ in 0..attempts {
        let (identity, server) = (Arc::clone(identity), Arc::clone(server));
        asking.spawn(async move {
            let answer = client(&identity).get(server.url("/whoami")).send().await;
            let Ok(answer) = answer else { return false };
            let Ok(body) = answer.bytes().await else { return false };
            serde_json::from_slice::<protocol::error::Problem>(&body)
                .is_ok_and(|problem| problem.kind == kind)
        });
    }
    asking.join_all().await.into_iter().filter(|told| *told).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_of_two_hundred_clients_at_once_hears_that_it_is_revoked() {
    let dir = tempfile::tempdir().unwrap();
    let network = TestNetwork::create(dir.path(), "net");
    let agent = network.identity(Role::Agent, "lisbon").await;
    let server = Arc::new(Running::start(network.server()).await);
    network.registry.revoke(agent.serial.clone(), Timestamp::now());
    assert_eq!(count_told(&agent, &server, ProblemKind::Revoked, 200).await, 200);
    assert_eq!(network.registry.open_connections(&agent.serial), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_of_two_hundred_clients_at_once_hears_that_it_has_expired() {
    let dir = tempfile::tempdir().unwrap();
    let made = Timestamp::now() - SignedDuration::from_hours(24 * 90);
    let network = TestNetwork::create_at(dir.path(), "net", made);
    let agent = network.expired_identity(Role::Agent, "late", made).await;
    let server = Arc::new(Running::start(network.server()).await);
    assert_eq!(count_told(&agent, &server, ProblemKind::Expired, 200).await, 200);
    assert_eq!(network.registry.open_connections(&agent.serial), 0);
    // What it has lost first is what it hears of, for good.
    network.registry.revoke(agent.serial.clone(), Timestamp::now());
    assert_eq!(told(&agent, &server).await, Some(ProblemKind::Revoked));
}

#[tokio::test]
async fn who_is_refused_reaches_no_handler_whatever_it_asks_and_not_for_long() {
    let dir = tempfile::tempdir().unwrap();
    let network = TestNetwork::create(dir.path(), "net");
    let agent = network.identity(Role::Agent, "lisbon").await;
    let reached = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let note = Arc::clone(&reached);
    let router = router().fallback(move || {
        note.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        async { "handled" }
    });
    let limits = Limits { refused: Duration::from_secs(2), ..Limits::default() };
    let server = Running::start_with(network.server(), router, Vec::new(), limits).await;
    network.registry.revoke(agent.serial.clone(), Timestamp::now());
    let client = client(&agent);
    // More than a window of HTTP/2, so that the client is still sending when it is answered.
    let body = vec![b'x'; 900_000];
    for path in ["/whoami", "/hang", "/healthz", "/anything"] {
        let asked = client.post(server.url(path)).body(body.clone());
        let answer = asked.send().await.unwrap();
        assert_eq!(answer.status(), 403, "{path}");
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
    }
    assert_eq!(reached.load(std::sync::atomic::Ordering::SeqCst), 0);

    let address = ("127.0.0.1", server.port);
    let (dialer, tls) = (Dialer::default(), agent.client_tls());
    let expected = ServerExpectation::Coordinator;
    let stream = tls::connect(&dialer, &tls, address, &expected, ALPN_HTTP1, SOON);
    let mut silent = stream.await.unwrap();
    let ended = timeout(SOON, silent.read(&mut [0])).await.unwrap();
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
}

#[tokio::test]
async fn a_raw_protocol_is_not_spoken_with_a_revoked_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let network = TestNetwork::create(dir.path(), "net");
    let agent = network.identity(Role::Agent, "lisbon").await;
    let build = network.identity(Role::Publisher, "build").await;
    let alpn = [ALPN_HTTP1, ALPN_RSYNC];
    let tls = ServerTls::new(build.server.as_ref().unwrap(), network.peers(), &alpn).unwrap();
    let spoken = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let note = Arc::clone(&spoken);
    let raw = RawProtocol {
        alpn: ALPN_RSYNC,
        handler: Arc::new(move |_, _, _| {
            note.store(true, std::sync::atomic::Ordering::SeqCst);
            Box::pin(async {})
        }),
    };
    let server = Running::start_with(tls, router(), vec![raw], Limits::default()).await;
    network.registry.revoke(agent.serial.clone(), Timestamp::now());
    let expected = ServerExpectation::publisher("build".parse().unwrap());
    let (dialer, tls) = (Dialer::default(), agent.client_tls());
    let address = ("127.0.0.1", server.port);
    let stream = tls::connect(&dialer, &tls, address, &expected, ALPN_RSYNC, SOON);
    let mut stream = stream.await.unwrap();
    let read = timeout(SOON, stream.read(&mut [0])).await.unwrap();
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    assert!(!spoken.load(std::sync::atomic::Ordering::SeqCst));
    until("nothing is open", || network.registry.total_connections() == 0).await;
}
