//! Verifying what is published: when somebody asks, and by itself, part by part, at a rate.
//!
//! Every assignment is read once in `scrub.every`. One part takes some seconds, so that a new
//! generation never waits for long; where the next one begins is in the ledger, and a restart reads
//! at most one part twice. What is damaged is repaired at once; what cannot be is tried again ever
//! less often, and shown until it is.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use jiff::Timestamp;
use protocol::{
    digest::Digest,
    path::TreePath,
    spec::AssignmentName,
    units::Span,
    v1::agent::{RunKind, RunReport, RunResult},
};
use tokio::task::block_in_place;
use tokio_util::sync::CancellationToken;

use super::{
    Agent,
    runs::{Busy, Error},
};
use crate::{
    apply::Site,
    calendar,
    fetch::retries,
    ledger::{self, Record, Scrub},
    report::Run,
    verify::{self, Done, Look},
};

/// How long one part takes at the configured rate.
const PART: Duration = Duration::from_secs(5);
/// Bytes of a part where there is no rate.
const PART_BYTES: u64 = 1 << 30;
/// Between two parts, and while nothing is due.
const PAUSE: Duration = Duration::from_secs(1);
const REST: Duration = Duration::from_secs(10);
/// Most damaged paths that are remembered.
const MAX_DAMAGED: usize = 1_000;

impl Agent {
    /// Reads everything that is published, compares it with the manifest, and repairs it unless
    /// that is not wanted.
    pub async fn verify(&self, name: &AssignmentName, repair: bool) -> RunReport {
        let run = Run::begin(name.clone(), !repair, self.progress(name));
        run.set_kind(RunKind::Verify);
        let never = AtomicBool::new(false);
        let look = Look {
            from: None,
            most_bytes: u64::MAX,
            tick: &|_| {},
            cancel: &never,
            suspects: &[],
            repair,
        };
        let _turn = self.take_turn(name, true).await;
        let (result, error, scrub) = match self.look_at(name, &look, &run).await {
            Err(error) => (RunResult::Failed, crate::chain(&error), None),
            Ok(done) => {
                run.set_checked(done.checked);
                let error = done.left.as_ref().map(|(_, error)| crate::chain(error));
                let mut scrub = Scrub::new(after(Timestamp::now(), self.config.scrub.every));
                scrub.last = Some(Timestamp::now());
                note_left(&mut scrub, done.left);
                (done.result, error.unwrap_or_default(), repair.then_some(scrub))
            }
        };
        let report = run.finish(result, error);
        self.tell(&report);
        let noted =
            self.note_upkeep(&report, |record| record.scrub = scrub.or(record.scrub.take()));
        if let Err(error) = noted {
            tracing::error!(error = crate::chain(&error), "the report is lost");
        }
        report
    }

    /// Lets published files be read again by themselves, or not.
    pub fn pause_scrub(&self, paused: bool) -> Result<(), ledger::Error> {
        self.ledger.set_scrub_paused(paused)?;
        self.scrub_paused.store(paused, Ordering::Relaxed);
        Ok(())
    }

    /// Whether an admin of the site lets nothing be scrubbed for now.
    pub fn is_scrub_paused(&self) -> bool {
        self.scrub_paused.load(Ordering::Relaxed)
    }

