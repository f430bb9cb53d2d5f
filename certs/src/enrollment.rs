//! Enrollment: how a program with an invite becomes an identity.
//!
//! The invite carries the digest of the root's key, so the very first connection is already
//! authenticated: there is no moment of trusting whoever answers. Its secret never crosses the
//! wire: the program proves that it knows it, bound to this one TLS connection and to the keys it
//! wants certified, so that nothing overheard, logged or relayed can be used again. The coordinator
//! stores only what *checks* such a proof; reading its database does not enroll anyone.

mod client;
mod invite;
mod proof;

use protocol::{
    dsse::Bytes,
    fingerprint::KeyFingerprint,
    key::VerifyingKey,
    v1::enroll::{EnrollRequest, KeysToCertify},
};

pub use self::{
    client::{EnrollOptions, enroll},
    invite::{InvalidInvite, Invite, InviteSecret},
    proof::{InvalidVerifier, InviteVerifier},
};
pub(crate) use self::{
    client::{exchange, refused},
    invite::address_of,
};
use crate::{
    csr::{self, PublicKey},
    identity::{Role, directory},
    sha256, tls,
};

/// The public keys of a checked enrollment or renewal request.
#[derive(Debug, Clone)]
pub struct RequestedKeys {
    /// The client key.
    pub client: PublicKey,
    /// The server key; publishers only.
    pub server: Option<PublicKey>,
}

impl RequestedKeys {
    /// Takes the public keys out of a request, and nothing else.
    pub fn check(keys: &KeysToCertify) -> Result<Self, csr::Error> {
        let server = keys.server_csr.as_ref();
        Ok(Self {
            client: PublicKey::from_request(&keys.csr.0)?,
            server: server.map(|csr| PublicKey::from_request(&csr.0)).transpose()?,
        })
    }
}

/// A digest that tells whether two requests ask for the same, as 64 hex digits: the same request
/// gets the same certificate, and another one with a used invite is an alarm.
pub fn fingerprint(keys: &KeysToCertify, signing_key: Option<&VerifyingKey>) -> String {
    data_encoding::HEXLOWER.encode(&digest(keys, signing_key))
}

/// The short form of the same, which people compare before an enrollment is approved.
pub fn key_fingerprint(keys: &KeysToCertify, signing_key: &VerifyingKey) -> KeyFingerprint {
    KeyFingerprint::of(&digest(keys, Some(signing_key)))
}

/// The short form of a [`fingerprint`]; none for other text.
pub fn key_fingerprint_of(fingerprint: &str) -> Option<KeyFingerprint> {
    let bytes = data_encoding::HEXLOWER.decode(fingerprint.as_bytes()).ok()?;
    Some(KeyFingerprint::of(bytes.first_chunk()?))
}

/// What a person at the enrolling machine is told while an admin has to approve its keys.
pub fn waiting_for_approval(keys: &KeyFingerprint) -> String {
    format!(
        "waiting for an admin, who compares these keys and approves them:\n  mirrorctl approve-enrollment {keys}"
    )
}

/// Puts into `request` the proof that its sender knows `secret`, for the connection that `exporter`
/// was taken from.
pub fn prove(request: &mut EnrollRequest, secret: &InviteSecret, exporter: &tls::Exporter) {
    let transcript = proof::transcript(request, &exporter.0);
    request.proof = Bytes(secret.prove(&transcript).to_vec());
}

/// Whether `request` proves that its sender knows the secret that `verifier` was made from, on the
/// connection that `exporter` was taken from. Takes the same time for every wrong proof.
pub fn check_proof(
    request: &EnrollRequest,
    verifier: &InviteVerifier,
    exporter: &tls::Exporter,
) -> Result<(), WrongProof> {
    let transcript = proof::transcript(request, &exporter.0);
    if verifier.check(&transcript, &request.proof.0) { Ok(()) } else { Err(WrongProof) }
}

pub(crate) fn digest(keys: &KeysToCertify, signing_key: Option<&VerifyingKey>) -> [u8; 32] {
    let mut bytes = sha256(&keys.csr.0).to_vec();
    bytes.extend(sha256(keys.server_csr.as_ref().map_or(&[], |csr| csr.0.as_slice())));
    for name in &keys.server_names {
        bytes.extend(sha256(name.as_bytes()));
    }
    bytes.extend(signing_key.map_or([0; 32], |key| sha256(key.as_bytes())));
    sha256(&bytes)
}

/// The proof is not one: a wrong secret, another connection, or other keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the invite's secret was not proved for this connection and these keys")]
pub struct WrongProof;

/// Why a program did not become an identity.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection to the enroll port, or not to the one that the invite pins.
    #[error("no enrollment at {url}; if the network's root was replaced, a new invite is needed")]
    Connect {
        /// The URL in the invite.
        url: String,
        /// What was wrong.
        source: tls::Error,
    },
    /// The connection broke or spoke something else.
    #[error("{url} did not answer as an enroll port does")]
    Exchange {
        /// The URL in the invite.
        url: String,
        /// What was wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No answer in time.
    #[error("{url} did not answer in {seconds} s")]
    Deadline {
        /// The URL in the invite.
        url: String,
        /// How long it was given.
        seconds: u64,
    },
    /// The coordinator refuses.
    #[error("the coordinator refused the invite ({status}): {detail}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// What the coordinator says about it.
        detail: String,
    },
    /// Nobody has approved it yet.
    #[error(
        "no admin has approved the keys {fingerprint} yet; run the same command again, it goes on waiting"
    )]
    NotApproved {
        /// The keys that wait.
        fingerprint: KeyFingerprint,
    },
    /// The answer is not for the network that the server belongs to.
    #[error("the server belongs to the network {server}, but answered for {answered}")]
    OtherNetwork {
        /// The network in the server's certificate.
        server: String,
        /// The network in the answer.
        answered: String,
    },
    /// An invite for something else than this program.
    #[error("the invite is for {invited}, but this program is {wanted}; make one for {wanted}")]
    OtherRole {
        /// What the invite is for.
        invited: Role,
        /// What this program is.
        wanted: Role,
    },
    /// The answer's root document is not signed by its own keys.
    #[error("the coordinator's root document cannot be pinned")]
    Root(#[source] Box<crate::root::Error>),
    /// The answer's roots do not hold the pinned one.
    #[error("the answer's roots do not hold the one that the invite pins")]
    RootMissing,
    /// The keys could not be made, stored, or put to use.
    #[error(transparent)]
    Identity(#[from] directory::Error),
    /// Nothing random.
    #[error(transparent)]
    Random(#[from] crate::NoRandomness),
}
