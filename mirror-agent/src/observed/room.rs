//! Whether what differs fits on the disk, asked before rsync is.

use filetree::area::Footprint;

use super::{Error, Look, STAGE, differences::Differing};
use crate::apply::{self, Site};

impl Look<'_> {
    /// Refuses a run that would fill the disk before anything is fetched for it: the files, the
    /// directories of rsync's stage, and a new twin of the tree where none can be used again.
    pub(super) fn check_room(
        &self,
        site: &Site,
        differing: &Differing<'_>,
        work: &std::path::Path,
    ) -> Result<(), Error> {
        let there = arrived_already(&work.join(STAGE));
        let staged = site.area().staging().held().map_err(apply::Error::from)?;
        let footprint = Footprint {
            bytes: differing.bytes.saturating_sub(there + staged.0),
            inodes: differing.files.saturating_sub(staged.1).saturating_add(differing.others),
        };
        Ok(site.check_room_for(footprint, &|notice| self.run.notice(notice))?)
    }
}

/// Bytes that an interrupted run left in rsync's stage.
fn arrived_already(stage: &std::path::Path) -> u64 {
    let mut open = vec![stage.to_owned()];
    let mut bytes = 0;
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(meta) if meta.is_dir() => open.push(entry.path()),
                Ok(meta) => bytes += meta.len(),
                Err(_) => {}
            }
        }
    }
    bytes
}
