//! Proving an invite's secret without showing it.
//!
//! As in SCRAM (RFC 5802): from the secret comes a key, and the coordinator stores that key's
//! digest. A proof is the key, masked with an HMAC over the transcript under the digest; whoever
//! knows the digest can unmask it and check it, but cannot make one.

use std::{fmt, str::FromStr};

use aws_lc_rs::{constant_time::verify_slices_are_equal, hmac};
use data_encoding::HEXLOWER;
use protocol::{role::Role, v1::enroll::EnrollRequest};

use super::digest;
use crate::sha256;

const LABEL: &[u8] = b"mirrornet-enroll-v1";

/// What the coordinator keeps of an invite's secret: enough to check a proof, not to make one.
/// Written as 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct InviteVerifier([u8; 32]);

impl InviteVerifier {
    pub(super) fn of(key: &[u8; 32]) -> Self {
        Self(sha256(key))
    }

    /// `bytes`, masked or unmasked for `transcript`.
    pub(super) fn mask(&self, transcript: &[u8], mut bytes: [u8; 32]) -> [u8; 32] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.0);
        for (byte, mask) in bytes.iter_mut().zip(hmac::sign(&key, transcript).as_ref()) {
            *byte ^= mask;
        }
        bytes
    }

    pub(super) fn check(&self, transcript: &[u8], proof: &[u8]) -> bool {
        let Ok(proof) = proof.try_into() else { return false };
        let key = self.mask(transcript, proof);
        verify_slices_are_equal(&sha256(&key), &self.0).is_ok()
    }
}

impl fmt::Display for InviteVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for InviteVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InviteVerifier")
    }
}

impl FromStr for InviteVerifier {
    type Err = InvalidVerifier;

    fn from_str(text: &str) -> Result<Self, InvalidVerifier> {
        let bytes = HEXLOWER.decode(text.as_bytes()).map_err(|_| InvalidVerifier)?;
        Ok(Self(bytes.try_into().map_err(|_| InvalidVerifier)?))
    }
}

/// Text that is not 64 lower-case hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an invite's verifier: expected 64 lower-case hex digits")]
pub struct InvalidVerifier;

/// All that a proof is bound to: this connection, these keys, this try. Every part has a fixed
/// length.
pub(super) fn transcript(request: &EnrollRequest, exporter: &[u8; 32]) -> Vec<u8> {
    let mut bytes = LABEL.to_vec();
    bytes.extend(exporter);
    bytes.extend(digest(&request.keys, Some(&request.signing_key)));
    bytes.extend(sha256(request.invite.as_bytes()));
    bytes.extend(sha256(request.role.map_or("", Role::as_str).as_bytes()));
    bytes.extend(sha256(&request.nonce.0));
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enrollment::InviteSecret;

    #[test]
    fn a_proof_holds_for_its_transcript_and_secret_only() {
        let secret = InviteSecret::generate().unwrap();
        let verifier: InviteVerifier = secret.verifier().to_string().parse().unwrap();
        let proof = secret.prove(b"this");
        assert!(verifier.check(b"this", &proof));
        assert!(!verifier.check(b"that", &proof));
        assert!(!InviteSecret::generate().unwrap().verifier().check(b"this", &proof));
        for at in 0..proof.len() {
            let mut wrong = proof;
            wrong[at] ^= 1;
            assert!(!verifier.check(b"this", &wrong));
        }
        assert!(!verifier.check(b"this", &[]) && !verifier.check(b"this", &[0; 33]));
    }

    #[test]
    fn what_the_coordinator_stores_does_not_make_a_proof() {
        let verifier = InviteSecret::generate().unwrap().verifier();
        let forged = verifier.mask(b"this", verifier.0);
        assert!(!verifier.check(b"this", &forged));
    }
}
