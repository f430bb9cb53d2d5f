//! Documents that definitions were made of.

use jiff::Timestamp;
use protocol::v1::definitions::{Imported, System};

use super::{Error, Transaction, execute, row, to_micros};

impl Transaction {
    /// Keeps a document over the one that was imported before.
    pub async fn put_imported(&mut self, imported: &Imported, at: Timestamp) -> Result<(), Error> {
        let sql = "INSERT INTO imported (system, at, document) VALUES ($1, $2, $3)
             ON CONFLICT (system) DO UPDATE SET at = excluded.at, document = excluded.document";
        let Imported { system, document } = imported;
        execute!(self, sql, system.as_str(), to_micros(at), document.as_str()).map(drop)
    }

    /// The document that was imported last.
    pub async fn imported(&mut self, system: System) -> Result<Option<Imported>, Error> {
        let sql = "SELECT document FROM imported WHERE system = $1";
        let found = row!(self, (String,), sql, system.as_str())?;
        Ok(found.map(|(document,)| Imported { system, document }))
    }
}
