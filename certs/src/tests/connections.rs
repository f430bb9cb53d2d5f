//! Connections from their handshake to their end.

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::{ProblemKind, Running, SOON, client, router, told, until};
use crate::{
    dial::{Dialer, Reach},
    identity::Role,
    testing::TestNetwork,
    tls::{
        self, ALPN_HTTP1, ALPN_RSYNC, Limits, Peers, RawProtocol, ServerExpectation, ServerTls,
        refusal,
    },
};

#[tokio::test]
async fn a_handler_sees_who_asks_over_http2() {
    let dir = tempfile::tempdir().unwrap();
    let network = TestNetwork::create(dir.path(), "net");
    let agent = network.identity(Role::Agent, "lisbon").await;
    let server = Running::start(network.server()).await;
    let answer = client(&agent).get(server.url("/whoami")).send().await.unwrap();
    assert_eq!(answer.version(), http::Version::HTTP_2);
    let expected = format!("spiffe://net/agent/lisbon {}", agent.serial);
    assert_eq!(answer.text().await.unwrap(), expected);
}

#[tokio::test]
async fn a_revoked_certificate_loses_its_open_connections_and_gets_no_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let network = TestNetwork::create(dir.path(), "net");
    let bad = network.identity(Role::Agent, "bad").await;
    let good = network.identity(Role::Agent, "good").await;
    let server = Running::start(network.server()).await;
    let (bad_client, good_client) = (client(&bad), client(&good));
    let mut hanging = bad_client.get(server.url("/hang")).send().await.unwrap();
    assert_eq!(hanging.chunk().await.unwrap().unwrap(), "begun");
    let mut other = good_client.get(server.url("/hang")).send().await.unwrap();
    assert_eq!(other.chunk().await.unwrap().unwrap(), "begun");
    assert_eq!(network.registry.open_connections(&bad.serial), 1);

    assert_eq!(network.registry.revoke(bad.serial.clone(), Timestamp::now()), 1);

    let ended = timeout(SOON, hanging.chunk()).await.unwrap();
    assert!(ended.is_err(), "the open answer went on: {ended:?}");
    assert_eq!(told(&bad, &server).await, Some(ProblemKind::Revoked));
    let still = good_client.get(server.url("/whoami")).send().await.unwrap();
    assert!(still.text().await.unwrap().contains("/good "));
    assert_eq!(network.registry.open_connections(&good.serial), 1);
    until("the closed connection leaves the registry", || {
        network.registry.open_connections(&bad.serial) == 0
    })
    .await;
}

#[tokio::test]
async fn closing_a_serial_ends_its_connections_but_it_may_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let network = TestNetwork::create(dir.path(), "net");
    let agent = network.identity(Role::Agent, "lisbon").await;
    let server = Running::start(network.server()).await;
    let client = client(&agent);
    client.get(server.url("/whoami")).send().await.unwrap();
    assert_eq!(network.registry.close(&agent.serial), 1);
    until("the connection ends", || network.registry.total_connections() == 0).await;
    // The first try may still be made on the closed connection.
    let again = client.get(server.url("/whoami"));
    if again.try_clone().unwrap().send().await.is_err() {
        again.send().await.unwrap();
    }
}

/// A client that wants to resume what it can, as any client may.
async fn eager(
    config: &Arc<rustls::ClientConfig>,
    port: u16,
) -> (rustls::HandshakeKind, Result<String, std::io::Error>) {
    let tcp = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::clone(config));
    let name = rustls_pki_types::ServerName::try_from("127.0.0.1").unwrap();
    let mut stream = connector.connect(name, tcp).await.unwrap();
    let kind = stream.get_ref().1.handshake_kind().unwrap();
    let exchange = async {
        let request = "GET /whoami HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    };
    (kind, timeout(SOON, exchange).await.unwrap())
}

