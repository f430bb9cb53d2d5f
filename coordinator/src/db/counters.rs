//! Numbers that grow, and which topic each revision concerned.

use std::{collections::HashMap, fmt, str::FromStr};

use jiff::Timestamp;
use protocol::{
    generation::{HeadNumber, RestoreEpoch, Revision},
    name::{IdentityName, TreeName},
};

use super::{Error, Transaction, execute, from_bigint, from_micros, row, rows, to_micros};

/// More revisions than a coordinator makes between a backup and the loss of its database.
const MOST_REVISIONS_LOST: i64 = 1_000_000_000;

/// Counters that are no revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counter {
    /// Time up to which ended grants were acted upon.
    LookedAt,
    /// Time at which the heads were last renewed for their age.
    HeadRenewed,
    /// Time at which the database was last restored from a backup.
    Restored,
}

impl Counter {
    const fn as_str(self) -> &'static str {
        match self {
            Self::LookedAt => "looked-at",
            Self::HeadRenewed => "head-renewed",
            Self::Restored => "restored",
        }
    }
}

/// What a revision can concern.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Topic {
    /// The orders of one agent.
    Agent(IdentityName),
    /// The orders of one publisher.
    Publisher(IdentityName),
    /// The current generation and the offers of a tree: all who hold it.
    Tree(TreeName),
    /// Every agent: the head's age.
    Heads,
    /// Identities and certificates were changed.
    Identities,
    /// Definitions or requests were changed.
    Definitions,
    /// Generations, offers or holds were changed.
    Generations,
    /// Receipts were changed.
    Receipts,
    /// Who may sign what was changed.
    Roots,
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agent(name) => write!(f, "agent/{name}"),
            Self::Publisher(name) => write!(f, "publisher/{name}"),
            Self::Tree(name) => write!(f, "tree/{name}"),
            Self::Heads => f.write_str("part/heads"),
            Self::Identities => f.write_str("part/identities"),
            Self::Definitions => f.write_str("part/definitions"),
            Self::Generations => f.write_str("part/generations"),
            Self::Receipts => f.write_str("part/receipts"),
            Self::Roots => f.write_str("part/roots"),
        }
    }
}

impl FromStr for Topic {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unknown = || format!("{text:?} is no topic");
        let (kind, name) = text.split_once('/').ok_or_else(unknown)?;
        match (kind, name) {
            ("agent", name) => name.parse().map(Self::Agent).map_err(|_| unknown()),
            ("publisher", name) => name.parse().map(Self::Publisher).map_err(|_| unknown()),
            ("tree", name) => name.parse().map(Self::Tree).map_err(|_| unknown()),
            ("part", "heads") => Ok(Self::Heads),
            ("part", "identities") => Ok(Self::Identities),
            ("part", "definitions") => Ok(Self::Definitions),
            ("part", "generations") => Ok(Self::Generations),
            ("part", "receipts") => Ok(Self::Receipts),
            ("part", "roots") => Ok(Self::Roots),
            _ => Err(unknown()),
        }
    }
}

impl Transaction {
    /// Takes the writer's place for the rest of the transaction.
    pub(super) async fn lock_counters(&mut self) -> Result<(), Error> {
        if self.is_postgres() {
            let lock = "SELECT value FROM counters WHERE name = 'revision' FOR UPDATE";
            rows!(self, (i64,), lock)?;
        }
        Ok(())
    }

    /// The newest revision.
    pub async fn revision(&mut self) -> Result<Revision, Error> {
        self.value("revision").await.map(|value| Revision(from_bigint(value)))
    }

    /// The newest head number.
    pub async fn head_number(&mut self) -> Result<HeadNumber, Error> {
        self.value("head").await.map(|value| HeadNumber(from_bigint(value)))
    }

    /// How often the coordinator was restored from a backup, from 1.
    pub async fn restore_epoch(&mut self) -> Result<RestoreEpoch, Error> {
        self.value("restore-epoch").await.map(|value| RestoreEpoch(from_bigint(value)))
    }

    /// Raises the restore epoch, and puts the next revision above all that the lost database can have
    /// told: whoever asks for what is newer than that is told of the restore, whenever it asks.
    pub async fn raise_restore_epoch(&mut self) -> Result<RestoreEpoch, Error> {
        self.raise_by("revision", MOST_REVISIONS_LOST).await?;
        self.raise("restore-epoch").await.map(|value| RestoreEpoch(from_bigint(value)))
    }

    /// Makes the next revision, which concerns `topics`. Heads of it get the next number.
    pub async fn next_revision(&mut self, topics: &[Topic]) -> Result<Revision, Error> {
        self.raise("head").await?;
        let revision = self.raise("revision").await?;
        for topic in topics {
            execute!(
                self,
                "INSERT INTO topics (name, revision) VALUES ($1, $2)
                 ON CONFLICT (name) DO UPDATE SET revision = excluded.revision",
                topic.to_string(),
                revision,
            )?;
        }
        Ok(Revision(from_bigint(revision)))
    }

    /// Every topic that has a revision above `after`.
    pub async fn topics_after(
        &mut self,
        after: Revision,
    ) -> Result<HashMap<Topic, Revision>, Error> {
        let sql = "SELECT name, revision FROM topics WHERE revision > $1";
        let found = rows!(self, (String, i64), sql, super::to_bigint(after.0))?;
        found
            .into_iter()
            .map(|(name, revision)| {
                Ok((super::parsed("topic", &name)?, Revision(from_bigint(revision))))
            })
            .collect()
    }

    /// A time that is kept among the counters; 1970 at first.
    pub async fn time_of(&mut self, counter: Counter) -> Result<Timestamp, Error> {
        from_micros(self.value(counter.as_str()).await?)
    }

    /// Keeps a time among the counters.
    pub async fn set_time(&mut self, counter: Counter, time: Timestamp) -> Result<(), Error> {
        let sql = "UPDATE counters SET value = $2 WHERE name = $1";
        execute!(self, sql, counter.as_str(), to_micros(time)).map(drop)
    }

    pub(super) async fn raise(&mut self, name: &'static str) -> Result<i64, Error> {
        self.raise_by(name, 1).await
    }

    async fn raise_by(&mut self, name: &'static str, by: i64) -> Result<i64, Error> {
        let sql = "UPDATE counters SET value = value + $2 WHERE name = $1 RETURNING value";
        let found = row!(self, (i64,), sql, name, by)?;
        found.map(|(value,)| value).ok_or_else(|| Error::corrupt("counter", name))
    }

    async fn value(&mut self, name: &'static str) -> Result<i64, Error> {
        let found = row!(self, (i64,), "SELECT value FROM counters WHERE name = $1", name)?;
        found.map(|(value,)| value).ok_or_else(|| Error::corrupt("counter", name))
    }
}
