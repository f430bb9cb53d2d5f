//! The pack's file: frames as they come, the index when all are there.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, BufWriter, Read, Seek, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use protocol::{
    digest::{Digest, DigestWriter},
    manifest::Manifest,
    pack::{
        Codec, Content, Encoder, Frame, Header, IndexBuilder, MAX_FRAME_STORED_BYTES, NoDelta,
        SHARED_FROM_BYTES, Slice,
    },
    transfer::rsync_estimate,
};

use super::{
    EncoderSummary, PackOptions, PackSummary, Phase, Progress,
    changes::Change,
    contents::Contents,
    encode::{Batch, Large, Member, Packed, Piece, Segment, SharedLarge, Way},
    plan::{Plan, operation},
    shared::{Part, SharedObject, shifted},
};
use crate::{
    delta::{inside::Part as ViewPart, patch, whole},
    pack::Error,
};

/// Bytes of the frames that are copied at once.
const COPY_BYTES: usize = 1 << 20;

/// What the workers give.
pub(super) enum Done<'a> {
    Batch(Batch),
    Segment { file: SharedLarge<'a>, segment: Segment, last: bool },
    Shared { member: Member<'a>, part: Part },
}

/// A pack that is being written.
pub(super) struct Output<'a> {
    out: PathBuf,
    frames: Scratch,
    index: IndexBuilder,
    changes: Arc<[Change]>,
    contents: Contents,
    /// Operations whose frames lie in other objects.
    parts: Vec<(usize, Part)>,
    /// The large file whose segments are coming.
    open: OpenFile,
    from: &'a Manifest,
    tally: Tally,
    without_delta: BTreeMap<NoDelta, u64>,
    options: &'a PackOptions<'a>,
    done_bytes: u64,
    total_bytes: u64,
}

#[derive(Default)]
struct OpenFile {
    digest: DigestWriter,
    /// Numbers of frames in them count from the first of `frames`.
    slices: Vec<Slice>,
    frames: Vec<Frame>,
    stored_bytes: u64,
    uses_old: bool,
}

impl OpenFile {
    /// Adds a slice; runs of old bytes that go on in the next segment are one.
    fn push(&mut self, next: Slice) {
        match (self.slices.last_mut(), next) {
            (
                Some(Slice::Base { entry, offset, len }),
                Slice::Base { entry: of, offset: at, len: more },
            ) if *entry == of && *offset + *len == at => *len += more,
            (
                Some(Slice::Inside { entry, stream, offset, len }),
                Slice::Inside { entry: of, stream: same, offset: at, len: more },
            ) if *entry == of && *stream == same && *offset + *len == at => *len += more,
            _ => self.slices.push(next),
        }
    }
}

impl<'a> Output<'a> {
    pub(super) fn create(
        out: &Path,
        plan: &mut Plan<'a>,
        from: &'a Manifest,
        options: &'a PackOptions<'a>,
    ) -> Result<Self, Error> {
        Ok(Self {
            frames: Scratch::create(out, "frames")?,
            out: out.to_path_buf(),
            index: IndexBuilder::in_parts(options.block_bytes),
            changes: plan.changes(),
            contents: plan.take_contents(),
            parts: Vec::new(),
            open: OpenFile::default(),
            from,
            tally: Tally::default(),
            without_delta: BTreeMap::new(),
            options,
            done_bytes: 0,
            total_bytes: plan.total_bytes(),
        })
    }

    pub(super) fn take(&mut self, done: Done<'_>) -> Result<(), Error> {
        match done {
            Done::Batch(batch) => self.take_batch(batch),
            Done::Segment { file, segment, last } => self.take_segment(&file, segment, last),
            Done::Shared { member, part } => {
                self.advance(member.entry.size());
                self.take_part(member.op, part);
                Ok(())
            }
        }
    }

    fn take_batch(&mut self, batch: Batch) -> Result<(), Error> {
        let mut numbers = Vec::new();
        let mut lens = Vec::new();
        for packed in batch.frames {
            lens.push((packed.stored.len() as u64, u64::from(packed.raw_len)));
            let frame = self.store(packed)?;
            numbers.push(self.index.push_frame(&frame)?);
        }
        for placed in batch.placed {
            let frame = numbers[placed.frame];
            let slices = vec![Slice::Frame { frame, offset: placed.offset, len: placed.len }];
            let content = match (placed.base, placed.recipe_len) {
                (Some(base_entry), _) => Content::RsyncDelta { base_entry, slices },
                (None, Some(recipe_len)) => Content::Inside { recipe_len, slices },
                (None, None) => Content::Slices { encoder: placed.encoder, slices },
            };
            self.contents.set(placed.op, content);
            let (stored, raw) = lens[placed.frame];
            self.tally.add_stored(placed.encoder, stored * u64::from(placed.len) / raw.max(1));
            self.count_reason(placed.reason);
            self.advance(u64::from(placed.len));
        }
        Ok(())
    }