#[tokio::test]
async fn no_session_is_resumed_in_either_version_of_tls() {
    let dir = tempfile::tempdir().unwrap();
    let network = TestNetwork::create(dir.path(), "net");
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let agent = network.identity(Role::Agent, "lisbon").await;
        let server = Running::start(network.server()).await;
        let roots = tls::certificates_from_pem(network.authority.root_pem()).unwrap();
        let mut store = rustls::RootCertStore::empty();
        store.add(roots[0].clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let data = network.data(Role::Agent, "lisbon").join("identity");
        let pem = |name: &str| std::fs::read_to_string(data.join(name)).unwrap();
        use rustls_pki_types::pem::PemObject as _;
        let key = rustls_pki_types::PrivateKeyDer::from_pem_slice(pem("key.pem").as_bytes());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(store)
            .with_client_auth_cert(
                tls::certificates_from_pem(&pem("cert.pem")).unwrap(),
                key.unwrap(),
            )
            .unwrap();
        config.alpn_protocols = vec![ALPN_HTTP1.into()];
        let config = Arc::new(config);
        for _ in 0..3 {
            let (kind, answer) = eager(&config, server.port).await;
            assert_ne!(kind, rustls::HandshakeKind::Resumed);
            assert!(answer.unwrap().contains("/lisbon "));
        }
        network.registry.revoke(agent.serial.clone(), Timestamp::now());
        let (kind, answer) = eager(&config, server.port).await;
        assert_ne!(kind, rustls::HandshakeKind::Resumed);
        assert!(answer.unwrap().contains("urn:mirrornet:problem:revoked"));
    }
}

#[tokio::test]
async fn a_reloaded_server_shows_its_new_certificate_and_keeps_the_old_one_when_it_is_useless() {
    let dir = tempfile::tempdir().unwrap();
    let network = TestNetwork::create(dir.path(), "net");
    let agent = network.identity(Role::Agent, "lisbon").await;
    let tls = network.server();
    let server = Running::start(Arc::clone(&tls)).await;
    let shown = async || {
        let address = ("127.0.0.1", server.port);
        let expected = ServerExpectation::Coordinator;
        let (dialer, tls) = (Dialer::default(), agent.client_tls());
        let stream = tls::connect(&dialer, &tls, address, &expected, ALPN_HTTP1, SOON);
        let stream = stream.await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    };
    let first = network.coordinator_credentials();
    tls.reload(&first).unwrap();
    assert_eq!(shown().await, first.certificate());
    let second = network.coordinator_credentials();
    let mut mixed = second.clone();
    mixed.key = first.key.clone_key();
    assert!(tls.reload(&mixed).is_err());
    assert_eq!(shown().await, first.certificate());
    tls.reload(&second).unwrap();
    assert_eq!(shown().await, second.certificate());
}

#[tokio::test]
async fn a_connection_ends_with_its_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let network = TestNetwork::create(dir.path(), "net");
    let life = SignedDuration::from_secs(5);
    let agent = network.identity_with(Role::Agent, "brief", life, Timestamp::now()).await;
    let server = Running::start(network.server()).await;
    let client = client(&agent);
    let mut hanging = client.get(server.url("/hang")).send().await.unwrap();
    assert_eq!(hanging.chunk().await.unwrap().unwrap(), "begun");
    assert!(timeout(SOON, hanging.chunk()).await.unwrap().is_err());
    assert!(Timestamp::now() >= agent.not_after);
    until("the certificate is over by the second", || {
        Timestamp::now().as_second() > agent.not_after.as_second()
    })
    .await;
    assert_eq!(told(&agent, &server).await, Some(ProblemKind::Expired));
}

#[tokio::test]
async fn a_peer_that_is_silent_in_its_handshake_or_afterwards_is_let_go() {
    let dir = tempfile::tempdir().unwrap();
    let network = TestNetwork::create(dir.path(), "net");
    let agent = network.identity(Role::Agent, "lisbon").await;
    let brief = Duration::from_millis(300);
    let limits = Limits { handshake: brief, ..Limits::default() };
    let server = Running::start_with(network.server(), router(), Vec::new(), limits).await;

    let mut silent = TcpStream::connect(("127.0.0.1", server.port)).await.unwrap();
    let read = timeout(SOON, silent.read(&mut [0])).await.unwrap();
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");

    let limits = Limits { idle: brief, header: SOON * 6, ..Limits::default() };
    let server = Running::start_with(network.server(), router(), Vec::new(), limits).await;
    let address = ("127.0.0.1", server.port);
    let expected = ServerExpectation::Coordinator;
    let dialer = Dialer::default();
    let tls = agent.client_tls();
    let stream = tls::connect(&dialer, &tls, address, &expected, ALPN_HTTP1, SOON);
    let mut stream = stream.await.unwrap();
    stream.write_all(b"GET /who").await.unwrap();
    let read = timeout(SOON, stream.read(&mut [0])).await.unwrap();
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
}

