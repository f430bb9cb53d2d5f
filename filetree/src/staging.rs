//! Verified contents that wait for their place in a tree.
//!
//! *The problem.* Content arrives over minutes or days, in any order and by several ways, and the
//! machine may lose power at any moment. What has arrived must not be fetched again, and what a
//! disk only pretends to have must not be believed: after a power cut, data that was written but
//! not synced reads back as zeros, under its right name and with its right length.
//!
//! *The answer.* A staged file is named by its [`FileKey`] and has its final mode and modification
//! time, so that putting it into a tree is one link. It gets that name only when length and digest
//! are right, and a [`Staged`] exists for nothing else. Batches are made durable by one `syncfs`
//! and then recorded; after a crash the contents of recorded batches are trusted, and the rest is
//! read and digested once more.
//!
//! There may be a million of them, so what is kept in mind are the few that nobody vouches for: those
//! that were there at the beginning and are in no record. Everything else that has a name was
//! verified by this process or is in a recorded batch.

mod records;
mod writer;

use std::{
    collections::{HashMap, HashSet},
    ops::ControlFlow,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use protocol::{digest::Digest, path::TreePath};

use self::records::Records;
pub use self::writer::StagedWriter;
use crate::{
    fs::{self, Attribute, Dir, File, FileId},
    plan::{FileKey, Need},
    record,
    scan::{digest_file, fill_digested},
    switch::remove::remove_all,
};

/// A batch is synced when it has this many files or bytes. A sync waits for everything that anybody has
/// written to the disk, so a million small files are not to wait for a thousand of them; what a crash
/// costs is to read one batch again.
const BATCH_FILES: usize = 8192;
const BATCH_BYTES: u64 = 256 << 20;
/// Most staged files that wait for being read again; what is beyond is dropped and comes again.
const MOST_UNPROVEN: usize = 100_000;
/// Names that are taken from the directory at a time where all of them go.
const NAMES_AT_A_TIME: usize = 4096;
const TEMPORARY: &[u8] = b"tmp-";
const BATCHES: &[u8] = b"batches";

/// Why content was not staged.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk.
    #[error(transparent)]
    Fs(#[from] fs::Error),
    /// The bytes are not those that the manifest names.
    #[error(
        "content for {path} is not what the manifest names: {expected} was wanted, {actual} came"
    )]
    Mismatch {
        /// Where it was to go.
        path: TreePath,
        /// What the manifest names.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// The content is longer or shorter than the manifest says.
    #[error("content for {path} has {actual} bytes instead of {expected}")]
    Length {
        /// Where it was to go.
        path: TreePath,
        /// What the manifest says.
        expected: u64,
        /// What came, or the length at which it was stopped.
        actual: u64,
    },
}

/// The staging directory of one assignment.
#[derive(Debug)]
pub struct Staging {
    dir: Dir,
    batches: Dir,
    state: Mutex<State>,
    serial: AtomicU64,
    /// The group that everything new gets; the process's own where none is set.
    group: Option<u32>,
    /// The SELinux label that everything new gets; `None` where there are none.
    label: Option<Vec<u8>>,
    /// Names of copies of files that have as many names as they can have.
    spares: Mutex<HashMap<FileId, Vec<u8>>>,
}

#[derive(Debug, Default)]
struct State {
    /// Was here at the beginning, is in no recorded batch, and was not read again.
    unproven: HashSet<FileKey>,
    /// Was to be synced when that failed, and is here still: worth nothing, whatever reading it gives.
    lost: HashSet<FileKey>,
    /// Verified by this process, not yet recorded.
    batch: Vec<FileKey>,
    batch_bytes: u64,
    next_batch: u64,
}

impl State {
    /// What is under this name from now on, if anything, is not what was there.
    fn forget(&mut self, key: &FileKey) {
        self.unproven.remove(key);
        self.lost.remove(key);
    }
}

