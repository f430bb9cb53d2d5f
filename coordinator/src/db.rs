//! What the coordinator remembers.
//!
//! SQLite in the data directory, so that a network starts without a database server; PostgreSQL
//! where several replicas stand behind one name. Both run the same statements and the same
//! migrations: the portable subset (TEXT, BIGINT, BOOLEAN, `ON CONFLICT`, `RETURNING`) is enough,
//! and one contract suite runs on both. No trait hides them, because there is no third.
//!
//! **One writer at a time.** A write begins by taking the counters' row (`BEGIN IMMEDIATE`, or
//! `FOR UPDATE`), so writers follow each other, each sees what the one before it stored, and
//! revisions are committed in the order of their numbers. A sequence would hand out 7 and 8 and let
//! 8 commit first: whoever polls in between would never hear of 7.
//!
//! What changes is told by *topics*: each has the revision that last concerned it. An agent's
//! topics are itself and its trees, so it is not woken by what happens to others.

mod audit;
mod backup;
#[cfg(test)]
mod contract;
mod counters;
mod definitions;
mod events;
mod generations;
mod identities;
mod imported;
mod invites;
mod leases;
mod mandates;
mod migrations;
mod postgres;
mod roots;
mod run_logs;
mod runs;
mod sqlite;
#[cfg(test)]
pub(crate) mod testing;
mod tree_secrets;
mod undeletes;

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use sqlx::{PgPool, SqlitePool};

pub use self::{
    backup::{backed_up_files, forget_backed_up_files},
    counters::{Counter, Topic},
    definitions::StoredDefinition,
    events::{Delivery, MAX_QUEUE, Queue},
    generations::{StoredGeneration, StoredHold, StoredOffer},
    identities::{StoredCertificate, StoredIdentity},
    invites::StoredInvite,
    runs::{Outcome, RunFilter, StoredReceipt, StoredRun},
    sqlite::FILE as DATABASE_FILE,
};

/// Runs the same statement on whichever database the transaction is of.
macro_rules! on {
    ($tx:expr, $connection:ident => $body:expr) => {
        match &mut $tx.inner {
            $crate::db::Inner::Sqlite(transaction) => {
                let $connection = &mut **transaction;
                $body
            }
            $crate::db::Inner::Postgres(transaction) => {
                let $connection = &mut **transaction;
                $body
            }
        }
        .map_err($crate::db::Error::from)
    };
}

/// Executes; gives the number of rows concerned.
macro_rules! execute {
    ($tx:expr, $sql:expr $(, $bind:expr)* $(,)?) => {
        $crate::db::on!($tx, connection => {
            let query = sqlx::query($sql)$(.bind($bind))*;
            query.execute(connection).await.map(|done| done.rows_affected())
        })
    };
}

/// Fetches every row, as tuples.
macro_rules! rows {
    ($tx:expr, $row:ty, $sql:expr $(, $bind:expr)* $(,)?) => {
        $crate::db::on!($tx, connection => {
            sqlx::query_as::<_, $row>($sql)$(.bind($bind))*.fetch_all(connection).await
        })
    };
}

/// Fetches one row, if there is one, as a tuple.
macro_rules! row {
    ($tx:expr, $row:ty, $sql:expr $(, $bind:expr)* $(,)?) => {
        $crate::db::on!($tx, connection => {
            sqlx::query_as::<_, $row>($sql)$(.bind($bind))*.fetch_optional(connection).await
        })
    };
}

pub(crate) use {execute, on, row, rows};

/// The coordinator's database.
#[derive(Debug, Clone)]
pub struct Database {
    store: Store,
}

#[derive(Debug, Clone)]
enum Store {
    Sqlite { writer: SqlitePool, readers: SqlitePool },
    Postgres(PgPool),
}

/// A consistent view of the database; with [`Database::write`], one that can be changed. Nothing is
/// stored before [`Transaction::commit`].
pub struct Transaction {
    inner: Inner,
}