#[tokio::test]
async fn a_slow_handshake_does_not_hold_up_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let network = TestNetwork::create(dir.path(), "net");
    let agent = network.identity(Role::Agent, "lisbon").await;
    let server = Running::start(network.server()).await;
    let mut idle = Vec::new();
    for _ in 0..400 {
        idle.push(TcpStream::connect(("127.0.0.1", server.port)).await.unwrap());
    }
    let client = client(&agent);
    let answer = timeout(Duration::from_secs(8), client.get(server.url("/whoami")).send()).await;
    assert!(answer.unwrap().unwrap().status().is_success());
}

#[tokio::test]
async fn one_identity_cannot_take_all_connections() {
    let dir = tempfile::tempdir().unwrap();
    let network = TestNetwork::create(dir.path(), "net");
    let greedy = network.identity(Role::Agent, "greedy").await;
    let other = network.identity(Role::Agent, "other").await;
    let limits = Limits { per_identity: 3, ..Limits::default() };
    let server = Running::start_with(network.server(), router(), Vec::new(), limits).await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        let client = client(&greedy);
        client.get(server.url("/whoami")).send().await.unwrap();
        clients.push(client);
    }
    client(&greedy).get(server.url("/whoami")).send().await.unwrap_err();
    assert_eq!(network.registry.open_connections(&greedy.serial), 3);
    client(&other).get(server.url("/whoami")).send().await.unwrap();
    clients[0].get(server.url("/whoami")).send().await.unwrap();
}

#[tokio::test]
async fn stopping_lets_requests_finish_and_ends_what_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let network = TestNetwork::create(dir.path(), "net");
    let agent = network.identity(Role::Agent, "lisbon").await;
    let release = Arc::new(tokio::sync::Notify::new());
    let (begun, wait) = (Arc::new(tokio::sync::Notify::new()), Arc::clone(&release));
    let announce = Arc::clone(&begun);
    let slow = axum::routing::get(move || async move {
        announce.notify_one();
        wait.notified().await;
        "done"
    });
    let limits = Limits { drain: Duration::from_secs(5), ..Limits::default() };
    let router = router().route("/slow", slow);
    let mut server = Running::start_with(network.server(), router, Vec::new(), limits).await;
    let client = client(&agent);
    let mut hanging = client.get(server.url("/hang")).send().await.unwrap();
    assert_eq!(hanging.chunk().await.unwrap().unwrap(), "begun");
    let request = tokio::spawn(client.get(server.url("/slow")).send());
    timeout(SOON, begun.notified()).await.unwrap();

    server.stop.cancel();
    release.notify_one();
    let answer = timeout(SOON, request).await.unwrap().unwrap().unwrap();
    assert_eq!(answer.text().await.unwrap(), "done");
    timeout(SOON, &mut server.task).await.unwrap().unwrap();
    assert!(timeout(SOON, hanging.chunk()).await.unwrap().is_err());
    assert!(TcpStream::connect(("127.0.0.1", server.port)).await.is_err());
}

#[tokio::test]
async fn another_protocol_is_chosen_by_alpn_and_ends_with_a_revocation() {
    let dir = tempfile::tempdir().unwrap();
    let network = TestNetwork::create(dir.path(), "net");
    let publisher = network.identity(Role::Publisher, "build").await;
    let agent = network.identity(Role::Agent, "lisbon").await;
    let credentials = publisher.server.clone().unwrap();
    let peers: Peers = network.peers();
    let tls = ServerTls::new(&credentials, peers, &[ALPN_HTTP1, ALPN_RSYNC]).unwrap();
    let greet = RawProtocol {
        alpn: ALPN_RSYNC,
        handler: Arc::new(|mut stream, peer, _| {
            Box::pin(async move {
                stream.write_all(format!("hello {}\n", peer.name).as_bytes()).await.unwrap();
                stream.flush().await.unwrap();
                let mut rest = Vec::new();
                drop(stream.read_to_end(&mut rest).await);
            })
        }),
    };
    let limits = Limits { idle: Duration::from_millis(100), ..Limits::default() };
    let server = Running::start_with(tls, router(), vec![greet], limits).await;
    let expected = ServerExpectation::publisher("build".parse().unwrap());
    let address = ("127.0.0.1", server.port);
    let (dialer, client_tls) = (Dialer::default(), agent.client_tls());
    let stream = tls::connect(&dialer, &client_tls, address, &expected, ALPN_RSYNC, SOON);
    let mut stream = stream.await.unwrap();
    let mut greeting = [0; 13];
    timeout(SOON, stream.read_exact(&mut greeting)).await.unwrap().unwrap();
    assert_eq!(&greeting, b"hello lisbon\n");
    let early = timeout(Duration::from_millis(400), stream.read(&mut [0])).await;
    assert!(early.is_err(), "the bound of HTTP does not end another protocol: {early:?}");
    network.registry.revoke(agent.serial.clone(), Timestamp::now());
    let read = timeout(SOON, stream.read(&mut [0])).await.unwrap();
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");

    let unknown = tls::connect(&dialer, &client_tls, address, &expected, "other/1", SOON).await;
    assert!(unknown.is_err());
}

