//! Writes packs.
//!
//! Two manifests are compared; changed files become tasks (small neighbors together, large files
//! in segments), tasks become frames on all cores, and frames are written in the order of the
//! tasks, so that equal input gives equal bytes however many cores there are. The index comes
//! first in the file but is known last, so frames wait in a file beside it.
//!
//! The tree that is packed may be live. Every byte that goes into a pack is digested on its way,
//! and a file that is not what its manifest says stops the pack: a pack that cannot be used is
//! worth nothing, and the next scan is minutes away.

mod against;
mod changes;
mod contents;
mod encode;
mod inside;
mod output;
mod pipeline;
mod plan;
mod shared;
mod turns;

use std::{
    collections::BTreeMap,
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use protocol::{
    digest::Digest,
    manifest::Manifest,
    pack::{Encoder, Header, NoDelta},
    path::TreePath,
};
use serde::Serialize;

pub use self::{
    shared::{Shared, SharedObject},
    turns::Turns,
};
use super::{BaseSource, ContentSource, Error};
use crate::delta::choose::{self, EncoderChoice, FrameKind};

/// How to write a pack.
#[derive(Clone, Copy)]
pub struct PackOptions<'a> {
    /// Which encoders may be used.
    pub encoders: EncoderChoice,
    /// The zstd level of everything; `None` chooses by kind and amount.
    pub level: Option<i32>,
    /// CPU time that the pack should take, roughly: levels follow from it.
    pub cpu_budget: Duration,
    /// How many agents will fetch it: what is saved is saved so often.
    pub fan_out: u64,
    /// Bytes of memory that may be used, roughly: how many threads compress, and below what one takes
    /// at the highest levels, at which.
    pub memory: u64,
    /// Threads that compress.
    pub threads: usize,
    /// Shared with other packs that are written at the same time: who compresses now.
    pub turns: Option<&'a Turns>,
    /// Tells apart what filters tell apart, in at most 8 classes: files of two classes never share
    /// a frame or a base.
    pub class: &'a (dyn Fn(&TreePath) -> u8 + Sync),
    /// Where large payloads are kept that other packs of the tree use as well; without, the pack
    /// carries everything itself.
    pub shared: Option<&'a dyn Shared>,
    /// Unpacked bytes of a block of the index: what a filtered site fetches at least.
    pub block_bytes: usize,
    /// Called now and then with how far the pack is.
    pub progress: &'a (dyn Fn(Progress) + Sync),
    /// Set by someone else to end it early.
    pub cancel: &'a AtomicBool,
}

impl PackOptions<'static> {
    /// The smallest pack, on every core, within 512 MiB, silently.
    pub fn new() -> Self {
        static NEVER: AtomicBool = AtomicBool::new(false);
        Self {
            encoders: EncoderChoice::Auto,
            level: None,
            cpu_budget: choose::USUAL_CPU,
            fan_out: MANY_AGENTS,
            memory: 512 << 20,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            turns: None,
            class: &|_| 0,
            shared: None,
            block_bytes: protocol::pack::IndexBuilder::PART_BYTES,
            progress: &|_| {},
            cancel: &NEVER,
        }
    }
}

impl Default for PackOptions<'static> {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for PackOptions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PackOptions")
            .field("encoders", &self.encoders)
            .field("level", &self.level)
            .field("memory", &self.memory)
            .field("threads", &self.threads)
            .finish_non_exhaustive()
    }
}

impl PackOptions<'_> {
    pub(super) fn check_canceled(&self) -> Result<(), Error> {
        if self.cancel.load(Ordering::Relaxed) { Err(Error::Canceled) } else { Ok(()) }
    }

    /// Threads that fit into the memory.
    fn workers(&self) -> usize {
        Turns::fitting(self.memory).min(self.threads).max(1)
    }
}

/// What a pack is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Making content small.
    Encode,
    /// Writing the file.
    Write,
}

/// How far a pack is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// What it is at.
    pub phase: Phase,
    /// Bytes done in this phase.
    pub done_bytes: u64,
    /// Bytes to do in this phase.
    pub total_bytes: u64,
}

