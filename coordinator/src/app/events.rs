//! What is told without being asked for: which changes are events, and to whom they go.
//!
//! An event is stored in the transaction of what it tells, with a delivery for each webhook that
//! wants it: what is told has happened, and what has happened is told, also over a restart. What
//! goes on (a tree that fails, an agent that is silent) is kept as a *trouble*, so that its begin and
//! its end are told once each, whichever replica sees them.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use protocol::{
    hold::HoldId,
    role::Role,
    v1::{
        agent::{RunBegun, RunKind, RunReport, RunResult},
        events::{Event, EventKind},
        publisher::HoldReport,
    },
};
use uuid::Uuid;

use super::{App, Error, Picture, Refusal, Write, admission::Caller};
use crate::db::Delivery;

/// A certificate that has less than this part of its life before it should have been renewed twice.
const ENDING_PART: i32 = 4;
/// Most events that are told at once.
const MAX_EVENTS: u64 = 1_000;

/// Who is told of what, and when silence counts.
#[derive(Debug, Clone, Default)]
pub struct Telling {
    /// Names of webhooks, with what each wants.
    pub webhooks: Vec<(String, BTreeSet<EventKind>)>,
    /// After what time an agent or a publisher that is not heard of is silent; never where absent.
    pub silent_after: Option<SignedDuration>,
    /// How long events are kept.
    pub keep: SignedDuration,
}

/// What an event says.
#[derive(Debug)]
pub(super) struct Told {
    kind: EventKind,
    subject: String,
    text: String,
    details: BTreeMap<String, String>,
}

impl Told {
    pub(super) fn new(kind: EventKind, subject: impl ToString, text: impl Into<String>) -> Self {
        let (subject, text) = (subject.to_string(), text.into());
        Self { kind, subject, text, details: BTreeMap::new() }
    }

    pub(super) fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.details.insert(name.to_owned(), value.to_string());
        self
    }
}

impl App {
    /// Stores an event with what it tells; it is logged and delivered once that is committed.
    pub(super) async fn tell(&self, write: &mut Write, told: Told) -> Result<(), Error> {
        let Told { kind, subject, text, details } = told;
        let (id, at) = (Uuid::now_v7(), write.now);
        let mut event = Event { number: 0, id, at, kind, subject, text, details };
        write.tx.add_event(&mut event).await?;
        for (name, kinds) in &self.parts.telling.webhooks {
            if kinds.contains(&kind) {
                let given_up = write.tx.deliver(name, &event).await?;
                if given_up > 0 {
                    tracing::error!(
                        webhook = name,
                        given_up,
                        "too many events wait for this webhook; the oldest are given up"
                    );
                }
            }
        }
        write.told.push(event);
        Ok(())
    }

    /// A run begins to fetch or to change, unless its report is here already.
    pub async fn run_begun(&self, caller: &Caller, begun: &RunBegun) -> Result<(), Error> {
        let name = &begun.assignment;
        if caller.site.as_ref() != Some(&name.site) {
            let message = format!("{caller} does not hold the assignment {name}");
            return Err(Refusal::Forbidden(message).into());
        }
        let mut write = self.write().await?;
        if !write.before.wanted.definitions.assignments.contains_key(name)
            || write.tx.run(begun.id).await?.is_some()
        {
            return Ok(());
        }
        let told = Told::new(EventKind::RunStarted, name, format!("a run of {name} begins"))
            .with("agent", &caller.name)
            .with("run", begun.id)
            .with("started", begun.started);
        let told = match begun.to {
            Some(version) => told.with("generation", version),
            None => told,
        };
        self.tell(&mut write, told).await?;
        write.tx.put_begun(name, begun.started).await?;
        self.commit_quietly(write).await
    }

    /// What a run that was reported turns.
    pub(super) async fn tell_of_run(
        &self,
        write: &mut Write,
        caller: &Caller,
        report: &RunReport,
    ) -> Result<(), Error> {
        use RunResult::{Completed, Failed, Partial, UpToDate};
        if !matches!(report.kind, RunKind::Sync | RunKind::Adopt) {
            return Ok(());
        }
        let name = &report.assignment;
        let with = |told: Told| {
            let told = told.with("agent", &caller.name).with("run", report.id);
            let result = serde_json::to_value(report.result).unwrap_or_default();
            let told = told.with("result", result.as_str().unwrap_or_default());
            match report.to {
                Some(version) => told.with("generation", version),
                None => told,
            }
        };
        if matches!(report.result, Failed | Partial)
            && write.tx.begin_trouble(EventKind::RunFailed, &name.to_string(), write.now).await?
        {
            let text = match report.result {
                Partial => format!("{name} is up to date only in part: {}", report.error),
                _ => format!("{name} fails: {}", report.error),
            };
            let told = Told::new(EventKind::RunFailed, name, text).with("error", &report.error);
            self.tell(write, with(told)).await?;
        }
        if matches!(report.result, UpToDate | Completed)
            && write.tx.end_trouble(EventKind::RunFailed, &name.to_string()).await?
        {
            let text = format!("{name} succeeds again");
            self.tell(write, with(Told::new(EventKind::RunRecovered, name, text))).await?;
        }
        if matches!(report.result, Completed | Partial) {
            let changes = &report.changes;
            let text = format!(
                "{name} was brought up to date: {} added, {} changed, {} deleted",
                changes.added,
                changes.changed + changes.attributes,
                changes.deleted
            );
            let received: u64 = report.ways.iter().map(|way| way.received_bytes).sum();
            let told = Told::new(EventKind::RunFinished, name, text)
                .with("added", changes.added)
                .with("changed", changes.changed + changes.attributes)
                .with("deleted", changes.deleted)
                .with("received-bytes", received);
            self.tell(write, with(told)).await?;
        }
        Ok(())
    }

