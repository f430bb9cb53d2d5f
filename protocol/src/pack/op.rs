//! Operations: what becomes of one path, and where its content comes from.

mod bounds;

pub(super) use self::bounds::Bounds;
use super::{Encoder, MAX_RECIPE_BYTES, Stream, columns::Columns};
use crate::{
    manifest::{Entry, EntryKind, LinkGroup, MAX_ENTRIES, Manifest},
    path::TreePath,
    wire::{Malformed, Reader, Writer},
};

/// One difference between two manifests. A pack has at most one per path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// The path holds this entry from now on. What was there before goes, and if that was a
    /// directory and the new entry is none, everything inside goes with it.
    Put {
        /// The whole new entry.
        entry: Entry,
        /// Where the content comes from; files only.
        content: Option<Content>,
    },
    /// The kind, content and link target stay; the rest becomes this.
    Attributes {
        /// Which entry.
        path: TreePath,
        /// As in [`Entry::mode`].
        mode: u32,
        /// As in [`Entry::mtime`].
        mtime: i64,
        /// Files only.
        link_group: Option<LinkGroup>,
    },
    /// The path goes, with everything inside it.
    Delete {
        /// Which entry.
        path: TreePath,
    },
}

impl Op {
    /// The path it is about.
    pub fn path(&self) -> &TreePath {
        match self {
            Self::Put { entry, .. } => &entry.path,
            Self::Attributes { path, .. } | Self::Delete { path } => path,
        }
    }

    /// Where a file's content comes from.
    pub fn content(&self) -> Option<&Content> {
        match self {
            Self::Put { content, .. } => content.as_ref(),
            Self::Attributes { .. } | Self::Delete { .. } => None,
        }
    }
}

/// Where an operation stands between the two manifests.
///
/// Packs name old files by the numbers of their entries. Whoever holds only a part of a manifest
/// has to know how the numbers of that part change from one manifest to the next, without the
/// entries in between.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Place {
    /// Entries of the `from` manifest before the operation's path.
    pub from: u64,
    /// Entries of the `from` manifest, from that number on, whose place it takes or that it takes
    /// away. What lies inside a directory that stays one is not among them.
    pub gone: u64,
}

impl Place {
    /// Where an operation stands that is applied to `from`.
    pub fn of(op: &Op, from: &Manifest) -> Self {
        let (path, entries) = (op.path(), from.entries());
        let at = entries.partition_point(|entry| entry.path < *path);
        let inside =
            |entries: &[Entry]| entries.partition_point(|entry| entry.path.is_inside(path));
        let gone = match (op, entries.get(at).filter(|old| old.path == *path)) {
            (_, None) => 0,
            (Op::Attributes { .. }, Some(_)) => 1,
            (Op::Put { entry, .. }, Some(old)) if entry.is_dir() || !old.is_dir() => 1,
            (Op::Put { .. } | Op::Delete { .. }, Some(_)) => 1 + inside(&entries[at + 1..]),
        };
        Self { from: at as u64, gone: gone as u64 }
    }

    /// The number of the first entry of the `from` manifest behind it.
    pub(super) fn end(&self) -> u64 {
        self.from.saturating_add(self.gone)
    }

    /// Of how many entries more the `to` manifest has through `op`.
    pub(super) fn growth(&self, op: &Op) -> i64 {
        let stays = i64::from(!matches!(op, Op::Delete { .. }));
        stays - self.gone as i64
    }

    /// Whether `op` can stand here.
    pub(super) fn fits(&self, op: &Op, from_entries: u64) -> bool {
        let gone = match op {
            Op::Put { .. } => true,
            Op::Attributes { .. } => self.gone == 1,
            Op::Delete { .. } => self.gone > 0,
        };
        gone && self.end() <= from_entries
    }

    /// Writes it; `position` is the end of the place before.
    pub(super) fn write(&self, position: u64, to: &mut Columns<Writer>) {
        // Mostly one byte.
        let skipped = self.from.saturating_sub(position);
        to.places.varint(skipped << 2 | self.gone.min(3));
        if self.gone >= 3 {
            to.places.varint(self.gone);
        }
    }

