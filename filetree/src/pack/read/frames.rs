//! Frames, unpacked and kept for a moment.

use std::{collections::HashMap, io};

use protocol::{
    digest::Digest,
    pack::{Codec, Frame, NoDelta, Selection},
};

use super::{Bases, Failure, FrameSource, PackIndex, streams::Streams};
use crate::delta::{differences, frame};

/// Unpacked frames that are kept: small files of one directory may lie in one frame per filter
/// class.
const KEPT: usize = 3;

/// Unpacks frames on demand.
pub(super) struct Frames<'a> {
    index: &'a PackIndex,
    pub(super) bases: &'a dyn Bases,
    pub(super) streams: Streams<'a>,
    source: &'a mut dyn FrameSource,
    kept: Vec<Unpacked>,
    failed: HashMap<u32, NoDelta>,
    /// The block of the frame table that was looked at last.
    table: (u32, Vec<Frame>),
    /// Frames that may still be unpacked: a pack whose files jump between frames could make
    /// unpacking endless.
    left: usize,
}

struct Unpacked {
    number: u32,
    bytes: Vec<u8>,
    has_base: bool,
}

impl<'a> Frames<'a> {
    /// For the frames of a selection.
    pub(super) fn new(
        index: &'a PackIndex,
        bases: &'a dyn Bases,
        source: &'a mut dyn FrameSource,
        selection: &Selection,
    ) -> Self {
        let streams = Streams::new(bases, selection.cost.result_bytes);
        let left = selection.frames.len().saturating_mul(4).saturating_add(64);
        let table = (0, Vec::new());
        Self {
            index,
            bases,
            streams,
            source,
            kept: Vec::new(),
            failed: HashMap::new(),
            table,
            left,
        }
    }

    /// Bytes of an unpacked frame, and whether old content was needed to unpack it.
    pub(super) fn slice(
        &mut self,
        number: u32,
        offset: u32,
        len: u32,
    ) -> Result<(&[u8], bool), Failure> {
        if let Some(reason) = self.failed.get(&number) {
            return Err((*reason).into());
        }
        let at = match self.kept.iter().position(|kept| kept.number == number) {
            Some(at) => at,
            None => {
                let unpacked = self.unpack(number).inspect_err(|failure| {
                    if let Failure::File(reason) = failure {
                        self.failed.insert(number, *reason);
                    }
                })?;
                if self.kept.len() >= KEPT {
                    self.kept.remove(0);
                }
                self.kept.push(unpacked);
                self.kept.len() - 1
            }
        };
        let kept = &self.kept[at];
        let bytes = kept.bytes.get(offset as usize..).and_then(|rest| rest.get(..len as usize));
        Ok((bytes.ok_or(NoDelta::Corrupt)?, kept.has_base))
    }

    /// Whether a frame need not be waited for.
    pub(super) fn is_settled(&mut self, number: u32) -> Result<bool, Failure> {
        if self.kept.iter().any(|kept| kept.number == number) {
            return Ok(true);
        }
        let frame = self.describe(number)?;
        Ok(self.source.is_settled(&frame))
    }

    fn unpack(&mut self, number: u32) -> Result<Unpacked, Failure> {
        self.left = self.left.checked_sub(1).ok_or(NoDelta::Corrupt)?;
        let frame = self.describe(number)?;
        let stored = self.source.frame(number, &frame).map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => NoDelta::Corrupt,
            _ => NoDelta::PointUnreachable,
        })?;
        if stored.len() != frame.stored_len as usize || Digest::of(&stored) != frame.digest {
            return Err(NoDelta::Corrupt.into());
        }
        let (bytes, has_base) = match &frame.codec {
            Codec::Raw => (stored, false),
            Codec::Zstd => {
                let raw = frame::decompress(&stored, &[], frame.raw_len);
                (raw.ok_or(NoDelta::Corrupt)?, false)
            }
            Codec::ZstdPrefix { .. } => {
                let prefix = self.prefix(&frame)?;
                let raw = frame::decompress(&stored, &prefix, frame.raw_len);
                // The stored bytes are right, so it is the prefix that is not.
                (raw.ok_or(NoDelta::WrongBase)?, true)
            }
            Codec::Differences { .. } => {
                let prefix = self.prefix(&frame)?;
                let raw = differences::unpack(&stored, &prefix, frame.raw_len);
                (raw.ok_or(NoDelta::WrongBase)?, true)
            }
        };
        Ok(Unpacked { number, bytes, has_base })
    }

    fn describe(&mut self, number: u32) -> Result<Frame, Failure> {
        let holds = |(first, frames): &(u32, Vec<Frame>)| {
            number >= *first && ((number - *first) as usize) < frames.len()
        };
        if !holds(&self.table) {
            self.table = self.index.frames_around(number)?;
        }
        let at = number.saturating_sub(self.table.0) as usize;
        Ok(self.table.1.get(at).cloned().ok_or(NoDelta::Corrupt)?)
    }

    fn prefix(&mut self, frame: &Frame) -> Result<Vec<u8>, NoDelta> {
        let len: usize = frame.bases().iter().map(|base| base.len as usize).sum();
        let mut prefix = vec![0; len];
        let mut at = 0;
        for base in frame.bases() {
            let end = at + base.len as usize;
            let part = &mut prefix[at..end];
            let read = match base.stream {
                None => super::open(self.bases, base.entry)?.read_exact_at(part, base.offset),
                Some(stream) => {
                    self.streams.open(base.entry, stream)?.read_exact_at(part, base.offset)
                }
            };
            read.map_err(|_| NoDelta::WrongBase)?;
            at = end;
        }
        Ok(prefix)
    }
}
