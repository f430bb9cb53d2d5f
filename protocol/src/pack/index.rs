//! The index: written block by block, read block by block, so that an update of a million files
//! needs no more memory than its compressed index and one block.

mod build;
mod parts;

pub use self::{
    build::IndexBuilder,
    parts::{Keeps, Outline},
};

use super::{
    Content, Error, Frame, Header, Op, Place,
    columns::Columns,
    frame,
    header::{BlockRef, Directory, OpBlockRef, unpack},
    op::{self, Bounds},
    shared::{self, SharedPart},
};
use crate::{digest::Digest, path::TreePath, wire::Malformed};

/// An index, verified: whatever an operation refers to exists.
///
/// It may be a part of one ([`Outline`]): then blocks are missing, and an operation whose content
/// lies in them has the content [`Content::Absent`].
#[derive(Clone)]
pub struct Index {
    /// Missing blocks are zeros, which never were written to, so that they take no memory.
    bytes: Vec<u8>,
    header: Header,
    directory: Directory,
    /// Which blocks are there, of operations and of frames; `None` where all are.
    present: Option<(Vec<bool>, Vec<bool>)>,
    /// Operations up to the end of each block.
    op_ends: Vec<u64>,
    /// Unpacked length of every frame; 0 where its block is missing.
    frame_raw: Vec<u32>,
    /// Stored length of every frame.
    frame_stored: Vec<u32>,
    /// Where the frames of every block begin.
    frame_offsets: Vec<u64>,
    shared: Vec<SharedPart>,
}

impl Index {
    /// Reads the bytes before a pack's first frame, which must have the digest that the pack's
    /// offer names, and checks all of them.
    pub fn parse(bytes: Vec<u8>, expected: Digest) -> Result<Self, Error> {
        let actual = Digest::of(&bytes);
        if actual != expected {
            return Err(Error::WrongDigest { expected, actual });
        }
        Self::parse_unsigned(bytes)
    }

    /// The same where no offer names the digest: for packs that arrive by hand.
    pub fn parse_unsigned(bytes: Vec<u8>) -> Result<Self, Error> {
        let (header, directory, end) = Header::parse(&bytes)?;
        match (bytes.len() as u64).checked_sub(end) {
            None => return Err(Malformed::Truncated { at: bytes.len() }.into()),
            Some(0) => {}
            Some(left) => return Err(Malformed::Trailing { left: left as usize }.into()),
        }
        Self::checked(bytes, header, directory, None)
    }

    fn checked(
        bytes: Vec<u8>,
        header: Header,
        directory: Directory,
        present: Option<(Vec<bool>, Vec<bool>)>,
    ) -> Result<Self, Error> {
        let (frame_offsets, shared) = shared::place(&directory, bytes.len() as u64);
        let (frame_raw, frame_stored) = (Vec::new(), Vec::new());
        let mut index = Self {
            bytes,
            header,
            op_ends: directory.op_ends(),
            directory,
            present,
            frame_raw,
            frame_stored,
            frame_offsets,
            shared,
        };
        index.check_frames()?;
        index.check_ops()?;
        Ok(index)
    }

    /// Whether no block is missing.
    pub fn is_whole(&self) -> bool {
        self.present.is_none()
    }

    /// Whether operations say where between the manifests they stand, so that the index may be read
    /// in parts and applied to a part of a manifest.
    pub fn is_placed(&self) -> bool {
        self.directory.placed
    }

    fn has_ops(&self, block: usize) -> bool {
        self.present.as_ref().is_none_or(|(ops, _)| ops.get(block) == Some(&true))
    }

    fn has_frames(&self, block: usize) -> bool {
        self.present.as_ref().is_none_or(|(_, frames)| frames.get(block) == Some(&true))
    }

