//! Makes files from a pack: frames in, verified files out.
//!
//! Files are made in the order of the frames they need, so that a pack can be streamed, each frame
//! is unpacked once, and memory is bounded (below 64 MiB) whatever the tree is. No frame is
//! unpacked before its digest was verified, and no file is passed on before its own was. What
//! cannot be made is reported for that file, with the reason, and the others go on: a mirror that
//! has no use for one frame still has use for the rest.

mod assemble;
mod file;
mod frames;
mod streams;

use std::{
    collections::BTreeMap,
    io,
    sync::atomic::{AtomicBool, Ordering},
};

use protocol::{
    manifest::Entry,
    pack::{Content, Encoder, Frame, NoDelta, Op, Selection},
    path::TreePath,
};

pub use file::PackFile;
pub use protocol::pack::Index as PackIndex;

use self::{assemble::Assembler, frames::Frames};
use super::Error;
use crate::{
    delta::{
        ReadAt,
        librsync::{self, Applier},
    },
    fs,
};
use protocol::{digest::DigestWriter, pack::Slice};

/// Bytes of an old file that are passed on at once.
const COPY_BYTES: usize = 256 << 10;

/// Gives the stored bytes of frames.
pub trait FrameSource: Send {
    /// The stored bytes of frame `number`. They are verified by whoever asks. Frames of a written
    /// pack are asked for in ascending order, each once.
    fn frame(&mut self, number: u32, frame: &Frame) -> io::Result<Vec<u8>>;

    /// Whether it makes no sense to wait for a frame any longer: it has come, or it will not.
    fn is_settled(&self, _frame: &Frame) -> bool {
        true
    }
}

/// Gives old content.
pub trait Bases: Sync {
    /// The file of entry `number` of the `from` manifest; `None` if it is not held.
    fn open(&self, number: u64) -> io::Result<Option<Box<dyn ReadAt>>>;

    /// An empty file without a name, for plain text that does not fit into memory; `None` where there
    /// is no place for one.
    fn scratch(&self) -> io::Result<Option<fs::File>> {
        Ok(None)
    }
}

/// Takes files, one after the other. An error of any method ends everything.
pub trait FileSink: Send {
    /// The next file begins.
    fn begin(&mut self, entry: &Entry) -> io::Result<()>;
    /// Its next bytes; not verified yet.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// The file ends: it is exactly what `entry` says, or it cannot be made and what was written
    /// is worthless.
    fn end(&mut self, entry: &Entry, made: Result<Encoder, NoDelta>) -> io::Result<()>;
}

/// What was made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rebuilt {
    /// Files and their bytes, by encoder.
    pub made: BTreeMap<Encoder, (u64, u64)>,
    /// Files that could not be made, by reason.
    pub failed: BTreeMap<NoDelta, u64>,
    /// The first of them.
    pub first_failed: Option<(TreePath, NoDelta)>,
}

impl Rebuilt {
    /// Files that could not be made.
    pub fn failed_files(&self) -> u64 {
        self.failed.values().sum()
    }

    /// Files that were made.
    pub fn made_files(&self) -> u64 {
        self.made.values().map(|(files, _)| files).sum()
    }
}

/// Makes the files of a selection.
pub struct Rebuilder<'a> {
    /// The pack.
    pub index: &'a PackIndex,
    /// Where old content is.
    pub bases: &'a dyn Bases,
    /// Called with the content bytes made so far.
    pub progress: &'a (dyn Fn(u64) + Sync),
    /// Set by someone else to end it early.
    pub cancel: &'a AtomicBool,
}

impl<'a> Rebuilder<'a> {
    /// Makes files silently.
    pub fn new(index: &'a PackIndex, bases: &'a dyn Bases) -> Self {
        static NEVER: AtomicBool = AtomicBool::new(false);
        Self { index, bases, progress: &|_| {}, cancel: &NEVER }
    }

    /// Makes every file of `selection` from `frames` and passes it to `sink`.
    ///
    /// # Errors
    /// Only what ends everything: the sink's errors, a damaged index, cancellation. A file that
    /// cannot be made is not an error; the sink and the result tell.
    pub fn rebuild(
        &self,
        selection: &Selection,
        frames: &mut dyn FrameSource,
        sink: &mut dyn FileSink,
    ) -> Result<Rebuilt, Error> {
        let mut making = self.start(selection, frames, sink)?;
        while let Some(number) = making.order.next() {
            making.file(number)?;
        }
        Ok(making.work.rebuilt)
    }

