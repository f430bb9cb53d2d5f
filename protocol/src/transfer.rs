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

/// How one file is made inside a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Encoder {
    /// zstd against the aligned range of the old file.
    Patch,
    /// Small neighbors together, against their old versions.
    Group,
    /// A librsync delta against the old file's signature.
    Rsync,
    /// The whole content, compressed where that pays.
    Whole,
    /// The same content elsewhere in the old tree.
    Copy,
}

/// Why no delta was used for a file, or a way was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum NoDelta {
    /// The mirror does not hold the base, or holds other bytes there.
    BaseNotHeld,
    /// No pack leads from what the mirror holds to the target.
    NotPublished,
    /// Whole content costs fewer bytes.
    LargerThanWhole,
    /// The publication point did not answer, or refused.
    PointUnreachable,
    /// What arrived is damaged, or is not what was signed.
    Corrupt,
    /// The upstream's file is no longer the announced one.
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

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Pack => "pack",
            Self::Whole => "whole",
            Self::Rsync => "rsync",
            Self::Local => "local",
            Self::Metadata => "metadata",
        })
    }
}

impl fmt::Display for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Patch => "patch",
            Self::Group => "group",
            Self::Rsync => "rsync",
            Self::Whole => "whole",
            Self::Copy => "copy",
        })
    }
}

impl fmt::Display for NoDelta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::BaseNotHeld => "the mirror does not hold the base",
            Self::NotPublished => "no pack leads from what the mirror holds",
            Self::LargerThanWhole => "whole content costs fewer bytes",
            Self::PointUnreachable => "the publication point did not answer",
            Self::Corrupt => "what arrived was damaged",
            Self::SourceMoved => "the upstream's file has changed since",
            Self::StockUpstream => "the upstream is a stock rsync server",
            Self::NoRsync => "there is no rsync program here",
            Self::RsyncFailed => "rsync failed",
            Self::OverLimit => "a limit forbids it",
            Self::Unknown => "for a reason unknown to this version",
        })
    }
}
