//! Whether something fits on the disk, asked before it is fetched.

use super::{Area, Error};
use crate::plan::Plan;

/// What something takes of a disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Bytes of content.
    pub bytes: u64,
    /// Files, directories and symlinks.
    pub inodes: u64,
}

impl Area {
    /// Refuses a plan that would fill the disk, before anything is fetched for it.
    pub fn check_room(&self, plan: &Plan) -> Result<(), Error> {
        let files = plan.staged_files();
        let (held_bytes, held_files) = self.staging.held()?;
        let has_spare_tree = self.marks.trees.iter().any(|tree| tree.swept);
        let twin =
            if has_spare_tree { plan.change_count() } else { plan.kept_without_files() as u64 };
        self.check_room_for(Footprint {
            bytes: plan.staged_bytes().saturating_sub(held_bytes),
            inodes: files.saturating_sub(held_files).saturating_add(twin),
        })
    }

    /// Refuses what would fill the disk, with a tenth to spare.
    pub fn check_room_for(&self, footprint: Footprint) -> Result<(), Error> {
        let room = self.work.room()?;
        let reserve = |needed: u64| needed.saturating_add(needed / 10);
        let on = || self.work.path().to_owned();
        let needed = reserve(footprint.bytes);
        if needed > room.bytes {
            return Err(Error::DoesNotFit { needed, free: room.bytes, on: on() });
        }
        let needed = reserve(footprint.inodes);
        match room.inodes {
            Some(free) if needed > free => Err(Error::NoInodes { needed, free, on: on() }),
            _ => Ok(()),
        }
    }
}
