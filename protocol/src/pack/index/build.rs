//! Puts an index together.

use crate::{
    digest::Digest,
    manifest::Manifest,
    path::TreePath,
    wire::{Malformed, Writer, compress},
};

use super::super::{
    Codec, Content, Error, Frame, Header, MAX_FRAMES, MAX_INDEX_BYTES, Op, Place,
    columns::Columns,
    frame,
    header::{BlockRef, Directory, MAX_BLOCK_RAW, MAX_BLOCK_ROWS, OpBlockRef, SharedRef},
    op, within,
};

/// A block is cut here, so that it stays well below its limits.
const BLOCK_RAW_TARGET: usize = 256 << 10;
/// zstd level of an index, up to so many unpacked bytes: those of some 100,000 operations. Most of it
/// are digests, so what comes after them is hardly larger (3 to 4 %) at a level that takes a tenth of the
/// time: a million operations would take half a minute.
const INDEX_LEVEL: i32 = 19;
const DEAR_BYTES: u64 = 4 << 20;
const CHEAP_LEVEL: i32 = 9;

/// Puts an index together.
#[derive(Debug)]
pub struct IndexBuilder {
    directory: Directory,
    /// Unpacked bytes from which on a block ends.
    block_bytes: usize,
    op_blocks: Vec<u8>,
    frame_blocks: Vec<u8>,
    ops: OpBlock,
    frames: FrameBlock,
    op_count: u64,
    frame_count: u64,
    /// Unpacked bytes of the blocks so far.
    raw_bytes: u64,
    /// Of how many entries the `to` manifest has more so far.
    shift: i64,
}

#[derive(Debug, Default)]
struct OpBlock {
    paths: Vec<TreePath>,
    /// Where the first operation stands in both manifests, and where the last one ends.
    from: u64,
    to: u64,
    position: u64,
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
    fn is_full(&self, block_bytes: usize) -> bool {
        self.count >= MAX_BLOCK_ROWS || self.columns.len() >= block_bytes
    }

    /// Compresses the block onto `stored`; `before` are the unpacked bytes of all blocks before it.
    fn store(
        self,
        stored: &mut Vec<u8>,
        has_places: bool,
        before: &mut u64,
    ) -> Result<BlockRef, Error> {
        let raw = self.columns.into_bytes(has_places);
        if raw.len() as u64 > MAX_BLOCK_RAW {
            return Err(Error::TooLarge("4 MiB in a block of the index"));
        }
        let limit = raw.len() as u64;
        let level = if *before < DEAR_BYTES { INDEX_LEVEL } else { CHEAP_LEVEL };
        *before += limit;
        let packed = compress(&raw, level).map_err(|_| Malformed::Compressed { limit })?;
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

impl Default for IndexBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl IndexBuilder {
    /// Unpacked bytes of a block where nothing else is wanted: a site takes few of which it has no
    /// use, and the directory stays below a hundredth of the index.
    pub const PART_BYTES: usize = 32 << 10;

    /// An empty index, which can only be read whole.
    pub fn new() -> Self {
        Self {
            directory: Directory::default(),
            block_bytes: BLOCK_RAW_TARGET,
            op_blocks: Vec::new(),
            frame_blocks: Vec::new(),
            ops: OpBlock::default(),
            frames: FrameBlock::default(),
            op_count: 0,
            frame_count: 0,
            raw_bytes: 0,
            shift: 0,
        }
    }

    /// An empty index, which can be read in parts: blocks that end after so many unpacked bytes. Its
    /// operations are added with what they are applied to.
    pub fn in_parts(block_bytes: usize) -> Self {
        let mut new = Self { block_bytes, ..Self::new() };
        new.directory.placed = true;
        new
    }

    /// Adds the next operation in path order to an index without places; returns its number.
    pub fn push_op(&mut self, op: &Op) -> Result<u64, Error> {
        self.push(op, Place::default())
    }

    /// Adds the next operation in path order, which is applied to `from`; returns its number.
    pub fn push_op_to(&mut self, from: &Manifest, op: &Op) -> Result<u64, Error> {
        self.push(op, Place::of(op, from))
    }

    /// Adds the next operation in path order with its place; returns its number.
    pub(in super::super) fn push(&mut self, op: &Op, place: Place) -> Result<u64, Error> {
        let is_placed = self.directory.placed;
        let block = &mut self.ops;
        if is_placed {
            if block.paths.is_empty() {
                let to = place.from.checked_add_signed(self.shift);
                let invalid = || Error::BadReference { path: op.path().clone(), what: "a place" };
                (block.from, block.to) = (place.from, to.ok_or_else(invalid)?);
                block.position = place.from;
            }
            place.write(block.position, &mut block.block.columns);
            block.position = place.end();
            self.shift += place.growth(op);
        }
        // All of them only where they are asked for.
        if is_placed || block.paths.is_empty() {
            block.paths.push(op.path().clone());
        }
        self.directory.inside |= matches!(op.content(), Some(Content::Inside { .. }));
        block.context.write(op, &mut block.block.columns);
        block.block.count += 1;
        if block.block.is_full(self.block_bytes) {
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
        self.directory.inside |= frame.bases().iter().any(|base| base.stream.is_some());
        self.directory.differences |= matches!(frame.codec, Codec::Differences { .. });
        let block = &mut self.frames;
        block.context.write(frame, &mut block.block.columns);
        block.block.count += 1;
        block.bytes += u64::from(frame.stored_len);
        if block.block.is_full(self.block_bytes) {
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
        let OpBlock { paths, from, to, block, .. } = std::mem::take(&mut self.ops);
        if let Some(first) = paths.first().cloned() {
            let is_placed = self.directory.placed;
            let within = if is_placed { within::cover(&paths) } else { Vec::new() };
            let block = block.store(&mut self.op_blocks, is_placed, &mut self.raw_bytes)?;
            self.directory.ops.push(OpBlockRef { first, block, from, to, within });
        }
        Ok(())
    }

    fn store_frames(&mut self) -> Result<(), Error> {
        let block = std::mem::take(&mut self.frames);
        if block.block.count > 0 {
            let stored = block.block.store(&mut self.frame_blocks, false, &mut self.raw_bytes)?;
            self.directory.frames.push((block.bytes, stored));
            if let Some(shared) = self.directory.shared.last_mut() {
                shared.blocks += 1;
            }
        }
        Ok(())
    }
}
