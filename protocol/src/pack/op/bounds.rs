//! What operations may refer to.

use super::{Content, Op, Slice};
use crate::pack::Error;

/// Limits of the pack that an operation must respect.
pub(in crate::pack) struct Bounds<'a> {
    pub(in crate::pack) from_entries: u64,
    pub(in crate::pack) ops_before: u64,
    pub(in crate::pack) frame_raw: &'a [u32],
}

impl Bounds<'_> {
    /// Checks that whatever `op` refers to exists.
    pub(in crate::pack) fn check(&self, op: &Op) -> Result<(), Error> {
        let Some(content) = op.content() else { return Ok(()) };
        let missing = |what| Error::BadReference { path: op.path().clone(), what };
        let base = |entry| {
            if entry < self.from_entries { Ok(()) } else { Err(missing("an old entry")) }
        };
        match content {
            Content::Copy { from_entry } => base(*from_entry)?,
            Content::Same { op } if *op >= self.ops_before => {
                return Err(missing("an earlier operation"));
            }
            Content::RsyncDelta { base_entry, slices } => {
                base(*base_entry)?;
                if slices.iter().any(|slice| !matches!(slice, Slice::Frame { .. })) {
                    return Err(missing("a delta"));
                }
            }
            Content::Same { .. }
            | Content::Slices { .. }
            | Content::Inside { .. }
            | Content::Absent => {}
        }
        let may_be_inside = matches!(content, Content::Inside { .. });
        let mut last = 0;
        for slice in content.slices() {
            match *slice {
                Slice::Frame { frame, offset, len } => {
                    let raw = self.frame_raw.get(frame as usize);
                    let raw = u64::from(*raw.ok_or_else(|| missing("a frame"))?);
                    if u64::from(offset) + u64::from(len) > raw {
                        return Err(missing("bytes of a frame"));
                    }
                    if frame < last {
                        return Err(missing("a frame in order"));
                    }
                    last = frame;
                }
                Slice::Base { entry, offset, len } => {
                    base(entry)?;
                    offset.checked_add(len).ok_or_else(|| missing("bytes of an old entry"))?;
                }
                Slice::Inside { entry, stream, offset, len } => {
                    base(entry)?;
                    let end = offset.checked_add(len).filter(|end| *end <= stream.plain_len);
                    end.filter(|_| may_be_inside).ok_or_else(|| missing("plain text"))?;
                }
            }
        }
        Ok(())
    }
}
