//! Signed envelopes (DSSE, <https://github.com/secure-systems-lab/dsse>).
//!
//! Why an envelope: the signature covers the payload's *type* and its exact bytes, so nothing is
//! normalized before it is checked, a head can never be taken for a statement, and third parties
//! can check us with tools they already have. This module is the data; signing and checking are the
//! `certs` crate's work, which alone turns a payload into a value.

use std::fmt;

use data_encoding::BASE64;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::Digest;

/// Signatures that one envelope may carry.
pub const MAX_SIGNATURES: usize = 16;

/// A payload, its type and the signatures over both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Envelope {
    /// What the payload is, as a media type: `application/vnd.mirrornet.statement+json`.
    pub payload_type: String,
    /// The exact bytes that were signed.
    pub payload: Bytes,
    /// One or more signatures by distinct keys.
    pub signatures: Vec<Signature>,
}

impl Envelope {
    /// The bytes that a signature covers.
    pub fn signed_bytes(&self) -> Vec<u8> {
        pre_authentication_encoding(&self.payload_type, &self.payload.0)
    }

    /// Names the claim: the digest of the payload's bytes, whoever signed them.
    pub fn payload_digest(&self) -> Digest {
        Digest::of(&self.payload.0)
    }
}

/// One signature of an envelope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Signature {
    /// A hint which key made it; untrusted.
    pub keyid: String,
    /// The signature itself.
    pub sig: Bytes,
}

/// Bytes that are written as base64 text.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Bytes(pub Vec<u8>);

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = BASE64.decode(text.as_bytes());
        bytes.map(Self).map_err(|_| serde::de::Error::custom("not base64"))
    }
}

/// DSSE's PAE: every part is preceded by its length, so no two different inputs encode alike.
pub fn pre_authentication_encoding(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(payload_type.len() + payload.len() + 32);
    bytes.extend_from_slice(b"DSSEv1 ");
    bytes.extend_from_slice(payload_type.len().to_string().as_bytes());
    bytes.push(b' ');
    bytes.extend_from_slice(payload_type.as_bytes());
    bytes.push(b' ');
    bytes.extend_from_slice(payload.len().to_string().as_bytes());
    bytes.push(b' ');
    bytes.extend_from_slice(payload);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_encoding_is_that_of_the_dsse_specification() {
        let encoded = pre_authentication_encoding("http://example.com/HelloWorld", b"hello world");
        assert_eq!(encoded, b"DSSEv1 29 http://example.com/HelloWorld 11 hello world");
    }

    #[test]
    fn an_envelope_is_written_in_the_dsse_json_form() {
        let envelope = Envelope {
            payload_type: "t".into(),
            payload: Bytes(b"hi".to_vec()),
            signatures: vec![Signature { keyid: "k".into(), sig: Bytes(vec![1]) }],
        };
        let json =
            r#"{"payloadType":"t","payload":"aGk=","signatures":[{"keyid":"k","sig":"AQ=="}]}"#;
        assert_eq!(serde_json::to_string(&envelope).unwrap(), json);
        assert_eq!(serde_json::from_str::<Envelope>(json).unwrap(), envelope);
    }
}