#[tokio::test]
async fn a_server_outside_of_the_network_is_known_by_its_host_name_and_shown_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let network = TestNetwork::create(dir.path(), "net");
    let tls = ServerTls::new(&network.coordinator_credentials(), Peers::Anyone, &[ALPN_HTTP1]);
    let anonymous = |peer: Option<axum::Extension<Arc<crate::identity::PeerIdentity>>>| async move {
        format!("{}", peer.is_none())
    };
    let router = axum::Router::new().route("/", axum::routing::get(anonymous));
    let server = Running::start_with(tls.unwrap(), router, Vec::new(), Limits::default()).await;
    let bundle = dir.path().join("bundle.pem");
    std::fs::write(&bundle, network.authority.root_pem()).unwrap();
    let missing = dir.path().join("missing.pem");
    let roots = tls::PublicRoots::from_files(&[&missing, &bundle]).unwrap();
    let dialer = Dialer::default();
    let here = ["127.0.0.0/8", "::1"].map(|network| network.parse().unwrap());
    let refused = crate::live::public_http_client(&roots, &dialer, &Reach::default()).unwrap();
    let error =
        refused.get(format!("https://localhost:{}/", server.port)).send().await.unwrap_err();
    assert!(crate::live::chain(&error).contains("may not be asked"), "{error:?}");
    let reach = Reach { private: here.to_vec(), plain_http: false };
    let client = crate::live::public_http_client(&roots, &dialer, &reach).unwrap();
    let answer = client.get(server.url("/")).send().await.unwrap();
    assert_eq!(answer.text().await.unwrap(), "true");
    let connect = async |port| tls::connect_under(&roots, &dialer, ("localhost", port), SOON).await;
    connect(server.port).await.unwrap();
    let (name, hosts) = ("other".parse().unwrap(), ["other.example.org".to_owned()]);
    let (life, now) = (SignedDuration::from_hours(1), Timestamp::now());
    let (other, _) = network.authority.coordinator_server(&name, &hosts, life, now).unwrap();
    let other = ServerTls::new(&other, Peers::Anyone, &[ALPN_HTTP1]).unwrap();
    let other = Running::start(other).await;
    let misnamed = connect(other.port).await.unwrap_err();
    assert_eq!(refusal(&misnamed), Some(tls::Refusal::ServerNotTrusted), "{misnamed:?}");
    assert!(matches!(tls::PublicRoots::from_files(&[&missing]), Err(tls::Error::NoSystemRoots)));
}

/// A server that would resume sessions, as stock servers do.
async fn resuming_server(network: &TestNetwork) -> (u16, Arc<std::sync::Mutex<Vec<bool>>>) {
    let credentials = network.coordinator_credentials();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(credentials.chain.clone(), credentials.key.clone_key())
        .unwrap();
    config.alpn_protocols = vec![ALPN_HTTP1.into()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let (listener, port) = crate::testing::listener().await;
    let resumed = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = Arc::clone(&resumed);
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let mut stream = acceptor.accept(tcp).await.unwrap();
            let kind = stream.get_ref().1.handshake_kind().unwrap();
            seen.lock().unwrap().push(kind == rustls::HandshakeKind::Resumed);
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            drop(stream.read(&mut [0; 1024]).await);
            stream.write_all(answer).await.unwrap();
            stream.shutdown().await.unwrap();
        }
    });
    (port, resumed)
}

#[tokio::test]
async fn our_clients_never_resume_a_session_even_where_the_server_would() {
    let dir = tempfile::tempdir().unwrap();
    let network = TestNetwork::create(dir.path(), "net");
    let agent = network.identity(Role::Agent, "lisbon").await;
    let (port, resumed) = resuming_server(&network).await;
    let client = client(&agent);
    for _ in 0..3 {
        client.get(format!("https://127.0.0.1:{port}/")).send().await.unwrap();
    }
    assert_eq!(*resumed.lock().unwrap(), [false; 3]);
}
