//! A directory of JSON files that are replaced whole and durably.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use serde::{Serialize, de::DeserializeOwned};

const SUFFIX: &str = ".json";
/// Largest file that is read, in bytes.
const MAX_LEN: u64 = 256 << 20;

/// Why the ledger cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refused.
    #[error("cannot {what} {path} of the agent's ledger", path = path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A file that is not what was written.
    #[error(
        "{path} of the agent's ledger cannot be read; move it away: what it held is fetched or scanned again",
        path = path.display()
    )]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

/// One directory of the ledger.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// Of the files in it.
    mode: u32,
    /// Two who write the same file would write into one and the same new one.
    writing: Mutex<()>,
}

impl Folder {
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        Self::create(path, 0o750, 0o640)
    }

    pub(super) fn folder(&self, name: &str) -> Result<Self, Error> {
        Self::open(&self.path.join(name))
    }

    /// One whose files only this user reads.
    pub(super) fn private_folder(&self, name: &str) -> Result<Self, Error> {
        Self::create(&self.path.join(name), 0o700, 0o600)
    }

    fn create(path: &Path, dir_mode: u32, mode: u32) -> Result<Self, Error> {
        match DirBuilder::new().recursive(true).mode(dir_mode).create(path) {
            Ok(()) => Ok(Self { path: path.to_owned(), mode, writing: Mutex::default() }),
            Err(source) => Err(failed("create", path, source)),
        }
    }

    pub(super) fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, Error> {
        let path = self.path(name);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(failed("open", &path, source)),
        };
        let mut text = Vec::new();
        file.take(MAX_LEN)
            .read_to_end(&mut text)
            .map_err(|source| failed("read", &path, source))?;
        serde_json::from_slice(&text).map(Some).map_err(|source| Error::Damaged { path, source })
    }

    pub(super) fn write(&self, name: &str, value: &impl Serialize) -> Result<(), Error> {
        let path = self.path(name);
        let text = serde_json::to_vec_pretty(value)
            .map_err(|source| Error::Damaged { path: path.clone(), source })?;
        let new = self.path.join(format!("{name}.new"));
        let _one = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let written = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(self.mode)
            .open(&new)
            .and_then(|mut file| file.write_all(&text).and_then(|()| file.sync_all()));
        written.map_err(|source| failed("write", &new, source))?;
        fs::rename(&new, &path).map_err(|source| failed("replace", &path, source))?;
        self.sync()
    }

    pub(super) fn remove(&self, name: &str) -> Result<(), Error> {
        let path = self.path(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed("remove", &path, error))
            }
            _ => self.sync(),
        }
    }

    /// Names of all files, sorted.
    pub(super) fn names(&self) -> Result<Vec<String>, Error> {
        let entries =
            fs::read_dir(&self.path).map_err(|source| failed("list", &self.path, source))?;
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|source| failed("list", &self.path, source))?;
            let name = entry.file_name();
            names.extend(name.to_str().and_then(|n| n.strip_suffix(SUFFIX)).map(str::to_owned));
        }
        names.sort();
        Ok(names)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.path.join(format!("{name}{SUFFIX}"))
    }

    fn sync(&self) -> Result<(), Error> {
        let synced = File::open(&self.path).and_then(|dir| dir.sync_all());
        synced.map_err(|source| failed("sync", &self.path, source))
    }
}

fn failed(what: &'static str, path: &Path, source: io::Error) -> Error {
    Error::Io { what, path: path.to_owned(), source }
}
