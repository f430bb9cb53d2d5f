//! Private files: keys, and whatever lies beside them.
//!
//! A key that others can read is not a key. Files are created 0600 and never over something that
//! exists, whatever the umask; they are on the disk before the call returns; and they are refused
//! when they have become looser or belong to someone else, with the command that repairs it.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;

/// Longest file that [`read`] takes, in bytes.
pub const MAX_LEN: u64 = 256 * 1024;

/// Creates `path` with `content`, mode 0600, and waits until it is on the disk. Its directory is
/// not: see [`sync_dir`].
///
/// # Errors
/// [`Error::Exists`] when there is already something at `path`, which is left as it is.
pub fn create(path: &Path, content: &[u8]) -> Result<(), Error> {
    let mut file = match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(Error::Exists { path: path.into() });
        }
        Err(error) => return Err(Error::io("create", path, error)),
    };
    // A umask may have taken even the owner's bits.
    file.set_permissions(Permissions::from_mode(0o600))
        .and_then(|()| file.write_all(content))
        .and_then(|()| file.sync_all())
        .map_err(|error| Error::io("write", path, error))
}

/// Like [`create`], taking the place of an earlier file of that name.
pub fn replace(path: &Path, content: &[u8]) -> Result<(), Error> {
    let mut new = path.as_os_str().to_owned();
    new.push(".tmp");
    let new = PathBuf::from(new);
    remove_if_there(&new)?;
    create(&new, content)?;
    fs::rename(&new, path).map_err(|error| Error::io("rename into place", path, error))
}

/// Reads a private file.
///
/// # Errors
/// When it can be reached by others, belongs to someone else, is no plain file, or is longer than
/// [`MAX_LEN`].
pub fn read(path: &Path) -> Result<Vec<u8>, Error> {
    // NOFOLLOW and NONBLOCK: neither a link to elsewhere nor a fifo that would hang us.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)
        .map_err(|error| Error::io("open", path, error))?;
    let metadata = file.metadata().map_err(|error| Error::io("examine", path, error))?;
    if !metadata.is_file() {
        return Err(Error::NotAFile { path: path.into() });
    }
    check_access(path, &metadata, "600")?;
    let mut content = Vec::new();
    file.take(MAX_LEN + 1)
        .read_to_end(&mut content)
        .map_err(|error| Error::io("read", path, error))?;
    if content.len() as u64 > MAX_LEN {
        return Err(Error::TooLong { path: path.into() });
    }
    Ok(content)
}

/// Like [`read`], for text.
pub fn read_text(path: &Path) -> Result<String, Error> {
    String::from_utf8(read(path)?).map_err(|_| Error::NotText { path: path.into() })
}

/// Creates the directory `path`, mode 0700 whatever the umask.
///
/// # Errors
/// [`Error::Exists`] when there is already something at `path`.
pub fn create_dir(path: &Path) -> Result<(), Error> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(Error::Exists { path: path.into() });
        }
        Err(error) => return Err(Error::io("create", path, error)),
    }
    fs::set_permissions(path, Permissions::from_mode(0o700))
        .map_err(|error| Error::io("set the mode of", path, error))
}

/// Refuses a directory that others can enter, or that belongs to someone else.
pub fn check_dir(path: &Path) -> Result<(), Error> {
    let metadata = fs::metadata(path).map_err(|error| Error::io("examine", path, error))?;
    check_access(path, &metadata, "700")
}

/// Waits until the names in the directory `path` are on the disk.
pub fn sync_dir(path: &Path) -> Result<(), Error> {
    File::open(path)
        .and_then(|directory| directory.sync_all())
        .map_err(|error| Error::io("flush", path, error))
}

/// Removes a file, if there is one.
pub(crate) fn remove_if_there(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io("remove", path, error))
        }
        _ => Ok(()),
    }
}

/// Removes a directory with what is in it, if there is one.
pub(crate) fn remove_dir_if_there(path: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io("remove", path, error))
        }
        _ => Ok(()),
    }
}

fn check_access(path: &Path, metadata: &fs::Metadata, wanted: &'static str) -> Result<(), Error> {
    let ours = rustix::process::geteuid().as_raw();
    if metadata.uid() != ours {
        return Err(Error::ForeignOwner { path: path.into(), owner: metadata.uid(), ours });
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(Error::TooOpen { path: path.into(), mode, wanted });
    }
    Ok(())
}

