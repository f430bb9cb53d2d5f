//! What the workers do: small files together, or one segment of a large one.

use std::{collections::HashSet, ops::Range, path::Path, sync::Arc};

use protocol::{
    digest::Digest,
    manifest::{Entry, Manifest},
    pack::{Codec, Encoder, MAX_BASES, MAX_PREFIX_BYTES, NoDelta},
    path::TreePath,
};

use super::{
    Levels, PackOptions,
    against::{Old, Prefix, against, best, is_worth_a_base, measure},
    inside::{OldContent, Opened},
};
use crate::{
    delta::{
        ReadAt,
        choose::{EncoderChoice, FrameKind},
        group,
        inside::View,
        patch::{Alignment, Part},
        rsync, whole,
    },
    pack::{BaseSource, ContentSource, Error},
    signature::{Signature, StoredSignature},
};

/// What every worker may look at.
pub(super) struct Context<'a> {
    pub(super) from: &'a Manifest,
    pub(super) base: &'a dyn BaseSource,
    pub(super) new: &'a dyn ContentSource,
    pub(super) options: &'a PackOptions<'a>,
    pub(super) levels: Levels,
    /// The pack that is written: beside it is room for what does not fit into memory.
    pub(super) out: &'a Path,
}

/// One file that needs bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Member<'a> {
    /// Number of its operation.
    pub(super) op: usize,
    pub(super) entry: &'a Entry,
    /// Number of the old entry that it resembles.
    pub(super) old: Option<u64>,
}

/// A frame that is ready to be stored.
pub(super) struct Packed {
    pub(super) stored: Vec<u8>,
    pub(super) raw_len: u32,
    pub(super) codec: Codec,
}

/// How one member of a batch was encoded.
pub(super) struct Placed {
    pub(super) op: usize,
    pub(super) encoder: Encoder,
    /// For librsync deltas.
    pub(super) base: Option<u64>,
    /// Which of the batch's frames, and where in it.
    pub(super) frame: usize,
    pub(super) offset: u32,
    pub(super) len: u32,
    /// Bytes of the recipe that its part begins with, where its streams are plain text.
    pub(super) recipe_len: Option<u64>,
    /// Why no old content was used, where there is an old version.
    pub(super) reason: Option<NoDelta>,
}

/// A batch's frames and members.
pub(super) struct Batch {
    pub(super) frames: Vec<Packed>,
    pub(super) placed: Vec<Placed>,
}

/// What a member puts into its frame.
pub(super) struct Payload<'a> {
    pub(super) member: Member<'a>,
    pub(super) bytes: Vec<u8>,
    /// A librsync delta that goes instead of the bytes, and the old entry that it applies to.
    delta: Option<(u64, Vec<u8>)>,
    /// Old content for the prefix.
    pub(super) old: Option<OldContent>,
    /// Where `bytes` are a recipe and a view: how long the recipe is.
    pub(super) recipe_len: Option<u64>,
    pub(super) reason: Option<NoDelta>,
    incompressible: bool,
}

impl<'a> Payload<'a> {
    pub(super) fn of(member: Member<'a>, bytes: Vec<u8>) -> Self {
        Self {
            member,
            bytes,
            delta: None,
            old: None,
            recipe_len: None,
            reason: None,
            incompressible: false,
        }
    }

    /// Bytes for which old siblings are looked for. What siblings have inside is more than what they
    /// are, so fewer of them make as much.
    fn sibling_bytes(&self) -> u64 {
        match self.recipe_len {
            None => self.bytes.len() as u64,
            Some(_) => self.member.entry.size() / 2,
        }
    }

    /// What goes into the frame.
    fn stored(&self) -> &[u8] {
        self.delta.as_ref().map_or(&self.bytes, |(_, delta)| delta)
    }
}