    /// Reads what [`Place::write`] wrote.
    pub(super) fn read(position: u64, from: &mut Columns<Reader<'_>>) -> Result<Self, Malformed> {
        let code = from.places.varint()?;
        let gone = match code & 3 {
            3 => from.places.varint_up_to("entries that go", MAX_ENTRIES)?,
            few => few,
        };
        if code & 3 == 3 && gone < 3 {
            return Err(from.places.invalid("entries that go"));
        }
        // Neither is so large that the sum wraps.
        Ok(Self { from: position + (code >> 2), gone })
    }
}

/// Where a file's content comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// The content of an entry of the `from` manifest.
    Copy {
        /// The entry's number.
        from_entry: u64,
    },
    /// The content of an earlier operation of this pack, which is not of this kind itself. Later
    /// members of a hard-link group refer to the first in this way.
    Same {
        /// The operation's number.
        op: u64,
    },
    /// The slices, one after the other, are the content.
    Slices {
        /// Made by.
        encoder: Encoder,
        /// In the order of the content; frame numbers never descend.
        slices: Vec<Slice>,
    },
    /// The slices, one after the other, are a librsync delta.
    RsyncDelta {
        /// Number of the entry of the `from` manifest that it applies to.
        base_entry: u64,
        /// Frames only; their numbers never descend.
        slices: Vec<Slice>,
    },
    /// The slices, one after the other, are a recipe and then the content with some of its deflate
    /// streams as their plain text; the recipe says how the streams are made again.
    Inside {
        /// Bytes of the recipe, at most [`MAX_RECIPE_BYTES`](super::MAX_RECIPE_BYTES).
        recipe_len: u64,
        /// In the order of the content; frame numbers never descend.
        slices: Vec<Slice>,
    },
    /// Not in this pack: to be fetched in another way.
    Absent,
}

impl Content {
    /// Whom reports count it for; `None` where the pack does not carry it.
    pub fn encoder(&self) -> Option<Encoder> {
        match self {
            Self::Copy { .. } | Self::Same { .. } => Some(Encoder::Copy),
            Self::Slices { encoder, .. } => Some(*encoder),
            Self::RsyncDelta { .. } => Some(Encoder::Rsync),
            Self::Inside { .. } => Some(Encoder::Inside),
            Self::Absent => None,
        }
    }

    /// The frames that it takes slices of, in order.
    pub fn frames(&self) -> impl Iterator<Item = u32> {
        self.slices().iter().filter_map(|slice| match slice {
            Slice::Frame { frame, .. } => Some(*frame),
            Slice::Base { .. } | Slice::Inside { .. } => None,
        })
    }

    /// The slices, if it has any.
    pub fn slices(&self) -> &[Slice] {
        match self {
            Self::Slices { slices, .. }
            | Self::RsyncDelta { slices, .. }
            | Self::Inside { slices, .. } => slices,
            Self::Copy { .. } | Self::Same { .. } | Self::Absent => &[],
        }
    }
}

/// A run of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Slice {
    /// Of an unpacked frame.
    Frame {
        /// Number of the frame.
        frame: u32,
        /// First byte within the unpacked frame.
        offset: u32,
        /// Bytes.
        len: u32,
    },
    /// Of an old file.
    Base {
        /// Number of the entry of the `from` manifest.
        entry: u64,
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u64,
    },
    /// Of the plain text of a deflate stream in an old file; only in [`Content::Inside`].
    Inside {
        /// Number of the entry of the `from` manifest.
        entry: u64,
        /// Which stream.
        stream: Stream,
        /// First byte of the plain text.
        offset: u64,
        /// Bytes.
        len: u64,
    },
}

impl Slice {
    /// Bytes.
    pub fn len(&self) -> u64 {
        match self {
            Self::Frame { len, .. } => u64::from(*len),
            Self::Base { len, .. } | Self::Inside { len, .. } => *len,
        }
    }

