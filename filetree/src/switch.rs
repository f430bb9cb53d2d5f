//! Brings a published tree from one generation to the next.
//!
//! *The problem.* Readers must never see a mix of two generations, a kill or power loss at any
//! moment must leave one whole generation, and a tree of a million files must not be copied,
//! linked or even walked because a thousand of them changed.
//!
//! *The answer* (`exchange`): a standby tree, hard-linked to the live one and kept close to it,
//! is brought forward by just the differences, made durable, and swapped with the live tree in one
//! step, or takes its place behind a link that is replaced in one step. Where that is impossible or would harm local content, files are replaced one by one
//! (`in_place`), in an order in which no index names what is not there yet.
//!
//! Plan → content → syncfs → exchange → fsync of both parents → mark → collect: each step is
//! durable before the next begins, and that order is the whole proof of safety.

pub(crate) mod bring;
pub(crate) mod cursor;
pub(crate) mod exchange;
pub(crate) mod in_place;
pub(crate) mod remove;
pub(crate) mod sweep;

use protocol::path::TreePath;
use serde::{Deserialize, Serialize};

use crate::scan::Keep;

/// How a tree was, or is to be, switched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// The whole tree in one step: it is swapped with another.
    Exchange,
    /// The whole tree in one step: the link that it is published behind is replaced.
    Symlink,
    /// File by file.
    InPlace,
}

/// What an assignment asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WantedMode {
    /// `exchange`, unless something makes it impossible or harmful.
    #[default]
    Auto,
    /// `exchange` or an error.
    Exchange,
    /// `in-place` in any case.
    InPlace,
    /// `symlink`, unless local content would be out of sight for a moment; or an error.
    Symlink,
}

/// How to switch.
#[derive(Clone, Copy)]
pub struct SwitchOptions<'a> {
    /// The assignment's filter: tells an excluded local file from one that does not belong.
    pub keep: Keep<'a>,
    /// What the assignment asks for.
    pub mode: WantedMode,
    /// Now, in seconds since 1970.
    pub now: i64,
    /// Seconds for which a retired tree is left alone, for readers that still use it.
    pub linger: i64,
    /// Retired trees that are kept to be brought forward; more where more retire within `linger`.
    pub retired_trees: usize,
    /// Names of files that name others and are replaced after them, in place.
    pub index_names: &'a [&'a str],
    /// Whether what the older generation had and the newer has not goes to the trash.
    pub trash_removed: bool,
    /// Called now and then with (paths done, paths in all).
    pub progress: &'a (dyn Fn(u64, u64) + Sync),
    /// Called once the new generation is what readers see, durably; what follows is tidying up.
    pub switched: &'a (dyn Fn() + Sync),
    #[cfg(test)]
    pub(crate) bad: Option<KnownBad>,
}

impl SwitchOptions<'static> {
    /// File names that repositories read first: they go last.
    pub const INDEX_NAMES: &'static [&'static str] = &[
        "repomd.xml",
        "InRelease",
        "Release",
        "Release.gpg",
        "Packages",
        "Packages.gz",
        "Packages.xz",
        "index.html",
        "SHA256SUMS",
        "primary.xml.gz",
        ".db",
    ];

    /// The defaults of an assignment, at this time.
    pub fn new(now: i64) -> Self {
        Self {
            keep: &crate::scan::keep_all,
            mode: WantedMode::Auto,
            now,
            linger: 15 * 60,
            retired_trees: 3,
            index_names: Self::INDEX_NAMES,
            trash_removed: false,
            progress: &|_, _| {},
            switched: &|| {},
            #[cfg(test)]
            bad: None,
        }
    }
}

impl SwitchOptions<'_> {
    fn is_index(&self, path: &TreePath) -> bool {
        self.index_names.iter().any(|name| path.name().ends_with(name.as_bytes()))
    }

    /// Never, except in a variant that a test has to catch.
    pub(crate) fn leaves_staging_unsynced(&self) -> bool {
        #[cfg(test)]
        return self.skips(KnownBad::NoSyncFs);
        #[cfg(not(test))]
        false
    }

    #[cfg(test)]
    fn skips(&self, step: KnownBad) -> bool {
        self.bad == Some(step)
    }
}

impl std::fmt::Debug for SwitchOptions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SwitchOptions")
            .field("mode", &self.mode)
            .field("now", &self.now)
            .finish_non_exhaustive()
    }
}

/// Variants that a safety test must catch: the order with one step left out.
#[cfg(test)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KnownBad {
    /// Content is not made durable before the exchange.
    NoSyncFs,
    /// Things are collected before the exchange is durable.
    NoParentSync,
    /// Success is recorded before the exchange.
    EarlyMark,
}

/// What a switch did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SwitchReport {
    /// How; `None` where there was nothing to do.
    pub mode: Option<Mode>,
    /// Why that way, for people.
    pub why: String,
    /// Files and symlinks that are new or have new content or attributes.
    pub changed_entries: u64,
    /// Entries of the older generation that are gone.
    pub removed_entries: u64,
    /// Entries that no generation has any more and that stay readable for now.
    pub withdrawn_entries: u64,
    /// Whether a whole new twin had to be linked.
    pub fresh_twin: bool,
    /// Paths that the generation has and that stay as they are, because of a PROTECTED file.
    pub exceptions: Vec<TreePath>,
    /// Local content that was found and carried over.
    pub carried: Vec<TreePath>,
    /// Local content that does not belong and was moved to the trash.
    pub trashed: Vec<TreePath>,
}
