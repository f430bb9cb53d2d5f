//! Remembers which content was compared with its digest.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use filetree::fs::{self, File, FileId, Meta};
use protocol::digest::Digest;

/// Most files that are remembered; beyond that everything is forgotten and compared again.
const REMEMBERED: usize = 200_000;

/// What an inode held when it was digested. The kernel moves the ctime with every change, and
/// nobody can set it back.
#[derive(Debug, Default)]
pub(super) struct Checked(Mutex<HashMap<FileId, (i64, Digest)>>);

impl Checked {
    /// Whether the file's content has this digest.
    pub(super) fn matches(&self, file: &File, meta: &Meta, expected: &Digest) -> fs::Result<bool> {
        if let Some((ctime, digest)) = self.lock().get(&meta.id)
            && *ctime == meta.ctime
        {
            return Ok(digest == expected);
        }
        let digest = super::digest(file)?;
        // A change while it was read shows in the ctime, and then nothing is remembered.
        if file.meta()?.ctime == meta.ctime {
            let mut known = self.lock();
            if known.len() >= REMEMBERED {
                known.clear();
            }
            known.insert(meta.id, (meta.ctime, digest));
        }
        Ok(digest == *expected)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<FileId, (i64, Digest)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
