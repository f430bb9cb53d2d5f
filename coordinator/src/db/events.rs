//! Events, troubles that go on, and deliveries to webhooks.

use jiff::Timestamp;
use protocol::v1::events::{Event, EventKind};

use super::{
    Error, Transaction, execute, from_bigint, from_json, row, rows, to_bigint, to_json, to_micros,
};

/// Events that are to be delivered to one webhook at most; of more the oldest are given up.
pub const MAX_QUEUE: u64 = 1_000;

/// An event on its way to a webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The webhook's name.
    pub webhook: String,
    /// The event.
    pub event: Event,
    /// How often it was tried.
    pub tries: u32,
}

/// What waits for a webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    /// The webhook's name.
    pub webhook: String,
    /// So many events.
    pub events: u64,
    /// How often one of them was tried, the most.
    pub tries: u64,
    /// Why one of them could not be delivered; empty where none was tried.
    pub error: String,
}

impl Transaction {
    /// Stores an event under the next number, which it gets.
    pub async fn add_event(&mut self, event: &mut Event) -> Result<(), Error> {
        let last = row!(self, (Option<i64>,), "SELECT MAX(number) FROM events")?;
        event.number = last.and_then(|(last,)| last).map_or(1, |last| from_bigint(last) + 1);
        execute!(
            self,
            "INSERT INTO events (number, at, kind, subject, body) VALUES ($1, $2, $3, $4, $5)",
            to_bigint(event.number),
            to_micros(event.at),
            event.kind.as_str(),
            event.subject.as_str(),
            to_json("event", event)?,
        )
        .map(drop)
    }

    /// The events after number `after`, the oldest first.
    pub async fn events(&mut self, after: u64, limit: u64) -> Result<Vec<Event>, Error> {
        let sql = "SELECT body FROM events WHERE number > $1 ORDER BY number LIMIT $2";
        let found = rows!(self, (String,), sql, to_bigint(after), to_bigint(limit))?;
        found.into_iter().map(|(body,)| from_json("event", &body)).collect()
    }

    /// The number of the newest event; 0 before the first.
    pub async fn newest_event(&mut self) -> Result<u64, Error> {
        let last = row!(self, (Option<i64>,), "SELECT MAX(number) FROM events")?;
        Ok(last.and_then(|(last,)| last).map_or(0, from_bigint))
    }

    /// Forgets the events before a time, but never the newest, by which numbers go on.
    pub async fn forget_events(&mut self, before: Timestamp) -> Result<(), Error> {
        let sql = "DELETE FROM events WHERE at < $1
            AND number < (SELECT MAX(number) FROM events)
            AND number NOT IN (SELECT number FROM deliveries)";
        execute!(self, sql, to_micros(before)).map(drop)
    }

    /// Notes that something goes wrong; `true` if that is new.
    pub async fn begin_trouble(
        &mut self,
        kind: EventKind,
        subject: &str,
        now: Timestamp,
    ) -> Result<bool, Error> {
        let sql = "INSERT INTO troubles (kind, subject, since) VALUES ($1, $2, $3)
            ON CONFLICT (kind, subject) DO NOTHING";
        Ok(execute!(self, sql, kind.as_str(), subject, to_micros(now))? == 1)
    }

    /// Notes that it is over; `true` if it went wrong until now.
    pub async fn end_trouble(&mut self, kind: EventKind, subject: &str) -> Result<bool, Error> {
        let sql = "DELETE FROM troubles WHERE kind = $1 AND subject = $2";
        Ok(execute!(self, sql, kind.as_str(), subject)? == 1)
    }

    /// Subjects that something of this kind goes wrong with, sorted.
    pub async fn troubles(&mut self, kind: EventKind) -> Result<Vec<String>, Error> {
        let sql = "SELECT subject FROM troubles WHERE kind = $1 ORDER BY subject";
        let found = rows!(self, (String,), sql, kind.as_str())?;
        Ok(found.into_iter().map(|(subject,)| subject).collect())
    }

