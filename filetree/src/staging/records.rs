//! Which staged files a recorded batch vouches for.

use std::{collections::HashSet, ops::ControlFlow};

use super::FileKey;
use crate::{
    fs::{self, Dir},
    record,
};

/// Recorded files that are looked at together: with more, the records are gone through in parts.
pub(super) const RECORDS_AT_A_TIME: usize = 16;

/// Numbers of the recorded batches, ascending.
pub(super) struct Records(pub(super) Vec<u64>);

impl Records {
    pub(super) fn list(batches: &Dir) -> fs::Result<Self> {
        let mut numbers = Vec::new();
        batches.names(|name| {
            let name = std::str::from_utf8(name).ok();
            numbers.extend(name.and_then(|name| name.parse::<u64>().ok()));
            ControlFlow::Continue(())
        })?;
        numbers.sort_unstable();
        Ok(Self(numbers))
    }

    /// The staged files that are in none of them. Many records are gone through in parts, by what the
    /// digests begin with, so that it takes no more memory however much is staged.
    pub(super) fn missing(&self, dir: &Dir, batches: &Dir) -> fs::Result<Vec<FileKey>> {
        let parts = self.0.len().div_ceil(RECORDS_AT_A_TIME).clamp(1, 256);
        let mut missing = Vec::new();
        for part in 0..parts {
            let is_meant =
                |key: &FileKey| usize::from(key.digest.as_bytes()[0]) * parts / 256 == part;
            let mut recorded = HashSet::new();
            for number in &self.0 {
                // A damaged record costs reading its files again, nothing else.
                if let Ok(Some(body)) = record::load(batches, &number.to_string()) {
                    let keys = body.split(|byte| *byte == b'\n').filter_map(FileKey::from_bytes);
                    recorded.extend(keys.filter(is_meant));
                }
            }
            dir.names(|name| {
                let key = FileKey::from_bytes(name).filter(is_meant);
                missing.extend(key.filter(|key| !recorded.contains(key)));
                ControlFlow::Continue(())
            })?;
        }
        Ok(missing)
    }
}
