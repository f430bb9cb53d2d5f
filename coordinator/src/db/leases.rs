//! Connections that agents may have to upstreams that allow only so many.

use jiff::Timestamp;
use protocol::name::{IdentityName, UpstreamName};
use uuid::Uuid;

use super::{Error, Transaction, execute, row, to_micros};

impl Transaction {
    /// Takes or prolongs a lease until a time, unless `most` others count already. One writer at a
    /// time: two can never both see the last place.
    pub async fn take_lease(
        &mut self,
        id: Uuid,
        (upstream, most): (&UpstreamName, u32),
        agent: &IdentityName,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<bool, Error> {
        let id = id.to_string();
        execute!(self, "DELETE FROM leases WHERE until <= $1", to_micros(now))?;
        let count = "SELECT COUNT(*) FROM leases WHERE upstream = $1 AND id <> $2";
        let others = row!(self, (i64,), count, upstream.as_str(), id.as_str())?;
        if others.is_some_and(|(others,)| others >= i64::from(most)) {
            return Ok(false);
        }
        execute!(
            self,
            "INSERT INTO leases (id, upstream, agent, until) VALUES ($1, $2, $3, $4)
             ON CONFLICT (id) DO UPDATE SET until = excluded.until
             WHERE leases.agent = excluded.agent AND leases.upstream = excluded.upstream",
            id.as_str(),
            upstream.as_str(),
            agent.as_str(),
            to_micros(until),
        )
        .map(|changed| changed == 1)
    }

    /// Gives a lease back; only its own agent can.
    pub async fn end_lease(&mut self, id: Uuid, agent: &IdentityName) -> Result<(), Error> {
        let (sql, id) = ("DELETE FROM leases WHERE id = $1 AND agent = $2", id.to_string());
        execute!(self, sql, id.as_str(), agent.as_str()).map(drop)
    }
}
