//! What a connection costs: a handshake with certificates at both ends and one authorized request, at
//! a coordinator that knows 10,000 agents, beside the TLS library alone answering the same.

use std::{path::Path, sync::Arc, time::Instant};

use certs::{
    authority::{Authority, LIFE},
    dial::Dialer,
    identity::Identity,
    testing::bare_server,
    tls::{self, ALPN_HTTP1, ServerExpectation},
};
use coordinator::{
    Config, InitOptions,
    db::{Database, StoredCertificate, StoredIdentity},
};
use jiff::{SignedDuration, Timestamp};
use protocol::{key::VerifyingKey, role::Role};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::figure::{Figure, median};

const IDENTITIES: u32 = 10_000;
const ROUNDS: usize = 7;
const HANDSHAKES: usize = 150;

pub(crate) fn run() -> Vec<Figure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let (ours, bare) = runtime.block_on(measure());
    vec![Figure {
        what: format!("a handshake and a request, {IDENTITIES} identities known"),
        ours: ours * 1000.0,
        unit: "ms",
        peer: Some(("rustls alone", bare * 1000.0)),
        most: 1.2,
    }]
}

async fn measure() -> (f64, f64) {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        data: dir.path().join("coordinator"),
        listen: "127.0.0.1:0".into(),
        enroll_listen: "127.0.0.1:0".into(),
        hostnames: vec!["127.0.0.1".into()],
        ..Config::default()
    };
    let options = InitOptions {
        config: config.clone(),
        network: "bench".parse().unwrap(),
        admin: "ann".parse().unwrap(),
        authority: None,
    };
    coordinator::init(&options, Timestamp::now()).await.unwrap();
    enroll_many(&config.data).await;
    let authority = Authority::open(&config.data.join("ca")).unwrap();
    let hosts = ["127.0.0.1".to_owned()];
    let name = "coordinator".parse().unwrap();
    let (shown, _) = authority.coordinator_server(&name, &hosts, LIFE, Timestamp::now()).unwrap();
    let bare = bare_server(&authority, &shown).await;
    let admin = Identity::load(&config.data.join("admin")).unwrap();
    let running = coordinator::start(config).await.unwrap();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    // In turns, so that what else the machine does meanwhile falls on both.
    for _ in 0..ROUNDS {
        ours.push(seconds(&admin, running.api_addr().port()).await);
        theirs.push(seconds(&admin, bare).await);
    }
    running.stop().await;
    (median(ours), median(theirs))
}

/// Agents as the database holds them.
async fn enroll_many(data: &Path) {
    let database = Database::open_sqlite(data).await.unwrap();
    let mut tx = database.write().await.unwrap();
    let now = Timestamp::now();
    for number in 0..IDENTITIES {
        let name: protocol::name::IdentityName = format!("agent-{number}").parse().unwrap();
        let identity = StoredIdentity {
            role: Role::Agent,
            name: name.clone(),
            site: Some("site".parse().unwrap()),
            signing_key: VerifyingKey::from_bytes([1; 32]),
            trees: vec![],
            created: now,
            revoked: None,
            reason: String::new(),
            advertise: None,
            last_seen: None,
        };
        tx.put_identity(&identity).await.unwrap();
        let certificate = StoredCertificate {
            serial: format!("7f{number:030x}"),
            role: Role::Agent,
            name,
            issued: now,
            not_after: now + SignedDuration::from_hours(24 * 7),
            superseded: None,
            revoked: None,
            confirmed: None,
            issuer: None,
            bundle: None,
        };
        tx.add_certificate(&certificate, "", "").await.unwrap();
    }
    tx.commit().await.unwrap();
    database.close().await;
}

/// How long one connection takes, from the first byte to the last.
async fn seconds(identity: &Arc<Identity>, port: u16) -> f64 {
    let (dialer, tls) = (Dialer::default(), identity.client_tls());
    let expected = ServerExpectation::Coordinator;
    let deadline = std::time::Duration::from_secs(30);
    let begin = Instant::now();
    for _ in 0..HANDSHAKES {
        let address = ("127.0.0.1", port);
        let mut stream =
            tls::connect(&dialer, &tls, address, &expected, ALPN_HTTP1, deadline).await.unwrap();
        let request = b"GET /v1/whoami HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
    }
    begin.elapsed().as_secs_f64() / f64::from(u32::try_from(HANDSHAKES).unwrap())
}
