//! Frames of packs as they come: each is verified when its last byte is there, and written where it has
//! its place.

use std::{
    collections::HashSet,
    fs::File,
    io::{self, Write},
    os::unix::fs::FileExt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use protocol::{digest::DigestWriter, pack::Frame};

use super::{pack::end, ranges::not_signed};

/// Which frames are still to come: files are made of the others in the meantime.
#[derive(Debug, Default)]
pub struct Arrivals(Mutex<Expected>);

#[derive(Debug, Default)]
struct Expected {
    /// Offsets of frames that may still come; `None` before it is known which have to.
    offsets: Option<HashSet<u64>>,
    /// How often frames settled.
    changes: u64,
}

impl Arrivals {
    fn lock(&self) -> MutexGuard<'_, Expected> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn wait_for(&self, frames: &[Frame]) {
        let mut expected = self.lock();
        expected.offsets = Some(frames.iter().map(|frame| frame.offset).collect());
        expected.changes += 1;
    }

    /// They have come, or will not.
    pub(super) fn settle(&self, frames: &[Frame]) {
        let mut expected = self.lock();
        let Expected { offsets: Some(offsets), changes } = &mut *expected else { return };
        for frame in frames {
            *changes += u64::from(offsets.remove(&frame.offset));
        }
    }

    /// No frame is waited for any longer.
    pub fn settle_all(&self) {
        self.lock().offsets = Some(HashSet::new());
    }

    /// Whether a frame has come, or will not.
    pub fn is_settled(&self, frame: &Frame) -> bool {
        self.lock().offsets.as_ref().is_some_and(|offsets| !offsets.contains(&frame.offset))
    }

    /// A number that is another one whenever frames have settled.
    pub fn changes(&self) -> u64 {
        self.lock().changes
    }
}

/// Where frames go as they come.
#[derive(Clone, Copy)]
pub(super) struct To<'a> {
    pub(super) file: &'a File,
    pub(super) arrivals: &'a Arrivals,
    /// Told bytes as they come.
    pub(super) progress: &'a (dyn Fn(u64) + Send + Sync),
}

/// Frames that arrive in one range: each is verified when its last byte is there.
pub(super) struct Arriving<'a> {
    frames: &'a [Frame],
    /// How many of them are there, from the first.
    verified: usize,
    at: u64,
    digest: DigestWriter,
    to: To<'a>,
}

impl<'a> Arriving<'a> {
    /// Frames of a range that begins at an offset which is not behind the first.
    pub(super) fn new(at: u64, frames: &'a [Frame], to: To<'a>) -> Self {
        Self { frames, verified: 0, at, digest: DigestWriter::new(), to }
    }

    /// How many of them are there, from the first.
    pub(super) fn verified(&self) -> usize {
        self.verified
    }

    /// Takes the next bytes of the range; gives those that are behind the last frame.
    pub(super) fn take<'p>(&mut self, mut piece: &'p [u8]) -> io::Result<&'p [u8]> {
        while let Some(frame) = self.frames.get(self.verified).filter(|_| !piece.is_empty()) {
            let is_gap = self.at < frame.offset;
            let until = if is_gap { frame.offset } else { end(frame) };
            let len = usize::try_from(until - self.at).unwrap_or(usize::MAX).min(piece.len());
            let (now, rest) = piece.split_at(len);
            (self.to.progress)(len as u64);
            if !is_gap {
                self.to.file.write_all_at(now, self.at)?;
                self.digest.write_all(now)?;
            }
            (piece, self.at) = (rest, self.at + len as u64);
            if !is_gap && self.at == until {
                let digest = std::mem::replace(&mut self.digest, DigestWriter::new()).finish();
                if digest != frame.digest {
                    return Err(not_signed());
                }
                self.verified += 1;
                self.to.arrivals.settle(std::slice::from_ref(frame));
            }
        }
        Ok(piece)
    }
}
