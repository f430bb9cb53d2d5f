//! The root documents.

use jiff::Timestamp;
use protocol::{dsse::Envelope, generation::RootNumber};

use super::{Error, Transaction, execute, from_json, rows, to_bigint, to_json, to_micros};

impl Transaction {
    /// Stores the next root document.
    pub async fn add_root(
        &mut self,
        number: RootNumber,
        root: &Envelope,
        now: Timestamp,
    ) -> Result<(), Error> {
        let insert = "INSERT INTO roots (number, accepted, root) VALUES ($1, $2, $3)";
        let text = to_json("root document", root)?;
        execute!(self, insert, to_bigint(number.0), to_micros(now), text).map(drop)
    }

    /// The root documents after number `after`, the oldest first.
    pub async fn roots(&mut self, after: RootNumber, limit: u64) -> Result<Vec<Envelope>, Error> {
        let sql = "SELECT root FROM roots WHERE number > $1 ORDER BY number LIMIT $2";
        let found = rows!(self, (String,), sql, to_bigint(after.0), to_bigint(limit))?;
        found.into_iter().map(|(text,)| from_json("root document", &text)).collect()
    }

    /// The newest root document.
    pub async fn newest_root(&mut self) -> Result<Option<Envelope>, Error> {
        let sql = "SELECT root FROM roots ORDER BY number DESC LIMIT 1";
        let mut found = rows!(self, (String,), sql)?;
        found.pop().map(|(text,)| from_json("root document", &text)).transpose()
    }
}
