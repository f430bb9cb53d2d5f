//! What a run did, gathered while it runs.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use jiff::Timestamp;
use protocol::{
    digest::Digest,
    generation::Version,
    spec::AssignmentName,
    transfer::{Encoder, NoDelta, Way},
    v1::{
        agent::{
            Changes, Checked, EncoderReport, NotTaken, RunKind, RunReport, RunResult, WayReport,
        },
        publisher::HoldReport,
    },
};
use uuid::Uuid;

use crate::{fetch::points::Points, ledger::Withdrawn, route::Reasons};

/// Most notices of one run.
const MAX_NOTICES: usize = 100;

/// A run that is not over: everything that will stand in its report.
#[derive(Debug)]
pub struct Run {
    id: Uuid,
    assignment: AssignmentName,
    started: Timestamp,
    dry: bool,
    progress: Arc<Progress>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    kind: RunKind,
    from: Option<Version>,
    to: Option<Version>,
    changes: Changes,
    ways: BTreeMap<(Way, String), WayReport>,
    encoders: BTreeMap<Encoder, EncoderReport>,
    reasons: Reasons,
    switch: Option<String>,
    notices: Vec<String>,
    left_out: usize,
    points: Arc<Points>,
    hold: Option<HoldReport>,
    withdrawn: Option<Option<Withdrawn>>,
    checked: Option<Checked>,
    undelete: Option<Uuid>,
}

impl Run {
    /// Begins a run.
    pub fn begin(assignment: AssignmentName, dry: bool, progress: Arc<Progress>) -> Self {
        let state = State {
            kind: RunKind::Sync,
            from: None,
            to: None,
            changes: Changes::default(),
            ways: BTreeMap::new(),
            encoders: BTreeMap::new(),
            reasons: Reasons::default(),
            switch: None,
            notices: Vec::new(),
            left_out: 0,
            points: Arc::default(),
            hold: None,
            withdrawn: None,
            checked: None,
            undelete: None,
        };
        let started = Timestamp::now();
        Self { id: Uuid::now_v7(), assignment, started, dry, progress, state: Mutex::new(state) }
    }

    /// Which assignment.
    pub fn assignment(&self) -> &AssignmentName {
        &self.assignment
    }

    /// Whether nothing may be changed.
    pub fn is_dry(&self) -> bool {
        self.dry
    }

    /// Where it tells how far it is.
    pub fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    /// What kind of run it turned out to be.
    pub fn set_kind(&self, kind: RunKind) {
        self.lock().kind = kind;
    }

    /// From which generation to which.
    pub fn set_versions(&self, from: Option<Version>, to: Option<Version>) {
        let mut state = self.lock();
        (state.from, state.to) = (from, to);
    }

    /// What changes in the published tree.
    pub fn set_changes(&self, changes: Changes) {
        self.lock().changes = changes;
    }

    /// How the tree was switched, and why so.
    pub fn set_switch(&self, switch: String) {
        self.lock().switch = Some(switch);
    }

    /// The points that it asks; what they did will stand in the report.
    pub fn set_points(&self, points: &Arc<Points>) {
        self.lock().points = Arc::clone(points);
    }

    /// Something that an admin should know.
    pub fn notice(&self, notice: impl Into<String>) {
        let mut state = self.lock();
        if state.notices.len() < MAX_NOTICES {
            state.notices.push(notice.into());
        } else {
            state.left_out += 1;
        }
    }

    /// What a guard stopped: an admin may approve exactly this.
    pub fn set_hold(&self, hold: HoldReport) {
        self.lock().hold = Some(hold);
    }

    /// What stays readable in the published tree though its generation does not have it.
    pub fn set_withdrawn(&self, withdrawn: Option<Withdrawn>) {
        self.lock().withdrawn = Some(withdrawn);
    }

    /// What was read and compared.
    pub fn set_checked(&self, checked: Checked) {
        self.lock().checked = Some(checked);
    }

    /// The wish that the run answers.
    pub fn set_undelete(&self, id: Uuid) {
        self.lock().undelete = Some(id);
    }

    /// What was said by [`Run::set_withdrawn`]; `None` where nothing was switched.
    pub fn withdrawn(&self) -> Option<Option<Withdrawn>> {
        self.lock().withdrawn
    }

