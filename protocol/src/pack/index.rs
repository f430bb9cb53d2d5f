//! The index: written block by block, read block by block, so that an update of a million files
//! needs no more memory than its compressed index and one block.

use super::{
    Error, Frame, Header, MAX_FRAMES, MAX_INDEX_BYTES, Op,
    columns::Columns,
    frame,
    header::{BlockRef, Directory, MAX_BLOCK_RAW, MAX_BLOCK_ROWS, SharedRef, unpack},
    op::{self, Bounds},
    shared::{self, SharedPart},
};
use crate::{
    digest::Digest,
    path::TreePath,
    wire::{Malformed, Writer, compress},
};

/// A block is cut here, so that it stays well below its limits and a filter needs few of them.
const BLOCK_RAW_TARGET: usize = 256 << 10;
const INDEX_LEVEL: i32 = 19;

/// Puts an index together.
#[derive(Debug, Default)]
pub struct IndexBuilder {
    directory: Directory,
    op_blocks: Vec<u8>,
    frame_blocks: Vec<u8>,
    ops: OpBlock,
    frames: FrameBlock,
    op_count: u64,
    frame_count: u64,
}

#[derive(Debug, Default)]
struct OpBlock {
    first: Option<TreePath>,
    context: op::Context,
    block: Block,
}

#[derive(Debug, Default)]
struct FrameBlock {
    bytes: u64,
    context: frame::Context,
    block: Block,
}

/// A block that is being filled.
#[derive(Debug, Default)]
struct Block {
    count: u64,
    columns: Columns<Writer>,
}

impl Block {
    fn is_full(&self) -> bool {
        self.count >= MAX_BLOCK_ROWS || self.columns.len() >= BLOCK_RAW_TARGET
    }

    /// Compresses the block onto `stored`.
    fn store(self, stored: &mut Vec<u8>) -> Result<BlockRef, Error> {
        let raw = self.columns.into_bytes();
        if raw.len() as u64 > MAX_BLOCK_RAW {
            return Err(Error::TooLarge("4 MiB in a block of the index"));
        }
        let limit = raw.len() as u64;
        let packed = compress(&raw, INDEX_LEVEL).map_err(|_| Malformed::Compressed { limit })?;
        stored.extend_from_slice(&packed);
        if stored.len() as u64 > MAX_INDEX_BYTES {
            return Err(Error::TooLarge("1 GiB of index"));
        }
        Ok(BlockRef {
            count: self.count,
            offset: 0,
            stored_len: packed.len() as u64,
            raw_len: limit,
            digest: Digest::of(&packed),
        })
    }
}

impl IndexBuilder {
    /// An empty index.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the next operation in path order; returns its number.
    pub fn push_op(&mut self, op: &Op) -> Result<u64, Error> {
        let block = &mut self.ops;
        block.first.get_or_insert_with(|| op.path().clone());
        block.context.write(op, &mut block.block.columns);
        block.block.count += 1;
        if block.block.is_full() {
            self.store_ops()?;
        }
        self.op_count += 1;
        Ok(self.op_count - 1)
    }

    /// Adds the next frame in the order of the file; returns its number. Its `offset` is implied.
    pub fn push_frame(&mut self, frame: &Frame) -> Result<u32, Error> {
        if self.frame_count >= MAX_FRAMES {
            return Err(Error::TooLarge("4,000,000 frames"));
        }
        let block = &mut self.frames;
        block.context.write(frame, &mut block.block.columns);
        block.block.count += 1;
        block.bytes += u64::from(frame.stored_len);
        if block.block.is_full() {
            self.store_frames()?;
        }
        self.frame_count += 1;
        Ok((self.frame_count - 1) as u32)
    }

    /// Frames that are added from now on lie in the object `name`, behind its first `start` bytes,
    /// one after the other.
    pub fn begin_shared(&mut self, name: Digest, start: u64) -> Result<(), Error> {
        self.store_frames()?;
        self.directory.shared.push(SharedRef { name, start, blocks: 0 });
        Ok(())
    }

    /// Everything that comes before the first frame of the pack.
    pub fn finish(mut self, header: &Header) -> Result<Vec<u8>, Error> {
        self.store_ops()?;
        self.store_frames()?;
        let mut bytes = header.encode(&self.directory);
        bytes.extend_from_slice(&self.op_blocks);
        bytes.extend_from_slice(&self.frame_blocks);
        if bytes.len() as u64 > MAX_INDEX_BYTES {
            return Err(Error::TooLarge("1 GiB of index"));
        }
        Ok(bytes)
    }

