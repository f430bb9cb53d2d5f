//! Who did what, in a chain that shows when an entry was taken out.

use jiff::Timestamp;
use protocol::v1::audit::AuditEntry;

use super::{
    Error, Transaction, execute, from_bigint, from_micros, row, rows, to_bigint, to_micros,
};

type AuditRow = (i64, i64, String, String, String, String, String, String);

impl Transaction {
    /// Appends an entry.
    pub async fn audit(
        &mut self,
        at: Timestamp,
        who: &str,
        what: &str,
        target: &str,
        detail: &str,
    ) -> Result<(), Error> {
        let number = self.raise("audit").await?;
        let last = "SELECT digest FROM audit WHERE number = $1";
        let previous = row!(self, (String,), last, number - 1)?.map_or(String::new(), |row| row.0);
        let mut entry = AuditEntry {
            number: from_bigint(number),
            at,
            who: who.to_owned(),
            what: what.to_owned(),
            target: target.to_owned(),
            detail: detail.to_owned(),
            previous,
            digest: String::new(),
        };
        entry.digest = entry.expected_digest();
        execute!(
            self,
            "INSERT INTO audit (number, at, who, what, target, detail, previous, digest)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
            number,
            to_micros(at),
            entry.who,
            entry.what,
            entry.target,
            entry.detail,
            entry.previous,
            entry.digest,
        )
        .map(drop)
    }

    /// The entries after number `after`, the oldest first.
    pub async fn audit_log(&mut self, after: u64, limit: u64) -> Result<Vec<AuditEntry>, Error> {
        let sql = "SELECT number, at, who, what, target, detail, previous, digest FROM audit
             WHERE number > $1 ORDER BY number LIMIT $2";
        rows!(self, AuditRow, sql, to_bigint(after), to_bigint(limit))?
            .into_iter()
            .map(entry)
            .collect()
    }

    /// The newest entries of either of two kinds that were made at `since` or later, the newest
    /// first; at most a hundred.
    pub async fn audited_since(
        &mut self,
        since: Timestamp,
        [one, other]: [&str; 2],
    ) -> Result<Vec<AuditEntry>, Error> {
        let sql = "SELECT number, at, who, what, target, detail, previous, digest FROM audit
             WHERE at >= $1 AND (what = $2 OR what = $3) ORDER BY number DESC LIMIT 100";
        rows!(self, AuditRow, sql, to_micros(since), one, other)?.into_iter().map(entry).collect()
    }
}

fn entry(row: AuditRow) -> Result<AuditEntry, Error> {
    let (number, at, who, what, target, detail, previous, digest) = row;
    Ok(AuditEntry {
        number: from_bigint(number),
        at: from_micros(at)?,
        who,
        what,
        target,
        detail,
        previous,
        digest,
    })
}
