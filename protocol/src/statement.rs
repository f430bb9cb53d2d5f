//! Signed claims: what may be believed about content, and who said it.
//!
//! Each travels in an [`Envelope`](crate::dsse::Envelope) and is named by the digest of its exact
//! payload bytes. A publisher states what a generation is and which packs lead to it; the
//! coordinator states, for a short time, which statements are current; an agent states what it
//! durably holds. Connections are authenticated elsewhere (X.509); these keys sign only claims.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    digest::Digest,
    generation::{Epoch, Generation, HeadNumber, RestoreEpoch, Revision, RootNumber, Version},
    name::{IdentityName, NetworkName, SiteName, TreeName},
    root::Root,
    v1::mandates::Mandate,
};

/// A payload with the media type under which it is signed.
pub trait Claim: Serialize + for<'de> Deserialize<'de> {
    /// Media type; a signature for another type does not verify.
    const PAYLOAD_TYPE: &'static str;
    /// Largest payload that a reader accepts, in bytes.
    const MAX_LEN: usize;
}

/// "Generation N of tree T is the manifest D" (signed by the publisher).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Statement {
    /// Which tree.
    pub tree: TreeName,
    /// The tree's epoch.
    pub epoch: Epoch,
    /// The number of this generation.
    pub generation: Generation,
    /// Digest of the manifest's block list.
    pub manifest: Digest,
    /// Length of the encoded block list, in bytes.
    pub manifest_length: u64,
    /// Entries of the manifest.
    pub entries: u64,
    /// Content bytes of the manifest.
    pub bytes: u64,
    /// The generation that this one replaces; `None` for the first.
    pub parent: Option<Parent>,
    /// What the publisher's guard said about the step from the parent.
    pub guard: GuardVerdict,
    /// When the publisher made it.
    pub created: Timestamp,
    /// After this, an agent without a valid head does not follow it.
    pub expires: Timestamp,
    /// On what it rests, where that is not the coordinator's word alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basis: Option<Basis>,
}

/// On what a statement rests whose publisher may go on while the coordinator cannot be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Basis {
    /// Names what the definitions said of the tree when it was made, as the publisher's orders did:
    /// under others the coordinator does not take it.
    pub rules: Digest,
    /// Since when the coordinator could not be reached, where the publisher pointed to this
    /// generation without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alone: Option<Timestamp>,
    /// The highest number under which something was pointed to that did not become part of the
    /// history: whoever followed it must find this generation newer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub above: Option<Generation>,
}

/// The generation before, by number and content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Parent {
    /// Its number.
    pub generation: Generation,
    /// Its manifest.
    pub manifest: Digest,
}

/// Why a step from one generation to the next was allowed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GuardVerdict {
    /// Files of the parent that are gone.
    pub removed_files: u64,
    /// Their bytes.
    pub removed_bytes: u64,
    /// Set when an admin approved what a guard had stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved_by: Option<IdentityName>,
}

/// "This pack leads from one manifest to another" (signed by the publisher).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Offer {
    /// Which tree.
    pub tree: TreeName,
    /// Manifest that the pack starts from; `None` for a pack from nothing.
    pub from: Option<Digest>,
    /// Manifest that the pack leads to.
    pub to: Digest,
    /// Digest of the whole pack; also its name.
    pub pack: Digest,
    /// Length of the pack, in bytes.
    pub length: u64,
    /// Bytes from the pack's beginning to its first frame.
    pub index_length: u64,
    /// Digest of those bytes.
    pub index: Digest,
    /// The beginning of the index, where the rest of it may be fetched in parts: it names them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub front: Option<PackFront>,
    /// Bytes of the frames that lie in objects of their own, besides the pack.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub shared_length: u64,
    /// Set when the pack is encrypted: how, never with what key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<String>,
    /// What it took to make and what it saves; for people, nothing is decided by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub figures: Option<PackFigures>,
}

impl Offer {
    /// Bytes of the pack and of what it shares with others.
    pub fn total_length(&self) -> u64 {
        self.length.saturating_add(self.shared_length)
    }
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// The beginning of a pack, which has the digest of every block of its index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PackFront {
    /// Bytes from the pack's beginning to the first block.
    pub length: u64,
    /// Digest of those bytes.
    pub digest: Digest,
}

/// What a pack took to make, and what it stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PackFigures {
    /// Bytes of the files that it makes: what whole files would be.
    pub content_bytes: u64,
    /// What rsync would be expected to move instead: an estimate.
    pub rsync_bytes: u64,
    /// CPU time of the publisher.
    pub cpu_milliseconds: u64,
}

/// Which statements are current (signed by the coordinator, short-lived).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Head {
    /// Which network.
    pub network: NetworkName,
    /// Grows with every head.
    pub number: HeadNumber,
    /// The root document that is current: an older one is not followed beside this head.
    pub root: RootNumber,
    /// Grows when the coordinator is restored from a backup.
    pub restore_epoch: RestoreEpoch,
    /// The wanted state that this head belongs to.
    pub revision: Revision,
    /// When it was signed.
    pub issued: Timestamp,
    /// After this the trees are stale: keep serving, change nothing.
    pub expires: Timestamp,
    /// The current statement of each tree that the receiver may hold.
    pub trees: BTreeMap<TreeName, HeadTree>,
}

/// A tree's place in a [`Head`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HeadTree {
    /// Epoch and generation.
    #[serde(flatten)]
    pub version: Version,
    /// Digest of the statement's payload.
    pub statement: Digest,
    /// Digest of the manifest.
    pub manifest: Digest,
    /// The newest generation that the receiver ever confirmed: it must not go back behind it, also
    /// when it has lost its own memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<Version>,
    /// Whether newer statements may be followed from the publication points while no head that is
    /// valid can be had.
    #[serde(default)]
    pub autonomous: bool,
}

/// "I durably hold this generation" (signed by the agent).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Receipt {
    /// The agent.
    pub agent: IdentityName,
    /// Its site.
    pub site: SiteName,
    /// Which tree.
    pub tree: TreeName,
    /// What it holds: a publisher's generation, or its own observed one.
    pub version: Version,
    /// Digest of the manifest that it holds (before its filter).
    pub manifest: Digest,
    /// Digest of the filter through which it holds it.
    pub filter: Digest,
    /// Whether the agent itself observed this generation at a stock rsync server.
    pub observed: bool,
    /// Files it keeps.
    pub files: u64,
    /// Content bytes it keeps.
    pub bytes: u64,
    /// When it was applied.
    pub applied: Timestamp,
}

macro_rules! claims {
    ($($name:ident $kind:literal $max:expr;)*) => {$(
        impl Claim for $name {
            const PAYLOAD_TYPE: &'static str =
                concat!("application/vnd.mirrornet.", $kind, ".v1+json");
            const MAX_LEN: usize = $max;
        }
    )*};
}

claims! {
    Statement "statement" 16 << 10;
    Offer "offer" 16 << 10;
    Head "head" 8 << 20;
    Receipt "receipt" 16 << 10;
    Root "root" 64 << 10;
    Mandate "mandate" 512 << 10;
}
