//! Keys that want a certificate, and the requests they are sent in.
//!
//! A certificate request (PKCS #10) is a public key, a proof that its sender holds the private
//! one, and a list of wishes. The wishes are the attack: copying them would let anyone ask to be a
//! CA. So [`PublicKey`] is all that ever leaves this module.

use rcgen::{CertificateParams, DistinguishedName, KeyPair, PublicKeyData, SubjectPublicKeyInfo};
use x509_parser::{
    certification_request::X509CertificationRequest, oid_registry, prelude::FromDer,
    x509::SubjectPublicKeyInfo as RequestedKey,
};

/// Longest request that is read, in bytes of DER.
pub const MAX_REQUEST_LEN: usize = 16 * 1024;

/// A fresh P-256 key with the request to certify it.
pub struct KeyRequest {
    /// The private key, PKCS #8 in PEM.
    pub key_pem: String,
    /// The request, DER.
    pub request: Vec<u8>,
}

impl KeyRequest {
    /// Makes a key. The private half leaves this machine never.
    pub fn generate() -> Result<Self, Error> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(Error::Generate)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let request = params.serialize_request(&key).map_err(Error::Generate)?;
        Ok(Self { key_pem: key.serialize_pem(), request: request.der().to_vec() })
    }
}

/// A public key whose holder has proved to have the private one.
#[derive(Debug, Clone)]
pub struct PublicKey(SubjectPublicKeyInfo);

impl PublicKey {
    /// Takes the public key out of a certificate request (DER), and nothing else.
    ///
    /// # Errors
    /// When the request is no request, is not signed by the key it holds, or the key is neither
    /// P-256 nor Ed25519.
    pub fn from_request(der: &[u8]) -> Result<Self, Error> {
        if der.len() > MAX_REQUEST_LEN {
            return Err(Error::TooLong);
        }
        let (rest, request) =
            X509CertificationRequest::from_der(der).map_err(|_| Error::NotARequest)?;
        if !rest.is_empty() {
            return Err(Error::NotARequest);
        }
        let key = &request.certification_request_info.subject_pki;
        check_algorithm(key)?;
        request.verify_signature().map_err(|_| Error::NotProved)?;
        Ok(Self(SubjectPublicKeyInfo::from_der(key.raw).map_err(|_| Error::Algorithm)?))
    }
}

impl PublicKeyData for PublicKey {
    fn der_bytes(&self) -> &[u8] {
        self.0.der_bytes()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        self.0.algorithm()
    }
}

fn check_algorithm(key: &RequestedKey<'_>) -> Result<(), Error> {
    let algorithm = &key.algorithm.algorithm;
    let length = key.subject_public_key.data.len();
    let parameter = key.algorithm.parameters.as_ref();
    let curve = parameter.and_then(|parameter| parameter.as_oid().ok());
    let p256 = *algorithm == oid_registry::OID_KEY_TYPE_EC_PUBLIC_KEY
        && curve == Some(oid_registry::OID_EC_P256)
        && length == 65;
    let ed25519 = *algorithm == oid_registry::OID_SIG_ED25519 && length == 32;
    if p256 || ed25519 { Ok(()) } else { Err(Error::Algorithm) }
}

/// Why a request was not made or not taken.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No key could be made.
    #[error("a new key could not be made")]
    Generate(#[source] rcgen::Error),
    /// Longer than [`MAX_REQUEST_LEN`].
    #[error("the certificate request is longer than {MAX_REQUEST_LEN} bytes")]
    TooLong,
    /// Not one well-formed PKCS #10 request.
    #[error("the certificate request is not well formed")]
    NotARequest,
    /// Its signature is not by the key in it.
    #[error("the certificate request is not signed by its own key")]
    NotProved,
    /// A key of another kind.
    #[error("the key in the certificate request is neither P-256 nor Ed25519")]
    Algorithm,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_of_ours_gives_its_public_key() {
        let made = KeyRequest::generate().unwrap();
        let key = PublicKey::from_request(&made.request).unwrap();
        let private = KeyPair::from_pem(&made.key_pem).unwrap();
        assert_eq!(key.der_bytes(), private.der_bytes());
    }

    #[test]
    fn an_ed25519_key_passes_and_a_p384_key_does_not() {
        let request = |algorithm| {
            let key = KeyPair::generate_for(algorithm).unwrap();
            CertificateParams::default().serialize_request(&key).unwrap().der().to_vec()
        };
        PublicKey::from_request(&request(&rcgen::PKCS_ED25519)).unwrap();
        let refused = PublicKey::from_request(&request(&rcgen::PKCS_ECDSA_P384_SHA384));
        assert!(matches!(refused, Err(Error::Algorithm)));
    }

    #[test]
    fn a_request_that_was_changed_or_cut_or_extended_is_refused() {
        let made = KeyRequest::generate().unwrap().request;
        let key = PublicKey::from_request(&made).unwrap();
        for at in 0..made.len() {
            let mut changed = made.clone();
            changed[at] ^= 0x01;
            // What is outside of the signed part may change; the key may not.
            if let Ok(other) = PublicKey::from_request(&changed) {
                assert_eq!(other.der_bytes(), key.der_bytes(), "byte {at}");
            }
            assert!(PublicKey::from_request(&made[..at]).is_err(), "cut at {at}");
        }
        let longer = [&made[..], &[0]].concat();
        assert!(matches!(PublicKey::from_request(&longer), Err(Error::NotARequest)));
        assert!(matches!(PublicKey::from_request(&[0x30; 20_000]), Err(Error::TooLong)));
    }
}
