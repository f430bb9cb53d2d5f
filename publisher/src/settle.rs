//! Taking a tree only once it has settled.
//!
//! Whoever builds a release copies it into place for minutes, and a scan in the middle would make
//! a generation of half a release. So a tree that differs from the announced generation is looked
//! at again after a quiet time, and is taken only when both looks see the same tree. The second
//! look opens nothing that the first has read, and a tree that did not change gets no second look.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use filetree::{
    fs::{self, Fs},
    scan::{self, Keep, Progress, Scan, ScanOptions, ScanRecord},
};
use jiff::Timestamp;
use protocol::{digest::Digest, filter::Walk, manifest::Manifest, symlinks::Symlinks};

/// How often a tree that keeps changing is looked at before it is left for later.
const LOOKS: u32 = 10;
/// How soon a wait notices that it should end.
const TICK: Duration = Duration::from_millis(50);

/// How to take a tree.
pub struct Look<'a> {
    /// The disk.
    pub fs: &'a Fs,
    /// The tree's root.
    pub root: &'a Path,
    /// The tree's limit.
    pub keep: Keep<'a>,
    /// Which symbolic links the tree has.
    pub symlinks: Symlinks,
    /// The tree's limit when it asks for rule files in the tree; it then decides in its place.
    pub rule_files: Option<&'a Walk>,
    /// Manifest of the announced generation.
    pub announced: Option<Digest>,
    /// What somebody else on this host has digested.
    pub vouched: Option<&'a Manifest>,
    /// Asked after a look: whether whoever writes the tree says that it is whole. Then one look is
    /// enough.
    pub is_whole: &'a (dyn Fn() -> bool + Sync),
    /// How long the tree must stay as it is.
    pub quiet: Duration,
    /// The clock.
    pub now: &'a (dyn Fn() -> Timestamp + Sync),
    /// How far the scan is.
    pub progress: &'a (dyn Fn(Progress) + Sync),
    /// Set to end early.
    pub cancel: &'a AtomicBool,
}

/// Why a tree was not taken.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The root is missing or cannot be opened.
    #[error("the root {} of the tree cannot be opened", .root.display())]
    Root {
        /// Where it should be.
        root: PathBuf,
        /// What the system says.
        source: fs::Error,
    },
    /// It was different at every look.
    #[error("the tree was different at each of {LOOKS} looks; it is taken once it stays as it is")]
    Unsettled,
    /// Something could not be read.
    #[error("{reason}")]
    Unreadable {
        /// What, and why.
        reason: String,
        /// What was read all the same.
        record: Box<ScanRecord>,
    },
    /// Asked to end.
    #[error("the scan was stopped")]
    Cancelled,
    /// The tree cannot be carried.
    #[error(transparent)]
    Scan(scan::Error),
}

/// Looks at a tree until it has settled, beside the record of an earlier scan. Blocks.
pub fn take(look: &Look<'_>, earlier: ScanRecord) -> Result<Scan, Error> {
    let root = look
        .fs
        .open_root(look.root)
        .map_err(|source| Error::Root { root: look.root.to_owned(), source })?;
    let mut record = earlier;
    let mut last: Option<Digest> = None;
    for _ in 0..LOOKS {
        let now = i64::try_from((look.now)().as_nanosecond()).unwrap_or(i64::MAX);
        let options = ScanOptions {
            keep: look.keep,
            rule_files: look.rule_files,
            vouched: look.vouched,
            symlinks: look.symlinks,
            now,
            progress: look.progress,
            cancel: look.cancel,
            ..ScanOptions::new(now)
        };
        match scan::scan(&root, &record, &options) {
            Ok(scan) => {
                let digest = scan.manifest.digest();
                let seen = last == Some(digest) || look.announced == Some(digest);
                if seen || (look.is_whole)() {
                    return Ok(scan);
                }
                last = Some(digest);
                record = scan.record;
            }
            Err(scan::Error::Incomplete(incomplete)) => {
                let moving = |problem| matches!(problem, &scan::Problem::Unsettled { .. });
                if !incomplete.problems.iter().all(moving) {
                    let reason = unreadable(&incomplete.problems);
                    return Err(Error::Unreadable { reason, record: Box::new(incomplete.record) });
                }
                last = None;
                record = incomplete.record;
            }
            Err(scan::Error::Cancelled) => return Err(Error::Cancelled),
            Err(error) => return Err(Error::Scan(error)),
        }
        wait(look.quiet, look.cancel)?;
    }
    Err(Error::Unsettled)
}

/// The first problems, in words.
fn unreadable(problems: &[scan::Problem]) -> String {
    let text = |problem: &scan::Problem| match std::error::Error::source(problem) {
        Some(source) => format!("{problem}: {source}"),
        None => problem.to_string(),
    };
    let first: Vec<String> = problems.iter().take(3).map(text).collect();
    match problems.len() - first.len() {
        0 => first.join("; "),
        more => format!("{}; and {more} more", first.join("; ")),
    }
}

fn wait(quiet: Duration, cancel: &AtomicBool) -> Result<(), Error> {
    let start = Instant::now();
    while let Some(left) = quiet.checked_sub(start.elapsed()).filter(|left| !left.is_zero()) {
        if cancel.load(Ordering::Relaxed) {
            return Err(Error::Cancelled);
        }
        std::thread::sleep(left.min(TICK));
    }
    Ok(())
}