enum Inner {
    Sqlite(sqlx::Transaction<'static, sqlx::Sqlite>),
    Postgres(sqlx::Transaction<'static, sqlx::Postgres>),
}

impl Database {
    /// Opens the SQLite database in `dir`, making it if it is not there, and brings it to the
    /// newest schema.
    pub async fn open_sqlite(dir: &Path) -> Result<Self, Error> {
        let (writer, readers) = sqlite::open(&dir.join(sqlite::FILE)).await?;
        Self::migrated(Store::Sqlite { writer, readers }).await
    }

    /// Connects to PostgreSQL and brings the database to the newest schema.
    pub async fn connect_postgres(url: &str) -> Result<Self, Error> {
        Self::migrated(Store::Postgres(postgres::connect(url).await?)).await
    }

    async fn migrated(store: Store) -> Result<Self, Error> {
        let database = Self { store };
        let mut transaction = database.begin_exclusive().await?;
        migrations::run(&mut transaction).await?;
        transaction.commit().await?;
        Ok(database)
    }

    /// Whether other processes may write to this database too.
    pub fn is_shared(&self) -> bool {
        matches!(self.store, Store::Postgres(_))
    }

    /// A consistent view.
    pub async fn read(&self) -> Result<Transaction, Error> {
        let inner = match &self.store {
            Store::Sqlite { readers, .. } => Inner::Sqlite(readers.begin().await?),
            Store::Postgres(pool) => {
                let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
                Inner::Postgres(pool.begin_with(begin).await?)
            }
        };
        Ok(Transaction { inner })
    }

    /// Becomes the one writer.
    pub async fn write(&self) -> Result<Transaction, Error> {
        let mut transaction = self.begin_exclusive().await?;
        transaction.lock_counters().await?;
        Ok(transaction)
    }

    /// Writes a consistent copy of a SQLite database to the new file `to`, while it is in use.
    ///
    /// # Errors
    /// [`Error::NotHere`] for PostgreSQL, which has its own tools.
    pub async fn copy_to(&self, to: &Path) -> Result<(), Error> {
        match &self.store {
            Store::Sqlite { readers, .. } => sqlite::copy(readers, to).await,
            Store::Postgres(_) => Err(Error::NotHere),
        }
    }

    /// Ends all connections.
    pub async fn close(&self) {
        match &self.store {
            Store::Sqlite { writer, readers } => {
                readers.close().await;
                writer.close().await;
            }
            Store::Postgres(pool) => pool.close().await,
        }
    }

    async fn begin_exclusive(&self) -> Result<Transaction, Error> {
        let inner = match &self.store {
            // Deferred, a read that becomes a write fails at once when another one wrote.
            Store::Sqlite { writer, .. } => {
                Inner::Sqlite(writer.begin_with("BEGIN IMMEDIATE").await?)
            }
            Store::Postgres(pool) => Inner::Postgres(pool.begin().await?),
        };
        Ok(Transaction { inner })
    }
}

impl Transaction {
    /// Stores everything, durably.
    pub async fn commit(self) -> Result<(), Error> {
        match self.inner {
            Inner::Sqlite(transaction) => transaction.commit().await?,
            Inner::Postgres(transaction) => transaction.commit().await?,
        }
        Ok(())
    }

    fn is_postgres(&self) -> bool {
        matches!(self.inner, Inner::Postgres(_))
    }
}

/// Why something was not read or stored.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database does not answer, or refuses.
    #[error("the database failed")]
    Sql(#[from] sqlx::Error),
    /// The database cannot be opened.
    #[error("cannot open the database {path}; is the disk there, and is the directory yours?", path = path.display())]
    Open {
        /// Which file.
        path: PathBuf,
        /// What SQLite said.
        source: sqlx::Error,
    },
    /// PostgreSQL cannot be reached.
    #[error(
        "cannot connect to the database of database.url; is it running, and are user and password right?"
    )]
    Connect(#[source] sqlx::Error),
    /// The address is none.
    #[error("database.url is not a PostgreSQL address such as postgres://user@host/name")]
    Url(#[source] sqlx::Error),
    /// A newer program has been here.
    #[error(
        "the database has the schema {found}, which this program does not know; run the newer version again, or restore a backup made before it"
    )]
    Newer {
        /// The unknown migration.
        found: String,
    },
    /// What is stored cannot be understood.
    #[error("the database holds a {what} that cannot be read: {reason}; restore a backup")]
    Corrupt {
        /// What kind of thing.
        what: &'static str,
        /// Which, and what is wrong.
        reason: String,
    },
    /// Only for the database in the data directory.
    #[error("the database is PostgreSQL; back it up with its own tools (pg_dump)")]
    NotHere,
}

impl Error {
    pub(crate) fn corrupt(what: &'static str, reason: impl std::fmt::Display) -> Self {
        Self::Corrupt { what, reason: reason.to_string() }
    }
}

/// Times are stored in microseconds since 1970, because the databases differ in their own types.
fn to_micros(timestamp: Timestamp) -> i64 {
    timestamp.as_microsecond()
}

fn from_micros(micros: i64) -> Result<Timestamp, Error> {
    Timestamp::from_microsecond(micros).map_err(|error| Error::corrupt("time", error))
}

fn from_micros_option(micros: Option<i64>) -> Result<Option<Timestamp>, Error> {
    micros.map(from_micros).transpose()
}

/// Numbers are stored as BIGINT; ours never reach its end.
fn to_bigint(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn from_bigint(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// Reads a stored text as what it was written from.
fn parsed<T>(what: &'static str, text: &str) -> Result<T, Error>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    text.parse().map_err(|error| Error::corrupt(what, error))
}

fn parsed_option<T>(what: &'static str, text: Option<&str>) -> Result<Option<T>, Error>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    text.map(|text| parsed(what, text)).transpose()
}

fn from_json<T: serde::de::DeserializeOwned>(what: &'static str, text: &str) -> Result<T, Error> {
    serde_json::from_str(text).map_err(|error| Error::corrupt(what, error))
}

fn to_json<T: serde::Serialize>(what: &'static str, value: &T) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|error| Error::corrupt(what, error))
}
