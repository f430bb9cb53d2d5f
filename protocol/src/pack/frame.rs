//! Frames: the pieces in which content is stored, fetched and verified.

use super::{
    MAX_BASES, MAX_FRAME_RAW_BYTES, MAX_FRAME_STORED_BYTES, MAX_PLAIN_BYTES, MAX_PREFIX_BYTES,
    columns::Columns,
};
use crate::{
    digest::Digest,
    wire::{Malformed, Reader, Writer},
};

/// One frame, as the index describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Where its stored bytes begin in the pack. Implied: not written.
    pub offset: u64,
    /// Stored bytes.
    pub stored_len: u32,
    /// Digest of the stored bytes.
    pub digest: Digest,
    /// Bytes when unpacked.
    pub raw_len: u32,
    /// How to unpack it.
    pub codec: Codec,
}

/// How a frame is unpacked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Codec {
    /// The stored bytes are the content.
    Raw,
    /// One zstd frame.
    Zstd,
    /// One zstd frame with a raw prefix: the base ranges, one after the other.
    ZstdPrefix {
        /// Ranges of old files, at most [`MAX_BASES`] and [`MAX_PREFIX_BYTES`] together.
        bases: Vec<BaseRange>,
    },
    /// One zstd frame with the same prefix; what it unpacks to says how the content is made of the
    /// prefix: copies of it, byte by byte with a difference added, and new bytes between them.
    Differences {
        /// As in [`Codec::ZstdPrefix`].
        bases: Vec<BaseRange>,
    },
}

/// Some bytes of an old file, or of the plain text of a deflate stream in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BaseRange {
    /// Number of the entry of the `from` manifest.
    pub entry: u64,
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub len: u32,
    /// The stream in whose plain text they are; `None` where they are bytes of the file itself.
    pub stream: Option<Stream>,
}

/// A deflate stream (RFC 1951) within a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stream {
    /// Its first byte.
    pub at: u64,
    /// Its bytes.
    pub stored_len: u64,
    /// Bytes of its plain text.
    pub plain_len: u64,
}

impl Stream {
    pub(super) fn write(&self, rows: &mut Writer) {
        rows.varint(self.at).varint(self.stored_len).varint(self.plain_len);
    }

    pub(super) fn read(rows: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            at: rows.varint_up_to("stream's offset", i64::MAX as u64)?,
            stored_len: rows.varint_up_to("stream's length", MAX_PLAIN_BYTES)?,
            plain_len: rows.varint_up_to("stream's plain text", MAX_PLAIN_BYTES)?,
        })
    }
}

impl Codec {
    /// What is needed of old files.
    pub fn bases(&self) -> &[BaseRange] {
        match self {
            Self::ZstdPrefix { bases } | Self::Differences { bases } => bases,
            Self::Raw | Self::Zstd => &[],
        }
    }
}

impl Frame {
    /// What it is compressed against.
    pub fn bases(&self) -> &[BaseRange] {
        self.codec.bases()
    }
}

const RAW: u8 = 0;
const ZSTD: u8 = 1;
const ZSTD_PREFIX: u8 = 2;
/// As [`ZSTD_PREFIX`], with bases in the plain text of streams.
const ZSTD_INSIDE: u8 = 3;
const DIFFERENCES: u8 = 4;
/// As [`DIFFERENCES`], with bases in the plain text of streams.
const DIFFERENCES_INSIDE: u8 = 5;

// In which stream a base is.
const NO_STREAM: u64 = 0;
const SAME_STREAM: u64 = 1;
const NEW_STREAM: u64 = 2;

/// What the encoding of a frame depends on: the frames before it in the same block.
#[derive(Debug, Default)]
pub(super) struct Context {
    base: u64,
    stream: Option<Stream>,
}