    /// The same, step by step: files can be made while frames still arrive.
    ///
    /// # Errors
    /// When the index is damaged.
    pub fn start<'b>(
        &'b self,
        selection: &Selection,
        frames: &'b mut dyn FrameSource,
        sink: &'b mut dyn FileSink,
    ) -> Result<Rebuilding<'b>, Error> {
        let work = Work {
            rebuilder: self,
            frames: Frames::new(self.index, self.bases, frames, selection),
            ops: OpBlocks::default(),
            sink,
            rebuilt: Rebuilt::default(),
            made_bytes: 0,
        };
        let order = self.in_order_of_frames(selection)?.into_iter();
        Ok(Rebuilding { work, order, cancel: self.cancel })
    }

    /// The selected operations, by the first frame that they need.
    fn in_order_of_frames(&self, selection: &Selection) -> Result<Vec<u64>, Error> {
        let first = |op: &Op| {
            let slices = op.content().map_or(&[][..], Content::slices);
            slices.iter().find_map(frame_of).unwrap_or(0)
        };
        let mut order = Vec::with_capacity(selection.ops.len());
        // Only the blocks that have something selected: a large pack is drawn from in parts.
        let (mut own, mut others) = (OpBlocks::default(), OpBlocks::default());
        for &number in &selection.ops {
            let Some(op) = own.get(self.index, number)? else { continue };
            let first = match op.content() {
                Some(Content::Same { op }) => {
                    others.get(self.index, *op)?.as_ref().map_or(0, first)
                }
                _ => first(&op),
            };
            order.push((first, number));
        }
        order.sort_unstable();
        Ok(order.into_iter().map(|(_, number)| number).collect())
    }
}

/// The files of a selection, while they are made.
pub struct Rebuilding<'a> {
    work: Work<'a>,
    order: std::vec::IntoIter<u64>,
    cancel: &'a AtomicBool,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The next file was made, or was found impossible to make.
    Made,
    /// Frames of the next file have not settled yet, or it is too large for now.
    Waiting,
    /// There is no other.
    Done,
}

impl Rebuilding<'_> {
    /// Makes the next file, where all its frames have settled and it has at most so many bytes.
    ///
    /// # Errors
    /// As [`Rebuilder::rebuild`].
    pub fn step(&mut self, most_bytes: u64) -> Result<Step, Error> {
        let Some(&number) = self.order.as_slice().first() else { return Ok(Step::Done) };
        if !self.work.is_ready(number, most_bytes)? {
            return Ok(Step::Waiting);
        }
        self.order.next();
        self.file(number)?;
        Ok(Step::Made)
    }

    fn file(&mut self, number: u64) -> Result<(), Error> {
        if self.cancel.load(Ordering::Relaxed) {
            return Err(Error::Canceled);
        }
        self.work.file(number)
    }
}

impl std::fmt::Debug for Rebuilding<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rebuilding").field("left", &self.order.len()).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Rebuilder<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rebuilder").field("index", &self.index).finish_non_exhaustive()
    }
}

fn frame_of(slice: &Slice) -> Option<u32> {
    match slice {
        Slice::Frame { frame, .. } => Some(*frame),
        Slice::Base { .. } | Slice::Inside { .. } => None,
    }
}

/// Why a file was not made.
enum Failure {
    /// For this file.
    File(NoDelta),
    /// For all of them.
    Sink(io::Error),
    Index(protocol::pack::Error),
}

impl From<NoDelta> for Failure {
    fn from(reason: NoDelta) -> Self {
        Self::File(reason)
    }
}

impl From<protocol::pack::Error> for Failure {
    fn from(error: protocol::pack::Error) -> Self {
        Self::Index(error)
    }
}

struct Work<'a> {
    rebuilder: &'a Rebuilder<'a>,
    frames: Frames<'a>,
    ops: OpBlocks,
    sink: &'a mut dyn FileSink,
    rebuilt: Rebuilt,
    made_bytes: u64,
}