    fn store_ops(&mut self) -> Result<(), Error> {
        let block = std::mem::take(&mut self.ops);
        if let Some(first) = block.first {
            let stored = block.block.store(&mut self.op_blocks)?;
            self.directory.ops.push((first, stored));
        }
        Ok(())
    }

    fn store_frames(&mut self) -> Result<(), Error> {
        let block = std::mem::take(&mut self.frames);
        if block.block.count > 0 {
            let stored = block.block.store(&mut self.frame_blocks)?;
            self.directory.frames.push((block.bytes, stored));
            if let Some(shared) = self.directory.shared.last_mut() {
                shared.blocks += 1;
            }
        }
        Ok(())
    }
}

/// A whole index, verified: whatever an operation refers to exists.
#[derive(Clone)]
pub struct Index {
    bytes: Vec<u8>,
    header: Header,
    directory: Directory,
    /// Unpacked length of every frame.
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
        let (frame_offsets, shared) = shared::place(&directory, bytes.len() as u64);
        let (frame_raw, frame_stored) = (Vec::new(), Vec::new());
        let mut index =
            Self { bytes, header, directory, frame_raw, frame_stored, frame_offsets, shared };
        index.check_frames()?;
        index.check_ops()?;
        Ok(index)
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

    /// Every operation with its number, in path order.
    pub fn ops(&self) -> Ops<'_> {
        Ops { index: self, next_block: 0, number: 0, block: Vec::new().into_iter() }
    }

    /// The operations of block `block` and the number of the first.
    pub(super) fn op_block(&self, block: usize) -> Result<Vec<Op>, Error> {
        let Some((first, stored)) = self.directory.ops.get(block) else {
            return Ok(Vec::new());
        };
        let raw = unpack(&self.bytes, stored)?;
        let mut columns = Columns::parse(&raw)?;
        let mut context = op::Context::default();
        let mut ops: Vec<Op> = Vec::new();
        for _ in 0..stored.count {
            let op = context.read(&mut columns)?;
            if ops.last().is_some_and(|last| last.path() >= op.path()) {
                return Err(Error::OutOfOrder { path: op.path().clone() });
            }
            if ops.is_empty() && op.path() != first {
                return Err(columns.paths.invalid("block's first path").into());
            }
            ops.push(op);
        }
        columns.finish()?;
        Ok(ops)
    }

    /// Every block of operations: its number, the number of its first operation, its first path, and
    /// the path before which it ends.
    pub(super) fn op_blocks(
        &self,
    ) -> impl Iterator<Item = (usize, u64, &TreePath, Option<&TreePath>)> {
        let mut before = 0;
        self.directory.ops.iter().enumerate().map(move |(at, (first, block))| {
            let number = before;
            before += block.count;
            (at, number, first, self.directory.ops.get(at + 1).map(|(next, _)| next))
        })
    }

    /// Operation `number` with the others of its block, and the number of the block's first.
    pub fn ops_around(&self, number: u64) -> Result<(u64, Vec<Op>), Error> {
        let mut first = 0;
        for (at, (_, block)) in self.directory.ops.iter().enumerate() {
            if number < first + block.count {
                return Ok((first, self.op_block(at)?));
            }
            first += block.count;
        }
        Ok((first, Vec::new()))
    }

    /// Frame `number` with the others of its block, and the number of the block's first.
    pub fn frames_around(&self, number: u32) -> Result<(u32, Vec<Frame>), Error> {
        let mut first = 0;
        for ((bytes, block), offset) in self.directory.frames.iter().zip(&self.frame_offsets) {
            if u64::from(number) < first + block.count {
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
        let mut columns = Columns::parse(&raw)?;
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
        for ((bytes, block), offset) in self.directory.frames.iter().zip(&self.frame_offsets) {
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
        for block in 0..self.directory.ops.len() {
            for op in self.op_block(block)? {
                if last.as_ref().is_some_and(|last| last >= op.path()) {
                    return Err(Error::OutOfOrder { path: op.path().clone() });
                }
                let from_entries = self.header.from_entries;
                Bounds { from_entries, ops_before, frame_raw: &self.frame_raw }.check(&op)?;
                last = Some(op.path().clone());
                ops_before += 1;
            }
        }
        Ok(())
    }
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
            if self.next_block >= self.index.directory.ops.len() {
                return None;
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
