//! A pack leads from one generation to another: what one update of a tree moves.
//!
//! Sites are many, links are thin, and an update is fetched from caches that know nothing of
//! trees. So a pack is one immutable file, made once, in three parts: a [`Header`], an index, and
//! frames. The index *is* the difference between two manifests: operations in path order that
//! carry every new entry whole, so that applying them to the `from` manifest must give the `to`
//! manifest, digest and all ([`target_manifest`]). Nothing that grows with the tree crosses the
//! wire. Frames hold content. Each is small, compressed by itself and named by the digest of its
//! stored bytes, so that any run of frames can be fetched by range, resumed and verified alone.
//!
//! ```text
//! header   "MNPK\x01"  required flags (u32, little-endian)
//!          from: 0, or 1 and the digest      entries of `from`
//!          to: digest                        entries of `to`
//!          directory: length and bytes: the blocks below, with digests; with flag 2 also where
//!          in both manifests they are, and in which directories
//!          with flag 1: length and bytes: objects that have the frames of the last blocks
//!          flag 4: some content is the plain text of deflate streams
//! index    operation blocks (zstd), frame blocks (zstd)
//! frames   stored bytes, one frame after the other, without gaps
//! ```
//!
//! Offsets are not written anywhere: they are sums of lengths, so overlapping ranges cannot be
//! expressed. Content refers to frames of the same pack and to entries of the `from` manifest by
//! number, so no pack can name a file outside the tree, and no cycle can be built.
//!
//! Large payloads may lie in objects of their own, which several packs name ([`SharedPart`]).
//!
//! This module holds the format and the decisions that need nothing but it. Reading and writing
//! files is `filetree::pack`.

pub mod chain;
mod columns;
mod frame;
mod header;
mod index;
mod merge;
mod op;
mod part;
mod select;
mod shared;
mod within;

pub use frame::{BaseRange, Codec, Frame, Stream};
pub use header::Header;
pub use index::{Index, IndexBuilder, Keeps, Ops, Outline};
pub use merge::{Merge, target_blocks, target_manifest};
pub use op::{Content, Op, Place, Slice};
pub use part::{PartOf, target_part};
pub use select::{Cost, JOINED_GAP_BYTES, Selection, coalesce};
pub use shared::{SHARED_FROM_BYTES, SharedPart, one_file};

pub use crate::transfer::{Encoder, NoDelta};

use crate::{digest::Digest, manifest, path::TreePath, wire};

/// Most stored bytes of a frame.
pub const MAX_FRAME_STORED_BYTES: u64 = 8 << 20;
/// Most unpacked bytes of a frame.
pub const MAX_FRAME_RAW_BYTES: u64 = 8 << 20;
/// Most bytes of old content that one frame may be compressed against.
pub const MAX_PREFIX_BYTES: u64 = 16 << 20;
/// Most ranges of old content that one frame may be compressed against.
pub const MAX_BASES: usize = 16_384;
/// Most bytes of a deflate stream that a pack looks inside, and of its plain text.
pub const MAX_PLAIN_BYTES: u64 = 1 << 31;
/// Most bytes that say how the streams of one file are made again from their plain text.
pub const MAX_RECIPE_BYTES: u64 = 4 << 20;
/// Most frames of a pack.
pub const MAX_FRAMES: u64 = 4_000_000;
/// Most bytes before the first frame.
pub const MAX_INDEX_BYTES: u64 = 1 << 30;

/// Why bytes are not a pack, or not the pack that was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The bytes are damaged, cut short or of another format.
    #[error("the pack cannot be read: {0}")]
    Malformed(#[from] wire::Malformed),
    /// Written by a newer release.
    #[error("the pack needs features {0:#x} that this program does not have: update it")]
    UnknownFlags(u32),
    /// The index or one of its blocks is not the one that was named.
    #[error("a part of the pack's index arrived as {actual} instead of {expected}: it is damaged")]
    WrongDigest {
        /// What was announced.
        expected: Digest,
        /// What arrived.
        actual: Digest,
    },
    /// Operations are not in strictly ascending path order.
    #[error("the pack names {path} out of order or twice")]
    OutOfOrder {
        /// The operation that comes too late.
        path: TreePath,
    },
    /// An operation refers to a frame, an entry or bytes that do not exist.
    #[error("the pack's operation on {path} refers to {what} that does not exist")]
    BadReference {
        /// The operation's path.
        path: TreePath,
        /// What kind of thing.
        what: &'static str,
    },
    /// The pack is for another generation than the one at hand.
    #[error("the pack leads on from {expected}, but the generation at hand is {actual}")]
    WrongBase {
        /// Named by the header; an empty tree's digest where the pack leads from nothing.
        expected: Digest,
        /// What is at hand.
        actual: Digest,
    },
    /// An operation changes or removes something that the old generation does not have.
    #[error("the pack changes {path}, which its old generation does not have")]
    NotInBase {
        /// The operation's path.
        path: TreePath,
    },
    /// The operations do not give the manifest that the header names.
    #[error("the pack leads to {actual} instead of {expected}: it must not be used")]
    WrongResult {
        /// Named by the header.
        expected: Digest,
        /// What the operations give.
        actual: Digest,
    },
    /// The result is no manifest.
    #[error("the pack leads to an impossible tree: {0}")]
    Manifest(#[from] manifest::Error),
    /// Only a part of the index was fetched, and more is asked of it.
    #[error("only a part of the pack's index is at hand, and all of it is needed")]
    Partial,
    /// More than a limit of this format allows.
    #[error("the pack is larger than this format allows ({0})")]
    TooLarge(&'static str),
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
