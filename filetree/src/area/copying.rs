//! Copies of what the live tree has, with the attributes that the plan wants: files that share an
//! inode cannot have different ones.

use std::{
    panic::resume_unwind,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{Area, Error};
use crate::{
    plan::{Need, Plan, Source},
    staging,
};

/// A copy to make, and from where.
type Copy = Result<(Need, Source), protocol::manifest::Error>;

/// Most threads that copy at a time: others want to read and write meanwhile.
const MOST_THREADS: usize = 4;

/// Copies files into staging; several threads can work on it.
pub struct Copying<'a> {
    area: &'a Area,
    copies: Mutex<Box<dyn Iterator<Item = Copy> + Send + 'a>>,
    most_bytes: u64,
    /// What the live tree turned out not to have: it has to come from elsewhere.
    missing: Mutex<Vec<Need>>,
}

impl Area {
    /// What of the plan's contents the live tree has, to be copied into staging, as far as a file has
    /// at most so many bytes. A switch does that with all; whoever waits for other contents can do some
    /// of it in the meantime.
    pub fn copying<'a>(&'a self, plan: &'a Plan, most_bytes: u64) -> Copying<'a> {
        let copies: Box<dyn Iterator<Item = Copy> + Send> = Box::new(plan.copies().fuse());
        Copying { area: self, copies: copies.into(), most_bytes, missing: Mutex::default() }
    }
}

impl Copying<'_> {
    /// Copies the next file; `false` where there is no other.
    ///
    /// # Errors
    /// When the disk is full or staging does not work. A file that is gone or damaged is no error.
    pub fn step(&self) -> Result<bool, Error> {
        let next = self.copies.lock().unwrap_or_else(PoisonError::into_inner).next();
        let Some(copy) = next else { return Ok(false) };
        let (need, source) = copy?;
        let staging = &self.area.staging;
        if need.size > self.most_bytes || staging.has(&need)? {
            return Ok(true);
        }
        let copied = match source {
            Source::Copy(from) => self
                .area
                .base_file(&from)
                .and_then(|file| Ok(staging.copy(&need, &file).map(|_| ())?)),
            _ => Ok(()),
        };
        match copied {
            Ok(()) => {}
            Err(Error::Fs(error)) if error.is_full() => return Err(error.into()),
            Err(Error::Staging(staging::Error::Fs(error))) if error.is_full() => {
                return Err(error.into());
            }
            Err(error) => {
                tracing::warn!(path = %need.path, %error, "the local copy cannot be used");
                self.missing.lock().unwrap_or_else(PoisonError::into_inner).push(need);
            }
        }
        Ok(true)
    }

    /// Takes steps on several threads for as long as there are any and `goes_on` says so; whether there
    /// may be more.
    ///
    /// # Errors
    /// As [`Self::step`]; after the first no thread begins another file.
    pub fn steps(&self, goes_on: &(dyn Fn() -> bool + Sync)) -> Result<bool, Error> {
        // A disk that is full for one is not to be filled up by the others.
        let failed = AtomicBool::new(false);
        let work = || {
            while goes_on() && !failed.load(Ordering::Relaxed) {
                let more = self.step().inspect_err(|_| failed.store(true, Ordering::Relaxed))?;
                if !more {
                    return Ok::<_, Error>(false);
                }
            }
            Ok(true)
        };
        // A double takes the same steps in the same order each time.
        let is_alone = !self.area.work.fs().is_kernel();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = if is_alone { 1 } else { cores.min(MOST_THREADS) };
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            let mut more = work()?;
            for other in others {
                more &= other.join().unwrap_or_else(|panic| resume_unwind(panic))?;
            }
            Ok(more)
        })
    }

    /// What the live tree turned out not to have, in order.
    pub(super) fn into_missing(self) -> Vec<Need> {
        let mut missing = self.missing.into_inner().unwrap_or_else(PoisonError::into_inner);
        missing.sort_by(|a, b| a.path.cmp(&b.path));
        missing
    }
}

impl std::fmt::Debug for Copying<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Copying").finish_non_exhaustive()
    }
}
