//! Saving a coordinator to one file, and making one from it again.
//!
//! A backup holds every key of the network, so it is sealed ([`certs::seal`]): with a key of its own in
//! a file beside it, which is to be kept elsewhere, or with a secret that the admin names. Before it
//! is sealed it lies in the data directory, where the keys lie anyway, and nowhere else.
//!
//! A restored coordinator knows less than its agents: definitions and heads have gone back. So the
//! restore epoch is raised, which agents obey and show; revisions go on far above those that were
//! lost, so that whoever asks for newer ones hears of it, also long after; and certificates that were
//! issued after the backup are unknown and refused until their holders enroll again. What must not
//! come back is taken care of: invites that were open end, because they may have been used since, and
//! what was revoked since is revoked again from the [journal](crate::journal).

use std::{
    fs::{self, File},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use certs::{
    keyfile,
    seal::{self, Secret},
};

use crate::{
    authorities::{NEXT, PREVIOUS},
    config::{Config, FILE},
    db::{self, Counter, DATABASE_FILE, Database, Topic, backed_up_files, forget_backed_up_files},
    init::{self, ADMIN, AUTHORITY, HEAD_KEY, ROOT_KEY},
    journal::{self, Revocation},
};

/// The directories in the data directory whose files are saved.
const DIRECTORIES: [&str; 4] = [AUTHORITY, NEXT, PREVIOUS, ADMIN];
/// In the data directory, while a backup is made.
const WORK: &str = "backup.unfinished";
const PLAIN: &str = "backup";

/// The file that holds the secret of a backup where none is named: `BACKUP.key`.
pub fn key_file_of(backup: &Path) -> PathBuf {
    let mut path = backup.as_os_str().to_owned();
    path.push(".key");
    path.into()
}

/// Saves the coordinator in `config.data` to the new file `out`, also while it runs, sealed with the
/// secret in `key_file`, which is made if it is not there.
pub async fn back_up(config: &Config, out: &Path, key_file: &Path) -> Result<(), Error> {
    if config.database.url.is_some() {
        return Err(db::Error::NotHere.into());
    }
    let data = &config.data;
    keyfile::check_dir(data)?;
    if out.symlink_metadata().is_ok() {
        return Err(keyfile::Error::Exists { path: out.into() }.into());
    }
    let mut files = vec![read(data, HEAD_KEY)?, read(data, FILE)?];
    if data.join(ROOT_KEY).exists() {
        files.push(read(data, ROOT_KEY)?);
    }
    for authority in [AUTHORITY, NEXT, PREVIOUS] {
        files.extend(read_all(data, authority, authority)?);
    }
    files.extend(read_all(data, &format!("{ADMIN}/identity"), ADMIN)?);
    let secret = match key_file.symlink_metadata() {
        Ok(_) => read_secret(key_file)?,
        Err(_) => {
            let text = Secret::generate().map_err(seal::Error::from);
            let text = text.map_err(|source| Error::Seal { path: out.into(), source })?;
            keyfile::create(key_file, format!("{text}\n").as_bytes())?;
            read_secret(key_file)?
        }
    };
    // Left over from a backup that was interrupted: whoever could read it may read the keys anyway.
    let work = data.join(WORK);
    remove_work(&work)?;
    keyfile::create_dir(&work)?;
    let made = write(data, &files, &work.join(PLAIN), out, &secret).await;
    remove_work(&work)?;
    made
}

/// Reads the whole backup `from`, sealed with the secret in `key_file`, and tells whether a
/// coordinator can be made of it. `data` is where one would be made; beside it lies for a moment what
/// is checked.
pub async fn verify(from: &Path, key_file: &Path, data: &Path) -> Result<(), Error> {
    let mut work = data.as_os_str().to_owned();
    work.push(".verify");
    let work = PathBuf::from(work);
    keyfile::create_dir(&work)?;
    let plain = work.join(PLAIN);
    let checked = match unseal(from, &plain, &read_secret(key_file)?) {
        Ok(()) => files_of(&plain, from).await.map(drop),
        Err(error) => Err(error),
    };
    remove_work(&work)?;
    checked
}

/// Makes a coordinator in `data`, which must not be there or be empty, from the backup `from`, which
/// was sealed with the secret in `key_file`. `revoked` is what was revoked since, as far as it is
/// known; gives how many identities were revoked again.
pub async fn restore(
    from: &Path,
    key_file: &Path,
    data: &Path,
    revoked: &[Revocation],
) -> Result<usize, Error> {
    let secret = read_secret(key_file)?;
    init::prepare(data)?;
    let database_file = data.join(DATABASE_FILE);
    let made = async {
        unseal(from, &database_file, &secret)?;
        files_of(&database_file, from).await
    };
    let files = match made.await {
        Ok(files) => files,
        Err(error) => {
            // Only what was written here: the directory was empty.
            fs::remove_file(&database_file).ok();
            return Err(error);
        }
    };
    forget_backed_up_files(&database_file).await?;
    let database = Database::open_sqlite(data).await?;
    let again = go_on(&database, revoked).await?;
    database.close().await;
    for dir in DIRECTORIES {
        if files.iter().any(|(name, _)| name.split_once('/').is_some_and(|(of, _)| of == dir)) {
            keyfile::create_dir(&data.join(dir))?;
        }
    }
    // The configuration last: it is what makes the directory a coordinator's.
    let (configuration, keys): (Vec<_>, Vec<_>) =
        files.into_iter().partition(|(name, _)| name == FILE);
    for (name, content) in keys.iter().chain(&configuration) {
        keyfile::create(&data.join(name), content.as_bytes())?;
    }
    keyfile::sync_dir(data)?;
    Ok(again)
}

/// What is different after a restore.
async fn go_on(database: &Database, revoked: &[Revocation]) -> Result<usize, Error> {
    let now = jiff::Timestamp::now();
    let mut tx = database.write().await?;
    let epoch = tx.raise_restore_epoch().await?;
    tx.set_time(Counter::Restored, now).await?;
    tx.end_open_invites(now).await?;
    let mut again = 0;
    for Revocation { role, name, at, reason } in revoked {
        let identity = tx.identity(*role, name).await?;
        // One that enrolled after it is another one.
        let is_meant = identity.is_some_and(|i| i.revoked.is_none() && i.created <= *at);
        if is_meant {
            tx.revoke_identity(*role, name, reason, *at).await?;
            let target = format!("{role}/{name}");
            let detail = format!("it was revoked at {at}, after the backup: {reason}");
            tx.audit(now, "coordinator", "revoke", &target, &detail).await?;
            again += 1;
        }
    }
    let detail = format!("restore epoch {epoch}");
    tx.audit(now, "coordinator", "restore", "coordinator", &detail).await?;
    // The roots concern everybody: agents and publishers are told.
    tx.next_revision(&[Topic::Identities, Topic::Roots]).await?;
    tx.commit().await?;
    Ok(again)
}

/// The files in an unsealed backup, all of them such as belong there.
async fn files_of(plain: &Path, from: &Path) -> Result<Vec<(String, String)>, Error> {
    let files = backed_up_files(plain).await?;
    match files.iter().find(|(name, _)| !is_expected(name)) {
        Some((name, _)) => Err(Error::NotABackup { path: from.into(), name: name.clone() }),
        None => Ok(files),
    }
}

fn read_secret(path: &Path) -> Result<Secret, Error> {
    let text = keyfile::read_text(path)?;
    Secret::parse(&text).map_err(|source| Error::Seal { path: path.into(), source })
}

fn unseal(from: &Path, to: &Path, secret: &Secret) -> Result<(), Error> {
    let sealed = File::open(from).map_err(|source| Error::Io { path: from.into(), source })?;
    let plain = private(to)?;
    let read = std::io::BufReader::new(sealed);
    seal::open(read, &plain, secret).map_err(|source| Error::Seal { path: from.into(), source })?;
    plain.sync_all().map_err(|source| Error::Io { path: to.into(), source })
}

/// A new file that only its owner can read.
fn private(path: &Path) -> Result<File, Error> {
    let made = File::options().write(true).create_new(true).mode(0o600).open(path);
    made.map_err(|source| Error::Io { path: path.into(), source })
}

fn remove_work(work: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(work) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::Io { path: work.into(), source })
        }
        _ => Ok(()),
    }
}

