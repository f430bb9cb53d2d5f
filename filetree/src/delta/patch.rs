//! The `patch` encoder: segments of the new file, each compressed against the old bytes that are
//! most like it.
//!
//! zstd can take the old file as prefix, but its tables do not cover a large one, and beyond 2 GiB
//! it cannot at all. So fast_rsync first tells where the new file's blocks lie in the old one, and
//! each segment of 4 MiB meets just the old range around there. Segments are independent: memory
//! is bounded, cores work in parallel, and each is verified and resumed by itself.
//!
//! Most of the time that zstd takes goes into the prefix. So where long runs of old bytes are a
//! good part of a segment, those are referred to, and only what lies between them is compressed,
//! against what lay between them before.

use std::ops::Range;

use super::{librsync::Command, rsync::Delta};

/// Bytes of the new file in one segment.
pub const SEGMENT_BYTES: u64 = 4 << 20;
/// Old bytes around where a segment lies, on each side, if that is known by half of its bytes.
const MARGIN_BYTES: u64 = SEGMENT_BYTES / 4;
/// The same for a segment with less in common.
const WIDE_MARGIN_BYTES: u64 = SEGMENT_BYTES * 5 / 8;
/// Old bytes that one segment meets at most.
const PREFIX_BYTES: u64 = 12 << 20;
/// Granularity in which old offsets vote.
const VOTE_BYTES: u64 = 1 << 20;
/// Granularity in which other old ranges are drawn in.
const BUCKET_BYTES: u64 = 128 << 10;
/// A bucket from which less is copied is not worth its place.
const BUCKET_WORTH_BYTES: u64 = 4 << 10;

/// A shorter run of old bytes is compressed with what is around it rather than referred to.
const KEPT_BYTES: u64 = 8 << 10;
/// Old bytes on each side of what lay where something changed, at least.
const NEAR_BYTES: u64 = 16 << 10;

/// What a segment keeps of the old file as it is, and what is new in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sparse {
    /// In the order of the new file, covering the segment.
    pub parts: Vec<Part>,
    /// The old ranges that the new parts should meet, in the order of the old file.
    pub bases: Vec<Range<u64>>,
}

/// Bytes of a segment; ranges are those of the new file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// They lie in the old file from `old_at` on.
    Kept {
        /// Where in the new file.
        new: Range<u64>,
        /// Where in the old file.
        old_at: u64,
    },
    /// They may be like something in the old file.
    New(Range<u64>),
}

/// Where the parts of a new file lie in the old one.
#[derive(Debug, Clone)]
pub struct Alignment {
    /// In the order of the new file.
    copies: Vec<Run>,
    copied_bytes: u64,
    old_len: u64,
}

#[derive(Debug, Clone, Copy)]
struct Run {
    new_at: u64,
    old_at: u64,
    len: u64,
}

impl Alignment {
    /// Reads it off a delta against the old file of `old_len` bytes.
    pub fn of(delta: &Delta, old_len: u64) -> Self {
        let (mut copies, mut new_at) = (Vec::new(), 0);
        for command in delta.commands() {
            if let Command::Copy { offset, len } = *command {
                copies.push(Run { new_at, old_at: offset, len });
            }
            new_at += command.len();
        }
        let copied_bytes = copies.iter().map(|run| run.len).sum();
        Self { copies, copied_bytes, old_len }
    }

    /// Bytes of the new file that the old one has in whole blocks.
    pub fn copied_bytes(&self) -> u64 {
        self.copied_bytes
    }

    /// Where `segment` lies in the old file, if all of it lies there as one run.
    pub fn identical(&self, segment: &Range<u64>) -> Option<u64> {
        let run = self.runs(segment).next()?;
        (run.new_at == segment.start && run.len == segment.end - segment.start)
            .then_some(run.old_at)
    }

    /// The old ranges that `segment` should meet, the nearest last, at most 12 MiB together.
    pub fn bases(&self, segment: &Range<u64>) -> Vec<Range<u64>> {
        if self.old_len <= PREFIX_BYTES {
            return std::iter::once(0..self.old_len).filter(|all| !all.is_empty()).collect();
        }
        let len = segment.end - segment.start;
        let origin = self.origin(segment).min(self.old_len.saturating_sub(len));
        let copied: u64 = self.runs(segment).map(|run| run.len).sum();
        let margin = if copied * 2 >= len { MARGIN_BYTES } else { WIDE_MARGIN_BYTES };
        let main = origin.saturating_sub(margin)..(origin + len + margin).min(self.old_len);
        let mut bases = self.others(segment, &main);
        bases.push(main);
        bases
    }

    /// What of the segment can be referred to, if that is a good part of it.
    pub fn sparse(&self, segment: &Range<u64>) -> Option<Sparse> {
        let mut kept: Vec<Run> = Vec::new();
        for run in self.runs(segment) {
            match kept.last_mut() {
                Some(last) if last.continues_in(&run) => last.len += run.len,
                _ => kept.push(run),
            }
        }
        kept.retain(|run| run.len >= KEPT_BYTES);
        let kept_bytes: u64 = kept.iter().map(|run| run.len).sum();
        if kept_bytes * 8 < segment.end - segment.start {
            return None;
        }
        let (mut parts, mut bases) = (Vec::new(), Vec::new());
        let (mut at, mut before) = (segment.start, None::<Run>);
        for after in kept.iter().map(Some).chain([None]) {
            let gap = at..after.map_or(segment.end, |run| run.new_at);
            if !gap.is_empty() {
                bases.extend(self.around(&gap, before, after.copied()));
                parts.push(Part::New(gap));
            }
            if let Some(run) = after {
                at = run.new_at + run.len;
                parts.push(Part::Kept { new: run.new_at..at, old_at: run.old_at });
            }
            before = after.copied();
        }
        let bases = union(bases);
        let base_bytes: u64 = bases.iter().map(|base| base.end - base.start).sum();
        (base_bytes <= PREFIX_BYTES).then_some(Sparse { parts, bases })
    }

