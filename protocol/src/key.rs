//! Keys that statements, offers, heads and receipts are checked with.
//!
//! Pure data: the text form travels in API types, definition files and `identity.json`. Checking a
//! signature is the `certs` crate's work.

use std::{fmt, str::FromStr};

use data_encoding::BASE64;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

const TAG: &str = "ed25519:";

/// An Ed25519 public key, written `ed25519:<base64 of its 32 bytes>`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VerifyingKey([u8; 32]);

impl VerifyingKey {
    /// Length of the binary form, in bytes.
    pub const LEN: usize = 32;

    /// Takes the raw public key. Whether it is a point of the curve is found when it is used.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The raw public key.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The short name of the key in envelopes: the first 16 hex digits of its BLAKE3 digest. A
    /// hint for choosing among keys, never a proof.
    pub fn id(&self) -> String {
        let mut id = blake3::hash(&self.0).to_hex().to_string();
        id.truncate(16);
        id
    }
}

impl fmt::Display for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{TAG}{}", BASE64.encode(&self.0))
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for VerifyingKey {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        let encoded = text.strip_prefix(TAG).ok_or(InvalidKey)?;
        if encoded.len() > BASE64.encode_len(Self::LEN) {
            return Err(InvalidKey);
        }
        let bytes = BASE64.decode(encoded.as_bytes()).map_err(|_| InvalidKey)?;
        Ok(Self(bytes.try_into().map_err(|_| InvalidKey)?))
    }
}

impl Serialize for VerifyingKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for VerifyingKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Text that is not `ed25519:` and the base64 of 32 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a verifying key: expected ed25519: and the base64 of 32 bytes")]
pub struct InvalidKey;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_form_reads_back_and_anything_else_is_refused() {
        let key = VerifyingKey::from_bytes([7; 32]);
        let text = key.to_string();
        assert_eq!(text.parse(), Ok(key));
        assert_eq!(key.id().len(), 16);
        let long = format!("{text}AAAA");
        for refused in ["", "ed25519:", "ed25519:AAAA", &text[8..], &long] {
            assert_eq!(refused.parse::<VerifyingKey>(), Err(InvalidKey), "{refused}");
        }
    }
}
