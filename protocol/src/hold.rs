//! Names of holds.
//!
//! What a guard stops has no generation number: it may never become a generation. It is named
//! after its manifest, so that the same content held again has the same name, and nobody who
//! approves it by that name approves anything else.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::Digest;

const PREFIX: &str = "hold-";
/// Hexadecimal digits of the manifest's digest: enough to tell the few holds of a network apart.
const DIGITS: usize = 12;

/// The short name of a hold: `hold-` and the first twelve digits of its manifest's digest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HoldId(String);

/// Text that is not the name of a hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} does not name a hold: write hold- and twelve hexadecimal digits")]
pub struct InvalidHoldId(String);

impl HoldId {
    /// The name of the hold of a manifest.
    pub fn of(manifest: &Digest) -> Self {
        Self(manifest.hex().chars().take(DIGITS).collect())
    }
}

impl FromStr for HoldId {
    type Err = InvalidHoldId;

    fn from_str(text: &str) -> Result<Self, InvalidHoldId> {
        let digits = text.strip_prefix(PREFIX);
        let is_hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
        match digits.filter(|digits| digits.len() == DIGITS && digits.chars().all(is_hex)) {
            Some(digits) => Ok(Self(digits.to_owned())),
            None => Err(InvalidHoldId(text.to_owned())),
        }
    }
}

impl fmt::Display for HoldId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", self.0)
    }
}

impl Serialize for HoldId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HoldId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hold_is_named_after_its_manifest_and_read_back() {
        let id = HoldId::of(&Digest::of(b"x"));
        assert_eq!(id, HoldId::of(&Digest::of(b"x")));
        assert_eq!(id.to_string().parse(), Ok(id.clone()));
        assert_ne!(id, HoldId::of(&Digest::of(b"y")));
        for wrong in ["", "hold-", "hold-12", "hold-12345678901G", "fedora", "hold-1234567890123"] {
            assert!(wrong.parse::<HoldId>().is_err(), "{wrong}");
        }
    }
}