/// A verified content in staging, under every key of its need. Only verification makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Staged {
    digest: Digest,
    size: u64,
}

impl Staged {
    /// The digest that the content was found to have.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Its length in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }
}

impl Staging {
    /// Opens the staging directory below `work`, and forgets what was half written.
    pub(crate) fn open(work: &Dir) -> Result<Self, Error> {
        let dir = work.ensure_dir(b"staging", 0o700)?;
        let batches = dir.ensure_dir(BATCHES, 0o700)?;
        let mut state = State::default();
        let records = Records::list(&batches)?;
        state.next_batch = records.0.last().map_or(0, |last| last + 1);
        // A directory where a switch in place was interrupted between two names.
        some_names(&dir, |name| name.starts_with(TEMPORARY), |name| remove_all(&dir, name))?;
        let mut beyond = 0u64;
        for key in records.missing(&dir, &batches)? {
            if state.unproven.len() < MOST_UNPROVEN {
                state.unproven.insert(key);
            } else {
                dir.unlink(&key.file_name())?;
                beyond += 1;
            }
        }
        if beyond > 0 {
            tracing::warn!(files = beyond, "staged files that no record vouches for are dropped");
        }
        Ok(Self {
            dir,
            batches,
            state: Mutex::new(state),
            serial: AtomicU64::new(0),
            group: None,
            label: None,
            spares: Mutex::default(),
        })
    }

    /// Whether the content is here, under every key, and was verified. Reads what no recorded
    /// batch vouches for; what turns out wrong is dropped.
    pub fn has(&self, need: &Need) -> Result<bool, Error> {
        let mut found = None;
        let mut missing = Vec::new();
        for key in &need.keys {
            match self.proven(key, need.size)? {
                true => found = Some(*key),
                false => missing.push(*key),
            }
        }
        match found {
            None => Ok(false),
            Some(from) => {
                self.spread(need, &from, &missing)?;
                Ok(true)
            }
        }
    }