impl Context<'_> {
    /// Encodes small files together.
    pub(super) fn batch(&self, members: &[Member<'_>]) -> Result<Batch, Error> {
        let mut batch = Batch { frames: Vec::new(), placed: Vec::new() };
        let mut payloads = Vec::new();
        // Plain text is much more than the files are, so it goes as soon as a frame is full.
        let mut inside = Opened::default();
        for member in members {
            let payload = self.payload(*member)?;
            if payload.recipe_len.is_none() {
                payloads.push(payload);
                continue;
            }
            if inside.is_full_with(&payload) {
                self.add_inside(&std::mem::take(&mut inside).payloads, &mut batch)?;
            }
            inside.push(payload);
        }
        if !inside.payloads.is_empty() {
            self.add_inside(&inside.payloads, &mut batch)?;
        }
        self.drop_deltas_not_worth_it(&mut payloads)?;
        // Deltas have a frame of their own: what shares one with them may need old siblings, and
        // a delta needs nothing but its base.
        let (deltas, whole): (Vec<_>, Vec<_>) =
            payloads.into_iter().partition(|payload| payload.delta.is_some());
        let (raw, compressed): (Vec<_>, Vec<_>) =
            whole.into_iter().partition(|payload| payload.incompressible);
        for payloads in [deltas, compressed] {
            if !payloads.is_empty() {
                self.add_compressed(&payloads, &mut batch)?;
            }
        }
        if !raw.is_empty() {
            batch.add_raw(&raw);
        }
        Ok(batch)
    }

    fn payload<'a>(&self, member: Member<'a>) -> Result<Payload<'a>, Error> {
        let bytes = self.read_new(member.entry)?;
        let mut payload = Payload::of(member, bytes);
        if self.look_inside_small(&mut payload)? {
            return Ok(payload);
        }
        if let Some((number, old)) = self.old_entry(member.old) {
            self.use_old(&mut payload, number, old)?;
        }
        if payload.old.is_none() && payload.bytes.len() > 4096 {
            let len = payload.bytes.len() as u64;
            payload.incompressible =
                whole::is_incompressible(&payload.bytes, len).map_err(Error::Compress)?;
        }
        Ok(payload)
    }

    /// Finds the best use of an old version.
    fn use_old(&self, payload: &mut Payload<'_>, number: u64, old: &Entry) -> Result<(), Error> {
        let choice = self.options.encoders;
        let content = (choice != EncoderChoice::Whole).then(|| self.read_old(old)).flatten();
        let signature = match (choice, content) {
            (EncoderChoice::Whole, _) => return Ok(()),
            (EncoderChoice::Rsync, Some(content)) => {
                let made = StoredSignature::calculate(&content, content.len() as u64);
                made.ok().map(|made| made.signature)
            }
            (_, Some(content)) => {
                payload.old = Some(OldContent { number, content, view: None });
                return Ok(());
            }
            (_, None) => self.signature_of(old),
        };
        let Some(signature) = signature else {
            payload.reason = Some(NoDelta::BaseNotHeld);
            return Ok(());
        };
        let path = &payload.member.entry.path;
        let delta = rsync::small_delta(&signature, old.size(), &payload.bytes)
            .map_err(|source| Error::Delta { path: path.clone(), source })?;
        if is_worth_a_base(measure(&delta)?, measure(&payload.bytes)?) {
            payload.delta = Some((number, delta));
        } else {
            payload.reason = Some(NoDelta::LargerThanWhole);
        }
        Ok(())
    }

    /// Neighbors that are much alike may be smaller together than their deltas, each of which was
    /// measured against its file alone.
    fn drop_deltas_not_worth_it(&self, payloads: &mut [Payload<'_>]) -> Result<(), Error> {
        if self.options.encoders == EncoderChoice::Rsync {
            return Ok(());
        }
        let (mut deltas, mut whole) = (Vec::new(), Vec::new());
        for payload in payloads.iter() {
            if let Some((_, delta)) = &payload.delta {
                deltas.extend_from_slice(delta);
                whole.extend_from_slice(&payload.bytes);
            }
        }
        if deltas.is_empty() || is_worth_a_base(measure(&deltas)?, measure(&whole)?) {
            return Ok(());
        }
        for payload in payloads.iter_mut().filter(|payload| payload.delta.is_some()) {
            (payload.delta, payload.reason) = (None, Some(NoDelta::LargerThanWhole));
        }
        Ok(())
    }

    fn add_compressed(&self, payloads: &[Payload<'_>], batch: &mut Batch) -> Result<(), Error> {
        let packed = self.compress_together(payloads, self.levels.of(FrameKind::Small))?;
        let against_old = !packed.codec.bases().is_empty();
        let encoder = match (against_old, self.options.encoders) {
            (false, _) => Encoder::Whole,
            (true, EncoderChoice::Patch) => Encoder::Patch,
            (true, _) => Encoder::Group,
        };
        batch.add(packed, payloads, encoder);
        Ok(())
    }

    pub(super) fn compress_together(
        &self,
        payloads: &[Payload<'_>],
        level: i32,
    ) -> Result<Packed, Error> {
        let mut prefix = self.prefix(payloads);
        let mut bytes = std::mem::take(&mut prefix.bytes);
        let prefix_len = bytes.len();
        payloads.iter().for_each(|payload| bytes.extend_from_slice(payload.stored()));
        best(&bytes, prefix_len, prefix.bases, level)
    }

    /// Old siblings, then old versions: the more alike, the nearer to the new content.
    fn prefix(&self, payloads: &[Payload<'_>]) -> Prefix {
        let mut known = HashSet::new();
        let mut old_bytes = 0;
        let mut olds = Vec::new();
        for payload in payloads {
            if let Some(old) = &payload.old
                && known.insert(old.number)
            {
                old_bytes += old.content.len() as u64;
                olds.push(old);
            }
        }
        let mut prefix = Prefix::default();
        if matches!(self.options.encoders, EncoderChoice::Auto | EncoderChoice::Group) {
            let lonely: Vec<(&TreePath, u64)> = payloads
                .iter()
                .filter(|payload| payload.old.is_none() && payload.delta.is_none())
                .map(|payload| (&payload.member.entry.path, payload.sibling_bytes()))
                .collect();
            let is_inside = payloads.iter().any(|payload| payload.recipe_len.is_some());
            let class = payloads.first().map(|p| (self.options.class)(&p.member.entry.path));
            let fits = |entry: &Entry| Some((self.options.class)(&entry.path)) == class;
            for number in group::siblings(self.from, &lonely, &known, old_bytes, &fits) {
                let entry = self.old_entry(Some(number));
                let Some(content) = entry.and_then(|(_, entry)| self.read_old(entry)) else {
                    continue;
                };
                let old = self.old_content(number, content, is_inside);
                if (prefix.bytes.len() + old.content.len()) as u64 + old_bytes <= MAX_PREFIX_BYTES
                    && prefix.bases.len() + old.pieces() + known.len() <= MAX_BASES / 2
                {
                    prefix.push(&old);
                }
            }
        }
        olds.into_iter().for_each(|old| prefix.push(old));
        prefix
    }

    /// Encodes one segment of a large file.
    pub(super) fn segment(&self, file: &Large<'_>, range: Range<u64>) -> Result<Segment, Error> {
        let path = &file.member.entry.path;
        let read = |source| Error::reading(path, source);
        let len = (range.end - range.start) as usize;
        match &file.way {
            Way::Whole { raw } => {
                let bytes = file.new.range(range.start, len).map_err(read)?;
                let packed = if *raw {
                    let raw_len = bytes.len() as u32;
                    Packed { stored: bytes.clone(), raw_len, codec: Codec::Raw }
                } else {
                    self.pack_whole(&bytes)?
                };
                Ok(Segment::of(packed, bytes))
            }
            Way::Rsync { delta, .. } => {
                let (bytes, literals) = delta.range(&*file.new, range).map_err(read)?;
                let literals = literals.into_iter().map(|range| &bytes[range]);
                let literals = literals.collect::<Vec<_>>().concat();
                Ok(Segment::of(self.pack_whole(&bytes)?, literals))
            }
            Way::Patch { alignment, old, number } => {
                let new = file.new.range(range.start, len).map_err(read)?;
                let copied =
                    alignment.copied_bytes() as f64 / file.member.entry.size().max(1) as f64;
                let level = self.levels.where_new(FrameKind::Patch, 1.0 - copied);
                let old = Old { content: &**old, number: *number, view: None };
                self.patch(alignment, &old, range, new, level)
            }
            Way::Inside { alignment, new, old, number, .. } => {
                let new_bytes = new.len().saturating_sub(alignment.copied_bytes());
                let share = new_bytes as f64 / file.member.entry.size().max(1) as f64;
                let level = self.levels.where_new(FrameKind::Inside, share);
                let new = new.range(range.start, len).map_err(read)?;
                let old = Old { content: old, number: *number, view: Some(old) };
                self.patch(alignment, &old, range, new, level)
            }
        }
    }

    fn pack_whole(&self, bytes: &[u8]) -> Result<Packed, Error> {
        let level = self.levels.of(FrameKind::Whole);
        let (codec, stored) = whole::pack(bytes, level).map_err(Error::Compress)?;
        Ok(Packed { stored, raw_len: bytes.len() as u32, codec })
    }

    fn patch(
        &self,
        alignment: &Alignment,
        old: &Old<'_>,
        range: Range<u64>,
        new: Vec<u8>,
        level: i32,
    ) -> Result<Segment, Error> {
        if let Some(at) = alignment.identical(&range)
            && old.content.range(at, new.len()).is_ok_and(|old| old == new)
        {
            let pieces = vec![Piece::Old { offset: at, len: new.len() as u64 }];
            return Ok(Segment { frame: None, pieces, verified: new });
        }
        if let Some(sparse) = alignment.sparse(&range)
            && let Some(pieces) = kept_pieces(&sparse.parts, range.start, old.content, &new)
        {
            let changed = sparse.parts.iter().filter_map(|part| match part {
                Part::New(part) => Some(within(part, range.start)),
                Part::Kept { .. } => None,
            });
            let changed = changed.map(|part| &new[part]).collect::<Vec<_>>().concat();
            let frame = match changed.is_empty() {
                true => None,
                false => Some(against(&sparse.bases, old, &changed, level)?),
            };
            return Ok(Segment { frame, pieces, verified: new });
        }
        let packed = against(&alignment.bases(&range), old, &new, level)?;
        Ok(Segment::of(packed, new))
    }

    /// Reads a whole small file and makes sure that it is what the manifest says.
    pub(super) fn read_new(&self, entry: &Entry) -> Result<Vec<u8>, Error> {
        let read = |source| Error::reading(&entry.path, source);
        let file = self.new.open(entry).map_err(read)?;
        let bytes = file.range(0, entry.size() as usize).map_err(read)?;
        if Some(Digest::of(&bytes)) == entry.digest() {
            Ok(bytes)
        } else {
            Err(Error::Changed { path: entry.path.clone() })
        }
    }

    /// Reads a whole old file, if it is held and is still what its manifest says.
    pub(super) fn read_old(&self, entry: &Entry) -> Option<Vec<u8>> {
        let bytes = self.base.content(entry)?.range(0, entry.size() as usize).ok()?;
        (Some(Digest::of(&bytes)) == entry.digest()).then_some(bytes)
    }

    /// The stored signature of an old file, if there is one and it is that of this content.
    pub(super) fn signature_of(&self, entry: &Entry) -> Option<Signature> {
        let stored = self.base.signature(entry)?;
        (Some(stored.content) == entry.digest() && stored.content_len == entry.size())
            .then_some(stored.signature)
    }

    pub(super) fn old_entry(&self, number: Option<u64>) -> Option<(u64, &Entry)> {
        let number = number?;
        Some((number, self.from.entries().get(usize::try_from(number).ok()?)?))
    }
}

impl Batch {
    /// Adds contents as they are.
    pub(super) fn add_raw(&mut self, payloads: &[Payload<'_>]) {
        let bytes = payloads.iter().map(|payload| &payload.bytes[..]).collect::<Vec<_>>().concat();
        let packed = Packed { raw_len: bytes.len() as u32, stored: bytes, codec: Codec::Raw };
        self.add(packed, payloads, Encoder::Whole);
    }

    pub(super) fn add(&mut self, packed: Packed, payloads: &[Payload<'_>], encoder: Encoder) {
        let mut offset = 0;
        for payload in payloads {
            let len = payload.stored().len() as u32;
            let base = payload.delta.as_ref().map(|(number, _)| *number);
            let encoder = if base.is_some() { Encoder::Rsync } else { encoder };
            self.placed.push(Placed {
                op: payload.member.op,
                encoder,
                base,
                frame: self.frames.len(),
                offset,
                len,
                recipe_len: payload.recipe_len,
                reason: payload.reason,
            });
            offset += len;
        }
        self.frames.push(packed);
    }
}

/// A file that is encoded in segments.
pub(super) struct Large<'a> {
    pub(super) member: Member<'a>,
    pub(super) new: Box<dyn ReadAt>,
    pub(super) way: Way,
    pub(super) reason: Option<NoDelta>,
}

/// How a large file is encoded.
pub(super) enum Way {
    /// By itself; `raw` where it would not shrink.
    Whole { raw: bool },
    /// Against the old file.
    Patch { alignment: Alignment, old: Box<dyn ReadAt>, number: u64 },
    /// With its streams as plain text, against the old file with its.
    Inside {
        alignment: Alignment,
        /// The recipe, and then the new file's view; with their digest.
        new: View,
        digest: Digest,
        recipe_len: u64,
        old: View,
        number: u64,
    },
    /// As a librsync delta.
    Rsync { delta: rsync::Delta, number: u64 },
}

/// One segment of a large file.
pub(super) struct Segment {
    /// What of it had to be compressed.
    pub(super) frame: Option<Packed>,
    /// In the order of the new file.
    pub(super) pieces: Vec<Piece>,
    /// Bytes of the new file in it, for its digest.
    pub(super) verified: Vec<u8>,
}

/// Where a part of a segment's content comes from.
pub(super) enum Piece {
    /// The segment's frame.
    Frame { offset: u32, len: u32 },
    /// The very same bytes of the old file.
    Old { offset: u64, len: u64 },
}

impl Segment {
    fn of(packed: Packed, verified: Vec<u8>) -> Self {
        let pieces = vec![Piece::Frame { offset: 0, len: packed.raw_len }];
        Self { frame: Some(packed), pieces, verified }
    }
}

/// A range of the new file within the segment that begins at `start`.
fn within(range: &Range<u64>, start: u64) -> Range<usize> {
    (range.start - start) as usize..(range.end - start) as usize
}

/// The pieces of a segment that keeps most of the old file, if what is kept is there still.
fn kept_pieces(parts: &[Part], start: u64, old: &dyn ReadAt, new: &[u8]) -> Option<Vec<Piece>> {
    let mut at = 0;
    let piece = |part: &Part| match part {
        Part::New(range) => {
            let (offset, len) = (at, (range.end - range.start) as u32);
            at += len;
            Some(Piece::Frame { offset, len })
        }
        Part::Kept { new: range, old_at } => {
            let len = range.end - range.start;
            let is_same = old.range(*old_at, len as usize).ok()? == new[within(range, start)];
            is_same.then_some(Piece::Old { offset: *old_at, len })
        }
    };
    parts.iter().map(piece).collect()
}

/// A large file on its way through the workers.
pub(super) type SharedLarge<'a> = Arc<Large<'a>>;