    /// Old ranges like what lies in `gap`, between two runs of old bytes: what lay beside those,
    /// and whatever shorter runs within it were copied from.
    fn around(&self, gap: &Range<u64>, before: Option<Run>, after: Option<Run>) -> Vec<Range<u64>> {
        let len = gap.end - gap.start;
        let from = before.map(|run| run.old_at + run.len);
        let to = after.map(|run| run.old_at);
        // Much that is new may be like anything near, as the lines of a log that grew are.
        let near = NEAR_BYTES.max(len.min(WIDE_MARGIN_BYTES));
        let cut = |start: u64, end: u64| {
            start.saturating_sub(near)..end.saturating_add(near).min(self.old_len)
        };
        let mut ranges = match (from, to) {
            // What was there before is of about this length; else something moved.
            (Some(from), Some(to)) if from <= to && to - from <= len * 2 + NEAR_BYTES => {
                vec![cut(from, to)]
            }
            _ => {
                let ends = from.map(|from| cut(from, from + len)).into_iter();
                ends.chain(to.map(|to| cut(to.saturating_sub(len), to))).collect()
            }
        };
        let copied = self.runs(gap).map(|run| cut(run.old_at, run.old_at + run.len));
        ranges.extend(copied);
        ranges
    }

    /// Where the segment's beginning would lie in the old file, by vote of its copied bytes.
    fn origin(&self, segment: &Range<u64>) -> u64 {
        let mut votes: Vec<(u64, u64, u64)> = Vec::new();
        for run in self.runs(segment) {
            let origin = run.old_at.saturating_sub(run.new_at - segment.start);
            let bucket = origin / VOTE_BYTES;
            match votes.iter_mut().find(|vote| vote.0 == bucket) {
                Some(vote) => vote.1 += run.len,
                None => votes.push((bucket, run.len, origin)),
            }
        }
        // Nothing in common: what lies at the same place is the best guess.
        let best = votes.iter().max_by_key(|vote| (vote.1, std::cmp::Reverse(vote.0)));
        best.map_or(segment.start, |vote| vote.2)
    }

    /// Old ranges outside `main` from which the segment copies, most copied first, as far as the
    /// prefix has room; in the order of the old file.
    fn others(&self, segment: &Range<u64>, main: &Range<u64>) -> Vec<Range<u64>> {
        let mut buckets = std::collections::BTreeMap::<u64, u64>::new();
        for run in self.runs(segment) {
            let end = run.old_at + run.len;
            for bucket in run.old_at / BUCKET_BYTES..=(end - 1) / BUCKET_BYTES {
                let range = bucket * BUCKET_BYTES..(bucket + 1) * BUCKET_BYTES;
                if range.end <= main.start || range.start >= main.end {
                    let copied = end.min(range.end) - run.old_at.max(range.start);
                    *buckets.entry(bucket).or_default() += copied;
                }
            }
        }
        let mut chosen: Vec<(u64, u64)> = buckets
            .into_iter()
            .filter(|(_, copied)| *copied >= BUCKET_WORTH_BYTES)
            .map(|(bucket, copied)| (copied, bucket))
            .collect();
        chosen.sort_by_key(|(copied, bucket)| (std::cmp::Reverse(*copied), *bucket));
        chosen.truncate(((PREFIX_BYTES - (main.end - main.start)) / BUCKET_BYTES) as usize);
        chosen.sort_by_key(|(_, bucket)| *bucket);
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for (_, bucket) in chosen {
            let start = bucket * BUCKET_BYTES;
            let end = (start + BUCKET_BYTES).min(self.old_len);
            // A bucket at the border of the main range must not take the same bytes twice.
            let (start, end) = if start < main.start {
                (start, end.min(main.start))
            } else {
                (start.max(main.end), end)
            };
            match ranges.last_mut() {
                Some(last) if last.end == start => last.end = end,
                _ if start < end => ranges.push(start..end),
                _ => {}
            }
        }
        ranges
    }

    /// The copied runs, cut to `segment`.
    fn runs(&self, segment: &Range<u64>) -> impl Iterator<Item = Run> {
        let (from, to) = (segment.start, segment.end);
        let first = self.copies.partition_point(|run| run.new_at + run.len <= from);
        self.copies[first..].iter().take_while(move |run| run.new_at < to).map(move |run| {
            let skipped = from.saturating_sub(run.new_at);
            let new_at = run.new_at + skipped;
            let len = (run.new_at + run.len).min(to) - new_at;
            Run { new_at, old_at: run.old_at + skipped, len }
        })
    }
}

impl Run {
    /// Whether `next` goes on where this ends, in both files.
    fn continues_in(&self, next: &Self) -> bool {
        self.new_at + self.len == next.new_at && self.old_at + self.len == next.old_at
    }
}

/// Ranges in order, those that touch as one.
fn union(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.retain(|range| !range.is_empty());
    ranges.sort_by_key(|range| range.start);
    let mut joined: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => joined.push(range),
        }
    }
    joined
}

/// The segments of a file of `len` bytes.
pub fn segments(len: u64) -> impl Iterator<Item = Range<u64>> {
    (0..len.div_ceil(SEGMENT_BYTES))
        .map(move |n| n * SEGMENT_BYTES..((n + 1) * SEGMENT_BYTES).min(len))
}
