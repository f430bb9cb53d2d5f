//! What a site draws from a chain of packs, and what that costs: decided before a byte moves.
//!
//! The second pack of a chain makes files from what the first one made, and a group of small files
//! is made from old versions of all of them. So wanting one file of the last pack means wanting
//! its frames, the old files that those were made from, the frames of earlier packs that make the
//! old files that are not held, and so on backward: the file's *closure*. A filter may have left
//! out an old file that nobody makes any more; then the frame is of no use here, and the files in
//! it come another way.
//!
//! What a file shares with others costs nothing more, so files cannot be judged one by one: a frame
//! that is worth fetching for a hundred files is not for one. Which of them to draw is a cut
//! through the graph of files and frames ([`cut`]), and the cheapest one is found exactly.

mod cut;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    ops::Bound,
};

use self::cut::Cut;
use super::{
    Content, Cost, Error, Frame, Index, JOINED_GAP_BYTES, NoDelta, Op, Selection, Slice, coalesce,
};
use crate::{digest::Digest, manifest::Entries, path::TreePath};

/// One pack of a chain, the first of which leads on from what is held.
#[derive(Debug, Clone, Copy)]
pub struct Link<'a> {
    /// Its index.
    pub index: &'a Index,
    /// The manifest that it leads from: the one that the link before leads to.
    pub from: &'a dyn Entries,
}

/// A content that is wanted.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// A path of the last link's target that has it.
    pub path: &'a TreePath,
    /// What it is.
    pub digest: Digest,
    /// What it costs in bytes by the next best way; `None` where there is no other.
    pub otherwise: Option<u64>,
}

/// What is drawn from each link.
#[derive(Debug, Clone, Default)]
pub struct Draw {
    /// One for each link, in order: what one makes may be the base of what the next makes.
    pub steps: Vec<Step>,
    /// For each wanted content the link that makes it, or why none does.
    pub made_by: Vec<Result<usize, NoDelta>>,
    /// What all steps cost together.
    pub cost: Cost,
}

/// What is drawn from one link.
#[derive(Debug, Clone, Default)]
pub struct Step {
    /// The operations that are carried out, and their frames.
    pub selection: Selection,
    /// Contents that are made only for later steps.
    pub only_bases: HashSet<Digest>,
}

/// Decides what of `wanted` is drawn from `links`. `held` says whether the content lies at the path
/// in what the site holds.
///
/// # Errors
/// A block of an index that cannot be read.
pub fn draw(
    links: &[Link<'_>],
    wanted: &[Wanted<'_>],
    held: &dyn Fn(&TreePath, &Digest) -> bool,
) -> Result<Draw, Error> {
    let mut closure = Closure::new(links.len(), held);
    let slots: Vec<usize> =
        wanted.iter().map(|wanted| closure.open_slot(wanted.path, wanted.digest)).collect();
    for (number, link) in links.iter().enumerate().rev() {
        closure.resolve(number, link)?;
    }
    let makeable = closure.makeable();
    let kept = closure.cheapest(wanted, &slots, &makeable);
    let mut made_by = Vec::with_capacity(wanted.len());
    for (at, slot) in slots.iter().enumerate() {
        made_by.push(match closure.slots[*slot].state {
            State::Made { link, .. } if kept[at] => Ok(link),
            State::Made { .. } if makeable.contains(slot) => Err(NoDelta::LargerThanWhole),
            State::Made { .. } => Err(NoDelta::BaseNotHeld),
            State::Open | State::Missing => Err(NoDelta::NotPublished),
        });
    }
    let roots = slots.iter().zip(&kept).filter(|(_, kept)| **kept).map(|(slot, _)| *slot);
    let needed = closure.reached_from(roots);
    let finals: HashSet<Digest> =
        wanted.iter().zip(&kept).filter(|(_, kept)| **kept).map(|(w, _)| w.digest).collect();
    let mut draw = Draw { made_by, ..Draw::default() };
    for number in 0..links.len() {
        let step = closure.step(number, &needed, &finals);
        let (sum, part) = (&mut draw.cost, &step.selection.cost);
        sum.fetched_bytes += part.fetched_bytes;
        sum.frame_bytes += part.frame_bytes;
        sum.requests += part.requests;
        sum.result_bytes += part.result_bytes;
        draw.steps.push(step);
    }
    Ok(draw)
}

/// Where some old content comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Held,
    /// It is made, by an earlier link.
    Slot(usize),
    /// There is no such file.
    Nowhere,
}

/// A content at a path that is wanted, or that something wanted is made from.
struct Slot {
    digest: Digest,
    state: State,
}

enum State {
    /// Not found in the links that were looked at so far.
    Open,
    /// The link that puts it does not carry it.
    Missing,
    /// Made by an operation of a link, from frames and from old content.
    Made { link: usize, op: u64, size: u64, frames: Vec<u32>, bases: Vec<Source> },
}

/// A frame that something needs.
struct Needed {
    frame: Frame,
    bases: Vec<Source>,
}

struct Closure<'a> {
    held: &'a dyn Fn(&TreePath, &Digest) -> bool,
    slots: Vec<Slot>,
    /// Slots that no link looked at so far makes, by path.
    open: BTreeMap<TreePath, Vec<usize>>,
    /// The frames of each link that something needs.
    frames: Vec<BTreeMap<u32, Needed>>,
}

