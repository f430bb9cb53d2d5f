//! Signing and checking statements, offers, heads and receipts.
//!
//! Keys here sign content and nothing else; the keys of certificates authenticate connections and
//! sign nothing else. What is not verified has another type: the bytes of an [`Envelope`] become a
//! value only by [`verify`].

use std::{fmt, path::Path};

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use protocol::dsse::{Bytes, Envelope, MAX_SIGNATURES, Signature};
pub use protocol::key::VerifyingKey;
use rcgen::{KeyPair, PublicKeyData, SigningKey as _};
use serde::{Serialize, de::DeserializeOwned};

use crate::keyfile;

/// An Ed25519 private key.
pub struct SigningKey {
    pair: KeyPair,
    public: VerifyingKey,
}

impl SigningKey {
    /// Makes a new key.
    pub fn generate() -> Result<Self, Error> {
        let pair = KeyPair::generate_for(&rcgen::PKCS_ED25519).map_err(Error::Generate)?;
        Self::from_pair(pair).ok_or(Error::NotEd25519)
    }

    /// Reads a key file that [`SigningKey::save`] wrote.
    pub fn load(path: &Path) -> Result<Self, Error> {
        Self::from_pem(&keyfile::read_text(path)?)
    }

    /// Writes the key to a new key file (mode 0600, PKCS #8 in PEM).
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        Ok(keyfile::create(path, self.pair.serialize_pem().as_bytes())?)
    }

    /// The public half.
    pub fn verifying_key(&self) -> VerifyingKey {
        self.public
    }

    pub(crate) fn from_pem(pem: &str) -> Result<Self, Error> {
        let pair = KeyPair::from_pem(pem).map_err(|_| Error::NotEd25519)?;
        Self::from_pair(pair).ok_or(Error::NotEd25519)
    }

    pub(crate) fn to_pem(&self) -> String {
        self.pair.serialize_pem()
    }

    fn from_pair(pair: KeyPair) -> Option<Self> {
        let is_ed25519 = pair.is_compatible(&rcgen::PKCS_ED25519);
        let public: [u8; VerifyingKey::LEN] = pair.der_bytes().try_into().ok()?;
        is_ed25519.then(|| Self { pair, public: VerifyingKey::from_bytes(public) })
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.public)
    }
}

/// Signs `payload`, which is of type `payload_type`.
pub fn sign(key: &SigningKey, payload_type: &str, payload: Vec<u8>) -> Result<Envelope, Error> {
    let mut envelope = unsigned(payload_type, payload);
    add_signature(key, &mut envelope)?;
    Ok(envelope)
}

/// An envelope that nobody has signed yet.
pub fn unsigned(payload_type: &str, payload: Vec<u8>) -> Envelope {
    Envelope {
        payload_type: payload_type.to_owned(),
        payload: Bytes(payload),
        signatures: Vec::new(),
    }
}

/// Signs the JSON form of `value`, which is of type `payload_type`.
pub fn sign_json(
    key: &SigningKey,
    payload_type: &str,
    value: &impl Serialize,
) -> Result<Envelope, Error> {
    sign(key, payload_type, serde_json::to_vec(value).map_err(Error::Encode)?)
}

/// Adds a further signature to an envelope.
pub fn add_signature(key: &SigningKey, envelope: &mut Envelope) -> Result<(), Error> {
    let signature = key.pair.sign(&envelope.signed_bytes()).map_err(Error::Generate)?;
    envelope.signatures.push(Signature { keyid: key.public.id(), sig: Bytes(signature) });
    Ok(())
}

/// What a verified envelope said, and who said it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified<T> {
    /// The payload.
    pub content: T,
    /// The first of the keys that has signed it.
    pub signer: VerifyingKey,
}

