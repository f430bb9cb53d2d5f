//! Names of things: trees, sites, agents and the rest.
//!
//! A name is used as a file name, in URLs, in certificates and as an rsync module name, so one
//! grammar serves all of them: 1 to 64 bytes of `a-z`, `0-9`, `.`, `_` and `-`, beginning and
//! ending with a letter or digit, without `..`.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

const MAX_LEN: usize = 64;

/// Text that is not a name, with the reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{kind} name {text:?} is not valid: use 1 to 64 of a-z, 0-9, '.', '_' and '-', beginning and ending with a letter or digit"
)]
pub struct InvalidName {
    kind: &'static str,
    text: String,
}

fn check(kind: &'static str, text: &str) -> Result<(), InvalidName> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    let valid = bytes.len() <= MAX_LEN
        && bytes.first().is_some_and(|&b| plain(b))
        && bytes.last().is_some_and(|&b| plain(b))
        && bytes.iter().all(|&b| plain(b) || matches!(b, b'.' | b'_' | b'-'))
        && !text.contains("..");
    if valid {
        return Ok(());
    }
    let text = text.chars().take(MAX_LEN + 1).collect();
    Err(InvalidName { kind, text })
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident $kind:literal)*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                check($kind, text)?;
                Ok(Self(text.to_owned()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}

names! {
    /// Name of the whole network; the trust domain of its certificates.
    NetworkName "network"
    /// Name of an upstream.
    UpstreamName "upstream"
    /// Name of a source.
    SourceName "source"
    /// Name of a tree.
    TreeName "tree"
    /// Name of a site.
    SiteName "site"
    /// Name of an identity: an agent, a publisher, an admin or a viewer.
    IdentityName "identity"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_safe_everywhere_pass() {
        for text in ["a", "fedora", "debian-12.security", "x_1", &"a".repeat(64)] {
            assert_eq!(text.parse::<TreeName>().map(|n| n.to_string()), Ok(text.to_owned()));
        }
    }

    #[test]
    fn names_that_could_be_paths_options_or_headers_are_refused() {
        let long = "a".repeat(65);
        for text in
            ["", ".", "..", "a..b", "-a", "a-", ".a", "a/b", "A", "é", "a b", "a\n", "a@1", &long]
        {
            assert!(text.parse::<TreeName>().is_err(), "{text:?}");
        }
    }
}
