//! Frames: the pieces in which content is stored, fetched and verified.

use super::{
    MAX_BASES, MAX_FRAME_RAW_BYTES, MAX_FRAME_STORED_BYTES, MAX_PREFIX_BYTES, columns::Columns,
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
}

/// Some bytes of an old file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BaseRange {
    /// Number of the entry of the `from` manifest.
    pub entry: u64,
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub len: u32,
}

impl Frame {
    /// What it is compressed against.
    pub fn bases(&self) -> &[BaseRange] {
        match &self.codec {
            Codec::ZstdPrefix { bases } => bases,
            Codec::Raw | Codec::Zstd => &[],
        }
    }
}

const RAW: u8 = 0;
const ZSTD: u8 = 1;
const ZSTD_PREFIX: u8 = 2;

/// What the encoding of a frame depends on: the frames before it in the same block.
#[derive(Debug, Default)]
pub(super) struct Context {
    base: u64,
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
            Codec::ZstdPrefix { bases } => {
                rows.byte(ZSTD_PREFIX).varint(u64::from(frame.stored_len));
                rows.varint(u64::from(frame.raw_len)).varint(bases.len() as u64);
                let rows = &mut to.content;
                for base in bases {
                    rows.signed(base.entry.wrapping_sub(self.base) as i64);
                    // Most ranges begin at the file's start.
                    rows.varint(u64::from(base.len) << 1 | u64::from(base.offset > 0));
                    if base.offset > 0 {
                        rows.varint(base.offset);
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
            ZSTD_PREFIX => {
                let raw_len = read_raw_len(rows)?;
                let count = rows.varint_up_to("frame's bases", MAX_BASES as u64)?;
                let bases = self.read_bases(count, &mut from.content, from_entries)?;
                (Codec::ZstdPrefix { bases }, raw_len)
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
        rows: &mut Reader<'_>,
        from_entries: u64,
    ) -> Result<Vec<BaseRange>, Malformed> {
        let mut bases = Vec::new();
        let mut total = 0;
        for _ in 0..count {
            let entry = self.base.wrapping_add(rows.signed()? as u64);
            let len = rows.varint()?;
            let offset = if len & 1 == 1 { rows.varint()? } else { 0 };
            let len = len >> 1;
            total += len.min(MAX_PREFIX_BYTES + 1);
            if total > MAX_PREFIX_BYTES {
                return Err(Malformed::Limit { what: "frame's prefix", limit: MAX_PREFIX_BYTES });
            }
            if entry >= from_entries || offset.checked_add(len).is_none() {
                return Err(rows.invalid("frame's base"));
            }
            self.base = entry;
            bases.push(BaseRange { entry, offset, len: len as u32 });
        }
        Ok(bases)
    }
}

fn read_raw_len(rows: &mut Reader<'_>) -> Result<u32, Malformed> {
    Ok(rows.varint_up_to("frame's length", MAX_FRAME_RAW_BYTES)? as u32)
}
