//! SQLite in the data directory.

use std::{path::Path, time::Duration};

use sqlx::{
    SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use super::Error;

/// The database's file in the data directory.
pub const FILE: &str = "coordinator.db";

/// Longest wait for the one writer's place.
const PATIENCE: Duration = Duration::from_secs(30);
/// Readers never wait for the writer (WAL); more of them than cores buys nothing.
const READERS: u32 = 4;

/// The one connection that writes, and those that read.
pub(super) async fn open(path: &Path) -> Result<(SqlitePool, SqlitePool), Error> {
    let failed = |source| Error::Open { path: path.into(), source };
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        // What was answered has to survive a power cut: revocations and consumed invites too.
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(PATIENCE);
    let pool = |connections| {
        SqlitePoolOptions::new()
            .max_connections(connections)
            .min_connections(1)
            .acquire_timeout(PATIENCE)
            .idle_timeout(None)
            .max_lifetime(None)
    };
    let writer = pool(1).connect_with(options.clone()).await.map_err(failed)?;
    let readers = pool(READERS).connect_with(options).await.map_err(failed)?;
    Ok((writer, readers))
}

pub(super) async fn copy(readers: &SqlitePool, to: &Path) -> Result<(), Error> {
    let to = to.to_str().ok_or_else(|| Error::corrupt("file name", "it is not UTF-8"))?;
    sqlx::query("VACUUM INTO $1").bind(to).execute(readers).await?;
    Ok(())
}