    /// Length of the index that `front`, the first bytes of a pack, belongs to: for packs that
    /// arrive without an offer. `None` when more bytes are needed to tell.
    pub fn length(front: &[u8]) -> Result<Option<u64>, Error> {
        if front.len() < Header::MAGIC.len() && Header::MAGIC.starts_with(front) {
            return Ok(None);
        }
        match Header::parse(front) {
            Ok((_, _, end)) => Ok(Some(end)),
            Err(Error::Malformed(Malformed::Truncated { .. })) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The bytes before the first block of the index that `bytes` are.
    pub fn front(bytes: &[u8]) -> Result<&[u8], Error> {
        let (_, directory, end) = Header::parse(bytes)?;
        let len = usize::try_from(directory.front_len(end)).unwrap_or(usize::MAX);
        bytes.get(..len).ok_or(Malformed::Truncated { at: bytes.len() }.into())
    }

    /// What the pack leads from and to.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The bytes that were read.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Bytes before the first frame.
    pub fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Whether the pack changes nothing.
    pub fn is_empty(&self) -> bool {
        self.directory.ops.is_empty()
    }

    /// Length of the whole pack, without the objects that it shares with others.
    pub fn pack_len(&self) -> u64 {
        self.len() + self.directory.own_bytes()
    }

    /// The parts of other objects that have frames of this pack, by offset.
    pub fn shared(&self) -> &[SharedPart] {
        &self.shared
    }

    /// The part of another object that has a frame; `None` for a frame of the pack itself.
    pub fn shared_part(&self, frame: &Frame) -> Option<&SharedPart> {
        SharedPart::of(&self.shared, frame)
    }

    /// Blocks of operations and frames.
    pub fn block_count(&self) -> u64 {
        (self.directory.ops.len() + self.directory.frames.len()) as u64
    }

    /// Number of operations.
    pub fn op_count(&self) -> u64 {
        self.directory.op_count()
    }

    /// Number of frames.
    pub fn frame_count(&self) -> u32 {
        self.frame_raw.len() as u32
    }

    /// Stored bytes of frame `number`; 0 for a frame that does not exist.
    pub fn frame_stored_len(&self, number: u32) -> u32 {
        self.frame_stored.get(number as usize).copied().unwrap_or(0)
    }

    /// Every operation that is there with its number, in path order.
    pub fn ops(&self) -> Ops<'_> {
        Ops { index: self, next_block: 0, number: 0, block: Vec::new().into_iter() }
    }

    /// The operations of block `block`; none where it is missing.
    pub(super) fn op_block(&self, block: usize) -> Result<Vec<Op>, Error> {
        Ok(self.placed_ops(block)?.into_iter().map(|(op, _)| op).collect())
    }

    /// The operations of block `block`, each with its place, if the index says places; none where the
    /// block is missing.
    pub(super) fn placed_ops(&self, block: usize) -> Result<Vec<(Op, Place)>, Error> {
        if !self.has_ops(block) {
            return Ok(Vec::new());
        }
        let Some(named) = self.directory.ops.get(block) else { return Ok(Vec::new()) };
        let mut ops = read_ops(&self.bytes, &self.directory, named, self.header.from_entries)?;
        if !self.is_whole() {
            ops.iter_mut().for_each(|(op, _)| self.leave_out_missing(op));
        }
        Ok(ops)
    }

    /// What lies in missing blocks is as good as not in the pack.
    fn leave_out_missing(&self, op: &mut Op) {
        let Op::Put { content: Some(content), .. } = op else { return };
        let is_there = match &*content {
            Content::Same { op } => self.block_of_op(*op).is_some_and(|at| self.has_ops(at)),
            content => content
                .frames()
                .all(|frame| self.frame_raw.get(frame as usize).is_some_and(|raw| *raw > 0)),
        };
        if !is_there {
            *content = Content::Absent;
        }
    }

    fn block_of_op(&self, number: u64) -> Option<usize> {
        let block = self.op_ends.partition_point(|end| *end <= number);
        (block < self.op_ends.len()).then_some(block)
    }

    /// Every block of operations: its number, the number of its first operation, its first path, and
    /// the path before which it ends.
    pub(super) fn op_blocks(
        &self,
    ) -> impl Iterator<Item = (usize, u64, &TreePath, Option<&TreePath>)> {
        let mut before = 0;
        self.directory.ops.iter().enumerate().map(move |(at, named)| {
            let number = before;
            before += named.block.count;
            (at, number, &named.first, self.directory.ops.get(at + 1).map(|next| &next.first))
        })
    }

    /// Entries of the `from` manifest before block `block`; `None` where there is no such block.
    pub(super) fn op_block_from(&self, block: usize) -> Option<u64> {
        self.directory.ops.get(block).map(|named| named.from)
    }

    /// The blocks of operations as the directory names them, and whether each is there.
    pub(super) fn named_op_blocks(&self) -> impl Iterator<Item = (&OpBlockRef, bool)> {
        self.directory.ops.iter().enumerate().map(|(at, named)| (named, self.has_ops(at)))
    }

    /// Operation `number` with the others of its block, and the number of the block's first. Of a
    /// missing block there are none.
    pub fn ops_around(&self, number: u64) -> Result<(u64, Vec<Op>), Error> {
        let Some(block) = self.block_of_op(number) else {
            return Ok((self.op_count(), Vec::new()));
        };
        let first = self.op_ends[block] - self.directory.ops[block].block.count;
        Ok((first, self.op_block(block)?))
    }

    /// Frame `number` with the others of its block, and the number of the block's first.
    pub fn frames_around(&self, number: u32) -> Result<(u32, Vec<Frame>), Error> {
        let mut first = 0;
        let blocks = self.directory.frames.iter().zip(&self.frame_offsets).enumerate();
        for (at, ((bytes, block), offset)) in blocks {
            if u64::from(number) < first + block.count {
                if !self.has_frames(at) {
                    break;
                }
                return Ok((first as u32, self.frame_block(*bytes, block, *offset)?));
            }
            first += block.count;
        }
        Ok((first as u32, Vec::new()))
    }

    fn frame_block(
        &self,
        bytes: u64,
        block: &BlockRef,
        mut offset: u64,
    ) -> Result<Vec<Frame>, Error> {
        let end = offset + bytes;
        let raw = unpack(&self.bytes, block)?;
        let mut columns = Columns::parse(&raw, false)?;
        let mut context = frame::Context::default();
        let mut frames = Vec::new();
        for _ in 0..block.count {
            let mut frame = context.read(&mut columns, self.header.from_entries)?;
            frame.offset = offset;
            offset += u64::from(frame.stored_len);
            frames.push(frame);
        }
        if offset != end {
            return Err(columns.fields.invalid("frames' stored length").into());
        }
        columns.finish()?;
        Ok(frames)
    }

    fn check_frames(&mut self) -> Result<(), Error> {
        let (mut raw, mut stored) = (Vec::new(), Vec::new());
        let blocks = self.directory.frames.iter().zip(&self.frame_offsets).enumerate();
        for (at, ((bytes, block), offset)) in blocks {
            if !self.has_frames(at) {
                let end = raw.len() + block.count as usize;
                raw.resize(end, 0);
                stored.resize(end, 0);
                continue;
            }
            for frame in self.frame_block(*bytes, block, *offset)? {
                raw.push(frame.raw_len);
                stored.push(frame.stored_len);
            }
        }
        (self.frame_raw, self.frame_stored) = (raw, stored);
        Ok(())
    }

    fn check_ops(&self) -> Result<(), Error> {
        let mut ops_before = 0;
        let mut last: Option<TreePath> = None;
        let from_entries = self.header.from_entries;
        for (block, named) in self.directory.ops.iter().enumerate() {
            if !self.has_ops(block) {
                ops_before += named.block.count;
                last = Some(named.first.clone());
                continue;
            }
            let mut shift = named.shift();
            let mut end = named.from;
            for (op, place) in self.placed_ops(block)? {
                if last.as_ref().is_some_and(|last| last >= op.path()) {
                    return Err(Error::OutOfOrder { path: op.path().clone() });
                }
                Bounds { from_entries, ops_before, frame_raw: &self.frame_raw }.check(&op)?;
                last = Some(op.path().clone());
                ops_before += 1;
                (shift, end) = (shift + place.growth(&op), place.end());
            }
            if self.is_placed() {
                self.check_end(block, end, shift)?;
            }
        }
        Ok(())
    }

    /// Checks that a block ends where the next one begins, in both manifests.
    fn check_end(&self, block: usize, end: u64, shift: i64) -> Result<(), Error> {
        let (from, expected) = match self.directory.ops.get(block + 1) {
            Some(next) => (next.from, next.shift()),
            None => {
                let Header { from_entries, to_entries, .. } = self.header;
                (from_entries, to_entries as i64 - from_entries as i64)
            }
        };
        let is_right = end <= from && shift == expected;
        match &self.directory.ops[block].first {
            _ if is_right => Ok(()),
            path => Err(Error::BadReference { path: path.clone(), what: "a place" }),
        }
    }
}

/// Unpacks a block of operations; checks their order, their beginning and what places can be.
fn read_ops(
    bytes: &[u8],
    directory: &Directory,
    named: &OpBlockRef,
    from_entries: u64,
) -> Result<Vec<(Op, Place)>, Error> {
    let raw = unpack(bytes, &named.block)?;
    let mut columns = Columns::parse(&raw, directory.placed)?;
    let mut context = op::Context::default();
    let mut ops: Vec<(Op, Place)> = Vec::new();
    let mut position = named.from;
    for _ in 0..named.block.count {
        let op = context.read(&mut columns)?;
        if ops.last().is_some_and(|(last, _)| last.path() >= op.path()) {
            return Err(Error::OutOfOrder { path: op.path().clone() });
        }
        if ops.is_empty() && *op.path() != named.first {
            return Err(columns.paths.invalid("block's first path").into());
        }
        let mut place = Place::default();
        if directory.placed {
            place = Place::read(position, &mut columns)?;
            let is_first = ops.is_empty() && place.from != named.from;
            if is_first || !place.fits(&op, from_entries) {
                return Err(Error::BadReference { path: op.path().clone(), what: "a place" });
            }
            position = place.end();
        }
        ops.push((op, place));
    }
    columns.finish()?;
    Ok(ops)
}

impl std::fmt::Debug for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Index")
            .field("header", &self.header)
            .field("ops", &self.op_count())
            .field("frames", &self.frame_count())
            .finish_non_exhaustive()
    }
}

/// The operations of an [`Index`], unpacked block by block.
#[derive(Debug)]
pub struct Ops<'a> {
    index: &'a Index,
    next_block: usize,
    number: u64,
    block: std::vec::IntoIter<Op>,
}

impl Iterator for Ops<'_> {
    type Item = Result<(u64, Op), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(op) = self.block.next() {
                self.number += 1;
                return Some(Ok((self.number - 1, op)));
            }
            let named = self.index.directory.ops.get(self.next_block)?;
            if !self.index.has_ops(self.next_block) {
                self.number += named.block.count;
                self.next_block += 1;
                continue;
            }
            match self.index.op_block(self.next_block) {
                Ok(ops) => self.block = ops.into_iter(),
                Err(error) => {
                    self.next_block = self.index.directory.ops.len();
                    return Some(Err(error));
                }
            }
            self.next_block += 1;
        }
    }
}