    fn take_segment(
        &mut self,
        file: &SharedLarge<'_>,
        segment: Segment,
        last: bool,
    ) -> Result<(), Error> {
        self.open.digest.update(&segment.verified);
        self.advance(segment.verified.len() as u64);
        // Those of this segment's frame refer to the next.
        let frame = self.open.frames.len() as u32;
        if let Some(packed) = segment.frame {
            self.open.stored_bytes += packed.stored.len() as u64;
            self.open.uses_old |= !packed.codec.bases().is_empty();
            let stored = self.store(packed)?;
            self.open.frames.push(stored);
        }
        for piece in segment.pieces {
            let entry = file.member.old.unwrap_or(0);
            match (piece, &file.way) {
                (Piece::Frame { offset, len }, _) => {
                    self.open.push(Slice::Frame { frame, offset, len });
                }
                (Piece::Old { offset, len }, Way::Inside { old, .. }) => {
                    for part in old.parts(offset..offset + len) {
                        self.open.push(match part {
                            ViewPart::File { offset, len } => Slice::Base { entry, offset, len },
                            ViewPart::Inside { stream, offset, len } => {
                                Slice::Inside { entry, stream, offset, len }
                            }
                        });
                    }
                }
                (Piece::Old { offset, len }, _) => {
                    self.open.uses_old = true;
                    self.open.push(Slice::Base { entry, offset, len });
                }
            }
        }
        if last { self.close(file) } else { Ok(()) }
    }

    /// The last segment has come: the file must be what its manifest says.
    fn close(&mut self, file: &SharedLarge<'_>) -> Result<(), Error> {
        let mut open = std::mem::take(&mut self.open);
        let entry = file.member.entry;
        let mut expected = match &file.way {
            Way::Rsync { delta, .. } => Some(delta.literal_digest),
            Way::Inside { digest, .. } => Some(*digest),
            Way::Whole { .. } | Way::Patch { .. } => entry.digest(),
        };
        let as_it_is = matches!(file.way, Way::Inside { .. })
            && !whole::is_worth(open.stored_bytes as usize, entry.size() as usize);
        if as_it_is {
            self.frames.truncate(self.frames.len - open.stored_bytes)?;
            open = self.store_as_it_is(file)?;
            expected = entry.digest();
        }
        if Some(open.digest.finish()) != expected {
            return Err(Error::Changed { path: entry.path.clone() });
        }
        let slices = open.slices;
        let content = match &file.way {
            Way::Inside { recipe_len, .. } if !as_it_is => {
                Content::Inside { recipe_len: *recipe_len, slices }
            }
            Way::Inside { .. } => Content::Slices { encoder: Encoder::Whole, slices },
            Way::Rsync { number, .. } => Content::RsyncDelta { base_entry: *number, slices },
            Way::Patch { .. } if open.uses_old => {
                Content::Slices { encoder: Encoder::Patch, slices }
            }
            Way::Whole { .. } | Way::Patch { .. } => {
                Content::Slices { encoder: Encoder::Whole, slices }
            }
        };
        self.count_reason(file.reason.or(as_it_is.then_some(NoDelta::LargerThanWhole)));
        if open.stored_bytes >= SHARED_FROM_BYTES
            && let Some(part) =
                self.share(file, open.frames.clone(), open.stored_bytes, &content)?
        {
            self.take_part(file.member.op, part);
            return Ok(());
        }
        if let Some(encoder) = content.encoder() {
            self.tally.add_stored(encoder, open.stored_bytes);
        }
        let mut first = None;
        for frame in &open.frames {
            first.get_or_insert(self.index.push_frame(frame)?);
        }
        self.contents.set(file.member.op, shifted(content, first.unwrap_or(0)));
        Ok(())
    }

    /// Stores a compressed file's own bytes: what is inside took more.
    fn store_as_it_is(&mut self, file: &Large<'_>) -> Result<OpenFile, Error> {
        let entry = file.member.entry;
        let mut open = OpenFile::default();
        for range in patch::segments(entry.size()) {
            self.options.check_canceled()?;
            let bytes = file.new.range(range.start, (range.end - range.start) as usize);
            let stored = bytes.map_err(|source| Error::reading(&entry.path, source))?;
            open.digest.update(&stored);
            let len = stored.len() as u32;
            let frame = self.store(Packed { stored, raw_len: len, codec: Codec::Raw })?;
            open.push(Slice::Frame { frame: open.frames.len() as u32, offset: 0, len });
            open.stored_bytes += u64::from(len);
            open.frames.push(frame);
        }
        Ok(open)
    }

