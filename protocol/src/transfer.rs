//! How content arrives, and why it did not arrive another way.
//!
//! A fallback must never have to be guessed at: whenever a cheaper way is not taken, the reason is
//! one of these values, and it travels in the run's report.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A way by which content arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Way {
    /// From a pack.
    Pack,
    /// Whole content over HTTPS.
    Whole,
    /// By direct rsync.
    Rsync,
    /// It was on the mirror already.
    Local,
    /// Manifests, offers, listings: what has to be known first.
    Metadata,
}

/// How a file's content is made inside a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Encoder {
    /// Segments, each compressed against the aligned range of the old version.
    Patch,
    /// Small neighbors together, compressed against their old versions.
    Group,
    /// A librsync delta against the old version.
    Rsync,
    /// Its own bytes, compressed where that helps.
    Whole,
    /// The content is somewhere in the old tree, or elsewhere in the new one.
    Copy,
    /// Deflate streams (gzip, zip) as their plain text, compressed against that of the old version.
    Inside,
}

/// Why no delta was used for a file, or a way was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum NoDelta {
    /// The old version that it is made from is not here.
    BaseNotHeld,
    /// The old version that is here is not the one it is made from.
    WrongBase,
    /// No pack carries it.
    NotPublished,
    /// A delta would be no smaller than the whole file.
    LargerThanWhole,
    /// No publication point gave the bytes.
    PointUnreachable,
    /// The bytes are damaged, or are not what was announced.
    Corrupt,
    /// The source has changed since the generation was made.
    SourceMoved,
    /// The upstream runs no publisher.
    StockUpstream,
    /// There is no rsync program on this host.
    NoRsync,
    /// rsync ended with an error.
    RsyncFailed,
    /// A limit of this program forbids it.
    OverLimit,
    /// A reason that this program does not know yet.
    #[serde(other)]
    Unknown,
}

impl Way {
    /// The name that people and programs read.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pack => "pack",
            Self::Whole => "whole",
            Self::Rsync => "rsync",
            Self::Local => "local",
            Self::Metadata => "metadata",
        }
    }
}

impl Encoder {
    /// Every encoder, in the order of reports.
    pub const ALL: [Self; 6] =
        [Self::Patch, Self::Group, Self::Rsync, Self::Whole, Self::Copy, Self::Inside];

    /// The name that people and programs read.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Patch => "patch",
            Self::Group => "group",
            Self::Rsync => "rsync",
            Self::Whole => "whole",
            Self::Copy => "copy",
            Self::Inside => "inside",
        }
    }
}

impl NoDelta {
    /// The reason in words, to end a sentence.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BaseNotHeld => "its old version is not held here",
            Self::WrongBase => "its old version here is not the one the delta was made from",
            Self::NotPublished => "no pack carries it",
            Self::LargerThanWhole => "a delta would be no smaller than the whole file",
            Self::PointUnreachable => "no publication point gave the bytes",
            Self::Corrupt => "the bytes are damaged or not what was announced",
            Self::SourceMoved => "its source has changed since the generation was made",
            Self::StockUpstream => "its upstream is a stock rsync server",
            Self::NoRsync => "there is no rsync program here",
            Self::RsyncFailed => "rsync failed",
            Self::OverLimit => "a limit forbids it",
            Self::Unknown => "of a reason unknown to this version",
        }
    }
}

/// What a file costs in an rsync session beside its data: list entry, checksums, status.
const RSYNC_FILE_BYTES: u64 = 90;
/// A file below this is hardly ever helped by an old version: its blocks are nearly all of it.
const DELTA_PAYS_FROM: u64 = 4 << 10;

/// What rsync is expected to move for a file of `size` bytes, both ways, without compression: the
/// checksums of its old version's blocks, and a third of what changed files were seen to need where
/// there is an old version. An estimate, for choosing and for showing what was saved.
pub fn rsync_estimate(size: u64, has_old_version: bool) -> u64 {
    if !has_old_version || size < DELTA_PAYS_FROM {
        return size.saturating_add(RSYNC_FILE_BYTES);
    }
    let block = size.isqrt().clamp(700, 128 << 10);
    let checksums = size.div_ceil(block).saturating_mul(7);
    (size / 3).saturating_add(checksums).saturating_add(RSYNC_FILE_BYTES)
}

macro_rules! by_name {
    ($($kind:ident)*) => {$(
        impl fmt::Display for $kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }
    )*};
}

by_name! { Way Encoder NoDelta }