    /// Something is held: a tree's generation, or a step of one site.
    pub(super) async fn tell_of_hold(
        &self,
        write: &mut Write,
        subject: impl ToString,
        hold: &HoldReport,
    ) -> Result<(), Error> {
        let id = HoldId::of(&hold.manifest);
        let subject = subject.to_string();
        let text = format!("{subject} is held ({id}): {}", hold.reason);
        let told = Told::new(EventKind::GenerationHeld, &subject, text)
            .with("hold", id)
            .with("manifest", hold.manifest)
            .with("removed-files", hold.removed_files)
            .with("removed-bytes", hold.removed_bytes);
        self.tell(write, told).await
    }

    /// Looks who has fallen silent or was heard of again, and whose certificate ends or was renewed.
    pub async fn keep_watch(&self) -> Result<(), Error> {
        let now = self.now();
        let mut tx = self.parts.database.read().await?;
        let seen: BTreeMap<_, _> = tx
            .identities()
            .await?
            .into_iter()
            .filter_map(|it| Some(((it.role, it.name), it.last_seen?)))
            .collect();
        let silent = tx.troubles(EventKind::IdentitySilent).await?;
        let ending = tx.troubles(EventKind::CertificateEnding).await?;
        tx.commit().await?;
        let picture = self.picture();
        let watched = self.watched(&picture, &seen, now);
        let turned = |known: &[String], is_bad: fn(&Watched) -> bool| {
            watched.iter().any(|it| is_bad(it) != known.contains(&it.subject))
                || known.iter().any(|subject| watched.iter().all(|it| it.subject != *subject))
        };
        if !turned(&silent, |it| it.silent_since.is_some())
            && !turned(&ending, |it| it.ends.is_some())
        {
            return Ok(());
        }
        let mut write = self.write().await?;
        for one in &watched {
            self.tell_of_silence(&mut write, one).await?;
            self.tell_of_certificate(&mut write, one).await?;
        }
        // Whoever was revoked or replaced has no trouble any more that somebody could end.
        for (kind, known) in
            [(EventKind::IdentitySilent, silent), (EventKind::CertificateEnding, ending)]
        {
            for subject in known {
                if watched.iter().all(|it| it.subject != subject) {
                    write.tx.end_trouble(kind, &subject).await?;
                }
            }
        }
        self.commit_quietly(write).await
    }

    async fn tell_of_silence(&self, write: &mut Write, one: &Watched) -> Result<(), Error> {
        let (kind, subject) = (EventKind::IdentitySilent, one.subject.as_str());
        match one.silent_since {
            Some(since) if write.tx.begin_trouble(kind, subject, write.now).await? => {
                let text = format!(
                    "{subject} was last heard of at {since}; is it running, and can it reach the coordinator?"
                );
                self.tell(write, Told::new(kind, subject, text).with("last-seen", since)).await
            }
            None if write.tx.end_trouble(kind, subject).await? => {
                let text = format!("{subject} was heard of again");
                self.tell(write, Told::new(EventKind::IdentityBack, subject, text)).await
            }
            _ => Ok(()),
        }
    }

    async fn tell_of_certificate(&self, write: &mut Write, one: &Watched) -> Result<(), Error> {
        let (kind, subject) = (EventKind::CertificateEnding, one.subject.as_str());
        match one.ends {
            Some(ends) if write.tx.begin_trouble(kind, subject, write.now).await? => {
                let text =
                    format!("the certificate of {subject} ends at {ends} and was not renewed");
                self.tell(write, Told::new(kind, subject, text).with("not-after", ends)).await
            }
            None if write.tx.end_trouble(kind, subject).await? => {
                let text = format!("the certificate of {subject} was renewed");
                self.tell(write, Told::new(EventKind::CertificateRenewed, subject, text)).await
            }
            _ => Ok(()),
        }
    }