    /// Puts the frames of the file that was written last, `bytes` of them, into an object of their
    /// own, where objects are wanted.
    fn share(
        &mut self,
        file: &Large<'_>,
        frames: Vec<Frame>,
        bytes: u64,
        content: &Content,
    ) -> Result<Option<Part>, Error> {
        let Some(shared) = self.options.shared else { return Ok(None) };
        let (member, options) = (&file.member, self.options);
        let old = match content.encoder() {
            Some(Encoder::Whole) | None => None,
            Some(_) => member.old.and_then(|at| self.from.entries().get(usize::try_from(at).ok()?)),
        };
        let begin = self.frames.len - bytes;
        // What turned out to need nothing old may be there already.
        let part = match old {
            None => Part::find(shared, None, member.entry, options.encoders),
            Some(_) => None,
        };
        let part = match part {
            Some(part) => part,
            None => {
                let scratch = &mut self.frames;
                Part::write(shared, old, member.entry, frames, content.clone(), |object, index| {
                    object.write(index)?;
                    append_frames(object, scratch, begin, index, options)
                })?
            }
        };
        self.frames.truncate(begin)?;
        Ok(Some(part))
    }

    fn take_part(&mut self, op: usize, part: Part) {
        if let Some(encoder) = part.content.encoder() {
            self.tally.add_stored(encoder, part.object.frame_bytes);
        }
        self.parts.push((op, part));
    }

    fn store(&mut self, packed: Packed) -> Result<Frame, Error> {
        if packed.stored.len() as u64 > MAX_FRAME_STORED_BYTES {
            return Err(protocol::pack::Error::TooLarge("8 MiB in a frame").into());
        }
        self.frames.write(&packed.stored)?;
        Ok(Frame {
            offset: 0,
            stored_len: packed.stored.len() as u32,
            digest: Digest::of(&packed.stored),
            raw_len: packed.raw_len,
            codec: packed.codec,
        })
    }

    fn count_reason(&mut self, reason: Option<NoDelta>) {
        if let Some(reason) = reason {
            *self.without_delta.entry(reason).or_default() += 1;
        }
    }

    fn advance(&mut self, bytes: u64) {
        // Of a delta only the literals are seen; it never goes beyond the end.
        self.done_bytes = (self.done_bytes + bytes).min(self.total_bytes);
        let (done_bytes, total_bytes) = (self.done_bytes, self.total_bytes);
        (self.options.progress)(Progress { phase: Phase::Encode, done_bytes, total_bytes });
    }

    /// Writes the index and the frames behind it, and gives the file its name.
    pub(super) fn finish(mut self, header: &Header, to: &Manifest) -> Result<PackSummary, Error> {
        let shared = self.finish_parts()?;
        let (mut content_bytes, mut rsync_bytes) = (0, 0);
        let contents = std::mem::take(&mut self.contents);
        for (change, content) in self.changes.iter().zip(contents.into_each()) {
            let encoder = content.as_ref().and_then(Content::encoder);
            let op = operation(*change, content, self.from, to);
            if let (Some(encoder), protocol::pack::Op::Put { entry, .. }) = (encoder, &op) {
                let has_old = matches!(change, Change::Put { old_file: Some(_), .. });
                content_bytes += entry.size();
                rsync_bytes += rsync_estimate(entry.size(), has_old);
                self.tally.add_file(encoder, entry.size());
            }
            self.index.push_op_to(self.from, &op)?;
        }
        let index = self.index.finish(header)?;
        let front = protocol::pack::Index::front(&index)?;
        let mut pack = Scratch::create(&self.out, "pack")?;
        pack.write(&index)?;
        let digest = append_frames(&mut pack, &mut self.frames, 0, &index, self.options)?;
        let length = index.len() as u64 + self.frames.len;
        pack.publish(&self.out)?;
        Ok(PackSummary {
            from: header.from,
            to: header.to,
            digest,
            length,
            index_length: index.len() as u64,
            index_digest: Digest::of(&index),
            front_length: front.len() as u64,
            front_digest: Digest::of(front),
            shared,
            operations: self.changes.len() as u64,
            content_bytes,
            rsync_bytes,
            cpu_milliseconds: 0,
            encoders: self.tally.0.to_vec(),
            without_delta: self.without_delta,
        })
    }
}

impl Output<'_> {
    /// Names the objects that have frames, behind all frames of the pack itself.
    fn finish_parts(&mut self) -> Result<Vec<SharedObject>, Error> {
        let mut objects = Vec::with_capacity(self.parts.len());
        for (op, part) in std::mem::take(&mut self.parts) {
            self.index.begin_shared(part.object.name, part.start())?;
            let mut first = None;
            for frame in &part.frames {
                first.get_or_insert(self.index.push_frame(frame)?);
            }
            self.contents.set(op, shifted(part.content, first.unwrap_or(0)));
            objects.push(part.object);
        }
        Ok(objects)
    }
}

