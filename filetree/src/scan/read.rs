//! Reads the files and symlinks whose content is not known.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use super::{Content, Error, Found, Problem, Progress, ScanOptions, digest_file, stopped};
use crate::fs::{Dir, Kind, Meta};

/// How often a file that changes under our eyes is read.
const TRIES: usize = 3;

pub(super) enum Outcome {
    /// What it holds, and its attributes at that moment.
    Content {
        content: Content,
        meta: Meta,
    },
    /// It is gone, or is something else by now.
    Vanished,
    Problem(Problem),
}

/// How far the reading of a tree is.
pub(super) struct Begun {
    entries: u64,
    bytes: AtomicU64,
    total_bytes: u64,
}

impl Begun {
    pub(super) fn new(entries: u64, total_bytes: u64) -> Self {
        Self { entries, bytes: AtomicU64::new(0), total_bytes }
    }

    fn tick(&self, read: u64, options: &ScanOptions<'_>) {
        let bytes = self.bytes.fetch_add(read, Ordering::Relaxed) + read;
        let Self { entries, total_bytes, .. } = *self;
        (options.progress)(Progress { entries, bytes, total_bytes });
    }
}

/// Reads everything in `unread`; gives back each entry's number with what came out.
pub(super) fn contents(
    root: &Dir,
    unread: Vec<(usize, &Found)>,
    begun: &Begun,
    options: &ScanOptions<'_>,
) -> Result<Vec<(usize, Outcome)>, Error> {
    let next = AtomicUsize::new(0);
    let outcomes = Mutex::new(Vec::with_capacity(unread.len()));
    let tick = |read: u64| begun.tick(read, options);
    let work = || {
        while let Some((at, found)) = unread.get(next.fetch_add(1, Ordering::Relaxed)) {
            if stopped(options.cancel) {
                return;
            }
            let outcome = read(root, found, &tick).unwrap_or_else(|error| {
                if error.is_not_found() {
                    Outcome::Vanished
                } else {
                    Outcome::Problem(error.into())
                }
            });
            outcomes.lock().unwrap_or_else(PoisonError::into_inner).push((*at, outcome));
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..options.threads.clamp(1, 16).min(unread.len().max(1)) {
            scope.spawn(work);
        }
        work();
    });
    if stopped(options.cancel) {
        return Err(Error::Cancelled);
    }
    Ok(outcomes.into_inner().unwrap_or_else(PoisonError::into_inner))
}

fn read(root: &Dir, found: &Found, tick: &dyn Fn(u64)) -> crate::fs::Result<Outcome> {
    let dir = root.open_parent(&found.path)?;
    let name = found.path.name();
    if found.meta.kind == Kind::Symlink {
        let target = dir.read_link(name)?.into();
        return Ok(Outcome::Content { content: Content::Symlink(target), meta: found.meta });
    }
    for _ in 0..TRIES {
        let file = dir.open_file(name)?;
        let before = file.meta()?;
        let digest = digest_file(&file, before.size, &mut |read| tick(read))?;
        let after = file.meta()?;
        // The name as well: a writer that renames a new file into place leaves ours unchanged.
        let named = dir.stat(name)?;
        let same = |meta: &Meta| {
            meta.id == before.id
                && meta.size == before.size
                && meta.mtime == before.mtime
                && meta.ctime == before.ctime
        };
        match named {
            None => return Ok(Outcome::Vanished),
            Some(named) if same(&after) && same(&named) => {
                return Ok(Outcome::Content { content: Content::File(digest), meta: after });
            }
            Some(_) => {}
        }
    }
    Ok(Outcome::Problem(Problem::Unsettled { path: found.path.clone() }))
}
