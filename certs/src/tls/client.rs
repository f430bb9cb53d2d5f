//! The client's side of a handshake, and raw streams for protocols that are not HTTP.

use std::{fmt, sync::Arc, time::Duration};

use protocol::name::IdentityName;
use rustls::{ClientConfig, client::Resumption};
use rustls_pki_types::ServerName;
use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};
use tokio_rustls::TlsConnector;

use super::{
    Anchors, Credentials, EXPORTER_LABEL, Error, Exporter, provider, verify::ServerVerifier,
};
use crate::{
    authority::RootPin,
    dial::Dialer,
    identity::{PeerIdentity, Role},
};

/// The client's end of a connection.
pub type ClientStream = tokio_rustls::client::TlsStream<TcpStream>;

/// Which server has to answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerExpectation {
    /// The network's coordinator, under the host name that was dialed.
    Coordinator,
    /// The identity of that role and name, under whatever host name: a publisher, or an agent that
    /// relays. What a host name resolves to, or which one a publisher chose, decides nothing.
    Named {
        /// Its role.
        role: Role,
        /// Its name.
        name: IdentityName,
    },
}

impl ServerExpectation {
    /// The publisher `name`.
    pub fn publisher(name: IdentityName) -> Self {
        Self::Named { role: Role::Publisher, name }
    }

    /// The agent `name`, as a relay.
    pub fn relay(name: IdentityName) -> Self {
        Self::Named { role: Role::Agent, name }
    }
}

impl fmt::Display for ServerExpectation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Coordinator => f.write_str("the coordinator"),
            Self::Named { role, name } => write!(f, "the {role} {name}"),
        }
    }
}

/// What a client shows, and the network whose servers it accepts.
#[derive(Debug, Clone)]
pub struct ClientTls {
    credentials: Credentials,
    anchors: Anchors,
}

impl ClientTls {
    /// A client that shows `credentials` to servers of the network of `anchors`.
    pub fn new(credentials: Credentials, anchors: Anchors) -> Self {
        Self { credentials, anchors }
    }

    /// The TLS library's configuration for one expected server. Always new, with no session to
    /// resume: a resumed session would show the certificate it was begun with.
    pub(crate) fn config(
        &self,
        expectation: &ServerExpectation,
        alpn: &[&str],
    ) -> Result<ClientConfig, Error> {
        let verifier = ServerVerifier::new(self.anchors.clone(), expectation.clone());
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(Error::Configuration)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_auth_cert(self.credentials.chain.clone(), self.credentials.key.clone_key())
            .map_err(Error::Configuration)?;
        finish(&mut config, alpn);
        Ok(config)
    }
}

/// Opens a stream to the expected server that speaks `alpn`, within `deadline`.
///
/// That the server accepts *our* certificate shows only with its first answer: see
/// [`refusal`](super::refusal()).
pub async fn connect(
    dialer: &Dialer,
    tls: &ClientTls,
    (host, port): (&str, u16),
    expectation: &ServerExpectation,
    alpn: &str,
    deadline: Duration,
) -> Result<ClientStream, Error> {
    let config = tls.config(expectation, &[alpn])?;
    handshake(dialer, config, (host, port), Some(alpn), deadline).await
}

/// A connection to an enroll port.
pub(crate) struct EnrollmentStream {
    pub(crate) stream: ClientStream,
    pub(crate) exporter: Exporter,
    pub(crate) server: PeerIdentity,
}

/// Connects to the enroll port of a network that is known by the digest of its root's key.
pub(crate) async fn connect_enrollment(
    dialer: &Dialer,
    pin: RootPin,
    address: (&str, u16),
    deadline: Duration,
) -> Result<EnrollmentStream, Error> {
    enroll_with(dialer, ServerVerifier::pinned(pin), address, deadline).await
}

/// Connects to the enroll port of the network of `anchors`.
pub(crate) async fn connect_enrollment_as(
    dialer: &Dialer,
    anchors: &Anchors,
    address: (&str, u16),
    deadline: Duration,
) -> Result<EnrollmentStream, Error> {
    let verifier = ServerVerifier::new(anchors.clone(), ServerExpectation::Coordinator);
    enroll_with(dialer, verifier, address, deadline).await
}

async fn enroll_with(
    dialer: &Dialer,
    verifier: ServerVerifier,
    (host, port): (&str, u16),
    deadline: Duration,
) -> Result<EnrollmentStream, Error> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(Error::Configuration)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    finish(&mut config, &[super::ALPN_HTTP1]);
    let stream = handshake(dialer, config, (host, port), Some(super::ALPN_HTTP1), deadline).await?;
    let (_, connection) = stream.get_ref();
    let exporter = connection
        .export_keying_material([0; 32], EXPORTER_LABEL, None)
        .map_err(Error::Configuration)?;
    let certificate = connection.peer_certificates().and_then(<[_]>::first);
    let server = certificate
        .and_then(|certificate| PeerIdentity::from_server_certificate(certificate).ok())
        .ok_or(Error::CertificateCount { found: 0 })?;
    Ok(EnrollmentStream { stream, exporter: Exporter(exporter), server })
}

fn finish(config: &mut ClientConfig, alpn: &[&str]) {
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    config.resumption = Resumption::disabled();
}

pub(super) async fn handshake(
    dialer: &Dialer,
    config: ClientConfig,
    (host, port): (&str, u16),
    alpn: Option<&str>,
    deadline: Duration,
) -> Result<ClientStream, Error> {
    let until = Instant::now() + deadline;
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let name = ServerName::try_from(bare.to_owned())
        .map_err(|_| Error::InvalidHost { host: host.chars().take(300).collect() })?;
    let tcp = dialer.connect(host, port, deadline).await?;
    let connecting = TlsConnector::from(Arc::new(config)).connect(name, tcp);
    let stream = timeout_at(until, connecting)
        .await
        .map_err(|_| Error::Deadline { host: host.into(), port, seconds: deadline.as_secs() })?
        .map_err(|source| Error::Handshake { host: host.into(), port, source })?;
    if let Some(alpn) = alpn
        && stream.get_ref().1.alpn_protocol() != Some(alpn.as_bytes())
    {
        return Err(Error::Protocol { host: host.into(), port, wanted: alpn.into() });
    }
    Ok(stream)
}