/// Why nothing was saved or restored.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database.
    #[error(transparent)]
    Database(#[from] db::Error),
    /// A key file or a directory.
    #[error(transparent)]
    KeyFile(#[from] keyfile::Error),
    /// The data directory cannot be used.
    #[error(transparent)]
    Directory(#[from] init::Error),
    /// A file.
    #[error("cannot write or read {path}", path = path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It cannot be sealed or opened.
    #[error("{path} cannot be used; is the key file the one that this backup was made with?", path = path.display())]
    Seal {
        /// The backup or the key file.
        path: PathBuf,
        /// Why not.
        source: seal::Error,
    },
    /// The journal of revocations.
    #[error(transparent)]
    Journal(#[from] journal::Error),
    /// The file is something else.
    #[error("{path} is no backup of a coordinator: it holds {name:?}", path = path.display())]
    NotABackup {
        /// The file.
        path: PathBuf,
        /// What does not belong there.
        name: String,
    },
}

async fn write(
    data: &Path,
    files: &[(String, String)],
    plain: &Path,
    out: &Path,
    secret: &Secret,
) -> Result<(), Error> {
    let io = |source| Error::Io { path: out.into(), source };
    let sealing = |source| Error::Seal { path: out.into(), source };
    let database = Database::open_sqlite(data).await?;
    let written = database.back_up(plain, files).await;
    database.close().await;
    written?;
    fs::set_permissions(plain, fs::Permissions::from_mode(0o600)).map_err(io)?;
    if files_of(plain, out).await?.len() != files.len() {
        return Err(Error::NotABackup { path: out.into(), name: "too few files".into() });
    }
    let unfinished = out.with_extension("unfinished");
    let sealed = private(&unfinished)?;
    let finished = (|| {
        seal::seal(File::open(plain).map_err(io)?, &sealed, secret).map_err(sealing)?;
        sealed.sync_all().map_err(io)?;
        // What cannot be opened again is no backup.
        let read = std::io::BufReader::new(File::open(&unfinished).map_err(io)?);
        let mut same = Same { expected: File::open(plain).map_err(io)? };
        seal::open(read, &mut same, secret).map_err(sealing)?;
        fs::rename(&unfinished, out).map_err(io)
    })();
    if finished.is_err() {
        // The error is what has to be told; a file that is in the way is told at the next try.
        fs::remove_file(&unfinished).ok();
    }
    finished
}

/// Takes only what a file holds.
struct Same {
    expected: File,
}

impl std::io::Write for Same {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let mut expected = vec![0; bytes.len()];
        std::io::Read::read_exact(&mut self.expected, &mut expected)?;
        if expected == bytes {
            Ok(bytes.len())
        } else {
            Err(std::io::Error::other("what was written is not what is read"))
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn read(data: &Path, name: &str) -> Result<(String, String), Error> {
    Ok((name.to_owned(), keyfile::read_text(&data.join(name))?))
}

/// Every file in a directory, under the name of the directory that it is restored to.
fn read_all(data: &Path, dir: &str, restored: &str) -> Result<Vec<(String, String)>, Error> {
    let path = data.join(dir);
    let Ok(entries) = fs::read_dir(&path) else { return Ok(vec![]) };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|source| Error::Io { path: path.clone(), source })?;
        let name = entry.file_name().to_string_lossy().into_owned();
        files.push((format!("{restored}/{name}"), keyfile::read_text(&entry.path())?));
    }
    Ok(files)
}

/// Only what a backup writes is restored: a name never leads anywhere else.
fn is_expected(name: &str) -> bool {
    let plain = |name: &str| {
        !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\', '\0'])
    };
    match name.split_once('/') {
        Some((dir, file)) => DIRECTORIES.contains(&dir) && plain(file),
        None => [HEAD_KEY, ROOT_KEY, FILE].contains(&name),
    }
}