    fn watched(
        &self,
        picture: &Picture,
        seen: &BTreeMap<(Role, protocol::name::IdentityName), Timestamp>,
        now: Timestamp,
    ) -> Vec<Watched> {
        let live = picture.fleet.identities().filter(|identity| identity.revoked.is_none());
        live.filter(|identity| matches!(identity.role, Role::Agent | Role::Publisher))
            .map(|identity| {
                let (role, name) = (identity.role, &identity.name);
                let stored = seen.get(&(role, name.clone())).copied();
                let heard = self.seen(role, name).max(stored).max(identity.last_seen);
                // While the coordinator itself was away it could hear nobody.
                let heard = heard.map(|at| at.max(self.began()));
                let after = self.parts.telling.silent_after;
                let silent = |at: &Timestamp| after.is_some_and(|it| now.duration_since(*at) > it);
                let newest = picture.fleet.newest_certificate(role, name);
                let is_ending = |issued: Timestamp, ends: Timestamp| {
                    ends.duration_since(now) < ends.duration_since(issued) / ENDING_PART
                };
                Watched {
                    subject: format!("{role}/{name}"),
                    silent_since: heard.filter(silent),
                    ends: newest
                        .filter(|it| is_ending(it.issued, it.not_after))
                        .map(|it| it.not_after),
                }
            })
            .collect()
    }

    /// The events after number `after`, the oldest first.
    pub async fn events(&self, after: u64, limit: u64) -> Result<Vec<Event>, Error> {
        let mut tx = self.parts.database.read().await?;
        Ok(tx.events(after, limit.min(MAX_EVENTS)).await?)
    }

    /// The number of the newest event.
    pub async fn newest_event(&self) -> Result<u64, Error> {
        let mut tx = self.parts.database.read().await?;
        Ok(tx.newest_event().await?)
    }

    /// Forgets what is older than events are kept.
    pub async fn forget_events(&self) -> Result<(), Error> {
        let mut tx = self.parts.database.write().await?;
        let before = self.now().saturating_sub(self.parts.telling.keep);
        tx.forget_events(before.unwrap_or(Timestamp::MIN)).await?;
        Ok(tx.commit().await?)
    }

    /// Takes the deliveries to a webhook that are due, until `span` from now.
    pub async fn take_deliveries(
        &self,
        webhook: &str,
        span: SignedDuration,
        most: u64,
    ) -> Result<Vec<Delivery>, Error> {
        let now = self.now();
        let mut tx = self.parts.database.read().await?;
        let due = tx.due_deliveries(webhook, now, most).await?;
        tx.commit().await?;
        if due.is_empty() {
            return Ok(due);
        }
        let mut tx = self.parts.database.write().await?;
        let until = now.saturating_add(span).unwrap_or(now);
        let mut taken = Vec::new();
        for delivery in due {
            if tx.claim_delivery(&delivery, now, until).await? {
                taken.push(delivery);
            }
        }
        tx.commit().await?;
        Ok(taken)
    }

    /// Writes down how a delivery went: it arrived, it is tried again after `again`, or it is given
    /// up.
    pub async fn note_delivery(
        &self,
        delivery: &Delivery,
        went: Result<(), (&str, Option<SignedDuration>)>,
    ) -> Result<(), Error> {
        let mut write = self.write().await?;
        match went {
            Ok(()) => write.tx.end_delivery(delivery).await?,
            Err((error, Some(again))) => {
                let due = write.now.saturating_add(again).unwrap_or(write.now);
                write.tx.put_off_delivery(delivery, due, error).await?;
            }
            Err((error, None)) => {
                write.tx.end_delivery(delivery).await?;
                let Delivery { webhook, event, .. } = delivery;
                let detail = format!("event {} ({}): {error}", event.number, event.kind);
                let (now, what) = (write.now, "delivery-given-up");
                write.tx.audit(now, "coordinator", what, webhook, &detail).await?;
            }
        }
        self.commit_quietly(write).await
    }
}

/// An agent or a publisher, as far as it is watched.
struct Watched {
    subject: String,
    /// When it was last heard of, if that is too long ago.
    silent_since: Option<Timestamp>,
    /// When its certificate ends, if that is too soon.
    ends: Option<Timestamp>,
}

/// Writes an event to the log, for journald and whoever reads it.
pub(super) fn log(event: &Event) {
    let Event { number, kind, subject, text, .. } = event;
    let (kind, details) =
        (kind.as_str(), serde_json::to_string(&event.details).unwrap_or_default());
    match event.kind {
        EventKind::RunFailed
        | EventKind::GenerationRefused
        | EventKind::CloneSuspected
        | EventKind::CertificateEnding => {
            tracing::error!(event = kind, number, subject, details, "{text}");
        }
        EventKind::GenerationHeld | EventKind::IdentitySilent | EventKind::IdentityRevoked => {
            tracing::warn!(event = kind, number, subject, details, "{text}");
        }
        _ => tracing::info!(event = kind, number, subject, details, "{text}"),
    }
}
