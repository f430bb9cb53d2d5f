//! A whole network in a directory, for tests: an authority, identities, servers on loopback.
//!
//! Everything here panics with a message instead of returning errors, as tests want it.
#![expect(clippy::panic, reason = "a test that cannot be set up has to fail")]

use std::{collections::BTreeMap, fmt::Debug, fs, path::PathBuf, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use protocol::{
    dsse::Envelope,
    generation::RootNumber,
    name::{IdentityName, NetworkName},
    root::Root,
    v1::enroll::{Certificates, KeysToCertify},
};
use tokio::net::TcpListener;

use crate::{
    authority::{self, Authority},
    csr::PublicKey,
    enrollment::RequestedKeys,
    identity::{
        Identity, Role,
        directory::{Membership, Pending},
    },
    keyfile, root,
    signing::SigningKey,
    tls::{self, Credentials, Peers, ServerTls},
};

/// A network with its authority and as many identities as a test wants.
pub struct TestNetwork {
    dir: PathBuf,
    /// The network's authority.
    pub authority: Authority,
    /// The key that heads are signed with.
    pub head_key: SigningKey,
    /// The key that roots are signed with.
    pub root_key: SigningKey,
    /// The connections of all servers made by [`TestNetwork::server`].
    pub registry: Arc<tls::ConnectionRegistry>,
}

impl TestNetwork {
    /// Makes a network named `name` in the existing directory `dir`.
    pub fn create(dir: impl Into<PathBuf>, name: &str) -> Self {
        Self::create_at(dir, name, Timestamp::now())
    }

    /// Like [`TestNetwork::create`], with an authority that was made at `made`.
    pub fn create_at(dir: impl Into<PathBuf>, name: &str, made: Timestamp) -> Self {
        let dir = dir.into();
        let network: NetworkName = good(name.parse());
        let authority = good(Authority::create(&dir.join(format!("ca-{name}")), &network, made));
        Self {
            dir,
            authority,
            head_key: good(SigningKey::generate()),
            root_key: good(SigningKey::generate()),
            registry: tls::ConnectionRegistry::new(),
        }
    }

    /// Certifies `keys` for an identity, as the coordinator does.
    pub fn certify(
        &self,
        keys: &KeysToCertify,
        role: Role,
        name: &str,
        life: SignedDuration,
        now: Timestamp,
    ) -> Certificates {
        let name: IdentityName = good(name.parse());
        let keys_found = good(RequestedKeys::check(keys));
        let client = good(self.authority.issue(&keys_found.client, role, &name, life, now));
        let server = keys_found.server.map(|key| {
            let hosts = &keys.server_names;
            good(self.authority.issue_server(&key, role, &name, hosts, life, now)).chain_pem
        });
        Certificates {
            chain: client.chain_pem,
            server_chain: server,
            ca: self.authority.root_pem().to_owned(),
        }
    }

    /// The data directory of the identity `name`: has `identity` in it once it was made.
    pub fn data(&self, role: Role, name: &str) -> PathBuf {
        self.dir.join(format!("{}-{role}-{name}", self.authority.network()))
    }

    /// Makes an identity, with a server certificate for `127.0.0.1` when it is a publisher.
    pub async fn identity(&self, role: Role, name: &str) -> Arc<Identity> {
        self.identity_with(role, name, authority::LIFE, Timestamp::now()).await
    }

    /// Like [`TestNetwork::identity`], made at `now` for `life`.
    pub async fn identity_with(
        &self,
        role: Role,
        name: &str,
        life: SignedDuration,
        now: Timestamp,
    ) -> Arc<Identity> {
        let data = self.data(role, name);
        good(fs::create_dir_all(&data));
        let hosts = match role {
            Role::Publisher => vec!["127.0.0.1".to_owned(), "localhost".to_owned()],
            _ => Vec::new(),
        };
        let pending = good(Pending::enroll(&data, &hosts));
        let certificates = self.certify(pending.keys(), role, name, life, now);
        let membership = self.membership(role, name, hosts);
        let works = |_| async { Ok::<(), std::io::Error>(()) };
        good(pending.install(&membership, &certificates, works).await)
    }

    /// An identity as it lies on a disk that was away: its certificate was made at `made`, and has
    /// ended if that is more than a life ago.
    pub async fn expired_identity(&self, role: Role, name: &str, made: Timestamp) -> Arc<Identity> {
        self.identity(role, name).await;
        let data = self.data(role, name);
        let file = |name: &str| data.join("identity").join(name);
        let key = good(rcgen::KeyPair::from_pem(&good(fs::read_to_string(file("key.pem")))));
        let request = good(rcgen::CertificateParams::default().serialize_request(&key));
        let public = good(PublicKey::from_request(request.der()));
        let name: IdentityName = good(name.parse());
        let issued = good(self.authority.issue(&public, role, &name, authority::LIFE, made));
        good(keyfile::replace(&file("cert.pem"), issued.chain_pem.as_bytes()));
        good(Identity::load(&data))
    }

    /// What `identity.json` says for an identity of this network.
    pub fn membership(&self, role: Role, name: &str, server_names: Vec<String>) -> Membership {
        Membership {
            network: self.authority.network().clone(),
            role,
            name: good(name.parse()),
            api_url: "https://127.0.0.1:1".into(),
            enroll_url: None,
            root: self.sign_root(&self.root()),
            server_names,
        }
    }

    /// The first root document, with no publisher in it.
    pub fn root(&self) -> Root {
        Root {
            network: self.authority.network().clone(),
            number: RootNumber(1),
            created: Timestamp::now(),
            keys: vec![self.root_key.verifying_key()],
            threshold: 1,
            head_keys: vec![self.head_key.verifying_key()],
            definition_keys: vec![],
            authorities: self.authority.root_pem().to_owned(),
            publishers: Vec::new(),
            epochs: BTreeMap::new(),
        }
    }

    /// Signs a root document with the network's one root key.
    pub fn sign_root(&self, root: &Root) -> Envelope {
        good(root::sign(root, &[&self.root_key]))
    }

    /// What a coordinator shows on `127.0.0.1` and `localhost`.
    pub fn coordinator_credentials(&self) -> Credentials {
        let hosts = ["127.0.0.1".to_owned(), "localhost".to_owned()];
        let name: IdentityName = good("coordinator".parse());
        let life = authority::LIFE;
        good(self.authority.coordinator_server(&name, &hosts, life, Timestamp::now())).0
    }

    /// Mutual TLS with the identities of this network.
    pub fn peers(&self) -> Peers {
        Peers::Identities {
            anchors: good(self.authority.anchors()),
            registry: Arc::clone(&self.registry),
        }
    }

    /// A coordinator's server for the identities of this network, speaking HTTP.
    pub fn server(&self) -> Arc<ServerTls> {
        let alpn = [tls::ALPN_H2, tls::ALPN_HTTP1];
        good(ServerTls::new(&self.coordinator_credentials(), self.peers(), &alpn))
    }
}

/// A server by the TLS library alone: it wants a certificate of the network, looks at nothing else, and
/// answers whatever it is asked with a little JSON. What a benchmark of ours is compared with. Gives its
/// port, on loopback; it ends with the runtime.
pub async fn bare_server(authority: &Authority, shown: &Credentials) -> u16 {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";
    tls::install_provider();
    let mut roots = rustls::RootCertStore::empty();
    for root in good(tls::certificates_from_pem(authority.root_pem())) {
        good(roots.add(root));
    }
    let verifier = rustls::server::WebPkiClientVerifier::builder(Arc::new(roots)).build();
    let mut config = good(
        rustls::ServerConfig::builder()
            .with_client_cert_verifier(good(verifier))
            .with_single_cert(shown.chain.clone(), shown.key.clone_key()),
    );
    config.alpn_protocols = vec![tls::ALPN_HTTP1.into()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let (listener, port) = listener().await;
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(tcp).await else { return };
                let asked = stream.read(&mut [0; 1024]).await;
                if asked.is_ok() && stream.write_all(ANSWER).await.is_ok() {
                    // Whoever does not wait for the end needs none.
                    drop(stream.shutdown().await);
                }
            });
        }
    });
    port
}

/// A listener on a free port of loopback, and the port.
pub async fn listener() -> (TcpListener, u16) {
    let listener = good(TcpListener::bind(("127.0.0.1", 0)).await);
    let port = good(listener.local_addr()).port();
    (listener, port)
}

fn good<T, E: Debug>(result: Result<T, E>) -> T {
    result.unwrap_or_else(|error| panic!("the test network cannot be made: {error:?}"))
}