    /// Starts to write a content.
    pub fn writer(&self, need: &Need) -> Result<StagedWriter<'_>, Error> {
        let name = self.temporary();
        let file = self.dir.create_file(&name)?;
        Ok(StagedWriter::new(self, need.clone(), file, name))
    }

    /// Takes a file that something else wrote (`name` in `dir`, on the same file system), verifies
    /// it, and moves it here. Nobody may still have it open for writing.
    pub fn take(&self, need: &Need, dir: &Dir, name: &[u8]) -> Result<Staged, Error> {
        let file = dir.open_file(name)?;
        check(need, &file)?;
        let Some(key) = need.keys.first() else { return Ok(need.staged()) };
        self.own(dir, name)?;
        file.set_mode(key.mode)?;
        file.set_mtime(key.mtime)?;
        dir.rename(name, &self.dir, &key.file_name())?;
        self.admit(need, key)
    }

    /// Copies a content that another tree has; shares its blocks where the file system can.
    pub fn copy(&self, need: &Need, from: &File) -> Result<Staged, Error> {
        let name = self.temporary();
        let file = self.dir.create_file(&name)?;
        let copied = fill(need, &file, from).and_then(|()| self.place(need, &file, &name));
        if copied.is_err() {
            self.drop_temporary(&name);
        }
        copied
    }

    /// Gives everything that is staged from now on, and all that a switch makes, this group.
    pub(crate) fn set_group(&mut self, group: Option<u32>) {
        self.group = group;
    }

    /// Gives everything that is staged from now on, and all that a switch makes, this label.
    pub(crate) fn set_label(&mut self, label: Option<Vec<u8>>) {
        self.label = label;
    }

    /// Gives `name` in `dir` the group and the label that are wanted.
    pub(crate) fn own(&self, dir: &Dir, name: &[u8]) -> fs::Result<()> {
        if let Some(group) = self.group {
            dir.set_group_of(name, group)?;
        }
        match &self.label {
            // Mostly it has that label already: then nobody needs the right to give it.
            Some(label) if dir.attribute_of(name, Attribute::Label)?.as_ref() != Some(label) => {
                dir.set_attribute_of(name, Attribute::Label, label)
            }
            _ => Ok(()),
        }
    }

    /// Gives a file of another tree (`name` in `dir`, on the same file system) a name here, if it
    /// has exactly the wanted attributes and owner, and its content is right: from then on the two
    /// trees share it. Says whether that was possible.
    pub fn share(&self, need: &Need, dir: &Dir, name: &[u8]) -> Result<bool, Error> {
        let Ok(file) = dir.open_file(name) else { return Ok(false) };
        let (meta, own) = (file.meta()?, self.dir.meta()?);
        let fits = |key: &&FileKey| (key.mode, key.mtime) == (meta.mode, meta.mtime);
        let Some(key) = need.keys.iter().find(fits) else { return Ok(false) };
        if (meta.uid, meta.gid) != (own.uid, own.gid) {
            return Ok(false);
        }
        match check(need, &file) {
            Err(Error::Mismatch { .. } | Error::Length { .. }) => return Ok(false),
            other => other?,
        }
        // Too many names, another file system, a link of our own already: it comes another way.
        if dir.link(name, &self.dir, &key.file_name()).is_err() {
            return Ok(false);
        }
        self.admit(need, key)?;
        Ok(true)
    }

    /// Opens a content that is staged, as the base of a delta: whoever uses it verifies the result.
    pub fn base_file(&self, need: &Need) -> Option<File> {
        need.keys.iter().find_map(|key| self.dir.open_file(&key.file_name()).ok())
    }

    /// Makes everything staged so far durable and records it.
    pub fn seal(&self) -> Result<(), Error> {
        self.flush(&mut self.lock())
    }

    /// Bytes that were staged since everything was made durable.
    pub fn unsealed_bytes(&self) -> u64 {
        self.lock().batch_bytes
    }

    /// Has the disk write what was staged so far, to be called by another thread. Nothing is durable by
    /// that, but [`Self::seal`] has less to wait for. An error is seen by that as well, which has
    /// its directory open for longer.
    pub fn writing(&self) -> Result<impl FnOnce() -> fs::Result<()> + Send + use<>, Error> {
        let dir = self.dir.reopen()?;
        Ok(move || dir.sync_fs())
    }

    /// Bytes and files that are staged, verified or not.
    pub fn held(&self) -> Result<(u64, u64), Error> {
        let mut held = (0, 0);
        let mut failed = None;
        self.dir.names(|name| {
            if FileKey::from_bytes(name).is_some() {
                match self.dir.stat(name) {
                    Ok(Some(meta)) => held = (held.0 + meta.size, held.1 + 1),
                    Ok(None) => {}
                    Err(error) => {
                        failed = Some(error);
                        return ControlFlow::Break(());
                    }
                }
            }
            ControlFlow::Continue(())
        })?;
        failed.map_or(Ok(held), |error| Err(error.into()))
    }

    /// The directory in which the file of a key has its [`FileKey::file_name`].
    pub(crate) fn dir(&self) -> &Dir {
        &self.dir
    }

    /// A name for a file that is still being made; dropped when staging is opened again.
    pub(crate) fn temporary(&self) -> Vec<u8> {
        let number = self.serial.fetch_add(1, Ordering::Relaxed);
        [TEMPORARY, number.to_string().as_bytes()].concat()
    }

    /// A copy of a file that has as many names as it can have, made by this process.
    pub(crate) fn spare_of(&self, full: FileId) -> Option<Vec<u8>> {
        self.spares.lock().unwrap_or_else(PoisonError::into_inner).get(&full).cloned()
    }

    /// From now on this file of staging takes the names that the other cannot have.
    pub(crate) fn set_spare_of(&self, full: FileId, name: Vec<u8>) {
        self.spares.lock().unwrap_or_else(PoisonError::into_inner).insert(full, name);
    }

    /// Drops everything, durably: for when a tree holds what was staged, durably. The records go
    /// first: one that outlived its contents would vouch for whatever gets their names.
    pub(crate) fn clear(&self) -> Result<(), Error> {
        self.spares.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let mut state = self.lock();
        let records = self.batches.entries()?;
        for entry in &records {
            self.batches.unlink(&entry.name)?;
        }
        if !records.is_empty() {
            self.batches.sync()?;
        }
        if some_names(&self.dir, |name| name != BATCHES, |name| remove_all(&self.dir, name))? {
            self.dir.sync()?;
        }
        *state = State { next_batch: state.next_batch, ..State::default() };
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn proven(&self, key: &FileKey, size: u64) -> Result<bool, Error> {
        let name = key.file_name();
        let Some(meta) = self.dir.stat(&name)? else { return Ok(false) };
        let (is_unproven, is_lost) = {
            let state = self.lock();
            (state.unproven.contains(key), state.lost.contains(key))
        };
        if meta.size == size && !is_unproven && !is_lost {
            return Ok(true);
        }
        let file = self.dir.open_file(&name)?;
        if meta.size == size && !is_lost && digest_file(&file, size, &mut |_| {})? == key.digest {
            file.set_mode(key.mode)?;
            file.set_mtime(key.mtime)?;
            self.own(&self.dir, &name)?;
            self.note(*key, size)?;
            return Ok(true);
        }
        self.dir.unlink(&name)?;
        self.lock().forget(key);
        Ok(false)
    }

    /// Gives a verified temporary file its name.
    fn place(&self, need: &Need, file: &File, name: &[u8]) -> Result<Staged, Error> {
        let Some(key) = need.keys.first() else {
            self.drop_temporary(name);
            return Ok(need.staged());
        };
        self.own(&self.dir, name)?;
        file.set_mode(key.mode)?;
        file.set_mtime(key.mtime)?;
        self.dir.rename(name, &self.dir, &key.file_name())?;
        self.admit(need, key)
    }

    fn admit(&self, need: &Need, key: &FileKey) -> Result<Staged, Error> {
        self.note(*key, need.size)?;
        self.spread(need, key, &need.keys)?;
        Ok(need.staged())
    }

    /// Makes the copies that other attributes need.
    fn spread(&self, need: &Need, from: &FileKey, keys: &[FileKey]) -> Result<(), Error> {
        for key in keys.iter().filter(|key| *key != from) {
            let alone = Need { keys: vec![*key], ..need.clone() };
            self.copy(&alone, &self.dir.open_file(&from.file_name())?)?;
        }
        Ok(())
    }

    fn note(&self, key: FileKey, size: u64) -> Result<(), Error> {
        let mut state = self.lock();
        state.forget(&key);
        state.batch.push(key);
        state.batch_bytes += size;
        if state.batch.len() >= BATCH_FILES || state.batch_bytes >= BATCH_BYTES {
            self.flush(&mut state)?;
        }
        Ok(())
    }

    fn flush(&self, state: &mut State) -> Result<(), Error> {
        if state.batch.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.dir.sync_fs() {
            self.distrust(state);
            return Err(error.into());
        }
        let mut body = Vec::new();
        for key in &state.batch {
            body.extend_from_slice(&key.file_name());
            body.push(b'\n');
        }
        record::save(&self.batches, &state.next_batch.to_string(), &body)?;
        state.next_batch += 1;
        state.batch.clear();
        state.batch_bytes = 0;
        Ok(())
    }

    /// After a failed sync the kernel calls what it could not write clean, and reads it back from
    /// memory as if nothing had happened; asking again would succeed and prove nothing. So all that
    /// no recorded batch vouches for goes.
    fn distrust(&self, state: &mut State) {
        let State { batch, lost, .. } = state;
        lost.extend(batch.drain(..));
        state.batch_bytes = 0;
        let unrecorded = Records::list(&self.batches)
            .and_then(|records| records.missing(&self.dir, &self.batches));
        let unrecorded = match unrecorded {
            Ok(unrecorded) => unrecorded,
            Err(error) => {
                tracing::warn!(%error, "staged files that were not synced cannot be listed");
                return;
            }
        };
        for key in unrecorded {
            match self.dir.unlink(&key.file_name()) {
                Ok(()) => state.forget(&key),
                Err(error) => {
                    tracing::warn!(%error, "a staged file that was not synced stays");
                    state.lost.insert(key);
                }
            }
        }
    }

    /// Best effort: what is left over is dropped when staging is opened again.
    fn drop_temporary(&self, name: &[u8]) {
        if let Err(error) = self.dir.unlink(name) {
            tracing::debug!(%error, "left a temporary file in staging");
        }
    }
}

