//! The server's side of a handshake.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::{
    ServerConfig,
    server::{NoServerSessionStorage, danger::ClientCertVerifier},
};

use super::{
    Anchors, ConnectionRegistry, Credentials, Error, provider,
    verify::{AnyCertificate, ClientVerifier},
};

/// Who may connect to a server.
#[derive(Debug, Clone)]
pub enum Peers {
    /// Identities of the network, by mutual TLS.
    Identities {
        /// The network's roots.
        anchors: Anchors,
        /// Where their connections are registered.
        registry: Arc<ConnectionRegistry>,
    },
    /// Anyone: enrollment only. TLS 1.3 only, because the proof rests on its exporter.
    Anyone,
    /// Consumers of what is published: with any certificate, which guards judge for each request
    /// ([`crate::guard`]), or with none.
    Consumers,
}

/// What a server shows and whom it accepts; replaced whole when a certificate is renewed.
#[derive(Debug)]
pub struct ServerTls {
    current: ArcSwap<Configuration>,
    alpn: Vec<Vec<u8>>,
}

#[derive(Debug)]
struct Configuration {
    tls: Arc<ServerConfig>,
    peers: Peers,
}

impl ServerTls {
    /// A server that shows `credentials`, accepts `peers` and speaks the protocols `alpn`, the
    /// preferred one first.
    pub fn new(credentials: &Credentials, peers: Peers, alpn: &[&str]) -> Result<Arc<Self>, Error> {
        let alpn: Vec<Vec<u8>> = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let current = ArcSwap::from_pointee(configuration(credentials, peers, &alpn)?);
        Ok(Arc::new(Self { current, alpn }))
    }

    /// Shows new credentials from the next connection on.
    ///
    /// # Errors
    /// When they cannot be used; then the old ones stay.
    pub fn reload(&self, credentials: &Credentials) -> Result<(), Error> {
        let peers = self.current.load().peers.clone();
        self.current.store(Arc::new(configuration(credentials, peers, &self.alpn)?));
        Ok(())
    }

    /// Like [`ServerTls::reload`], accepting the identities under `anchors` from now on; a server
    /// for anyone stays one.
    pub fn reload_with(&self, credentials: &Credentials, anchors: &Anchors) -> Result<(), Error> {
        let peers = match &self.current.load().peers {
            Peers::Identities { registry, .. } => {
                Peers::Identities { anchors: anchors.clone(), registry: Arc::clone(registry) }
            }
            other @ (Peers::Anyone | Peers::Consumers) => other.clone(),
        };
        self.current.store(Arc::new(configuration(credentials, peers, &self.alpn)?));
        Ok(())
    }

    pub(super) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.load().tls)
    }

    pub(super) fn registry(&self) -> Option<Arc<ConnectionRegistry>> {
        match &self.current.load().peers {
            Peers::Identities { registry, .. } => Some(Arc::clone(registry)),
            Peers::Anyone | Peers::Consumers => None,
        }
    }

    /// Whether certificates of clients are not the network's.
    pub(super) fn is_for_consumers(&self) -> bool {
        matches!(self.current.load().peers, Peers::Consumers)
    }
}

/// Always from nothing: a configuration that is cloned and patched shares its session store with
/// the old one, and a session resumed from there skips every check of the new one.
fn configuration(
    credentials: &Credentials,
    peers: Peers,
    alpn: &[Vec<u8>],
) -> Result<Configuration, Error> {
    let builder = ServerConfig::builder_with_provider(provider());
    let builder = match &peers {
        Peers::Identities { anchors, .. } => {
            let verifier: Arc<dyn ClientCertVerifier> = Arc::new(ClientVerifier::new(anchors)?);
            builder
                .with_safe_default_protocol_versions()
                .map(|builder| builder.with_client_cert_verifier(verifier))
        }
        Peers::Consumers => builder
            .with_safe_default_protocol_versions()
            .map(|builder| builder.with_client_cert_verifier(Arc::new(AnyCertificate::new()))),
        Peers::Anyone => builder
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map(|builder| builder.with_no_client_auth()),
    };
    let mut tls = builder
        .and_then(|builder| {
            builder.with_single_cert(credentials.chain.clone(), credentials.key.clone_key())
        })
        .map_err(Error::Configuration)?;
    tls.alpn_protocols = alpn.to_vec();
    tls.session_storage = Arc::new(NoServerSessionStorage {});
    tls.send_tls13_tickets = 0;
    tls.max_early_data_size = 0;
    Ok(Configuration { tls: Arc::new(tls), peers })
}
