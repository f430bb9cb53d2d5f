//! What admins want back from the trash of an assignment.

use jiff::Timestamp;
use protocol::{
    spec::AssignmentName,
    v1::agent::{UndeleteOrder, UndeleteRequest},
};
use uuid::Uuid;

use super::{Error, Transaction, execute, from_json, parsed, rows, to_json, to_micros};

impl Transaction {
    /// Every wish that no report has answered yet, the oldest first.
    pub async fn undeletes(&mut self) -> Result<Vec<(AssignmentName, UndeleteOrder)>, Error> {
        let sql = "SELECT id, assignment, request FROM undeletes ORDER BY asked, id";
        let found = rows!(self, (String, String, String), sql)?;
        let order = |(id, assignment, request): (String, String, String)| {
            let id = parsed("wish to undelete", &id)?;
            let what: UndeleteRequest = from_json("wish to undelete", &request)?;
            Ok((parsed("wish to undelete", &assignment)?, UndeleteOrder { id, what }))
        };
        found.into_iter().map(order).collect()
    }

    /// Keeps a wish.
    pub async fn add_undelete(
        &mut self,
        assignment: &AssignmentName,
        order: &UndeleteOrder,
        now: Timestamp,
    ) -> Result<(), Error> {
        execute!(
            self,
            "INSERT INTO undeletes (id, assignment, request, asked) VALUES ($1, $2, $3, $4)",
            order.id.to_string(),
            assignment.to_string(),
            to_json("wish to undelete", &order.what)?,
            to_micros(now),
        )
        .map(drop)
    }

    /// Forgets a wish of an assignment; `false` where there is none.
    pub async fn end_undelete(
        &mut self,
        assignment: &AssignmentName,
        id: Uuid,
    ) -> Result<bool, Error> {
        let sql = "DELETE FROM undeletes WHERE id = $1 AND assignment = $2";
        let ended = execute!(self, sql, id.to_string(), assignment.to_string())?;
        Ok(ended > 0)
    }
}