/// Makes an empty file hold what `from` holds, if that is the content that is needed.
fn fill(need: &Need, file: &File, from: &File) -> Result<(), Error> {
    let (length, digest) = fill_digested(file, from)?;
    need.check_length(length)?;
    need.check_digest(digest)
}

fn check(need: &Need, file: &File) -> Result<(), Error> {
    need.check_length(file.meta()?.size)?;
    need.check_digest(digest_file(file, need.size, &mut |_| {})?)
}

/// Does something to all names that are meant, some at a time; says whether there were any. What is
/// done to them has to take them away.
fn some_names(
    dir: &Dir,
    is_meant: impl Fn(&[u8]) -> bool,
    act: impl Fn(&[u8]) -> fs::Result<()>,
) -> fs::Result<bool> {
    let mut any = false;
    loop {
        let mut names: Vec<Box<[u8]>> = Vec::new();
        dir.names(|name| {
            if is_meant(name) {
                names.push(name.into());
            }
            let is_enough = names.len() >= NAMES_AT_A_TIME;
            if is_enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        // The same steps each time that it is done.
        names.sort_unstable();
        names.iter().try_for_each(|name| act(name))?;
        any |= !names.is_empty();
        if names.len() < NAMES_AT_A_TIME {
            return Ok(any);
        }
    }
}

impl Need {
    fn staged(&self) -> Staged {
        Staged { digest: self.digest, size: self.size }
    }

    fn check_length(&self, actual: u64) -> Result<(), Error> {
        let (path, expected) = (&self.path, self.size);
        if actual == expected {
            return Ok(());
        }
        Err(Error::Length { path: path.clone(), expected, actual })
    }

    fn check_digest(&self, actual: Digest) -> Result<(), Error> {
        let (path, expected) = (&self.path, self.digest);
        if actual == expected {
            return Ok(());
        }
        Err(Error::Mismatch { path: path.clone(), expected, actual })
    }
}

impl FileKey {
    /// The name of the staged file: digest, mode, modification time and link group in hex.
    pub fn file_name(&self) -> Vec<u8> {
        let Self { digest, mode, mtime, group } = self;
        let group = group.map(|group| format!("-{:x}", group.0)).unwrap_or_default();
        format!("{}-{mode:o}-{:x}{group}", digest.hex(), *mtime as u64).into_bytes()
    }

    fn from_bytes(name: &[u8]) -> Option<Self> {
        Self::from_file_name(std::str::from_utf8(name).ok()?)
    }

    fn from_file_name(name: &str) -> Option<Self> {
        let mut parts = name.split('-');
        let digest = Digest::from_hex(parts.next()?).ok()?;
        let mode = u32::from_str_radix(parts.next()?, 8).ok()?;
        let mtime = u64::from_str_radix(parts.next()?, 16).ok()? as i64;
        let group = match parts.next() {
            None => None,
            Some(hex) => Some(protocol::manifest::LinkGroup(u64::from_str_radix(hex, 16).ok()?)),
        };
        parts.next().is_none().then_some(Self { digest, mode, mtime, group })
    }
}

#[cfg(test)]
mod tests;