    /// Has an event delivered to a webhook, at once. Gives how many older ones were given up for it.
    pub async fn deliver(&mut self, webhook: &str, event: &Event) -> Result<u64, Error> {
        execute!(
            self,
            "INSERT INTO deliveries (webhook, number, subject, tries, due, error)
             VALUES ($1, $2, $3, 0, $4, '')",
            webhook,
            to_bigint(event.number),
            event.subject.as_str(),
            to_micros(event.at),
        )?;
        let count = "SELECT COUNT(*) FROM deliveries WHERE webhook = $1";
        let queued = row!(self, (i64,), count, webhook)?.map_or(0, |(count,)| from_bigint(count));
        let surplus = queued.saturating_sub(MAX_QUEUE);
        if surplus > 0 {
            let sql = "DELETE FROM deliveries WHERE webhook = $1 AND number IN
                (SELECT number FROM deliveries WHERE webhook = $1 ORDER BY number LIMIT $2)";
            execute!(self, sql, webhook, to_bigint(surplus))?;
        }
        Ok(surplus)
    }

    /// What is due for one webhook: of each subject only its oldest, so that none overtakes another.
    pub async fn due_deliveries(
        &mut self,
        webhook: &str,
        now: Timestamp,
        limit: u64,
    ) -> Result<Vec<Delivery>, Error> {
        let sql = "SELECT e.body, d.tries FROM deliveries d
            JOIN events e ON e.number = d.number
            WHERE d.webhook = $1 AND d.due <= $2 AND NOT EXISTS (
                SELECT 1 FROM deliveries older WHERE older.webhook = d.webhook
                AND older.subject = d.subject AND older.number < d.number)
            ORDER BY d.number LIMIT $3";
        let found = rows!(self, (String, i64), sql, webhook, to_micros(now), to_bigint(limit))?;
        let read = |(body, tries): (String, i64)| {
            Ok(Delivery {
                webhook: webhook.to_owned(),
                event: from_json("event", &body)?,
                tries: u32::try_from(tries).unwrap_or(u32::MAX),
            })
        };
        found.into_iter().map(read).collect()
    }

    /// Takes a delivery until a time; `false` where another replica was faster, or it is done.
    pub async fn claim_delivery(
        &mut self,
        delivery: &Delivery,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<bool, Error> {
        let sql = "UPDATE deliveries SET due = $1
            WHERE webhook = $2 AND number = $3 AND tries = $4 AND due <= $5";
        let changed = execute!(
            self,
            sql,
            to_micros(until),
            delivery.webhook.as_str(),
            to_bigint(delivery.event.number),
            i64::from(delivery.tries),
            to_micros(now),
        )?;
        Ok(changed == 1)
    }

    /// A delivery is over: it arrived, or it was given up.
    pub async fn end_delivery(&mut self, delivery: &Delivery) -> Result<(), Error> {
        let sql = "DELETE FROM deliveries WHERE webhook = $1 AND number = $2";
        let number = to_bigint(delivery.event.number);
        execute!(self, sql, delivery.webhook.as_str(), number).map(drop)
    }

    /// A delivery failed and is tried again at a time.
    pub async fn put_off_delivery(
        &mut self,
        delivery: &Delivery,
        due: Timestamp,
        error: &str,
    ) -> Result<(), Error> {
        let sql = "UPDATE deliveries SET tries = tries + 1, due = $1, error = $2
            WHERE webhook = $3 AND number = $4";
        let number = to_bigint(delivery.event.number);
        execute!(self, sql, to_micros(due), error, delivery.webhook.as_str(), number).map(drop)
    }

    /// What waits for each webhook that something waits for.
    pub async fn queues(&mut self) -> Result<Vec<Queue>, Error> {
        let sql = "SELECT webhook, COUNT(*), MAX(tries), MAX(error) FROM deliveries
            GROUP BY webhook ORDER BY webhook";
        let found = rows!(self, (String, i64, i64, String), sql)?;
        let read = |(webhook, events, tries, error)| Queue {
            webhook,
            events: from_bigint(events),
            tries: from_bigint(tries),
            error,
        };
        Ok(found.into_iter().map(read).collect())
    }
}