/// Copies the frames from `begin` on behind the index; returns the digest of index and frames.
fn append_frames(
    pack: &mut Scratch,
    frames: &mut Scratch,
    begin: u64,
    index: &[u8],
    options: &PackOptions<'_>,
) -> Result<Digest, Error> {
    let mut digest = DigestWriter::new();
    digest.update(index);
    let total_bytes = frames.len - begin;
    let mut source = frames.read_from(begin)?;
    let mut buffer = vec![0; COPY_BYTES];
    let mut done_bytes = 0;
    while done_bytes < total_bytes {
        options.check_canceled()?;
        let read = source.read(&mut buffer).map_err(|source| frames.error("read", source))?;
        if read == 0 {
            return Err(frames.error("read", io::ErrorKind::UnexpectedEof.into()));
        }
        digest.update(&buffer[..read]);
        pack.write(&buffer[..read])?;
        done_bytes += read as u64;
        (options.progress)(Progress { phase: Phase::Write, done_bytes, total_bytes });
    }
    Ok(digest.finish())
}

/// An empty file beside the pack that loses its name at once, for what does not fit into memory.
pub(super) fn nameless(out: &Path) -> io::Result<File> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let mut name = out.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".plain.{}.{number}.tmp", std::process::id()));
    let path = out.with_file_name(name);
    let file = File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
    fs::remove_file(&path)?;
    Ok(file)
}

/// A file beside the pack that goes away unless it becomes the pack.
pub(super) struct Scratch {
    path: PathBuf,
    file: BufWriter<File>,
    len: u64,
}

impl Scratch {
    pub(super) fn create(out: &Path, what: &str) -> Result<Self, Error> {
        let mut name = out.file_name().unwrap_or_default().to_os_string();
        name.push(format!(".{what}.{}.tmp", std::process::id()));
        let path = out.with_file_name(name);
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path);
        match file {
            Ok(file) => Ok(Self { path, file: BufWriter::new(file), len: 0 }),
            Err(source) => Err(Error::File { file: path, what: "created", source }),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.file.write_all(bytes).map_err(|source| self.error("written", source))?;
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// The file at `begin`; writing goes on only after [`Scratch::truncate`].
    fn read_from(&mut self, begin: u64) -> Result<File, Error> {
        let opened = self.file.flush().and_then(|()| {
            let mut file = self.file.get_ref().try_clone()?;
            file.seek(io::SeekFrom::Start(begin))?;
            Ok(file)
        });
        opened.map_err(|source| self.error("read", source))
    }

    /// Forgets everything from `end` on.
    fn truncate(&mut self, end: u64) -> Result<(), Error> {
        let cut = self.file.flush().and_then(|()| {
            self.file.get_ref().set_len(end)?;
            self.file.seek(io::SeekFrom::Start(end))
        });
        self.len = cut.map_err(|source| self.error("written", source))?;
        Ok(())
    }

    /// Makes the file durable under its name.
    pub(super) fn publish(mut self, out: &Path) -> Result<(), Error> {
        let error = |source| Error::File { file: out.to_path_buf(), what: "written", source };
        self.file.flush().and_then(|()| self.file.get_ref().sync_all()).map_err(error)?;
        fs::rename(&self.path, out).map_err(error)?;
        let parent = match out.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        File::open(parent).and_then(|parent| parent.sync_all()).map_err(error)
    }

    fn error(&self, what: &'static str, source: io::Error) -> Error {
        Error::File { file: self.path.clone(), what, source }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Already renamed, or of no use to anyone.
        let _ = fs::remove_file(&self.path);
    }
}

/// What each encoder did so far.
struct Tally([EncoderSummary; Encoder::ALL.len()]);

impl Default for Tally {
    fn default() -> Self {
        Self(Encoder::ALL.map(|encoder| EncoderSummary {
            encoder,
            files: 0,
            content_bytes: 0,
            stored_bytes: 0,
        }))
    }
}

impl Tally {
    fn of(&mut self, encoder: Encoder) -> Option<&mut EncoderSummary> {
        self.0.iter_mut().find(|summary| summary.encoder == encoder)
    }

    fn add_file(&mut self, encoder: Encoder, content_bytes: u64) {
        if let Some(summary) = self.of(encoder) {
            summary.files += 1;
            summary.content_bytes += content_bytes;
        }
    }

    fn add_stored(&mut self, encoder: Encoder, bytes: u64) {
        if let Some(summary) = self.of(encoder) {
            summary.stored_bytes += bytes;
        }
    }
}
