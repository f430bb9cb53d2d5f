//! Mandates.

use protocol::{dsse::Envelope, spec::AssignmentName};

use super::{Error, Transaction, execute, from_json, parsed, rows, to_bigint, to_json};

impl Transaction {
    /// Keeps a mandate, unless one that is as new or newer is there. Gives whether it was kept.
    pub async fn put_mandate(
        &mut self,
        assignment: &AssignmentName,
        number: u64,
        mandate: &Envelope,
    ) -> Result<bool, Error> {
        let sql = "INSERT INTO mandates (assignment, number, mandate) VALUES ($1, $2, $3)
                   ON CONFLICT (assignment) DO UPDATE
                   SET number = excluded.number, mandate = excluded.mandate
                   WHERE mandates.number < excluded.number";
        let text = to_json("mandate", mandate)?;
        let kept = execute!(self, sql, assignment.to_string(), to_bigint(number), text)?;
        Ok(kept > 0)
    }

    /// Every mandate.
    pub async fn mandates(&mut self) -> Result<Vec<(AssignmentName, Envelope)>, Error> {
        let sql = "SELECT assignment, mandate FROM mandates ORDER BY assignment";
        let found = rows!(self, (String, String), sql)?;
        let read = |(name, text): (String, String)| {
            Ok((parsed("assignment", &name)?, from_json("mandate", &text)?))
        };
        found.into_iter().map(read).collect()
    }
}
