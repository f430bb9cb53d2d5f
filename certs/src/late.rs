//! Renewal after the end of a certificate.
//!
//! A program that was off for a week has a certificate that opens nothing, not even its renewal, and
//! somebody would have to travel to it with an invite. So for some time after its end a certificate
//! is still good for one thing: its key signs the request for the next one. The request goes to the
//! enroll port, where only the server is known by TLS, and the signature is over that connection's
//! keying material, so it is worth nothing on another one. It is the only thing that a certificate's
//! key ever signs outside of TLS, and its label keeps it apart from everything that TLS signs.
//!
//! Whether the certificate is the newest of its holder, was never revoked, and ended recently enough
//! is for the coordinator to look up: this module only proves who asks.

use std::time::Duration;

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, ED25519, EcdsaKeyPair,
        UnparsedPublicKey, VerificationAlgorithm,
    },
};
use jiff::Timestamp;
use protocol::{
    dsse::Bytes,
    v1::enroll::{KeysToCertify, LateRenewRequest, RenewResponse},
};
use rustls::server::danger::ClientCertVerifier as _;
use rustls_pki_types::UnixTime;
use tokio::time::timeout;
use x509_parser::{
    oid_registry,
    prelude::{FromDer, X509Certificate},
};

use crate::{
    dial::Dialer,
    enrollment::{self, exchange, refused},
    identity::{Identity, PeerIdentity},
    sha256,
    tls::{self, Anchors, ClientVerifier, Exporter, connect_enrollment_as},
};

const LABEL: &[u8] = b"mirrornet-renew-after-expiry-v1";

/// Asks the enroll port at `url` to certify `keys` in place of the certificate of `identity`, which
/// has ended. `deadline` is for the connection, and again for the answer.
pub async fn renew(
    identity: &Identity,
    url: &str,
    keys: &KeysToCertify,
    dialer: &Dialer,
    deadline: Duration,
) -> Result<RenewResponse, Error> {
    let address = enrollment::address_of(url);
    let connection = connect_enrollment_as(dialer, &identity.anchors, address, deadline).await?;
    let request = sign(identity, keys, &connection.exporter)?;
    let late = || Error::Deadline { url: url.to_owned(), seconds: deadline.as_secs() };
    let exchanged = exchange(connection.stream, url, "/renew", &request);
    let (status, body) = timeout(deadline, exchanged)
        .await
        .map_err(|_| late())?
        .map_err(|source| Error::Exchange { url: url.to_owned(), source })?;
    if !status.is_success() {
        let (status, detail) = refused(status, &body);
        return Err(Error::Refused { status, detail });
    }
    serde_json::from_slice(&body)
        .map_err(|error| Error::Exchange { url: url.to_owned(), source: error.into() })
}

/// The request that [`check`] takes, for the connection that `exporter` was taken from.
pub fn sign(
    identity: &Identity,
    keys: &KeysToCertify,
    exporter: &Exporter,
) -> Result<LateRenewRequest, Error> {
    let credentials = &identity.client;
    let pair =
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, credentials.key.secret_der())
            .map_err(|_| Error::Key)?;
    let chain = credentials.chain.iter().map(|der| Bytes(der.to_vec())).collect();
    let nonce: [u8; 32] = crate::random()?;
    let mut request = LateRenewRequest {
        chain,
        keys: keys.clone(),
        nonce: Bytes(nonce.to_vec()),
        signature: Bytes::default(),
    };
    let signed = pair.sign(&SystemRandom::new(), &transcript(&request, exporter));
    request.signature = Bytes(signed.map_err(|_| crate::NoRandomness)?.as_ref().to_vec());
    Ok(request)
}

/// Who asks: the holder of a certificate that the network of `anchors` made and that was good to its
/// end, or still is.
///
/// # Errors
/// When it was not, or the request is not signed by its key for this connection and these keys.
pub fn check(
    request: &LateRenewRequest,
    anchors: &Anchors,
    exporter: &Exporter,
    now: Timestamp,
) -> Result<PeerIdentity, Error> {
    let certificates: Vec<_> = request
        .chain
        .iter()
        .map(|der| rustls_pki_types::CertificateDer::from(&der.0[..]))
        .collect();
    let [leaf, issuers @ ..] = &certificates[..] else { return Err(Error::NotProved) };
    let seconds = u64::try_from(now.as_second()).unwrap_or(0);
    let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    ClientVerifier::new(anchors)?
        .verify_client_cert(leaf, issuers, now)
        .map_err(|_| Error::NotProved)?;
    let peer = PeerIdentity::from_client_certificate(leaf).map_err(|_| Error::NotProved)?;
    let (_, certificate) = X509Certificate::from_der(leaf).map_err(|_| Error::NotProved)?;
    let key = certificate.public_key();
    let algorithm: &dyn VerificationAlgorithm =
        if key.algorithm.algorithm == oid_registry::OID_SIG_ED25519 {
            &ED25519
        } else {
            // For a key of any other kind the bytes below are no point of the curve.
            &ECDSA_P256_SHA256_ASN1
        };
    UnparsedPublicKey::new(algorithm, &key.subject_public_key.data)
        .verify(&transcript(request, exporter), &request.signature.0)
        .map_err(|_| Error::NotProved)?;
    Ok(peer)
}

/// All that a request is bound to. Every part has a fixed length.
fn transcript(request: &LateRenewRequest, exporter: &Exporter) -> Vec<u8> {
    let mut bytes = LABEL.to_vec();
    bytes.extend(exporter.0);
    bytes.extend(enrollment::digest(&request.keys, None));
    bytes.extend(sha256(request.chain.first().map_or(&[], |leaf| &leaf.0[..])));
    bytes.extend(sha256(&request.nonce.0));
    bytes
}

/// Why a certificate that has ended was not renewed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection to the enroll port.
    #[error(transparent)]
    Connect(#[from] tls::Error),
    /// The connection broke or spoke something else.
    #[error("{url} did not answer as an enroll port does")]
    Exchange {
        /// The enroll port.
        url: String,
        /// What was wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No answer in time.
    #[error("{url} did not answer in {seconds} s")]
    Deadline {
        /// The enroll port.
        url: String,
        /// How long it was given.
        seconds: u64,
    },
    /// The coordinator refuses.
    #[error("the coordinator does not renew the certificate, which has ended ({status}): {detail}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// What the coordinator says about it.
        detail: String,
    },
    /// The identity's key is of a kind that this program does not make.
    #[error("the identity's key cannot sign; enroll again with a new invite")]
    Key,
    /// Not the holder of such a certificate.
    #[error("the request is not signed by a certificate of this network for this connection")]
    NotProved,
    /// Nothing random.
    #[error(transparent)]
    Random(#[from] crate::NoRandomness),
}
