//! What of a pack a site needs, and what it costs: known before the first byte moves.

use std::{collections::BTreeSet, ops::Range};

use super::{Content, Encoder, Error, Index, Op, Slice};
use crate::path::TreePath;

/// Ranges are joined where the gap between them costs less than another request.
pub const JOINED_GAP_BYTES: u64 = 64 << 10;

/// The part of a pack that makes some files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Operations that put a wanted file, by number, ascending.
    pub ops: Vec<u64>,
    /// Frames they need, ascending.
    pub frames: Vec<u32>,
    /// Entries of the `from` manifest they need, ascending.
    pub bases: Vec<u64>,
    /// The frames' byte ranges in the pack, joined where a request would cost more than the gap.
    pub ranges: Vec<Range<u64>>,
    /// What it costs.
    pub cost: Cost,
}

/// What it costs to fetch and make a selection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cost {
    /// Bytes of the ranges, gaps included.
    pub fetched_bytes: u64,
    /// Bytes of the frames alone.
    pub frame_bytes: u64,
    /// Requests.
    pub requests: u64,
    /// Bytes of the files that result.
    pub result_bytes: u64,
    /// Files that the pack names but does not carry.
    pub absent_files: u64,
}

impl Index {
    /// What the wanted files need. Files whose operations refer to other files' bytes (hard links,
    /// equal content, groups) draw in the frames of those too.
    pub fn select(&self, wanted: impl Fn(&TreePath) -> bool) -> Result<Selection, Error> {
        let mut selection = Selection::default();
        let mut needed = Needed::default();
        for op in self.ops() {
            let (number, op) = op?;
            let (Op::Put { entry, .. }, Some(content)) = (&op, op.content()) else { continue };
            if !wanted(op.path()) {
                continue;
            }
            if matches!(content, Content::Absent) {
                selection.cost.absent_files += 1;
                continue;
            }
            selection.ops.push(number);
            selection.cost.result_bytes += entry.size();
            match content {
                Content::Same { op } => {
                    needed.ops.insert(*op);
                }
                content => needed.add(content),
            }
        }
        self.resolve_same(&mut needed)?;
        self.finish(selection, needed)
    }

    /// What the whole pack costs.
    pub fn cost(&self) -> Result<Cost, Error> {
        Ok(self.select(|_| true)?.cost)
    }

    /// Bytes of results per encoder: files and their content bytes.
    pub fn by_encoder(&self) -> Result<Vec<(Encoder, u64, u64)>, Error> {
        let mut sums = Encoder::ALL.map(|encoder| (encoder, 0, 0));
        for op in self.ops() {
            let (_, op) = op?;
            let Op::Put { entry, content: Some(content) } = &op else { continue };
            let encoder = content.encoder();
            if let Some(sum) = sums.iter_mut().find(|sum| Some(sum.0) == encoder) {
                sum.1 += 1;
                sum.2 += entry.size();
            }
        }
        Ok(sums.to_vec())
    }

    fn resolve_same(&self, needed: &mut Needed) -> Result<(), Error> {
        let mut around = (0, Vec::new());
        for number in std::mem::take(&mut needed.ops) {
            if number < around.0 || number - around.0 >= around.1.len() as u64 {
                around = self.ops_around(number)?;
            }
            let op = around.1.get((number - around.0) as usize);
            if let Some(content) = op.and_then(Op::content) {
                needed.add(content);
            }
        }
        Ok(())
    }

    fn finish(&self, mut selection: Selection, mut needed: Needed) -> Result<Selection, Error> {
        let mut around = (0, Vec::new());
        let mut ranges = Vec::new();
        for &number in &needed.frames {
            if number < around.0 || (number - around.0) as usize >= around.1.len() {
                around = self.frames_around(number)?;
            }
            let Some(frame) = around.1.get((number - around.0) as usize) else { continue };
            needed.bases.extend(frame.bases().iter().map(|base| base.entry));
            ranges.push(frame.offset..frame.offset + u64::from(frame.stored_len));
        }
        selection.cost.frame_bytes = ranges.iter().map(|range| range.end - range.start).sum();
        selection.ranges = coalesce(ranges, JOINED_GAP_BYTES);
        selection.cost.requests = selection.ranges.len() as u64;
        selection.cost.fetched_bytes =
            selection.ranges.iter().map(|range| range.end - range.start).sum();
        selection.frames = needed.frames.into_iter().collect();
        selection.bases = needed.bases.into_iter().collect();
        Ok(selection)
    }
}

#[derive(Debug, Default)]
struct Needed {
    ops: BTreeSet<u64>,
    frames: BTreeSet<u32>,
    bases: BTreeSet<u64>,
}

impl Needed {
    fn add(&mut self, content: &Content) {
        match content {
            Content::Copy { from_entry } => {
                self.bases.insert(*from_entry);
            }
            Content::RsyncDelta { base_entry, .. } => {
                self.bases.insert(*base_entry);
            }
            Content::Same { .. }
            | Content::Slices { .. }
            | Content::Inside { .. }
            | Content::Absent => {}
        }
        for slice in content.slices() {
            match *slice {
                Slice::Frame { frame, .. } => {
                    self.frames.insert(frame);
                }
                Slice::Base { entry, .. } | Slice::Inside { entry, .. } => {
                    self.bases.insert(entry);
                }
            }
        }
    }
}

/// Joins ascending ranges whose gaps are at most `gap` bytes.
pub fn coalesce(ranges: Vec<Range<u64>>, gap: u64) -> Vec<Range<u64>> {
    let mut joined: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if range.start.saturating_sub(last.end) <= gap => {
                last.end = last.end.max(range.end);
            }
            _ => joined.push(range),
        }
    }
    joined
}