/// Why a private file was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refused.
    #[error("cannot {action} {path}", path = path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Something is already there.
    #[error(
        "{path} exists already and is left as it is; move it away if a new one is wanted",
        path = path.display()
    )]
    Exists {
        /// What exists.
        path: PathBuf,
    },
    /// Others can read or write it.
    #[error(
        "{path} holds secrets but has mode {mode:04o}, so others can reach it; after making sure that nobody did: chmod {wanted} {path}",
        path = path.display()
    )]
    TooOpen {
        /// What is too open.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// The mode it should have.
        wanted: &'static str,
    },
    /// It belongs to another user.
    #[error(
        "{path} belongs to uid {owner}, but this program runs as uid {ours}; run it as the owner, or: chown {ours} {path}",
        path = path.display()
    )]
    ForeignOwner {
        /// What belongs to someone else.
        path: PathBuf,
        /// Its owner's uid.
        owner: u32,
        /// Our effective uid.
        ours: u32,
    },
    /// It is a directory, a device or a fifo.
    #[error("{path} is not a plain file", path = path.display())]
    NotAFile {
        /// What is no file.
        path: PathBuf,
    },
    /// It is longer than any key or certificate.
    #[error("{path} is longer than {MAX_LEN} bytes, so it is not what belongs here", path = path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// It is not UTF-8.
    #[error("{path} is not text, so it is not what belongs here", path = path.display())]
    NotText {
        /// The file.
        path: PathBuf,
    },
}

impl Error {
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { action, path: path.into(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_file_is_private_and_never_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        create(&path, b"one").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert!(matches!(create(&path, b"two"), Err(Error::Exists { .. })));
        assert_eq!(read(&path).unwrap(), b"one");
        replace(&path, b"three").unwrap();
        assert_eq!(read(&path).unwrap(), b"three");
    }

    /// The umask belongs to the whole process, so another process makes the files.
    #[test]
    fn modes_do_not_depend_on_the_umask() {
        const VARIABLE: &str = "CERTS_TEST_UMASK_DIR";
        if let Some(dir) = std::env::var_os(VARIABLE) {
            let dir = PathBuf::from(dir).join("keys");
            create_dir(&dir).unwrap();
            create(&dir.join("key"), b"secret").unwrap();
            return;
        }
        for umask in ["000", "077", "777"] {
            let dir = tempfile::tempdir().unwrap();
            let script = format!("umask {umask}; exec \"$0\" --exact \"$1\"");
            let status = std::process::Command::new("sh")
                .args(["-c", &script])
                .arg(std::env::current_exe().unwrap())
                .arg("keyfile::tests::modes_do_not_depend_on_the_umask")
                .env(VARIABLE, dir.path())
                .stdout(std::process::Stdio::null())
                .status();
            assert!(status.unwrap().success());
            let mode = |name: &str| fs::metadata(dir.path().join(name)).unwrap().mode() & 0o7777;
            assert_eq!((mode("keys"), mode("keys/key")), (0o700, 0o600), "umask {umask}");
        }
    }

    #[test]
    fn a_loose_key_file_is_refused_with_the_exact_command() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        create(&path, b"secret").unwrap();
        for mode in [0o640, 0o604, 0o660, 0o620] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let message = read(&path).unwrap_err().to_string();
            assert!(message.ends_with(&format!("chmod 600 {}", path.display())), "{message}");
        }
    }

    #[test]
    fn links_fifos_directories_and_long_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        create(&path("key"), b"secret").unwrap();
        std::os::unix::fs::symlink(path("key"), path("link")).unwrap();
        assert!(matches!(read(&path("link")), Err(Error::Io { .. })));
        create_dir(&path("dir")).unwrap();
        assert!(matches!(read(&path("dir")), Err(Error::NotAFile { .. })));
        create(&path("long"), &vec![b'a'; MAX_LEN as usize + 1]).unwrap();
        assert!(matches!(read(&path("long")), Err(Error::TooLong { .. })));
    }

    #[test]
    fn a_directory_that_others_can_enter_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        create_dir(&path).unwrap();
        check_dir(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        let message = check_dir(&path).unwrap_err().to_string();
        assert!(message.ends_with(&format!("chmod 700 {}", path.display())), "{message}");
    }
}
