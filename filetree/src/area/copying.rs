//! Copies of what the live tree has, with the attributes that the plan wants: files that share an
//! inode cannot have different ones.

use super::{Area, Error};
use crate::{
    plan::{Need, Plan, Source},
    staging,
};

/// A copy to make, and from where.
type Copy = Result<(Need, Source), protocol::manifest::Error>;

/// Copies one file after the other into staging.
pub struct Copying<'a> {
    area: &'a Area,
    copies: Box<dyn Iterator<Item = Copy> + Send + 'a>,
    most_bytes: u64,
    /// What the live tree turned out not to have: it has to come from elsewhere.
    pub(super) missing: Vec<Need>,
}

impl Area {
    /// What of the plan's contents the live tree has, to be copied into staging, as far as a file has
    /// at most so many bytes. A switch does that with all; whoever waits for other contents can do some
    /// of it in the meantime.
    pub fn copying<'a>(&'a self, plan: &'a Plan, most_bytes: u64) -> Copying<'a> {
        let copies = Box::new(plan.copies().fuse());
        Copying { area: self, copies, most_bytes, missing: Vec::new() }
    }
}

impl Copying<'_> {
    /// Copies the next file; `false` where there is no other.
    ///
    /// # Errors
    /// When the disk is full or staging does not work. A file that is gone or damaged is no error.
    pub fn step(&mut self) -> Result<bool, Error> {
        let Some(copy) = self.copies.next() else { return Ok(false) };
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
                self.missing.push(need);
            }
        }
        Ok(true)
    }
}

impl std::fmt::Debug for Copying<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Copying").field("missing", &self.missing.len()).finish_non_exhaustive()
    }
}
