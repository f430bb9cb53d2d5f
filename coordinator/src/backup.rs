//! Saving a coordinator to one file, and making one from it again.
//!
//! A restored coordinator knows less than its agents: revisions and heads have gone back. So the
//! restore epoch is raised, which agents obey and show, and certificates that were issued after the
//! backup are unknown and refused until their holders enroll again.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use certs::keyfile;

use crate::{
    config::{Config, FILE},
    db::{self, DATABASE_FILE, Database, backed_up_files, forget_backed_up_files},
    init::{self, ADMIN, AUTHORITY, HEAD_KEY, ROOT_KEY},
};

/// Saves the coordinator in `config.data` to the new file `out`, also while it runs.
pub async fn back_up(config: &Config, out: &Path) -> Result<(), Error> {
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
    files.extend(read_all(data, AUTHORITY, AUTHORITY)?);
    files.extend(read_all(data, &format!("{ADMIN}/identity"), ADMIN)?);
    // In a directory of its own until it is complete: keys are never in a file that others read.
    let work = out.with_extension("unfinished");
    keyfile::create_dir(&work)?;
    let made = write(data, &files, &work.join("backup"), out).await;
    fs::remove_dir_all(&work).map_err(|source| Error::Io { path: work, source })?;
    made
}

/// Makes a coordinator in `data`, which must not be there or be empty, from the backup `from`.
pub async fn restore(from: &Path, data: &Path) -> Result<(), Error> {
    let files = backed_up_files(from).await?;
    init::prepare(data)?;
    let io = |path: &Path, source| Error::Io { path: path.into(), source };
    let database_file = data.join(DATABASE_FILE);
    fs::copy(from, &database_file).map_err(|source| io(&database_file, source))?;
    fs::set_permissions(&database_file, fs::Permissions::from_mode(0o600))
        .map_err(|source| io(&database_file, source))?;
    forget_backed_up_files(&database_file).await?;
    let database = Database::open_sqlite(data).await?;
    let mut tx = database.write().await?;
    let epoch = tx.raise_restore_epoch().await?;
    let detail = format!("restore epoch {epoch}");
    tx.audit(jiff::Timestamp::now(), "coordinator", "restore", "coordinator", &detail).await?;
    tx.next_revision(&[]).await?;
    tx.commit().await?;
    database.close().await;
    for dir in [AUTHORITY, ADMIN] {
        keyfile::create_dir(&data.join(dir))?;
    }
    // The configuration last: it is what makes the directory a coordinator's.
    let (configuration, keys): (Vec<_>, Vec<_>) =
        files.into_iter().partition(|(name, _)| name == FILE);
    for (name, content) in keys.iter().chain(&configuration) {
        if !is_expected(name) {
            return Err(Error::NotABackup { path: from.into(), name: name.clone() });
        }
        keyfile::create(&data.join(name), content.as_bytes())?;
    }
    Ok(keyfile::sync_dir(data)?)
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
    unfinished: &Path,
    out: &Path,
) -> Result<(), Error> {
    let io = |source| Error::Io { path: out.into(), source };
    let database = Database::open_sqlite(data).await?;
    let written = database.back_up(unfinished, files).await;
    database.close().await;
    written?;
    fs::set_permissions(unfinished, fs::Permissions::from_mode(0o600)).map_err(io)?;
    let again = backed_up_files(unfinished).await?;
    if again.len() != files.len() {
        return Err(Error::NotABackup { path: out.into(), name: "too few files".into() });
    }
    fs::File::open(unfinished).and_then(|file| file.sync_all()).map_err(io)?;
    fs::rename(unfinished, out).map_err(io)
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
        Some((dir, file)) => [AUTHORITY, ADMIN].contains(&dir) && plain(file),
        None => [HEAD_KEY, ROOT_KEY, FILE].contains(&name),
    }
}