/// Checks that one of `keys` has signed `envelope`, that its payload is of type `payload_type` and
/// at most `max_len` bytes long, and only then reads it.
pub fn verify<T: DeserializeOwned>(
    envelope: &Envelope,
    payload_type: &str,
    keys: &[VerifyingKey],
    max_len: usize,
) -> Result<Verified<T>, Error> {
    let signer = verify_signature(envelope, payload_type, keys, max_len)?;
    let content = serde_json::from_slice(&envelope.payload.0).map_err(Error::Content)?;
    Ok(Verified { content, signer })
}

/// Like [`verify`], for payloads that are not JSON.
pub fn verify_bytes<'a>(
    envelope: &'a Envelope,
    payload_type: &str,
    keys: &[VerifyingKey],
    max_len: usize,
) -> Result<Verified<&'a [u8]>, Error> {
    let signer = verify_signature(envelope, payload_type, keys, max_len)?;
    Ok(Verified { content: &envelope.payload.0, signer })
}

/// Checks that at least `threshold` different ones of `keys` have signed `envelope`.
pub fn verify_threshold(
    envelope: &Envelope,
    payload_type: &str,
    keys: &[VerifyingKey],
    threshold: u32,
    max_len: usize,
) -> Result<(), Error> {
    let mut left = keys.to_vec();
    for _ in 0..threshold.max(1) {
        // A key that has signed is taken out, so that no key counts twice.
        let signer = verify_signature(envelope, payload_type, &left, max_len)?;
        left.retain(|key| *key != signer);
    }
    Ok(())
}

fn verify_signature(
    envelope: &Envelope,
    payload_type: &str,
    keys: &[VerifyingKey],
    max_len: usize,
) -> Result<VerifyingKey, Error> {
    if envelope.payload_type != payload_type {
        return Err(Error::WrongType {
            found: envelope.payload_type.chars().take(100).collect(),
            wanted: payload_type.to_owned(),
        });
    }
    if envelope.payload.0.len() > max_len {
        return Err(Error::TooLong { len: envelope.payload.0.len(), max_len });
    }
    if envelope.signatures.len() > MAX_SIGNATURES {
        return Err(Error::TooManySignatures);
    }
    let signed = envelope.signed_bytes();
    for signature in &envelope.signatures {
        // The key id only spares work; it decides nothing.
        let candidates = keys.iter().filter(|key| key.id() == signature.keyid);
        for key in candidates {
            let public = UnparsedPublicKey::new(&ED25519, key.as_bytes());
            if public.verify(&signed, &signature.sig.0).is_ok() {
                return Ok(*key);
            }
        }
    }
    Err(Error::NotSigned { keyids: envelope.signatures.iter().map(shortened_id).collect() })
}

fn shortened_id(signature: &Signature) -> String {
    signature.keyid.chars().take(16).collect()
}