    /// Scrubs whatever is due until `shutdown`.
    pub(crate) async fn keep_scrubbing(self: Arc<Self>, shutdown: CancellationToken) {
        let rest = (self.config.scrub.every.duration() / 4).clamp(PAUSE, REST);
        loop {
            let rest = match self.scrub_part(&shutdown).await {
                Ok(true) => PAUSE,
                Ok(false) => rest,
                Err(error) => {
                    tracing::error!(error = crate::chain(&error), "nothing is scrubbed");
                    rest
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(rest) => {}
            }
        }
    }

    /// Reads one part of what is due first; `false` where nothing is.
    async fn scrub_part(&self, shutdown: &CancellationToken) -> Result<bool, ledger::Error> {
        let every = self.config.scrub.every;
        if every.duration().is_zero() || self.is_scrub_paused() {
            return Ok(false);
        }
        let now = Timestamp::now();
        let mut due = Vec::new();
        for record in self.ledger.records()? {
            if record.held.is_none() || record.unassigned || record.moving.is_some() {
                continue;
            }
            match &record.scrub {
                Some(scrub) if scrub.due.min(scrub.again.unwrap_or(scrub.due)) <= now => {
                    due.push((scrub.due, record.name));
                }
                Some(_) => {}
                None => self.begin_scrub(&record.name, now)?,
            }
        }
        let Some((_, name)) = due.into_iter().min() else { return Ok(false) };
        let Some(_busy) = Busy::take(self, &name) else { return Ok(true) };
        let Some(record) = self.ledger.record(&name)? else { return Ok(true) };
        if let Some(scrub) = record.scrub.clone() {
            self.scrub_one(&record, scrub, shutdown).await?;
            // A new generation may have come meanwhile.
            self.wake.notify_one();
        }
        Ok(true)
    }

    /// Decides when an assignment is read for the first time: not all in the same night.
    fn begin_scrub(&self, name: &AssignmentName, now: Timestamp) -> Result<(), ledger::Error> {
        let Some(_busy) = Busy::take(self, name) else { return Ok(()) };
        let Some(record) = self.ledger.record(name)? else { return Ok(()) };
        let every = self.config.scrub.every.duration().as_secs_f64();
        let wait = Span::from_secs((every * part_of(name).max(0.1)) as u64);
        let scrub = record.scrub.clone().or_else(|| Some(Scrub::new(after(now, wait))));
        self.ledger.set_record(&Record { scrub, ..record })
    }

    async fn scrub_one(
        &self,
        record: &Record,
        mut scrub: Scrub,
        shutdown: &CancellationToken,
    ) -> Result<(), ledger::Error> {
        let name = &record.name;
        let now = Timestamp::now();
        let run = Run::begin(name.clone(), false, self.progress(name));
        run.set_kind(RunKind::Verify);
        let pace = Pace::new(self.config.scrub.rate.0.map(|rate| rate.0), shutdown);
        let is_time = scrub.again.is_none_or(|again| again <= now);
        let suspects = if is_time { std::mem::take(&mut scrub.damaged) } else { Vec::new() };
        let is_due = scrub.due <= now;
        let look = Look {
            from: scrub.at.as_ref(),
            most_bytes: if is_due { pace.part() } else { 0 },
            tick: &|bytes| pace.took(bytes),
            cancel: &pace.cancel,
            suspects: &suspects,
            repair: true,
        };
        let looked = tokio::select! {
            looked = self.look_at(name, &look, &run) => looked,
            () = pace.cancelled() => return Ok(()),
        };
        let began = scrub.begun.unwrap_or(now);
        if is_due {
            scrub.begun = Some(began);
        }
        let mut is_round = false;
        let (result, error) = match looked {
            Err(failed) => {
                // A tree that nobody can read, or that is not ours any more: the next round.
                scrub.due = after(now, self.config.scrub.every);
                (RunResult::Failed, crate::chain(&failed))
            }
            Ok(done) => {
                run.set_checked(done.checked);
                scrub.checked.add(&done.checked);
                if is_due {
                    scrub.at.clone_from(&done.next);
                }
                if is_time {
                    scrub.again = None;
                }
                let error = done.left.as_ref().map(|(_, left)| crate::chain(left));
                note_left(&mut scrub, done.left);
                if done.next.is_none() && is_due {
                    is_round = true;
                    run.set_checked(scrub.checked);
                    scrub.last = Some(Timestamp::now());
                    scrub.due =
                        after(began, self.config.scrub.every).max(after(now, Span::from_secs(1)));
                    (scrub.begun, scrub.checked) = (None, Default::default());
                }
                (done.result, error.unwrap_or_default())
            }
        };
        let report = run.finish(result, error);
        if !is_round && report.result == RunResult::UpToDate {
            let Some(mut record) = self.ledger.record(name)? else { return Ok(()) };
            record.scrub = Some(scrub);
            return self.ledger.set_record(&record);
        }
        self.tell(&report);
        self.note_upkeep(&report, |record| record.scrub = Some(scrub))
    }

    async fn look_at(
        &self,
        name: &AssignmentName,
        look: &Look<'_>,
        run: &Run,
    ) -> Result<Done, Error> {
        let record = self.ledger.record(name)?.ok_or(Error::NothingHeld)?;
        if let Some(to) = record.moving {
            return Err(Error::ToBeMoved { from: record.path, to });
        }
        let orders = self.orders();
        let order = orders.as_ref().and_then(|orders| orders.order(name));
        let mut site =
            block_in_place(|| Site::open(&self.config, &name.to_string(), &record.path))?;
        Ok(verify::verify(self, &mut site, order, look, run).await?)
    }
}

/// Remembers what is damaged still, and when that is tried again.
fn note_left(scrub: &mut Scrub, left: Option<(Vec<TreePath>, verify::Error)>) {
    let Some((paths, _)) = left else {
        if scrub.damaged.is_empty() {
            scrub.failures = 0;
        }
        return;
    };
    scrub.damaged.extend(paths);
    scrub.damaged.sort();
    scrub.damaged.dedup();
    scrub.damaged.truncate(MAX_DAMAGED);
    scrub.failures = scrub.failures.saturating_add(1);
    scrub.again = Some(calendar::next_try(Timestamp::now(), scrub.failures, retries::chance()));
}

fn after(at: Timestamp, span: Span) -> Timestamp {
    at.saturating_add(span.duration()).unwrap_or(Timestamp::MAX)
}

/// The part of the period after which an assignment is first read, from 0 to 1.
fn part_of(name: &AssignmentName) -> f64 {
    let digest = Digest::of(name.to_string().as_bytes());
    let bytes = digest.as_bytes();
    f64::from(u16::from_be_bytes([bytes[0], bytes[1]])) / f64::from(u16::MAX)
}

/// Reads no faster than the rate, and ends when the program does.
struct Pace<'a> {
    began: Instant,
    rate: Option<u64>,
    read: AtomicU64,
    cancel: AtomicBool,
    shutdown: &'a CancellationToken,
}

impl<'a> Pace<'a> {
    fn new(rate: Option<u64>, shutdown: &'a CancellationToken) -> Self {
        let (read, cancel) = (AtomicU64::new(0), AtomicBool::new(false));
        Self { began: Instant::now(), rate: rate.map(|rate| rate.max(1)), read, cancel, shutdown }
    }

    fn part(&self) -> u64 {
        self.rate.map_or(PART_BYTES, |rate| rate.saturating_mul(PART.as_secs()))
    }

    fn took(&self, bytes: u64) {
        let read = self.read.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let Some(rate) = self.rate else { return };
        let until = Duration::from_secs_f64(read as f64 / rate as f64);
        while let Some(wait) = until.checked_sub(self.began.elapsed()) {
            if self.shutdown.is_cancelled() {
                self.cancel.store(true, Ordering::Relaxed);
                return;
            }
            if wait.is_zero() {
                return;
            }
            std::thread::sleep(wait.min(Duration::from_millis(100)));
        }
    }

    /// Returns when the program ends.
    async fn cancelled(&self) {
        self.shutdown.cancelled().await;
        self.cancel.store(true, Ordering::Relaxed);
    }
}
