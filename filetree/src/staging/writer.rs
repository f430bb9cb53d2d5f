//! Content on its way into staging: verified as it arrives, and placed only when it is right.

use std::io;

use protocol::digest::DigestWriter;

use super::{Error, Staged, Staging};
use crate::{fs::File, plan::Need};

/// Runs of zeros of this size, aligned, take no room on the disk.
const HOLE: usize = 64 * 1024;

/// Takes a content as it arrives. Unverified bytes never get a name that a tree could use.
pub struct StagedWriter<'a> {
    staging: &'a Staging,
    need: Need,
    file: Option<File>,
    name: Vec<u8>,
    digest: DigestWriter,
    written: u64,
    pending: Vec<u8>,
    /// Whether the last bytes that came were left out.
    ends_in_hole: bool,
}

impl<'a> StagedWriter<'a> {
    /// One that fills `file`, which has this temporary name in staging.
    pub(super) fn new(staging: &'a Staging, need: Need, file: File, name: Vec<u8>) -> Self {
        Self {
            staging,
            need,
            file: Some(file),
            name,
            digest: DigestWriter::new(),
            written: 0,
            pending: Vec::new(),
            ends_in_hole: false,
        }
    }

    /// Bytes taken so far.
    pub fn len(&self) -> u64 {
        self.written + self.pending.len() as u64
    }

    /// Whether nothing came yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes the next bytes; refuses more than the manifest says there are.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        let total = self.len().saturating_add(bytes.len() as u64);
        if total > self.need.size {
            return self.need.check_length(total);
        }
        while !bytes.is_empty() {
            let room = (HOLE - self.pending.len()).min(bytes.len());
            self.pending.extend_from_slice(&bytes[..room]);
            bytes = &bytes[room..];
            if self.pending.len() == HOLE {
                self.drain()?;
            }
        }
        Ok(())
    }

    /// Verifies length and digest, and stages the content under every key of its need.
    pub fn finish(mut self) -> Result<Staged, Error> {
        self.drain()?;
        self.need.check_length(self.written)?;
        self.need.check_digest(self.digest.finish())?;
        let Some(file) = &self.file else { return Ok(self.need.staged()) };
        // Only where it is needed: xfs writes out all of a new file whose length is set, and waits.
        if self.ends_in_hole {
            file.set_len(self.written)?;
        }
        let staged = self.staging.place(&self.need, file, &self.name)?;
        self.file = None;
        Ok(staged)
    }

    fn drain(&mut self) -> Result<(), Error> {
        self.digest.update(&self.pending);
        let hole = self.pending.len() == HOLE && self.pending.iter().all(|&byte| byte == 0);
        if let Some(file) = &self.file
            && !hole
        {
            file.write_at(self.written, &self.pending)?;
        }
        if !self.pending.is_empty() {
            self.ends_in_hole = hole;
        }
        self.written += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }
}

impl io::Write for StagedWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.push(bytes).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl std::fmt::Debug for StagedWriter<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StagedWriter({}, {} of {} bytes)", self.need.path, self.len(), self.need.size)
    }
}

impl Drop for StagedWriter<'_> {
    fn drop(&mut self) {
        if self.file.is_some() {
            self.staging.drop_temporary(&self.name);
        }
    }
}