    /// Whether it has no bytes; written packs have no such slice.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

// The first byte of an operation: two bits for what it does, then its variants.
const WHAT: u8 = 0b11;
const PUT: u8 = 0;
const ATTRIBUTES: u8 = 1;
const DELETE: u8 = 2;
const KIND_AT: u8 = 2;
const KIND_FILE: u8 = 0;
const KIND_DIR: u8 = 1;
const KIND_SYMLINK: u8 = 2;
const LINKED: u8 = 0b1_0000;
// In which stream of an old file a slice is.
const NO_STREAM: u8 = 0;
const SAME_STREAM: u8 = 1;
const NEW_STREAM: u8 = 2;
const CONTENT_AT: u8 = 5;
const CONTENT_COPY: u8 = 0;
const CONTENT_SAME: u8 = 1;
const CONTENT_PATCH: u8 = 2;
const CONTENT_GROUP: u8 = 3;
const CONTENT_WHOLE: u8 = 4;
const CONTENT_RSYNC: u8 = 5;
const CONTENT_ABSENT: u8 = 6;
const CONTENT_INSIDE: u8 = 7;

/// Bytes of plain text that a file may have for each of its own, beside a fixed amount: what shrinks
/// further is better off as it is.
const PLAIN_FACTOR: u64 = 64;
const PLAIN_FLOOR: u64 = 1 << 20;

/// What the encoding of an operation depends on: the operations before it in the same block.
#[derive(Debug, Default)]
pub(super) struct Context {
    path: Vec<u8>,
    mtime: i64,
    base: u64,
    frame: u32,
    at: u32,
    /// Whether slices that are read may be of plain text, and so say that they are not.
    is_inside: bool,
    stream: Option<Stream>,
}

impl Context {
    /// Writes `op`, each kind of field into a column of its own: like next to like compresses
    /// best, and digests do not compress at all.
    pub(super) fn write(&mut self, op: &Op, to: &mut Columns<Writer>) {
        match op {
            Op::Put { entry, content } => {
                let (kind, group) = match entry.kind {
                    EntryKind::File { link_group, .. } => (KIND_FILE, link_group),
                    EntryKind::Dir => (KIND_DIR, None),
                    EntryKind::Symlink { .. } => (KIND_SYMLINK, None),
                };
                let content_code = content.as_ref().map_or(0, content_code);
                let linked = if group.is_some() { LINKED } else { 0 };
                to.fields.byte(PUT | kind << KIND_AT | linked | content_code << CONTENT_AT);
                self.write_common(&entry.path, entry.mode, entry.mtime, group, to);
                match &entry.kind {
                    EntryKind::File { size, digest, .. } => {
                        to.fields.varint(*size);
                        to.digests.digest(digest);
                    }
                    EntryKind::Symlink { target } => {
                        to.paths.bytes(target);
                    }
                    EntryKind::Dir => {}
                }
                if let Some(content) = content {
                    self.write_content(content, &mut to.content);
                }
            }
            Op::Attributes { path, mode, mtime, link_group } => {
                to.fields.byte(ATTRIBUTES | if link_group.is_some() { LINKED } else { 0 });
                self.write_common(path, *mode, *mtime, *link_group, to);
            }
            Op::Delete { path } => {
                to.fields.byte(DELETE);
                to.paths.path_after(&self.path, path);
                self.pass(path);
            }
        }
    }

    /// Reads what [`Context::write`] wrote.
    pub(super) fn read(&mut self, from: &mut Columns<Reader<'_>>) -> Result<Op, Malformed> {
        let code = from.fields.byte()?;
        let path = from.paths.path_after(&self.path)?;
        self.pass(&path);
        if code == DELETE {
            return Ok(Op::Delete { path });
        }
        let mode = from.fields.varint_up_to("mode", u64::from(Entry::MODE_BITS))? as u32;
        let mtime = self.mtime.wrapping_add(from.times.signed()?);
        self.mtime = mtime;
        let link_group = (code & LINKED != 0).then(|| read_group(&mut from.fields)).transpose()?;
        if code & !LINKED == ATTRIBUTES {
            return Ok(Op::Attributes { path, mode, mtime, link_group });
        }
        let (kind, content) = (code >> KIND_AT & WHAT, code >> CONTENT_AT);
        let bare = link_group.is_none() && content == 0;
        let (kind, content) = match (code & WHAT, kind) {
            (PUT, KIND_FILE) => {
                let size = from.fields.varint_up_to("file size", i64::MAX as u64)?;
                let kind = EntryKind::File { size, digest: from.digests.digest()?, link_group };
                (kind, Some(self.read_content(content, size, &mut from.content)?))
            }
            (PUT, KIND_DIR) if bare => (EntryKind::Dir, None),
            (PUT, KIND_SYMLINK) if bare => {
                (EntryKind::Symlink { target: read_target(&mut from.paths)? }, None)
            }
            _ => return Err(from.fields.invalid("kind of operation")),
        };
        Ok(Op::Put { entry: Entry { path, mode, mtime, kind }, content })
    }

