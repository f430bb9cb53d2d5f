//! The root of trust: who may sign what, signed by keys that need not be on any server.
//!
//! Everything that an agent believes hangs on one small document, numbered and signed. It names
//! the authorities of the network's certificates, the keys of the coordinator's heads, each
//! publisher's key with the trees that it may sign for, and the epoch of trees whose numbers had
//! to start over. An agent pins the document of its enrollment and follows it step by step: the
//! next one counts if it is signed both by the one before and by itself. So a coordinator that was
//! broken into can neither sign content nor name another who may.

use std::{collections::BTreeMap, fmt, str::FromStr};

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    generation::{Epoch, RootNumber},
    key::VerifyingKey,
    name::{IdentityName, NetworkName, TreeName},
};

/// Most root keys, head keys, and patterns of one publisher.
pub const MAX_KEYS: usize = 16;

/// Who may sign what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Root {
    /// Which network.
    pub network: NetworkName,
    /// 1 for the first; each replaces the one before it.
    pub number: RootNumber,
    /// When it was made.
    pub created: Timestamp,
    /// The keys that sign the next one.
    pub keys: Vec<VerifyingKey>,
    /// How many of them have to.
    pub threshold: u32,
    /// The keys that heads are signed with.
    pub head_keys: Vec<VerifyingKey>,
    /// The keys that mandates are signed with. Where there is one, agents carry out what it has signed
    /// and nothing else.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub definition_keys: Vec<VerifyingKey>,
    /// Root certificates of the network, PEM: more than one while they are being exchanged.
    pub authorities: String,
    /// Who signs content.
    #[serde(default)]
    pub publishers: Vec<PublisherKey>,
    /// The epoch of each tree that is not in its first.
    #[serde(default)]
    pub epochs: BTreeMap<TreeName, Epoch>,
}

/// A publisher's key and the trees that it may sign for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PublisherKey {
    /// Whose it is.
    pub publisher: IdentityName,
    /// The key.
    pub key: VerifyingKey,
    /// Names of trees, each with at most one `*`.
    pub trees: Vec<TreePattern>,
}

/// Why a root cannot be one, whoever signed it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// No threshold, or one that cannot be reached.
    #[error("it asks for {threshold} signatures and names {keys} different keys")]
    Threshold {
        /// Asked for.
        threshold: u32,
        /// Different keys named.
        keys: usize,
    },
    /// Heads could not be checked.
    #[error("it names no key for heads")]
    NoHeadKey,
    /// More than anybody needs.
    #[error("it names more than {MAX_KEYS} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
    },
}

impl Root {
    /// Whether it can be a root at all.
    pub fn check(&self) -> Result<(), Invalid> {
        let too_many = |what| Err(Invalid::TooMany { what });
        if self.keys.len() > MAX_KEYS {
            return too_many("root keys");
        }
        if self.head_keys.len() > MAX_KEYS {
            return too_many("head keys");
        }
        if self.definition_keys.len() > MAX_KEYS {
            return too_many("definitions keys");
        }
        if self.publishers.iter().any(|publisher| publisher.trees.len() > MAX_KEYS) {
            return too_many("patterns of one publisher");
        }
        let mut keys = self.keys.clone();
        keys.sort_unstable();
        keys.dedup();
        let reachable = usize::try_from(self.threshold).is_ok_and(|wanted| wanted <= keys.len());
        if self.threshold == 0 || !reachable {
            return Err(Invalid::Threshold { threshold: self.threshold, keys: keys.len() });
        }
        if self.head_keys.is_empty() {
            return Err(Invalid::NoHeadKey);
        }
        Ok(())
    }

    /// The keys with which `publisher` may sign for `tree`.
    pub fn keys_for(&self, publisher: &IdentityName, tree: &TreeName) -> Vec<VerifyingKey> {
        let may = |entry: &&PublisherKey| {
            entry.publisher == *publisher && entry.trees.iter().any(|trees| trees.matches(tree))
        };
        self.publishers.iter().filter(may).map(|entry| entry.key).collect()
    }

    /// The epoch in which a tree's generations are numbered.
    pub fn epoch(&self, tree: &TreeName) -> Epoch {
        self.epochs.get(tree).copied().unwrap_or(Epoch::FIRST)
    }
}