impl<'a> Closure<'a> {
    fn new(links: usize, held: &'a dyn Fn(&TreePath, &Digest) -> bool) -> Self {
        let frames = (0..links).map(|_| BTreeMap::new()).collect();
        Self { held, slots: Vec::new(), open: BTreeMap::new(), frames }
    }

    /// The slot of a content that has to be made.
    fn open_slot(&mut self, path: &TreePath, digest: Digest) -> usize {
        let here = self.open.entry(path.clone()).or_default();
        let known = here.iter().find(|slot| self.slots[**slot].digest == digest);
        if let Some(slot) = known {
            return *slot;
        }
        here.push(self.slots.len());
        self.slots.push(Slot { digest, state: State::Open });
        self.slots.len() - 1
    }

    /// Where entry `number` of the manifest that a link leads from comes from.
    fn source(&mut self, from: &dyn Entries, number: u64) -> Source {
        // What cannot be read is not there to make anything from.
        let entry = from.numbered(number).ok().flatten();
        let Some((digest, path)) = entry.and_then(|e| Some((e.digest()?, e.path))) else {
            return Source::Nowhere;
        };
        if (self.held)(&path, &digest) {
            return Source::Held;
        }
        Source::Slot(self.open_slot(&path, digest))
    }

    /// Finds out what one link makes of the open slots, and opens those of what that is made from.
    fn resolve(&mut self, number: usize, link: &Link<'_>) -> Result<(), Error> {
        let mut found = Vec::new();
        for (block, first_op, first, next) in link.index.op_blocks() {
            let end = next.map_or(Bound::Unbounded, Bound::Excluded);
            if self.open.range((Bound::Included(first), end)).next().is_none() {
                continue;
            }
            for (at, op) in link.index.op_block(block)?.into_iter().enumerate() {
                let Op::Put { entry, content: Some(content) } = op else { continue };
                let Some(digest) = entry.digest() else { continue };
                let Some(here) = self.open.get_mut(&entry.path) else { continue };
                let Some(place) = here.iter().position(|s| self.slots[*s].digest == digest) else {
                    continue;
                };
                found.push((here.swap_remove(place), first_op + at as u64, entry.size(), content));
                if here.is_empty() {
                    self.open.remove(&entry.path);
                }
            }
        }
        let mut around = (0, Vec::new());
        let mut wanted_frames = BTreeSet::new();
        for (slot, op, size, content) in found {
            let content = match content {
                Content::Same { op } => {
                    if op < around.0 || op - around.0 >= around.1.len() as u64 {
                        around = link.index.ops_around(op)?;
                    }
                    let other = around.1.get((op.saturating_sub(around.0)) as usize);
                    other.and_then(Op::content).cloned().unwrap_or(Content::Absent)
                }
                content => content,
            };
            self.slots[slot].state = match self.made_from(link.from, &content) {
                Some((frames, bases)) => {
                    wanted_frames.extend(&frames);
                    State::Made { link: number, op, size, frames, bases }
                }
                None => State::Missing,
            };
        }
        self.describe(number, link, &wanted_frames)
    }

