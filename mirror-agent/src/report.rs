//! What a run did, gathered while it runs.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use filetree::plan::Plan;
use jiff::Timestamp;
use protocol::{
    digest::Digest,
    generation::Version,
    manifest::{self, Entries},
    path::TreePath,
    spec::AssignmentName,
    transfer::{Encoder, NoDelta, Way},
    v1::{
        agent::{
            Changes, Checked, EncoderReport, Foreseen, NotTaken, RunBegun, RunKind, RunReport,
            RunResult, SyncStats, WayReport,
        },
        publisher::HoldReport,
    },
};
use uuid::Uuid;

use crate::{
    fetch::points::Points, ledger::Withdrawn, route::Reasons, rsync::figures::Figures,
    run_log::RunLog,
};

/// Most paths that a dry run names.
const MAX_FORESEEN: usize = 1_000;

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
    log: RunLog,
    /// Whether somebody was told that it begins to do something.
    told: AtomicBool,
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
    foreseen: Foreseen,
    withdrawn: Option<Option<Withdrawn>>,
    checked: Option<Checked>,
    undelete: Option<Uuid>,
    figures: Figures,
    held: Option<(u64, u64)>,
    incomplete: String,
}

impl Run {
    /// Begins a run that has no log.
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
            foreseen: Foreseen::default(),
            withdrawn: None,
            checked: None,
            undelete: None,
            figures: Figures::default(),
            held: None,
            incomplete: String::new(),
        };
        let (id, started, log) = (Uuid::now_v7(), Timestamp::now(), RunLog::none());
        Self {
            id,
            assignment,
            started,
            dry,
            progress,
            log,
            told: false.into(),
            state: Mutex::new(state),
        }
    }

    /// Has everything written down that is noted from here on.
    pub fn with_log(mut self, log: RunLog) -> Self {
        self.progress.tell(&log);
        self.log = log;
        self
    }

    /// Its id.
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// What is told of it once it begins to fetch or to change: the first time that this is asked.
    pub fn begins(&self) -> Option<RunBegun> {
        let is_first = !self.dry && !self.told.swap(true, Ordering::Relaxed);
        is_first.then(|| RunBegun {
            id: self.id,
            assignment: self.assignment.clone(),
            started: self.started,
            to: self.lock().to,
        })
    }

    /// When it began.
    pub fn started(&self) -> Timestamp {
        self.started
    }

    /// Its log.
    pub fn log(&self) -> &RunLog {
        &self.log
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
        if (state.from, state.to) != (from, to) {
            let shown = |version: Option<Version>| {
                version.map_or_else(|| "nothing".into(), |version| version.to_string())
            };
            self.log.line(&format!("it holds {}, and goes to {}", shown(from), shown(to)));
        }
        (state.from, state.to) = (from, to);
    }

    /// What changes in the published tree; of several units, in one more.
    pub fn add_changes(&self, more: Changes) {
        let Changes { added, changed, attributes, deleted, bytes, rsync_bytes } = more;
        self.log.line(&format!(
            "changes: {added} added, {changed} changed, {attributes} with another mode or time, \
             {deleted} deleted; {bytes} bytes of content"
        ));
        let mut state = self.lock();
        let sum = &mut state.changes;
        sum.added += added;
        sum.changed += changed;
        sum.attributes += attributes;
        sum.deleted += deleted;
        sum.bytes += bytes;
        sum.rsync_bytes += rsync_bytes;
    }

    /// How the tree was switched, and why so.
    pub fn set_switch(&self, switch: String) {
        self.log.line(&format!("switch: {switch}"));
        self.lock().switch = Some(switch);
    }

    /// The points that it asks; what they did will stand in the report.
    pub fn set_points(&self, points: &Arc<Points>) {
        self.lock().points = Arc::clone(points);
    }

    /// What rsync said of its own runs.
    pub fn add_figures(&self, figures: Figures) {
        self.lock().figures += figures;
    }

    /// Files and content bytes that the assignment holds after the run.
    pub fn set_held(&self, files: u64, bytes: u64) {
        self.lock().held = Some((files, bytes));
    }

    /// What was left undone by a run that did the rest.
    pub fn set_incomplete(&self, what: String) {
        self.lock().incomplete = what;
    }

    /// Something that an admin should know.
    pub fn notice(&self, notice: impl Into<String>) {
        let notice = notice.into();
        self.log.line(&format!("note: {notice}"));
        let mut state = self.lock();
        if state.notices.len() < MAX_NOTICES {
            state.notices.push(notice);
        } else {
            state.left_out += 1;
        }
    }

    /// A file that a dry run would bring; of several units, in which.
    pub fn foresee_transfer(&self, path: &TreePath, unit: Option<&TreePath>) {
        let named = shown(path, unit);
        self.foreseen(|foreseen| &mut foreseen.would_transfer, named);
    }

    /// A path that a dry run would remove.
    pub fn foresee_delete(&self, path: String) {
        self.foreseen(|foreseen| &mut foreseen.would_delete, path);
    }

    /// A link that a dry run would make, as `NAME -> TARGET`.
    pub fn foresee_link(&self, link: String) {
        self.foreseen(|foreseen| &mut foreseen.would_link, link);
    }

    /// All that a plan would bring and remove.
    pub fn foresee(
        &self,
        plan: &Plan,
        have: &dyn Entries,
        want: &dyn Entries,
        unit: Option<&TreePath>,
    ) -> Result<(), manifest::Error> {
        for change in plan.changes() {
            let change = change?;
            if !change.wanted {
                self.foresee_delete(shown(&change.path, unit));
            } else if let Some(new) = want.find(&change.path)?.filter(|new| !new.is_dir())
                && have.find(&change.path)?.is_none_or(|old| old.kind != new.kind)
            {
                self.foresee_transfer(&change.path, unit);
            }
        }
        Ok(())
    }

    fn foreseen(&self, list: impl Fn(&mut Foreseen) -> &mut Vec<String>, text: String) {
        let foreseen = &mut self.lock().foreseen;
        if list(foreseen).len() < MAX_FORESEEN {
            list(foreseen).push(text);
        } else {
            foreseen.unnamed += 1;
        }
    }

    /// What a guard stopped: an admin may approve exactly this.
    pub fn set_hold(&self, hold: HoldReport) {
        self.log.line(&format!("held: {}", hold.reason));
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
        self.log.line(&format!(
            "by {way} from {point}: {} files of {} bytes; {} bytes received, {} sent",
            came.files, came.content_bytes, came.received_bytes, came.sent_bytes
        ));
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
        self.log.line(&format!("not by {way} for {files} files: {reason} {detail}"));
        self.lock().reasons.note(way, reason, files, detail);
    }

    /// Says it for several.
    pub fn extend_not_taken(&self, reasons: Vec<NotTaken>) {
        for NotTaken { way, reason, files, detail } in &reasons {
            self.log.line(&format!("not by {way} for {files} files: {reason} {detail}"));
        }
        self.lock().reasons.extend(reasons);
    }

    /// The report.
    pub fn finish(self, result: RunResult, mut error: String) -> RunReport {
        let mut state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        if state.left_out > 0 {
            state.notices.push(format!("and {} more", state.left_out));
        }
        let stats = state.stats();
        if error.is_empty() {
            error = std::mem::take(&mut state.incomplete);
        }
        self.progress.tell(&RunLog::none());
        let ended = Timestamp::now();
        if !error.is_empty() {
            self.log.line(&format!("error: {error}"));
        }
        let took = ended.duration_since(self.started).as_secs_f64();
        self.log.end(&format!("{} after {took:.1} s", crate::agent::result_name(result)));
        if matches!(result, RunResult::Completed | RunResult::Partial) {
            self.log.keep_as_changed();
        }
        RunReport {
            id: self.id,
            assignment: self.assignment,
            kind: state.kind,
            started: self.started,
            ended,
            result,
            from: state.from,
            to: state.to,
            changes: state.changes,
            ways: state.ways.into_values().collect(),
            points: state.points.reports(),
            encoders: state.encoders.into_values().collect(),
            not_taken: state.reasons.into_not_taken(),
            switch: state.switch,
            stats: Some(stats),
            foreseen: self.dry.then_some(state.foreseen),
            error,
            notices: state.notices,
            hold: state.hold,
            checked: state.checked,
            undelete: state.undelete,
            receipt: None,
            log: String::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn shown(path: &TreePath, unit: Option<&TreePath>) -> String {
    match unit {
        None => path.to_string(),
        Some(unit) => format!("{unit}/{path}"),
    }
}

impl State {
    /// Sums over all ways. Of rsync it is known what came and what was here already; of the other
    /// ways, how much of the content did not have to come.
    fn stats(&self) -> SyncStats {
        let mut stats = SyncStats {
            listing_bytes: self.figures.listing_bytes,
            listing_creation_seconds: seconds(self.figures.listing_creation_milliseconds),
            listing_transfer_seconds: seconds(self.figures.listing_transfer_milliseconds),
            literal_bytes: self.figures.literal_bytes,
            matched_bytes: self.figures.matched_bytes,
            ..SyncStats::default()
        };
        (stats.total_file_count, stats.total_bytes) = self.held.unwrap_or_default();
        let mut milliseconds = 0;
        for way in self.ways.values() {
            stats.sent_bytes += way.sent_bytes;
            stats.received_bytes += way.received_bytes;
            milliseconds += way.milliseconds;
            if way.way == Way::Metadata {
                continue;
            }
            stats.transferred_file_count += way.files;
            stats.transferred_bytes += way.content_bytes;
            if way.way != Way::Rsync {
                let literal = way.received_bytes.min(way.content_bytes);
                stats.literal_bytes += literal;
                stats.matched_bytes += way.content_bytes - literal;
            }
        }
        let moved = stats.sent_bytes.saturating_add(stats.received_bytes);
        stats.transfer_bps = moved.saturating_mul(1_000) / u64::max(milliseconds, 1);
        stats
    }
}

fn seconds(milliseconds: u64) -> f64 {
    milliseconds as f64 / 1_000.0
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
    log: Mutex<RunLog>,
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
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        match total {
            0 => log.line(phase),
            total => log.line(&format!("{phase}: {total} {unit}")),
        }
    }

    /// Begins a phase, or adds to what is to be done in it where it is under way.
    pub fn more(&self, phase: &'static str, unit: &'static str, units: u64) {
        let is_under_way =
            *self.phase.lock().unwrap_or_else(PoisonError::into_inner) == (phase, unit);
        if !is_under_way {
            return self.phase(phase, unit, units);
        }
        self.total.fetch_add(units, Ordering::Relaxed);
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.line(&format!("{phase}: {units} {unit} more"));
    }

    /// Has each phase written to a log.
    fn tell(&self, log: &RunLog) {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone_from(log);
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