impl Context {
    pub(super) fn write(&mut self, frame: &Frame, to: &mut Columns<Writer>) {
        to.digests.digest(&frame.digest);
        let rows = &mut to.fields;
        match &frame.codec {
            Codec::Raw => {
                rows.byte(RAW).varint(u64::from(frame.stored_len));
            }
            Codec::Zstd => {
                rows.byte(ZSTD).varint(u64::from(frame.stored_len));
                rows.varint(u64::from(frame.raw_len));
            }
            Codec::ZstdPrefix { bases } | Codec::Differences { bases } => {
                let is_inside = bases.iter().any(|base| base.stream.is_some());
                let of_differences = matches!(frame.codec, Codec::Differences { .. });
                rows.byte(match (of_differences, is_inside) {
                    (false, false) => ZSTD_PREFIX,
                    (false, true) => ZSTD_INSIDE,
                    (true, false) => DIFFERENCES,
                    (true, true) => DIFFERENCES_INSIDE,
                });
                rows.varint(u64::from(frame.stored_len));
                rows.varint(u64::from(frame.raw_len)).varint(bases.len() as u64);
                let rows = &mut to.content;
                for base in bases {
                    rows.signed(base.entry.wrapping_sub(self.base) as i64);
                    // Most ranges begin at the file's start.
                    let len = u64::from(base.len) << 1 | u64::from(base.offset > 0);
                    let stream = match base.stream {
                        None => NO_STREAM,
                        same if same == self.stream && base.entry == self.base => SAME_STREAM,
                        Some(_) => NEW_STREAM,
                    };
                    rows.varint(if is_inside { len << 2 | stream } else { len });
                    if base.offset > 0 {
                        rows.varint(base.offset);
                    }
                    if let Some(new) = base.stream.filter(|_| stream == NEW_STREAM) {
                        new.write(rows);
                        self.stream = Some(new);
                    }
                    self.base = base.entry;
                }
            }
        }
    }

    /// Reads what [`Context::write`] wrote; the offset stays 0.
    pub(super) fn read(
        &mut self,
        from: &mut Columns<Reader<'_>>,
        from_entries: u64,
    ) -> Result<Frame, Malformed> {
        let digest = from.digests.digest()?;
        let rows = &mut from.fields;
        let code = rows.byte()?;
        let stored_len = rows.varint_up_to("frame's stored length", MAX_FRAME_STORED_BYTES)? as u32;
        let (codec, raw_len) = match code {
            RAW => (Codec::Raw, stored_len),
            ZSTD => (Codec::Zstd, read_raw_len(rows)?),
            ZSTD_PREFIX | ZSTD_INSIDE | DIFFERENCES | DIFFERENCES_INSIDE => {
                let raw_len = read_raw_len(rows)?;
                let count = rows.varint_up_to("frame's bases", MAX_BASES as u64)?;
                let is_inside = matches!(code, ZSTD_INSIDE | DIFFERENCES_INSIDE);
                let bases = self.read_bases(count, is_inside, &mut from.content, from_entries)?;
                let codec = match code {
                    ZSTD_PREFIX | ZSTD_INSIDE => Codec::ZstdPrefix { bases },
                    _ => Codec::Differences { bases },
                };
                (codec, raw_len)
            }
            _ => return Err(rows.invalid("kind of frame")),
        };
        if stored_len == 0 || raw_len == 0 {
            return Err(from.fields.invalid("frame's length"));
        }
        Ok(Frame { offset: 0, stored_len, digest, raw_len, codec })
    }

    fn read_bases(
        &mut self,
        count: u64,
        is_inside: bool,
        rows: &mut Reader<'_>,
        from_entries: u64,
    ) -> Result<Vec<BaseRange>, Malformed> {
        let mut bases = Vec::new();
        let mut total = 0;
        for _ in 0..count {
            let entry = self.base.wrapping_add(rows.signed()? as u64);
            let mut len = rows.varint()?;
            let mut kind = NO_STREAM;
            if is_inside {
                (len, kind) = (len >> 2, len & 3);
            }
            let offset = if len & 1 == 1 { rows.varint()? } else { 0 };
            let len = len >> 1;
            let stream = match kind {
                NO_STREAM => None,
                SAME_STREAM if self.stream.is_some() && entry == self.base => self.stream,
                NEW_STREAM => Some(Stream::read(rows)?),
                _ => return Err(rows.invalid("base's stream")),
            };
            self.stream = stream.or(self.stream);
            if stream.is_some_and(|stream| offset.saturating_add(len) > stream.plain_len) {
                return Err(rows.invalid("base's plain text"));
            }
            total += len.min(MAX_PREFIX_BYTES + 1);
            if total > MAX_PREFIX_BYTES {
                return Err(Malformed::Limit { what: "frame's prefix", limit: MAX_PREFIX_BYTES });
            }
            if entry >= from_entries || offset.checked_add(len).is_none() {
                return Err(rows.invalid("frame's base"));
            }
            self.base = entry;
            bases.push(BaseRange { entry, offset, len: len as u32, stream });
        }
        Ok(bases)
    }
}

fn read_raw_len(rows: &mut Reader<'_>) -> Result<u32, Malformed> {
    Ok(rows.varint_up_to("frame's length", MAX_FRAME_RAW_BYTES)? as u32)
}
