//! Connections, and who is at the other end of them.
//!
//! The one module that calls the TLS library's builders. What it holds to, each point because the
//! opposite was seen to fail:
//!
//! * no resumption: a resumed session skips the certificate check, so tickets and session storage
//!   are off, and a new server configuration is always built whole;
//! * open connections outlive a revocation, so each is registered and can be closed by its serial;
//! * an alert in TLS 1.3 may get lost, so a certificate that has lost its standing is told by HTTP;
//! * after the chain, the leaf itself is read strictly ([`crate::identity`]);
//! * ALPN is always set: without it HTTP/2 is silently HTTP/1.1.

mod client;
mod credentials;
mod progress;
mod public;
mod refusal;
mod refused;
mod registry;
mod serve;
mod server;
mod verify;

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};

pub use self::{
    client::{ClientStream, ClientTls, ServerExpectation, connect},
    credentials::{Anchors, Credentials},
    progress::ServerStream,
    public::{PublicRoots, connect_public, connect_under},
    refusal::{Refusal, refusal},
    registry::ConnectionRegistry,
    serve::{Exporter, Limits, PeerAddr, RawHandler, RawProtocol, serve},
    server::{Peers, ServerTls},
};
pub(crate) use self::{
    client::{connect_enrollment, connect_enrollment_as},
    credentials::certificates_from_pem,
    verify::ClientVerifier,
};

/// ALPN name of HTTP/2.
pub const ALPN_H2: &str = "h2";
/// ALPN name of HTTP/1.1.
pub const ALPN_HTTP1: &str = "http/1.1";
/// ALPN name of the rsync protocol at a publisher.
pub const ALPN_RSYNC: &str = "mirrornet-rsync/1";
/// ALPN name of the same through a relay: a line with the module comes first.
pub const ALPN_RELAYED_RSYNC: &str = "mirrornet-relayed-rsync/1";

/// Label of the exported keying material that enrollment proofs are bound to.
const EXPORTER_LABEL: &[u8] = b"EXPORTER-mirrornet-enroll-v1";

/// Makes the one provider of cryptography the process's default. May be called any number of
/// times; everything here calls it before it is needed.
pub fn install_provider() {
    // An Err only says that there is one already, which is what was wanted.
    drop(aws_lc_rs::default_provider().install_default());
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    install_provider();
    CryptoProvider::get_default()
        .cloned()
        .unwrap_or_else(|| Arc::new(aws_lc_rs::default_provider()))
}

/// Why a connection or its configuration was not made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Text that is not a list of certificates in PEM.
    #[error("the certificates are not readable PEM")]
    InvalidPem,
    /// No certificate, or too many.
    #[error("expected 1 to {} certificates, found {found}", credentials::MAX_CERTIFICATES)]
    CertificateCount {
        /// How many there were.
        found: usize,
    },
    /// No private key in the text.
    #[error("the private key is not readable PEM")]
    InvalidKey,
    /// The TLS library refuses the key, the certificate or the pair of them.
    #[error("the key and the certificates cannot be used together")]
    Configuration(#[source] rustls::Error),
    /// A root that cannot be trusted.
    #[error("a root certificate cannot be used")]
    Anchor(#[source] rustls::Error),
    /// No bundle of roots on this system.
    #[error(
        "this system has no bundle of trusted roots; install ca-certificates, or name one with SSL_CERT_FILE"
    )]
    NoSystemRoots,
    /// A file that should hold roots and holds none.
    #[error("{file} holds no certificate that can be read", file = file.display())]
    NoRoots {
        /// Which file.
        file: std::path::PathBuf,
    },
    /// A host that is no host.
    #[error("{host:?} is neither a host name nor an IP address")]
    InvalidHost {
        /// What was given.
        host: String,
    },
    /// The connection itself.
    #[error(transparent)]
    Dial(#[from] crate::dial::Error),
    /// The handshake failed or one side refused the other.
    #[error("{host}:{port} and this program do not accept each other")]
    Handshake {
        /// The other end.
        host: String,
        /// Its port.
        port: u16,
        /// What was wrong.
        source: std::io::Error,
    },
    /// The other end speaks something else.
    #[error("{host}:{port} does not speak {wanted}; is it the right port?")]
    Protocol {
        /// The other end.
        host: String,
        /// Its port.
        port: u16,
        /// What was wanted.
        wanted: String,
    },
    /// It took too long.
    #[error("{host}:{port} did not answer in {seconds} s")]
    Deadline {
        /// The other end.
        host: String,
        /// Its port.
        port: u16,
        /// How long it was given.
        seconds: u64,
    },
}