impl Work<'_> {
    /// What an operation makes, and from what.
    fn wanted(&mut self, number: u64) -> Result<Option<(Entry, Content)>, Error> {
        let op = self.ops.get(self.rebuilder.index, number)?;
        let Some(Op::Put { entry, content: Some(content) }) = op else { return Ok(None) };
        let content = match &content {
            Content::Same { op } => match self.ops.get(self.rebuilder.index, *op)? {
                Some(Op::Put { content: Some(content), .. }) => content,
                _ => Content::Absent,
            },
            content => content.clone(),
        };
        Ok(Some((entry, content)))
    }

    /// Whether the operation is small enough and need not wait for any frame.
    fn is_ready(&mut self, number: u64, most_bytes: u64) -> Result<bool, Error> {
        let Some((entry, content)) = self.wanted(number)? else { return Ok(true) };
        if entry.size() > most_bytes {
            return Ok(false);
        }
        // What waits does so for its last frames, so those are looked at first.
        for number in content.slices().iter().rev().filter_map(frame_of) {
            match self.frames.is_settled(number) {
                Ok(true) => {}
                Ok(false) => return Ok(false),
                // Whoever makes the file says what is wrong.
                Err(_) => return Ok(true),
            }
        }
        Ok(true)
    }

    fn file(&mut self, number: u64) -> Result<(), Error> {
        let Some((entry, content)) = self.wanted(number)? else { return Ok(()) };
        let sink_error = |source| {
            let path = entry.path.clone();
            Error::Write { path, source }
        };
        self.sink.begin(&entry).map_err(sink_error)?;
        let result = self.content(&entry, &content);
        let made = match result {
            Ok(()) => Ok(content.encoder().unwrap_or(Encoder::Whole)),
            Err(Failure::File(reason)) => Err(reason),
            Err(Failure::Sink(source)) => return Err(sink_error(source)),
            Err(Failure::Index(error)) => return Err(error.into()),
        };
        self.sink.end(&entry, made).map_err(sink_error)?;
        match made {
            Ok(encoder) => {
                let made = self.rebuilt.made.entry(encoder).or_default();
                made.0 += 1;
                made.1 += entry.size();
            }
            Err(reason) => {
                *self.rebuilt.failed.entry(reason).or_default() += 1;
                self.rebuilt.first_failed.get_or_insert((entry.path, reason));
            }
        }
        (self.rebuilder.progress)(self.made_bytes);
        Ok(())
    }

    /// Writes one file's content and makes sure that it is what the entry says.
    fn content(&mut self, entry: &Entry, content: &Content) -> Result<(), Failure> {
        let mut digest = DigestWriter::new();
        let mut len = 0u64;
        let bases = self.rebuilder.bases;
        let mut uses_base = false;
        let mut out =
            Out { sink: &mut *self.sink, digest: &mut digest, len: &mut len, limit: entry.size() };
        match content {
            Content::Copy { from_entry } => {
                uses_base = true;
                copy(bases, *from_entry, 0, entry.size(), &mut out)?;
            }
            Content::Slices { slices, .. } => {
                for slice in slices {
                    match *slice {
                        Slice::Frame { frame, offset, len } => {
                            let (bytes, has_base) = self.frames.slice(frame, offset, len)?;
                            uses_base |= has_base;
                            out.write(bytes)?;
                        }
                        Slice::Base { entry, offset, len } => {
                            uses_base = true;
                            copy(bases, entry, offset, len, &mut out)?;
                        }
                        Slice::Inside { .. } => return Err(NoDelta::Corrupt.into()),
                    }
                }
            }
            Content::RsyncDelta { base_entry, slices } => {
                uses_base = true;
                let base = open(bases, *base_entry)?;
                self.frames.apply(&*base, entry.size(), slices, &mut out)?;
            }
            Content::Inside { recipe_len, slices } => {
                uses_base = self.frames.assemble(*recipe_len, slices, &mut out)?;
            }
            // A link to a link: written packs have none.
            Content::Same { .. } => return Err(NoDelta::Corrupt.into()),
            Content::Absent => return Err(NoDelta::NotPublished.into()),
        }
        self.made_bytes += len;
        if len == entry.size() && Some(digest.finish()) == entry.digest() {
            return Ok(());
        }
        // Every frame was what the index says, so it is the old content that differs.
        Err(if uses_base { NoDelta::WrongBase } else { NoDelta::Corrupt }.into())
    }
}

/// Where a file's bytes go: never more than the file has.
struct Out<'a> {
    sink: &'a mut dyn FileSink,
    digest: &'a mut DigestWriter,
    len: &'a mut u64,
    limit: u64,
}

impl Out<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        *self.len += bytes.len() as u64;
        if *self.len > self.limit {
            return Err(NoDelta::Corrupt.into());
        }
        self.digest.update(bytes);
        self.sink.write(bytes).map_err(Failure::Sink)
    }
}

fn open(bases: &dyn Bases, number: u64) -> Result<Box<dyn ReadAt>, NoDelta> {
    bases.open(number).ok().flatten().ok_or(NoDelta::BaseNotHeld)
}

