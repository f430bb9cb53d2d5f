//! Numbers that only ever grow: generations of content, revisions of wanted state, and the epochs
//! that stand above both.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::name::TreeName;

macro_rules! numbers {
    ($($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The number that follows.
            pub const fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    )*};
}

numbers! {
    /// Number of a tree's content: 1, 2, 3… within an epoch.
    Generation
    /// Raised, signed, when a tree's generation numbers have to start over.
    Epoch
    /// Number of the *wanted* state: definitions, assignments, grants.
    Revision
    /// Raised when a coordinator is restored from a backup, so that its lower revisions are obeyed.
    RestoreEpoch
    /// Number of the coordinator's signed head.
    HeadNumber
    /// Number of the root document: who may sign what.
    RootNumber
}

impl Epoch {
    /// The epoch of every tree whose numbers never had to start over.
    pub const FIRST: Self = Self(1);
}

/// A place in a tree's history. Ordered by epoch first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Version {
    /// The tree's epoch.
    pub epoch: Epoch,
    /// The generation within the epoch.
    pub generation: Generation,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.generation)
    }
}

/// `TREE@N`: a tree at one of its generations, in the current epoch.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TreeAt {
    /// Which tree.
    pub tree: TreeName,
    /// Which generation.
    pub generation: Generation,
}

/// Text that is not `TREE@N`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} does not name a generation: write TREE@N, for example fedora@12")]
pub struct InvalidTreeAt(String);

impl FromStr for TreeAt {
    type Err = InvalidTreeAt;

    fn from_str(text: &str) -> Result<Self, InvalidTreeAt> {
        let invalid = || InvalidTreeAt(text.to_owned());
        let (tree, number) = text.split_once('@').ok_or_else(invalid)?;
        Ok(Self {
            tree: tree.parse().map_err(|_| invalid())?,
            generation: Generation(number.parse().map_err(|_| invalid())?),
        })
    }
}

impl fmt::Display for TreeAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.tree, self.generation)
    }
}

impl Serialize for TreeAt {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TreeAt {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}
