//! From an invite to an identity, over a real enroll port.

use std::sync::{Arc, Mutex};

use axum::{Extension, Json, Router, http::StatusCode, routing::post};
use jiff::Timestamp;
use protocol::v1::enroll::{EnrollRequest, EnrollResponse};

use super::{Running, SOON, client};
use crate::{
    authority::{LIFE, RootPin},
    enrollment::{
        EnrollOptions, Error, Invite, InviteSecret, InviteVerifier, check_proof, enroll,
        fingerprint, prove,
    },
    identity::{Identity, Role},
    root::TrustedRoot,
    testing::TestNetwork,
    tls::{self, ALPN_HTTP1, Exporter, Limits, Peers, Refusal, ServerTls, refusal},
};

/// An enroll port that knows one invite, and remembers what it was asked.
struct EnrollPort {
    network: Arc<TestNetwork>,
    invite: Invite,
    asked: Arc<Mutex<Vec<EnrollRequest>>>,
    _server: Running,
}

impl EnrollPort {
    async fn start(dir: &std::path::Path, role: Role, name: &'static str) -> Self {
        let network = Arc::new(TestNetwork::create(dir, "net"));
        let secret = InviteSecret::generate().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let state = (Arc::clone(&network), secret.verifier(), Arc::clone(&asked));
        let handler = move |Extension(exporter): Extension<Exporter>,
                            Json(request): Json<EnrollRequest>| async move {
            let (network, verifier, asked) = &state;
            asked.lock().unwrap().push(request.clone());
            answer(network, verifier, &exporter, &request, role, name)
        };
        let tls = ServerTls::new(&network.coordinator_credentials(), Peers::Anyone, &[ALPN_HTTP1]);
        let router = Router::new().route("/enroll", post(handler));
        let server = Running::start_with(tls.unwrap(), router, Vec::new(), Limits::default()).await;
        let invite = Invite {
            id: "invite-1".into(),
            secret,
            pin: network.authority.pin(),
            url: format!("https://localhost:{}", server.port),
        };
        Self { network, invite, asked, _server: server }
    }
}

fn answer(
    network: &TestNetwork,
    verifier: &InviteVerifier,
    exporter: &Exporter,
    request: &EnrollRequest,
    role: Role,
    name: &str,
) -> Result<Json<EnrollResponse>, (StatusCode, &'static str)> {
    if request.invite != "invite-1" || check_proof(request, verifier, exporter).is_err() {
        let problem = r#"{"type":"about:blank","title":"x","detail":"unknown invite\u0007"}"#;
        return Err((StatusCode::FORBIDDEN, problem));
    }
    Ok(Json(EnrollResponse {
        network: network.authority.network().clone(),
        role,
        name: name.parse().unwrap(),
        certificates: network.certify(&request.keys, role, name, LIFE, Timestamp::now()),
        api_url: "https://localhost:8443".into(),
        root: network.sign_root(&network.root()),
    }))
}

async fn works(_: Arc<Identity>) -> Result<(), std::io::Error> {
    Ok(())
}

#[tokio::test]
async fn an_invite_becomes_an_identity_that_is_let_in() {
    let dir = tempfile::tempdir().unwrap();
    let port = EnrollPort::start(dir.path(), Role::Agent, "lisbon").await;
    let api = Running::start(port.network.server()).await;
    let url = api.url("/whoami");
    let whoami = async |identity: Arc<Identity>| {
        let answer = client(&identity).get(&url).send().await?;
        assert!(answer.text().await?.starts_with("spiffe://net/agent/lisbon "));
        Ok::<(), reqwest::Error>(())
    };
    let line: Invite = port.invite.to_string().parse().unwrap();
    let data = dir.path().join("agent");
    let options = EnrollOptions { role: Some(Role::Agent), ..EnrollOptions::default() };
    let identity = enroll(&line, &data, &options, whoami).await.unwrap();
    let root = TrustedRoot::pin(&identity.membership.root).unwrap();
    assert_eq!(root.root().head_keys, [port.network.head_key.verifying_key()]);
    assert_eq!(Identity::load(&data).unwrap().serial, identity.serial);
    assert!(identity.server.is_none());
    let asked = port.asked.lock().unwrap();
    assert_eq!(asked[0].signing_key, identity.signing_key.verifying_key());
}