    fn write_common(
        &mut self,
        path: &TreePath,
        mode: u32,
        mtime: i64,
        group: Option<LinkGroup>,
        to: &mut Columns<Writer>,
    ) {
        to.paths.path_after(&self.path, path);
        to.fields.varint(u64::from(mode));
        to.times.signed(mtime.wrapping_sub(self.mtime));
        if let Some(LinkGroup(group)) = group {
            to.fields.raw(&group.to_le_bytes());
        }
        self.pass(path);
        self.mtime = mtime;
    }

    fn pass(&mut self, path: &TreePath) {
        self.path.clear();
        self.path.extend_from_slice(path.as_bytes());
    }

    fn write_content(&mut self, content: &Content, rows: &mut Writer) {
        match content {
            Content::Copy { from_entry } => self.write_base(*from_entry, rows),
            Content::Same { op } => {
                rows.varint(*op);
            }
            Content::Slices { slices, .. } => self.write_slices(slices, rows),
            Content::RsyncDelta { base_entry, slices } => {
                self.write_base(*base_entry, rows);
                rows.varint(slices.iter().map(Slice::len).sum());
                self.write_slices(slices, rows);
            }
            Content::Inside { recipe_len, slices } => {
                rows.varint(*recipe_len);
                rows.varint(slices.iter().map(Slice::len).sum());
                self.is_inside = true;
                self.write_slices(slices, rows);
                self.is_inside = false;
            }
            Content::Absent => {}
        }
    }

    fn read_content(
        &mut self,
        code: u8,
        size: u64,
        rows: &mut Reader<'_>,
    ) -> Result<Content, Malformed> {
        let encoder = match code {
            CONTENT_COPY => return Ok(Content::Copy { from_entry: self.read_base(rows)? }),
            CONTENT_SAME => return Ok(Content::Same { op: rows.varint()? }),
            CONTENT_RSYNC => {
                let base_entry = self.read_base(rows)?;
                // A delta is never much longer than what it makes.
                let limit = size.saturating_mul(2).saturating_add(1024);
                let len = rows.varint_up_to("delta's length", limit)?;
                return Ok(Content::RsyncDelta {
                    base_entry,
                    slices: self.read_slices(len, rows)?,
                });
            }
            CONTENT_INSIDE => {
                let recipe_len = rows.varint_up_to("recipe's length", MAX_RECIPE_BYTES)?;
                let limit = size.saturating_mul(PLAIN_FACTOR).saturating_add(PLAIN_FLOOR);
                let len = rows.varint_up_to("length of plain text", limit)?;
                if recipe_len > len {
                    return Err(rows.invalid("recipe's length"));
                }
                self.is_inside = true;
                let slices = self.read_slices(len, rows);
                self.is_inside = false;
                return Ok(Content::Inside { recipe_len, slices: slices? });
            }
            CONTENT_ABSENT => return Ok(Content::Absent),
            CONTENT_PATCH => Encoder::Patch,
            CONTENT_GROUP => Encoder::Group,
            CONTENT_WHOLE => Encoder::Whole,
            _ => return Err(rows.invalid("kind of content")),
        };
        Ok(Content::Slices { encoder, slices: self.read_slices(size, rows)? })
    }

    /// Base numbers ascend with paths, mostly.
    fn write_base(&mut self, entry: u64, rows: &mut Writer) {
        rows.signed(entry.wrapping_sub(self.base) as i64);
        self.base = entry;
    }

    fn read_base(&mut self, rows: &mut Reader<'_>) -> Result<u64, Malformed> {
        self.base = self.base.wrapping_add(rows.signed()? as u64);
        Ok(self.base)
    }