    /// Frames and old content that a content is made from; `None` if the pack does not carry it.
    fn made_from(
        &mut self,
        from: &dyn Entries,
        content: &Content,
    ) -> Option<(Vec<u32>, Vec<Source>)> {
        let (mut frames, mut bases) = (Vec::new(), Vec::new());
        match content {
            Content::Absent | Content::Same { .. } => return None,
            Content::Copy { from_entry: entry } | Content::RsyncDelta { base_entry: entry, .. } => {
                bases.push(self.source(from, *entry));
            }
            Content::Slices { .. } | Content::Inside { .. } => {}
        }
        for slice in content.slices() {
            match *slice {
                Slice::Frame { frame, .. } if frames.last() != Some(&frame) => frames.push(frame),
                Slice::Frame { .. } => {}
                Slice::Base { entry, .. } | Slice::Inside { entry, .. } => {
                    bases.push(self.source(from, entry));
                }
            }
        }
        Some((frames, bases))
    }

    fn describe(
        &mut self,
        number: usize,
        link: &Link<'_>,
        wanted: &BTreeSet<u32>,
    ) -> Result<(), Error> {
        let mut around = (0, Vec::new());
        for &frame_number in wanted {
            if frame_number < around.0 || (frame_number - around.0) as usize >= around.1.len() {
                around = link.index.frames_around(frame_number)?;
            }
            let at = frame_number.saturating_sub(around.0) as usize;
            let Some(frame) = around.1.get(at).cloned() else { continue };
            let bases = frame.bases().iter().map(|base| base.entry).collect::<Vec<_>>();
            let bases = bases.into_iter().map(|entry| self.source(link.from, entry)).collect();
            self.frames[number].insert(frame_number, Needed { frame, bases });
        }
        Ok(())
    }

    /// Slots that can be made with what is held.
    fn makeable(&self) -> HashSet<usize> {
        let mut order: Vec<(usize, usize)> = Vec::new();
        for (slot, Slot { state, .. }) in self.slots.iter().enumerate() {
            if let State::Made { link, .. } = state {
                order.push((*link, slot));
            }
        }
        // What an earlier link makes is the base of what a later one makes, never otherwise.
        order.sort_unstable();
        let mut makeable = HashSet::new();
        let mut useless = HashMap::<(usize, u32), bool>::new();
        for (link, slot) in order {
            let State::Made { frames, bases, .. } = &self.slots[slot].state else { continue };
            let is_there = |source: &Source| match source {
                Source::Held => true,
                Source::Slot(slot) => makeable.contains(slot),
                Source::Nowhere => false,
            };
            let all_frames = frames.iter().all(|frame| {
                !*useless.entry((link, *frame)).or_insert_with(|| {
                    let needed = self.frames[link].get(frame);
                    !needed.is_some_and(|needed| needed.bases.iter().all(is_there))
                })
            });
            if all_frames && bases.iter().all(is_there) {
                makeable.insert(slot);
            }
        }
        makeable
    }

