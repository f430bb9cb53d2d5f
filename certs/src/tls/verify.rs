//! The checks of both ends: the chain by webpki, then the leaf by our own strict reading.

use std::{sync::Arc, time::Duration};

use protocol::name::NetworkName;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor, verify_server_name,
    },
    crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature},
    server::{
        ParsedCertificate, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Anchors, ServerExpectation, provider};
use crate::{
    authority::RootPin,
    clock, guard,
    identity::{self, PeerIdentity, Role},
    sha256,
};

/// Most certificates that a peer may send beside its own.
const MAX_INTERMEDIATES: usize = 8;

/// Accepts whoever holds a client certificate that the network made, also one that has ended or was
/// revoked since: such a one is told so, and nothing else ([`super::refused`]), or has it renewed
/// ([`crate::late`]).
#[derive(Debug)]
pub(crate) struct ClientVerifier {
    chain: Arc<dyn ClientCertVerifier>,
    network: NetworkName,
}

impl ClientVerifier {
    pub(crate) fn new(anchors: &Anchors) -> Result<Self, super::Error> {
        let chain =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&anchors.roots), provider())
                .build()
                .map_err(|error| super::Error::Anchor(Error::General(error.to_string())))?;
        Ok(Self { chain, network: anchors.network.clone() })
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        check_count(intermediates)?;
        let now = clock::floored(now);
        let verify = |at| self.chain.verify_client_cert(end_entity, intermediates, at);
        let verified = match verify(now) {
            // It was good to its end? Then its holder hears of the end by HTTP.
            Err(error) if is_expiry(&error) => match end_of(end_entity) {
                Some(end) if end < now => verify(end)?,
                _ => return Err(error),
            },
            verified => verified?,
        };
        let identity = PeerIdentity::from_client_certificate(end_entity).map_err(identity_error)?;
        check_network(&identity, &self.network)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// Takes any certificate, or none: all that is proved is that its key is there.
#[derive(Debug)]
pub(super) struct AnyCertificate {
    algorithms: WebPkiSupportedAlgorithms,
}

impl AnyCertificate {
    pub(super) fn new() -> Self {
        Self { algorithms: provider().signature_verification_algorithms }
    }
}

impl ClientCertVerifier for AnyCertificate {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        check_count(intermediates)?;
        if end_entity.len() > guard::MAX_CERTIFICATE_LEN {
            return Err(CertificateError::BadEncoding.into());
        }
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Accepts the one server that is expected.
#[derive(Debug)]
pub(super) struct ServerVerifier {
    anchors: Trusted,
    expectation: ServerExpectation,
    algorithms: WebPkiSupportedAlgorithms,
}

/// What a server's chain has to end in.
#[derive(Debug)]
enum Trusted {
    /// The roots of a network that we are in.
    Network(Anchors),
    /// A root that we know by the digest of its key only: we are about to join its network.
    Pinned(RootPin),
}

impl ServerVerifier {
    pub(super) fn new(anchors: Anchors, expectation: ServerExpectation) -> Self {
        let algorithms = provider().signature_verification_algorithms;
        Self { anchors: Trusted::Network(anchors), expectation, algorithms }
    }

    pub(super) fn pinned(pin: RootPin) -> Self {
        let algorithms = provider().signature_verification_algorithms;
        let expectation = ServerExpectation::Coordinator;
        Self { anchors: Trusted::Pinned(pin), expectation, algorithms }
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        check_count(intermediates)?;
        let now = clock::floored(now);
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let pinned;
        let roots = match &self.anchors {
            Trusted::Network(anchors) => &*anchors.roots,
            Trusted::Pinned(pin) => {
                pinned = pinned_root(intermediates, *pin)?;
                &pinned
            }
        };
        let algorithms = self.algorithms.all;
        verify_server_cert_signed_by_trust_anchor(
            &certificate,
            roots,
            intermediates,
            now,
            algorithms,
        )?;
        let identity = PeerIdentity::from_server_certificate(end_entity).map_err(identity_error)?;
        if let Trusted::Network(anchors) = &self.anchors {
            check_network(&identity, &anchors.network)?;
        }
        check_expectation(&identity, &self.expectation)?;
        // A publisher is known by its identity; the name it is reached by is anyone's to choose.
        if self.expectation == ServerExpectation::Coordinator {
            verify_server_name(&certificate, server_name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn is_expiry(error: &Error) -> bool {
    matches!(
        error,
        Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. }
        )
    )
}

/// The last second of a certificate's life.
fn end_of(der: &CertificateDer<'_>) -> Option<UnixTime> {
    let identity = PeerIdentity::from_client_certificate(der).ok()?;
    let seconds = u64::try_from(identity.not_after.as_second()).ok()?;
    Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
}

fn check_count(intermediates: &[CertificateDer<'_>]) -> Result<(), Error> {
    if intermediates.len() > MAX_INTERMEDIATES {
        return Err(CertificateError::BadEncoding.into());
    }
    Ok(())
}

fn check_network(identity: &PeerIdentity, wanted: &NetworkName) -> Result<(), Error> {
    if identity.network == *wanted {
        return Ok(());
    }
    Err(identity_error(identity::Error::WrongNetwork {
        found: identity.network.clone(),
        wanted: wanted.clone(),
    }))
}

fn check_expectation(identity: &PeerIdentity, wanted: &ServerExpectation) -> Result<(), Error> {
    let expected = match wanted {
        ServerExpectation::Coordinator => identity.role == Role::Coordinator,
        ServerExpectation::Named { role, name } => identity.role == *role && identity.name == *name,
    };
    if expected {
        return Ok(());
    }
    Err(identity_error(identity::Error::WrongServer {
        found: identity.uri(),
        wanted: wanted.to_string(),
    }))
}

fn pinned_root(intermediates: &[CertificateDer<'_>], pin: RootPin) -> Result<RootCertStore, Error> {
    let is_pinned = |der: &&CertificateDer<'_>| {
        X509Certificate::from_der(der)
            .is_ok_and(|(_, certificate)| sha256(certificate.public_key().raw) == pin.0)
    };
    let root = intermediates
        .iter()
        .find(is_pinned)
        .ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
    let mut roots = RootCertStore::empty();
    roots.add(root.clone().into_owned())?;
    Ok(roots)
}

fn identity_error(error: identity::Error) -> Error {
    CertificateError::Other(OtherError(Arc::new(error))).into()
}