/// Why something was not signed, or is not taken as signed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The key could not be made or used.
    #[error("the signing key could not be made or used")]
    Generate(#[source] rcgen::Error),
    /// The key file could not be read or written.
    #[error(transparent)]
    KeyFile(#[from] keyfile::Error),
    /// The key file holds something else.
    #[error("the file holds no Ed25519 private key in PEM")]
    NotEd25519,
    /// The value has no JSON form.
    #[error("the value to sign has no JSON form")]
    Encode(#[source] serde_json::Error),
    /// A payload of another type.
    #[error("the envelope holds {found:?}, but {wanted:?} was expected")]
    WrongType {
        /// The type found.
        found: String,
        /// The type expected.
        wanted: String,
    },
    /// A payload that is too long.
    #[error("the signed payload is {len} bytes long, more than the {max_len} allowed here")]
    TooLong {
        /// Its length, in bytes.
        len: usize,
        /// The limit, in bytes.
        max_len: usize,
    },
    /// More than [`MAX_SIGNATURES`].
    #[error("the envelope has more than {MAX_SIGNATURES} signatures")]
    TooManySignatures,
    /// No signature by a key that counts.
    #[error("no key that is trusted for this has signed it (signed by: {keyids:?})")]
    NotSigned {
        /// The ids that the envelope names; untrusted.
        keyids: Vec<String>,
    },
    /// Well signed, but not of the expected form.
    #[error("the signed payload cannot be read")]
    Content(#[source] serde_json::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPE: &str = "application/vnd.mirrornet.test+json";

    fn envelope(key: &SigningKey) -> Envelope {
        sign_json(key, TYPE, &["hello"]).unwrap()
    }

    #[test]
    fn what_was_signed_is_read_back_with_its_signer() {
        let (one, two) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
        let keys = [one.verifying_key(), two.verifying_key()];
        let verified = verify::<Vec<String>>(&envelope(&two), TYPE, &keys, 100).unwrap();
        assert_eq!(verified.content, ["hello"]);
        assert_eq!(verified.signer, two.verifying_key());
    }

    #[test]
    fn every_changed_byte_of_payload_type_or_signature_is_noticed() {
        let key = SigningKey::generate().unwrap();
        let keys = [key.verifying_key()];
        let good = envelope(&key);
        for at in 0..good.payload.0.len() {
            let mut bad = good.clone();
            bad.payload.0[at] ^= 1;
            assert!(matches!(verify_bytes(&bad, TYPE, &keys, 100), Err(Error::NotSigned { .. })));
        }
        for at in 0..good.signatures[0].sig.0.len() {
            let mut bad = good.clone();
            bad.signatures[0].sig.0[at] ^= 1;
            assert!(matches!(verify_bytes(&bad, TYPE, &keys, 100), Err(Error::NotSigned { .. })));
        }
        let mut bad = good.clone();
        bad.payload_type = "application/vnd.mirrornet.head+json".into();
        let retyped = verify_bytes(&bad, &bad.payload_type.clone(), &keys, 100);
        assert!(matches!(retyped, Err(Error::NotSigned { .. })));
    }

    #[test]
    fn the_wrong_type_key_or_length_is_refused() {
        let key = SigningKey::generate().unwrap();
        let stranger = SigningKey::generate().unwrap().verifying_key();
        let good = envelope(&key);
        let keys = [key.verifying_key()];
        let check = |payload_type, keys: &[VerifyingKey], max_len| {
            verify::<Vec<String>>(&good, payload_type, keys, max_len).unwrap_err()
        };
        assert!(matches!(check("other", &keys, 100), Error::WrongType { .. }));
        assert!(matches!(check(TYPE, &[stranger], 100), Error::NotSigned { .. }));
        assert!(matches!(check(TYPE, &[], 100), Error::NotSigned { .. }));
        assert!(matches!(check(TYPE, &keys, 5), Error::TooLong { len: 9, max_len: 5 }));
        let unreadable = verify::<u64>(&good, TYPE, &keys, 100).unwrap_err();
        assert!(matches!(unreadable, Error::Content(_)));
    }

    #[test]
    fn an_envelope_that_is_all_signatures_is_refused_before_any_is_checked() {
        let key = SigningKey::generate().unwrap();
        let mut flood = envelope(&key);
        flood.signatures = vec![flood.signatures[0].clone(); MAX_SIGNATURES + 1];
        let refused = verify_bytes(&flood, TYPE, &[key.verifying_key()], 100);
        assert!(matches!(refused, Err(Error::TooManySignatures)));
    }

    #[test]
    fn a_key_survives_its_file_and_a_certificate_key_is_no_signing_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("signing.key");
        let key = SigningKey::generate().unwrap();
        key.save(&path).unwrap();
        let loaded = SigningKey::load(&path).unwrap();
        assert_eq!(loaded.verifying_key(), key.verifying_key());
        verify_bytes(&envelope(&loaded), TYPE, &[key.verifying_key()], 100).unwrap();
        let other = crate::csr::KeyRequest::generate().unwrap();
        assert!(matches!(SigningKey::from_pem(&other.key_pem), Err(Error::NotEd25519)));
    }
}