    /// Which of the wanted contents are drawn so that all of them together cost least.
    fn cheapest(
        &self,
        wanted: &[Wanted<'_>],
        slots: &[usize],
        makeable: &HashSet<usize>,
    ) -> Vec<bool> {
        let mut cut = Cut::new();
        let nodes: HashMap<usize, usize> =
            makeable.iter().map(|slot| (*slot, cut.add_node())).collect();
        let mut frames = HashMap::<(usize, u32), usize>::new();
        for (slot, node) in &nodes {
            let State::Made { link, frames: own, bases, .. } = &self.slots[*slot].state else {
                continue;
            };
            let needs = |node: usize, sources: &[Source], cut: &mut Cut| {
                for source in sources {
                    if let Source::Slot(slot) = source
                        && let Some(base) = nodes.get(slot)
                    {
                        cut.require(node, *base);
                    }
                }
            };
            needs(*node, bases, &mut cut);
            for frame in own {
                let known = frames.get(&(*link, *frame)).copied();
                let frame_node = known.unwrap_or_else(|| {
                    let added = cut.add_node();
                    if let Some(needed) = self.frames[*link].get(frame) {
                        cut.costs(added, u64::from(needed.frame.stored_len));
                        needs(added, &needed.bases, &mut cut);
                    }
                    frames.insert((*link, *frame), added);
                    added
                });
                cut.require(*node, frame_node);
            }
        }
        for (wanted, slot) in wanted.iter().zip(slots) {
            if let Some(node) = nodes.get(slot) {
                cut.saves(*node, wanted.otherwise);
            }
        }
        let chosen = cut.chosen();
        slots.iter().map(|slot| nodes.get(slot).is_some_and(|node| chosen[*node])).collect()
    }

    /// Every slot that these need, themselves included.
    fn reached_from(&self, roots: impl Iterator<Item = usize>) -> BTreeSet<usize> {
        let mut todo: Vec<usize> = roots.collect();
        let mut reached = BTreeSet::new();
        let mut seen_frames = HashSet::new();
        while let Some(slot) = todo.pop() {
            if !reached.insert(slot) {
                continue;
            }
            let State::Made { link, frames, bases, .. } = &self.slots[slot].state else { continue };
            let mut add = |sources: &[Source]| {
                todo.extend(sources.iter().filter_map(|source| match source {
                    Source::Slot(slot) => Some(*slot),
                    Source::Held | Source::Nowhere => None,
                }));
            };
            add(bases);
            for frame in frames {
                if seen_frames.insert((*link, *frame))
                    && let Some(needed) = self.frames[*link].get(frame)
                {
                    add(&needed.bases);
                }
            }
        }
        reached
    }

    fn step(&self, number: usize, needed: &BTreeSet<usize>, finals: &HashSet<Digest>) -> Step {
        let mut step = Step::default();
        let (mut frames, mut bases) = (BTreeSet::new(), BTreeSet::new());
        for slot in needed {
            let Slot { digest, state, .. } = &self.slots[*slot];
            let State::Made { link, op, size, frames: own, .. } = state else { continue };
            if *link != number {
                continue;
            }
            step.selection.ops.push(*op);
            step.selection.cost.result_bytes += size;
            frames.extend(own.iter().copied());
            if !finals.contains(digest) {
                step.only_bases.insert(*digest);
            }
        }
        let mut ranges = Vec::with_capacity(frames.len());
        for frame in &frames {
            let Some(Needed { frame, .. }) = self.frames[number].get(frame) else { continue };
            bases.extend(frame.bases().iter().map(|base| base.entry));
            ranges.push(frame.offset..frame.offset + u64::from(frame.stored_len));
        }
        let selection = &mut step.selection;
        selection.ops.sort_unstable();
        selection.frames = frames.into_iter().collect();
        selection.bases = bases.into_iter().collect();
        let bytes = |ranges: &[std::ops::Range<u64>]| ranges.iter().map(|r| r.end - r.start).sum();
        selection.cost.frame_bytes = bytes(&ranges);
        selection.ranges = coalesce(ranges, JOINED_GAP_BYTES);
        selection.cost.fetched_bytes = bytes(&selection.ranges);
        selection.cost.requests = selection.ranges.len() as u64;
        step
    }
}