#[tokio::test]
async fn a_publisher_also_gets_what_it_serves_with() {
    let dir = tempfile::tempdir().unwrap();
    let port = EnrollPort::start(dir.path(), Role::Publisher, "build").await;
    let server_names = vec!["build.example.org".to_owned(), "127.0.0.1".to_owned()];
    let options = EnrollOptions { server_names: server_names.clone(), ..EnrollOptions::default() };
    let identity = enroll(&port.invite, &dir.path().join("p"), &options, works).await.unwrap();
    assert_eq!(identity.membership.server_names, server_names);
    let server = identity.server.clone().unwrap();
    ServerTls::new(&server, port.network.peers(), &[ALPN_HTTP1]).unwrap();
}

#[tokio::test]
async fn a_second_try_after_a_lost_answer_asks_for_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let port = EnrollPort::start(dir.path(), Role::Agent, "lisbon").await;
    let data = dir.path().join("agent");
    let fails = async |_| Err::<(), _>(std::io::Error::other("whoami: no route"));
    let options = EnrollOptions::default();
    let error = enroll(&port.invite, &data, &options, fails).await.unwrap_err();
    assert!(matches!(error, Error::Identity(_)), "{error:?}");
    assert!(Identity::load(&data).is_err());
    enroll(&port.invite, &data, &options, works).await.unwrap();
    let asked = port.asked.lock().unwrap();
    let prints: Vec<String> = asked
        .iter()
        .map(|request| fingerprint(&request.keys, Some(&request.signing_key)))
        .collect();
    assert_eq!(prints[0], prints[1]);
    assert_ne!(asked[0].proof, asked[1].proof, "each connection has its own proof");
}

#[tokio::test]
async fn a_wrong_secret_is_refused_and_the_reason_told_without_control_characters() {
    let dir = tempfile::tempdir().unwrap();
    let port = EnrollPort::start(dir.path(), Role::Agent, "lisbon").await;
    let wrong = Invite { secret: InviteSecret::generate().unwrap(), ..port.invite.clone() };
    let data = dir.path().join("agent");
    let error = enroll(&wrong, &data, &EnrollOptions::default(), works).await.unwrap_err();
    let message = error.to_string();
    assert_eq!(message, "the coordinator refused the invite (403): unknown invite");
    assert!(Identity::load(&data).is_err());
}

#[tokio::test]
async fn an_invite_for_another_role_is_refused_by_the_program() {
    let dir = tempfile::tempdir().unwrap();
    let port = EnrollPort::start(dir.path(), Role::Publisher, "build").await;
    let data = dir.path().join("agent");
    let options = EnrollOptions { role: Some(Role::Agent), ..EnrollOptions::default() };
    let error = enroll(&port.invite, &data, &options, works).await.unwrap_err();
    assert!(error.to_string().contains("for publisher"), "{error}");
    assert!(Identity::load(&data).is_err());
}