/// Names of trees: a name in which one `*` may stand for anything.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TreePattern(String);

/// Text that is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no pattern of tree names: write a name, or one with a single *, for example fedora-*"
)]
pub struct InvalidPattern(String);

impl TreePattern {
    /// Every tree.
    pub fn all() -> Self {
        Self("*".into())
    }

    /// Whether the tree is one of them.
    pub fn matches(&self, tree: &TreeName) -> bool {
        let tree = tree.as_str();
        match self.0.split_once('*') {
            None => tree == self.0,
            Some((before, after)) => {
                tree.strip_prefix(before).is_some_and(|rest| rest.ends_with(after))
            }
        }
    }
}

impl FromStr for TreePattern {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Self, InvalidPattern> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-_*".contains(c);
        let valid = (1..=64).contains(&text.len())
            && text.chars().all(plain)
            && text.matches('*').count() <= 1;
        if valid {
            Ok(Self(text.into()))
        } else {
            Err(InvalidPattern(text.chars().take(65).collect()))
        }
    }
}

impl fmt::Display for TreePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TreePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for TreePattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for TreePattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(name: &str) -> TreeName {
        name.parse().unwrap()
    }

    #[test]
    fn a_pattern_is_a_name_with_at_most_one_star() {
        let matches = |pattern: &str, name: &str| {
            pattern.parse::<TreePattern>().unwrap().matches(&tree(name))
        };
        assert!(matches("*", "fedora") && matches("fedora", "fedora"));
        assert!(matches("fedora-*", "fedora-44") && !matches("fedora-*", "fedora"));
        assert!(matches("a*z", "abz") && !matches("aa*aa", "aaa"));
        assert!(!matches("fedora", "fedora-44") && !matches("*-x", "x"));
        for bad in ["", "a**", "a*b*", "A", "a/b", "?", "a b"] {
            assert!(bad.parse::<TreePattern>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_root_needs_a_threshold_that_its_different_keys_can_reach() {
        let key = |byte| VerifyingKey::from_bytes([byte; 32]);
        let root = |keys: Vec<VerifyingKey>, threshold| Root {
            network: "net".parse().unwrap(),
            number: RootNumber(1),
            created: Timestamp::UNIX_EPOCH,
            keys,
            threshold,
            head_keys: vec![key(9)],
            definition_keys: vec![],
            authorities: String::new(),
            publishers: vec![],
            epochs: BTreeMap::new(),
        };
        assert_eq!(root(vec![key(1), key(2)], 2).check(), Ok(()));
        let unreachable = Err(Invalid::Threshold { threshold: 2, keys: 1 });
        assert_eq!(root(vec![key(1), key(1)], 2).check(), unreachable);
        assert!(root(vec![key(1)], 0).check().is_err());
        assert!(root(vec![key(1); MAX_KEYS + 1], 1).check().is_err());
        let no_head = Root { head_keys: vec![], ..root(vec![key(1)], 1) };
        assert_eq!(no_head.check(), Err(Invalid::NoHeadKey));
    }

    #[test]
    fn a_key_signs_only_for_its_publisher_and_its_trees() {
        let key = VerifyingKey::from_bytes([1; 32]);
        let entry = PublisherKey {
            publisher: "build".parse().unwrap(),
            key,
            trees: vec!["fedora-*".parse().unwrap()],
        };
        let root = Root {
            network: "net".parse().unwrap(),
            number: RootNumber(1),
            created: Timestamp::UNIX_EPOCH,
            keys: vec![key],
            threshold: 1,
            head_keys: vec![key],
            definition_keys: vec![],
            authorities: String::new(),
            publishers: vec![entry],
            epochs: BTreeMap::from([(tree("fedora-44"), Epoch(3))]),
        };
        let keys = |publisher: &str, name| root.keys_for(&publisher.parse().unwrap(), &tree(name));
        assert_eq!(keys("build", "fedora-44"), [key]);
        assert!(keys("build", "debian").is_empty() && keys("other", "fedora-44").is_empty());
        assert_eq!(root.epoch(&tree("fedora-44")), Epoch(3));
        assert_eq!(root.epoch(&tree("debian")), Epoch::FIRST);
    }
}
