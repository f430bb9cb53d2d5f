//! Keys of private trees.
//!
//! - `GET /v1/trees/{tree}/key[?epoch=N&generation=N]` → [`TreeKey`] (role agent, where it holds the
//!   tree and may read it, up to the current generation; role publisher of that tree)
//! - `POST /v1/trees/{tree}/secret` → [`ApplyResult`](super::definitions::ApplyResult): draws all keys
//!   of a private tree from another secret from now on (role admin)

use std::fmt;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{generation::Version, name::TreeName};

/// What opens the objects of one tree that were made for one generation, and finds those of all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TreeKey {
    /// Which tree.
    pub tree: TreeName,
    /// Epoch and generation.
    #[serde(flatten)]
    pub version: Version,
    /// Names the tree's objects and opens its pointer; the same for all generations.
    pub names: SecretKey,
    /// Opens what was made for this generation.
    pub key: SecretKey,
}

/// 32 secret bytes, written as 64 hex digits and never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretKey([u8; 32]);

impl SecretKey {
    /// Takes bytes that were drawn or derived elsewhere.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The text form, for whoever stores it.
    pub fn hex(&self) -> String {
        HEXLOWER.encode(&self.0)
    }

    /// Reads the form that [`SecretKey::hex`] writes. The text is not repeated in the error.
    pub fn from_hex(text: &str) -> Result<Self, InvalidKey> {
        let bytes = HEXLOWER.decode(text.as_bytes()).map_err(|_| InvalidKey)?;
        Ok(Self(bytes.try_into().map_err(|_| InvalidKey)?))
    }
}

/// Text that is not 64 lower-case hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a key: expected 64 lower-case hex digits")]
pub struct InvalidKey;

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey")
    }
}

impl Serialize for SecretKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.hex())
    }
}

impl<'de> Deserialize<'de> for SecretKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::from_hex(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_stored_and_sent_and_never_shown() {
        let key = SecretKey::from_bytes([0xab; 32]);
        let json = serde_json::to_string(&key).unwrap();
        assert_eq!(json, format!("\"{}\"", "ab".repeat(32)));
        assert_eq!(serde_json::from_str::<SecretKey>(&json).unwrap(), key);
        assert!(!format!("{key:?}").contains("ab"));
        for bad in ["", "ab", &"AB".repeat(32), &"ab".repeat(33)] {
            let error = serde_json::from_str::<SecretKey>(&format!("\"{bad}\"")).unwrap_err();
            assert!(bad.is_empty() || !error.to_string().contains(bad), "{error}");
        }
    }
}