    /// Slices are written until they cover the length, which the reader knows already; each
    /// mostly begins where the one before it ended, so that a small file costs three bytes.
    fn write_slices(&mut self, slices: &[Slice], rows: &mut Writer) {
        let mut left: u64 = slices.iter().map(Slice::len).sum();
        for slice in slices {
            // Most slices are all that is left.
            rows.varint(if slice.len() == left { 0 } else { slice.len() });
            left -= slice.len();
            match *slice {
                Slice::Frame { frame, offset, len } => {
                    let step = i64::from(frame) - i64::from(self.frame);
                    // Zero means an old file, so that forward steps stay short.
                    rows.signed(if step >= 0 { step + 1 } else { step });
                    let expected = if step == 0 { self.at } else { 0 };
                    rows.signed(i64::from(offset) - i64::from(expected));
                    (self.frame, self.at) = (frame, offset.wrapping_add(len));
                }
                Slice::Base { entry, offset, .. } => {
                    rows.signed(0);
                    self.write_base(entry, rows);
                    rows.varint(offset);
                    if self.is_inside {
                        rows.byte(NO_STREAM);
                    }
                }
                Slice::Inside { entry, stream, offset, .. } => {
                    let is_same = self.stream == Some(stream) && self.base == entry;
                    rows.signed(0);
                    self.write_base(entry, rows);
                    rows.varint(offset).byte(if is_same { SAME_STREAM } else { NEW_STREAM });
                    if !is_same {
                        stream.write(rows);
                    }
                    self.stream = Some(stream);
                }
            }
        }
    }

    fn read_slices(&mut self, total: u64, rows: &mut Reader<'_>) -> Result<Vec<Slice>, Malformed> {
        let mut slices = Vec::new();
        let mut left = total;
        while left > 0 {
            let len = match rows.varint()? {
                0 => left,
                len if len < left => len,
                _ => return Err(rows.invalid("slice's length")),
            };
            left -= len;
            let step = rows.signed()?;
            if step == 0 {
                let before = self.base;
                let entry = self.read_base(rows)?;
                let offset = rows.varint()?;
                let stream = match if self.is_inside { rows.byte()? } else { NO_STREAM } {
                    NO_STREAM => None,
                    SAME_STREAM if self.stream.is_some() && before == entry => self.stream,
                    NEW_STREAM => Some(Stream::read(rows)?),
                    _ => return Err(rows.invalid("slice's stream")),
                };
                self.stream = stream.or(self.stream);
                slices.push(match stream {
                    None => Slice::Base { entry, offset, len },
                    Some(stream) => Slice::Inside { entry, stream, offset, len },
                });
                continue;
            }
            let invalid = || rows.invalid("slice of a frame");
            let len = u32::try_from(len).map_err(|_| invalid())?;
            let step = if step > 0 { step - 1 } else { step };
            let frame = i64::from(self.frame).checked_add(step);
            let frame = frame.and_then(|frame| u32::try_from(frame).ok()).ok_or_else(invalid)?;
            let expected = if step == 0 { self.at } else { 0 };
            let offset = rows.signed()?.checked_add(i64::from(expected));
            let offset = offset.and_then(|offset| u32::try_from(offset).ok());
            let offset = offset.ok_or_else(|| rows.invalid("slice of a frame"))?;
            (self.frame, self.at) = (frame, offset.wrapping_add(len));
            slices.push(Slice::Frame { frame, offset, len });
        }
        Ok(slices)
    }
}

fn content_code(content: &Content) -> u8 {
    match content {
        Content::Copy { .. } => CONTENT_COPY,
        Content::Same { .. } => CONTENT_SAME,
        Content::Slices { encoder: Encoder::Patch, .. } => CONTENT_PATCH,
        Content::Slices { encoder: Encoder::Group, .. } => CONTENT_GROUP,
        Content::Slices { .. } => CONTENT_WHOLE,
        Content::RsyncDelta { .. } => CONTENT_RSYNC,
        Content::Inside { .. } => CONTENT_INSIDE,
        Content::Absent => CONTENT_ABSENT,
    }
}

fn read_group(rows: &mut Reader<'_>) -> Result<LinkGroup, Malformed> {
    let mut group = [0; 8];
    group.copy_from_slice(rows.take(8)?);
    Ok(LinkGroup(u64::from_le_bytes(group)))
}

fn read_target(rows: &mut Reader<'_>) -> Result<Box<[u8]>, Malformed> {
    let target = rows.bytes("link target", Entry::MAX_TARGET as u64)?;
    if target.is_empty() || target.contains(&0) {
        return Err(rows.invalid("link target"));
    }
    Ok(target.into())
}