#[tokio::test]
async fn a_proof_is_worth_nothing_on_another_connection_or_for_other_keys() {
    let dir = tempfile::tempdir().unwrap();
    let port = EnrollPort::start(dir.path(), Role::Agent, "lisbon").await;
    let options = EnrollOptions::default();
    enroll(&port.invite, &dir.path().join("agent"), &options, works).await.unwrap();
    let overheard = port.asked.lock().unwrap()[0].clone();
    let verifier = port.invite.secret.verifier();
    // Any other connection has other keying material.
    assert!(check_proof(&overheard, &verifier, &Exporter([7; 32])).is_err());
    // On its own connection, every part of the request counts.
    let exporter = Exporter([7; 32]);
    let mut own = overheard;
    prove(&mut own, &port.invite.secret, &exporter);
    check_proof(&own, &verifier, &exporter).unwrap();
    let changes: [fn(&mut EnrollRequest); 6] = [
        |request| request.keys.csr.0[20] ^= 1,
        |request| request.keys.server_csr = Some(protocol::dsse::Bytes(vec![1])),
        |request| request.keys.server_names.push("evil.example.org".into()),
        |request| request.signing_key = protocol::key::VerifyingKey::from_bytes([9; 32]),
        |request| request.nonce.0[0] ^= 1,
        |request| request.role = Some(Role::Admin),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let mut changed = own.clone();
        change(&mut changed);
        assert!(check_proof(&changed, &verifier, &exporter).is_err(), "change {number}");
    }
}

#[tokio::test]
async fn a_server_under_another_root_is_not_even_asked() {
    let dir = tempfile::tempdir().unwrap();
    let port = EnrollPort::start(dir.path(), Role::Agent, "lisbon").await;
    let elsewhere = Invite { pin: RootPin([1; 32]), ..port.invite.clone() };
    let options = EnrollOptions { deadline: SOON, ..EnrollOptions::default() };
    let data = dir.path().join("agent");
    let error = enroll(&elsewhere, &data, &options, works).await.unwrap_err();
    assert!(matches!(error, Error::Connect { .. }), "{error:?}");
    assert_eq!(refusal(&error), Some(Refusal::ServerNotTrusted), "{error:?}");
    assert!(port.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_publisher_under_the_pinned_root_cannot_take_enrollments() {
    let dir = tempfile::tempdir().unwrap();
    let network = TestNetwork::create(dir.path(), "net");
    let publisher = network.identity(Role::Publisher, "build").await;
    // Its own chain with the root added, as the coordinator's has it.
    let data = network.data(Role::Publisher, "build").join("identity");
    let read = |name: &str| std::fs::read_to_string(data.join(name)).unwrap();
    let chain = read("server.pem") + network.authority.root_pem();
    let credentials = tls::Credentials::from_pem(&chain, &read("server-key.pem")).unwrap();
    assert_eq!(credentials.certificate(), publisher.server.as_ref().unwrap().certificate());
    let tls = ServerTls::new(&credentials, Peers::Anyone, &[ALPN_HTTP1]).unwrap();
    let server = Running::start(tls).await;
    let invite = Invite {
        id: "a".into(),
        secret: InviteSecret::generate().unwrap(),
        pin: network.authority.pin(),
        url: server.url(""),
    };
    let options = EnrollOptions::default();
    let error = enroll(&invite, &dir.path().join("a"), &options, works).await.unwrap_err();
    assert_eq!(refusal(&error), Some(Refusal::ServerNotTrusted), "{error:?}");
}

#[tokio::test]
async fn an_enroll_port_speaks_no_version_of_tls_with_a_weaker_exporter() {
    let dir = tempfile::tempdir().unwrap();
    let port = EnrollPort::start(dir.path(), Role::Agent, "lisbon").await;
    let (host, number) = port.invite.address();
    let roots = dir.path().join("ca-net/root.pem");
    let attempt = |version: &'static rustls::SupportedProtocolVersion| {
        let roots = std::fs::read_to_string(&roots).unwrap();
        async move {
            let mut store = rustls::RootCertStore::empty();
            store.add(tls::certificates_from_pem(&roots).unwrap()[0].clone()).unwrap();
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let config = rustls::ClientConfig::builder_with_provider(provider)
                .with_protocol_versions(&[version])
                .unwrap()
                .with_root_certificates(store)
                .with_no_client_auth();
            let tcp = tokio::net::TcpStream::connect((host, number)).await.unwrap();
            let name = rustls_pki_types::ServerName::try_from(host.to_owned()).unwrap();
            tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await
        }
    };
    attempt(&rustls::version::TLS13).await.unwrap();
    attempt(&rustls::version::TLS12).await.unwrap_err();
}
