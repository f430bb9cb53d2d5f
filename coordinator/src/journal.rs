//! What was revoked, beside the database.
//!
//! A database that is restored from a backup has forgotten what was revoked since, and a stolen
//! identity would be live again. So each revocation is also appended to a file, durably, before it is
//! acknowledged; `coordinator restore --revocations FILE` takes it from there. The file is of use only
//! where it outlives the database: on another disk, or copied away as it grows.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufRead as _, BufReader, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use jiff::Timestamp;
use protocol::{name::IdentityName, role::Role};
use serde::{Deserialize, Serialize};

/// The journal's name in the data directory.
pub const FILE: &str = "revocations";
/// Longest line that is read, in bytes; reasons are bounded by the API.
const MAX_LINE: u64 = 1 << 20;

/// One identity that was revoked, with all of its certificates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Revocation {
    /// Its role.
    pub role: Role,
    /// Its name.
    pub name: IdentityName,
    /// When; one of that name that enrolled later is another one.
    pub at: Timestamp,
    /// Why.
    pub reason: String,
}

/// A journal that is appended to.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: Mutex<File>,
}

impl Journal {
    /// Opens the journal at `path`, which is made if it is not there.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Write { path: path.into(), source };
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
        let file = file.map_err(failed)?;
        file.sync_all().map_err(failed)?;
        Ok(Self { path: path.into(), file: Mutex::new(file) })
    }

    /// Appends a revocation; it is on the disk when this returns.
    pub fn append(&self, revocation: &Revocation) -> Result<(), Error> {
        let failed = |source| Error::Write { path: self.path.clone(), source };
        let mut line = serde_json::to_vec(revocation).map_err(|error| failed(error.into()))?;
        line.push(b'\n');
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(&line).and_then(|()| file.sync_data()).map_err(failed)
    }
}

/// Every revocation in the journal at `path`. A last line that power loss cut off is left out.
pub fn read(path: &Path) -> Result<Vec<Revocation>, Error> {
    let failed = |source| Error::Read { path: path.into(), source };
    let mut reader = BufReader::new(File::open(path).map_err(failed)?);
    let mut revocations = Vec::new();
    for number in 1.. {
        let mut line = Vec::new();
        let length = io::Read::take(&mut reader, MAX_LINE).read_until(b'\n', &mut line);
        let whole = line.ends_with(b"\n");
        if length.map_err(failed)? == 0 {
            break;
        }
        match serde_json::from_slice(&line) {
            Ok(revocation) => revocations.push(revocation),
            Err(_) if !whole => break,
            Err(source) => return Err(Error::Line { path: path.into(), number, source }),
        }
    }
    Ok(revocations)
}

/// Why the journal was not written or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Writing.
    #[error("cannot write the journal of revocations {path}", path = path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Reading.
    #[error("cannot read the journal of revocations {path}", path = path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A line that is no revocation.
    #[error("line {number} of {path} is no revocation", path = path.display())]
    Line {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        number: usize,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_appended_is_read_back_and_a_torn_last_line_hides_nothing_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let revocation = |name: &str| Revocation {
            role: Role::Agent,
            name: name.parse().unwrap(),
            at: Timestamp::UNIX_EPOCH,
            reason: "two\nlines".into(),
        };
        let journal = Journal::open(&path).unwrap();
        journal.append(&revocation("a")).unwrap();
        drop(journal);
        Journal::open(&path).unwrap().append(&revocation("b")).unwrap();
        assert_eq!(read(&path).unwrap(), [revocation("a"), revocation("b")]);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 5]).unwrap();
        assert_eq!(read(&path).unwrap(), [revocation("a")]);
        std::fs::write(&path, [b"nonsense\n", &whole[..]].concat()).unwrap();
        assert!(matches!(read(&path), Err(Error::Line { number: 1, .. })));
    }
}
