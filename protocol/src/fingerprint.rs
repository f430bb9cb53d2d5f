//! What people compare before they let somebody in.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

const LEN: usize = 16;

/// Names the keys that an enrollment asks for: the first 128 bits of the digest of all of them, in
/// hex, in groups of four. Nobody can make other keys with the same name.
///
/// Reads with or without the hyphens, in either case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyFingerprint([u8; LEN]);

impl KeyFingerprint {
    /// Of the digest of the keys.
    pub fn of(digest: &[u8; 32]) -> Self {
        let mut bytes = [0; LEN];
        bytes.copy_from_slice(&digest[..LEN]);
        Self(bytes)
    }
}

impl fmt::Display for KeyFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, pair) in self.0.chunks(2).enumerate() {
            let hyphen = if number == 0 { "" } else { "-" };
            write!(f, "{hyphen}{}", data_encoding::HEXLOWER.encode(pair))?;
        }
        Ok(())
    }
}

impl FromStr for KeyFingerprint {
    type Err = InvalidFingerprint;

    fn from_str(text: &str) -> Result<Self, InvalidFingerprint> {
        if text.len() > 4 * LEN {
            return Err(InvalidFingerprint);
        }
        let digits = text.replace('-', "").to_ascii_lowercase();
        let bytes = data_encoding::HEXLOWER.decode(digits.as_bytes());
        let bytes = bytes.map_err(|_| InvalidFingerprint)?;
        Ok(Self(bytes.try_into().map_err(|_| InvalidFingerprint)?))
    }
}

impl Serialize for KeyFingerprint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for KeyFingerprint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Text that is no fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a fingerprint: copy all eight groups of four hexadecimal digits that the enrolling program printed"
)]
pub struct InvalidFingerprint;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_reads_back_as_it_is_written_or_typed() {
        let mut digest = [0xab; 32];
        digest[0] = 1;
        let fingerprint = KeyFingerprint::of(&digest);
        let text = fingerprint.to_string();
        assert_eq!(text, "01ab-abab-abab-abab-abab-abab-abab-abab");
        assert_eq!(text.parse(), Ok(fingerprint));
        assert_eq!(text.replace('-', "").to_uppercase().parse(), Ok(fingerprint));
        for wrong in ["", "01ab", &text[..text.len() - 1], &format!("{text}-00"), &"a".repeat(999)]
        {
            assert_eq!(wrong.parse::<KeyFingerprint>(), Err(InvalidFingerprint), "{wrong}");
        }
    }
}