    /// Adds what came by a way from a point.
    pub fn add_way(&self, way: Way, point: &str, came: Came) {
        if came.is_nothing() {
            return;
        }
        let mut state = self.lock();
        let entry = state.ways.entry((way, point.to_owned()));
        let report = entry.or_insert_with(|| WayReport {
            way,
            point: point.to_owned(),
            files: 0,
            content_bytes: 0,
            received_bytes: 0,
            sent_bytes: 0,
            milliseconds: 0,
        });
        report.files += came.files;
        report.content_bytes += came.content_bytes;
        report.received_bytes += came.received_bytes;
        report.sent_bytes += came.sent_bytes;
        report.milliseconds += came.milliseconds;
    }

    /// Adds what came by an encoder.
    pub fn add_encoded(&self, encoder: Encoder, files: u64, content_bytes: u64, payload: u64) {
        let mut state = self.lock();
        let report = state.encoders.entry(encoder).or_insert(EncoderReport {
            encoder,
            files: 0,
            content_bytes: 0,
            payload_bytes: 0,
        });
        report.files += files;
        report.content_bytes += content_bytes;
        report.payload_bytes += payload;
    }

    /// Says why a way was not taken.
    pub fn not_taken(&self, way: Way, reason: NoDelta, files: u64, detail: &str) {
        tracing::debug!(assignment = %self.assignment, %way, %reason, files, detail, "not taken");
        self.lock().reasons.note(way, reason, files, detail);
    }

    /// Says it for several.
    pub fn extend_not_taken(&self, reasons: Vec<NotTaken>) {
        self.lock().reasons.extend(reasons);
    }

    /// The report.
    pub fn finish(self, result: RunResult, error: String) -> RunReport {
        let mut state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        if state.left_out > 0 {
            state.notices.push(format!("and {} more", state.left_out));
        }
        RunReport {
            id: self.id,
            assignment: self.assignment,
            kind: state.kind,
            started: self.started,
            ended: Timestamp::now(),
            result,
            from: state.from,
            to: state.to,
            changes: state.changes,
            ways: state.ways.into_values().collect(),
            points: state.points.reports(),
            encoders: state.encoders.into_values().collect(),
            not_taken: state.reasons.into_not_taken(),
            switch: state.switch,
            error,
            notices: state.notices,
            hold: state.hold,
            checked: state.checked,
            undelete: state.undelete,
            receipt: None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What came by a way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Came {
    /// Files that it completed.
    pub files: u64,
    /// Their content bytes.
    pub content_bytes: u64,
    /// Bytes received.
    pub received_bytes: u64,
    /// Bytes sent.
    pub sent_bytes: u64,
    /// How long it took.
    pub milliseconds: u64,
}

impl Came {
    /// Sets the time since `start`.
    pub fn since(self, start: Instant) -> Self {
        Self {
            milliseconds: u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX),
            ..self
        }
    }

    fn is_nothing(&self) -> bool {
        Self { milliseconds: 0, ..*self } == Self::default()
    }
}

/// How far a run is; read by whoever shows it.
#[derive(Debug, Default)]
pub struct Progress {
    done: AtomicU64,
    total: AtomicU64,
    phase: Mutex<(&'static str, &'static str)>,
}

/// How far a run is, at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// What is done now; empty before anything.
    pub phase: &'static str,
    /// What is counted: `bytes` or `entries`.
    pub unit: &'static str,
    /// So much is done.
    pub done: u64,
    /// Of so much; 0 where it is not known.
    pub total: u64,
}

impl Progress {
    /// Begins a phase that counts `unit`; its total is known before its first byte.
    pub fn phase(&self, phase: &'static str, unit: &'static str, total: u64) {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = (phase, unit);
        self.done.store(0, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
    }

    /// Counts on.
    pub fn add(&self, units: u64) {
        self.done.fetch_add(units, Ordering::Relaxed);
    }

    /// Sets both numbers.
    pub fn set(&self, done: u64, total: u64) {
        self.done.store(done, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
    }

    /// How far it is now.
    pub fn moment(&self) -> Moment {
        let (phase, unit) = *self.phase.lock().unwrap_or_else(PoisonError::into_inner);
        let (done, total) = (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed));
        Moment { phase, unit, done, total }
    }
}

/// What happened to a generation, for its receipt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Which generation.
    pub version: Version,
    /// Digest of its whole manifest.
    pub manifest: Digest,
    /// Digest of the filter.
    pub filter: Digest,
    /// Whether it was observed here.
    pub observed: bool,
    /// Files kept.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}