/// What a written pack is: all that its offer needs, and what a report says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PackSummary {
    /// Digest of the manifest it leads from.
    pub from: Option<Digest>,
    /// Digest of the manifest it leads to.
    pub to: Digest,
    /// Digest of the whole file.
    pub digest: Digest,
    /// Bytes of the whole file.
    pub length: u64,
    /// Bytes before the first frame.
    pub index_length: u64,
    /// Digest of those.
    pub index_digest: Digest,
    /// Bytes before the first block of the index.
    pub front_length: u64,
    /// Digest of those.
    pub front_digest: Digest,
    /// Objects besides the file that have some of its frames.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub shared: Vec<SharedObject>,
    /// Operations.
    pub operations: u64,
    /// Content bytes of the files that it puts.
    pub content_bytes: u64,
    /// What rsync would be expected to move for those: an estimate.
    pub rsync_bytes: u64,
    /// CPU time that it took.
    pub cpu_milliseconds: u64,
    /// What each encoder did, in the order of [`Encoder::ALL`]; those that did nothing as well.
    pub encoders: Vec<EncoderSummary>,
    /// Files that have an old version but were not encoded against it, by reason.
    pub without_delta: BTreeMap<NoDelta, u64>,
}

impl PackSummary {
    /// Bytes of the frames that lie in shared objects.
    pub fn shared_length(&self) -> u64 {
        self.shared.iter().map(|object| object.frame_bytes).sum()
    }
}

/// What one encoder did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct EncoderSummary {
    /// Which.
    pub encoder: Encoder,
    /// Files made by it.
    pub files: u64,
    /// Their content bytes.
    pub content_bytes: u64,
    /// Their share of the stored bytes.
    pub stored_bytes: u64,
}

/// Chooses levels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Levels {
    fixed: Option<i32>,
    total: u64,
    effort: f64,
    highest: i32,
}

/// From so many agents on, a pack is worth all the time that it may take.
pub const MANY_AGENTS: u64 = 4;

impl Levels {
    pub(super) fn of(&self, kind: FrameKind) -> i32 {
        self.where_new(kind, 1.0)
    }

    /// That for files of which only this share is not in the old file in whole blocks: the rest
    /// takes next to no time.
    pub(super) fn where_new(&self, kind: FrameKind, share: f64) -> i32 {
        let total = (self.total as f64 * share) as u64;
        let chosen = || choose::level(kind, total, self.effort).min(self.highest);
        self.fixed.unwrap_or_else(chosen).clamp(1, 22)
    }
}

/// Writes the pack that leads from `from` (nothing, if there is none) to `to` into the file `out`,
/// which appears complete and durable, or not at all.
///
/// # Errors
/// [`Error::Changed`] names a file of `to` that is not what the manifest says any more.
pub fn write_pack(
    from: Option<&Manifest>,
    base: &dyn BaseSource,
    to: &Manifest,
    new: &dyn ContentSource,
    out: &Path,
    options: &PackOptions<'_>,
) -> Result<PackSummary, Error> {
    let nothing = Manifest::empty();
    let header = Header {
        from: from.map(Manifest::digest),
        from_entries: from.map_or(0, |from| from.entries().len() as u64),
        to: to.digest(),
        to_entries: to.entries().len() as u64,
    };
    let from = from.unwrap_or(&nothing);
    let mut plan = plan::Plan::new(from, to, options);
    let effort = choose::effort(options.cpu_budget, options.fan_out, MANY_AGENTS);
    let (total, highest) = (plan.total_bytes(), Turns::highest_level(options.memory));
    let levels = Levels { fixed: options.level, total, effort, highest };
    let context = encode::Context { from, base, new, options, levels, out };
    let mut output = output::Output::create(out, &mut plan, from, options)?;
    let plan = plan;
    let (workers, work) = (options.workers(), CpuTime::default());
    pipeline::run(
        workers,
        |tasks| work.counted(|| plan.send_tasks(&context, tasks)),
        |task| {
            options.check_canceled()?;
            let _turn = options.turns.map(Turns::take);
            work.counted(|| match task {
                plan::Task::Batch(members) => Ok(output::Done::Batch(context.batch(&members)?)),
                plan::Task::Segment { file, range, last } => {
                    let segment = context.segment(&file, range)?;
                    Ok(output::Done::Segment { file, segment, last })
                }
                plan::Task::Shared { member, part } => Ok(output::Done::Shared { member, part }),
            })
        },
        |done| work.counted(|| output.take(done)),
    )?;
    drop(plan);
    let mut summary = work.counted(|| output.finish(&header, to))?;
    summary.cpu_milliseconds = work.milliseconds();
    Ok(summary)
}

/// CPU time of several threads.
#[derive(Default)]
struct CpuTime(AtomicU64);

impl CpuTime {
    /// Does `work` and counts what this thread spent on it.
    fn counted<T>(&self, work: impl FnOnce() -> T) -> T {
        let before = thread_time();
        let done = work();
        self.0.fetch_add(thread_time().saturating_sub(before), Ordering::Relaxed);
        done
    }

    fn milliseconds(&self) -> u64 {
        self.0.load(Ordering::Relaxed) / 1_000_000
    }
}

/// CPU time of this thread, in nanoseconds.
fn thread_time() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    (time.tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(time.tv_nsec as u64)
}
