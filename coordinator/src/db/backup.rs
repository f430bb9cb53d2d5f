//! A backup is one SQLite file: a consistent copy of the database, with the key files in a table
//! beside it, so that neither can be restored without the other.

use std::path::Path;

use sqlx::{
    ConnectOptions as _, Connection as _,
    sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode},
};

use super::{Database, Error};

impl Database {
    /// Writes a backup to the new file `to`, while the database is in use: `files` are names and
    /// texts of what else belongs to it.
    ///
    /// # Errors
    /// [`Error::NotHere`] for PostgreSQL, which has its own tools.
    pub async fn back_up(&self, to: &Path, files: &[(String, String)]) -> Result<(), Error> {
        self.copy_to(to).await?;
        let mut copy = open(to).await?;
        let create =
            "CREATE TABLE backup_files (name TEXT NOT NULL PRIMARY KEY, content TEXT NOT NULL)";
        sqlx::query(create).execute(&mut copy).await?;
        for (name, content) in files {
            let insert = "INSERT INTO backup_files (name, content) VALUES ($1, $2)";
            sqlx::query(insert).bind(name).bind(content).execute(&mut copy).await?;
        }
        Ok(copy.close().await?)
    }
}

/// The files of a backup, after the whole of it was checked.
pub async fn backed_up_files(backup: &Path) -> Result<Vec<(String, String)>, Error> {
    let mut copy = open(backup).await?;
    let (verdict,): (String,) =
        sqlx::query_as("PRAGMA integrity_check").fetch_one(&mut copy).await?;
    if verdict != "ok" {
        return Err(Error::corrupt("backup", verdict));
    }
    let files = sqlx::query_as("SELECT name, content FROM backup_files ORDER BY name")
        .fetch_all(&mut copy)
        .await?;
    copy.close().await?;
    Ok(files)
}

/// Takes the files out of a database that was restored.
pub async fn forget_backed_up_files(database: &Path) -> Result<(), Error> {
    let mut copy = open(database).await?;
    sqlx::query("DROP TABLE backup_files").execute(&mut copy).await?;
    // What was deleted must not stay in free pages: there were keys in it.
    sqlx::query("VACUUM").execute(&mut copy).await?;
    Ok(copy.close().await?)
}

async fn open(path: &Path) -> Result<SqliteConnection, Error> {
    SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Delete)
        .connect()
        .await
        .map_err(|source| Error::Open { path: path.into(), source })
}