fn copy(
    bases: &dyn Bases,
    number: u64,
    offset: u64,
    len: u64,
    out: &mut Out<'_>,
) -> Result<(), Failure> {
    pass(&*open(bases, number)?, offset, len, &mut |bytes| out.write(bytes))
}

/// Passes on bytes of old content.
fn pass(
    base: &dyn ReadAt,
    mut offset: u64,
    mut left: u64,
    take: &mut dyn FnMut(&[u8]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut buffer = vec![0; COPY_BYTES.min(usize::try_from(left).unwrap_or(COPY_BYTES))];
    while left > 0 {
        let now = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        base.read_exact_at(&mut buffer[..now], offset).map_err(|_| NoDelta::WrongBase)?;
        take(&buffer[..now])?;
        offset += now as u64;
        left -= now as u64;
    }
    Ok(())
}

impl Frames<'_> {
    /// Applies the librsync delta that the slices are.
    fn apply(
        &mut self,
        base: &dyn ReadAt,
        limit: u64,
        slices: &[Slice],
        out: &mut Out<'_>,
    ) -> Result<(), Failure> {
        let mut applier = Applier::new(base, limit);
        for slice in slices {
            let Slice::Frame { frame, offset, len } = *slice else {
                return Err(NoDelta::Corrupt.into());
            };
            let (bytes, _) = self.slice(frame, offset, len)?;
            let mut failure = None;
            let fed = applier.feed(bytes, &mut |bytes| {
                out.write(bytes).map_err(|error| {
                    failure = Some(error);
                    io::ErrorKind::Other.into()
                })
            });
            if let Some(failure) = failure {
                return Err(failure);
            }
            fed.map_err(reason_of)?;
        }
        applier.finish().map_err(reason_of)?;
        Ok(())
    }
}

impl Frames<'_> {
    /// Makes the content that the slices are with its deflate streams as plain text; whether old
    /// content was needed.
    fn assemble(
        &mut self,
        recipe_len: u64,
        slices: &[Slice],
        out: &mut Out<'_>,
    ) -> Result<bool, Failure> {
        let mut assembler = Assembler::new(recipe_len)?;
        let mut uses_base = false;
        for slice in slices {
            match *slice {
                Slice::Frame { frame, offset, len } => {
                    let (bytes, has_base) = self.slice(frame, offset, len)?;
                    uses_base |= has_base;
                    assembler.feed(bytes, out)?;
                }
                Slice::Base { entry, offset, len } => {
                    uses_base = true;
                    let base = open(self.bases, entry)?;
                    pass(&*base, offset, len, &mut |bytes| assembler.feed(bytes, out))?;
                }
                Slice::Inside { entry, stream, offset, len } => {
                    uses_base = true;
                    let plain = self.streams.open(entry, stream)?;
                    pass(plain, offset, len, &mut |bytes| assembler.feed(bytes, out))?;
                }
            }
        }
        match assembler.finish() {
            Ok(()) => Ok(uses_base),
            Err(_) if uses_base => Err(NoDelta::WrongBase.into()),
            Err(failure) => Err(failure),
        }
    }
}

fn reason_of(error: librsync::Error) -> NoDelta {
    match error {
        librsync::Error::OutsideBase | librsync::Error::Io(_) => NoDelta::WrongBase,
        librsync::Error::Damaged(_) | librsync::Error::TooLong => NoDelta::Corrupt,
    }
}

/// The blocks of operations that were looked at last.
#[derive(Debug, Default)]
pub struct OpBlocks {
    blocks: Vec<(u64, Vec<Op>)>,
}

impl OpBlocks {
    /// Neighbors in the order of frames are mostly neighbors in the order of paths.
    const KEPT: usize = 4;

    /// One operation.
    pub fn get(&mut self, index: &PackIndex, number: u64) -> Result<Option<Op>, Error> {
        let holds =
            |(first, ops): &&(u64, Vec<Op>)| number >= *first && number - *first < ops.len() as u64;
        if let Some((first, ops)) = self.blocks.iter().find(holds) {
            return Ok(ops.get((number - first) as usize).cloned());
        }
        if self.blocks.len() >= Self::KEPT {
            self.blocks.remove(0);
        }
        let (first, ops) = index.ops_around(number)?;
        let op = ops.get(number.saturating_sub(first) as usize).cloned();
        self.blocks.push((first, ops));
        Ok(op)
    }
}
