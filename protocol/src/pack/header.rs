//! The front of a pack: what it leads from and to, and where the index blocks are.

use super::{Error, MAX_FRAMES, MAX_INDEX_BYTES, within};
use crate::{
    digest::Digest,
    manifest::MAX_ENTRIES,
    path::TreePath,
    wire::{Malformed, Reader, Writer},
};

/// Required flag: some frames lie in objects of their own ([`SharedPart`]).
const SHARED: u32 = 1;
/// Required flag: operations and their blocks say where in both manifests they are ([`Place`]).
///
/// [`Place`]: super::Place
const PLACED: u32 = 2;
/// Required flag: some content is the plain text of deflate streams ([`Content::Inside`]).
///
/// [`Content::Inside`]: super::Content::Inside
const INSIDE: u32 = 4;
/// Required flag: some frames are differences to old content ([`Codec::Differences`]).
///
/// [`Codec::Differences`]: super::Codec::Differences
const DIFFERENCES: u32 = 8;
const KNOWN_FLAGS: u32 = SHARED | PLACED | INSIDE | DIFFERENCES;
const MAX_DIRECTORY_BYTES: u64 = 32 << 20;
/// Most bytes of the paths that a directory names: they share beginnings, so a small one can unfold
/// to a large one.
const MAX_DIRECTORY_PATHS: usize = 32 << 20;
/// Most objects that the frames of a pack lie in.
const MAX_SHARED: usize = 500_000;
/// Most operations or frames of a block.
pub(super) const MAX_BLOCK_ROWS: u64 = 4096;
/// Most unpacked bytes of all blocks: bounds the time that reading an index needs.
const MAX_INDEX_RAW_BYTES: u64 = 4 << 30;
/// Most stored bytes of all frames: offsets stay far from the end of what numbers can say.
const MAX_FRAMES_BYTES: u64 = 4 << 60;
/// Most unpacked bytes of a block: bounds the memory that reading an index needs.
pub(super) const MAX_BLOCK_RAW: u64 = 4 << 20;

/// What a pack leads from and to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Digest of the manifest it leads from; `None` for a pack from nothing.
    pub from: Option<Digest>,
    /// Entries of that manifest; 0 for a pack from nothing.
    pub from_entries: u64,
    /// Digest of the manifest it leads to.
    pub to: Digest,
    /// Entries of that manifest.
    pub to_entries: u64,
}

/// One block of the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BlockRef {
    /// Operations or frames in it.
    pub(super) count: u64,
    /// Where its stored bytes begin in the pack.
    pub(super) offset: u64,
    pub(super) stored_len: u64,
    pub(super) raw_len: u64,
    /// Digest of the stored bytes.
    pub(super) digest: Digest,
}

/// Frames that lie in an object of their own: those of the next `blocks` blocks of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SharedRef {
    /// Digest of the whole object.
    pub(super) name: Digest,
    /// Bytes of the object before its first frame.
    pub(super) start: u64,
    pub(super) blocks: u64,
}

/// One block of operations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OpBlockRef {
    /// Path of its first operation.
    pub(super) first: TreePath,
    pub(super) block: BlockRef,
    /// Entries of the `from` manifest before that path; 0 where the index does not say.
    pub(super) from: u64,
    /// Entries of the `to` manifest before it; 0 where the index does not say.
    pub(super) to: u64,
    /// Every operation of the block is at one of these paths, or inside; none where that is not said.
    pub(super) within: Vec<TreePath>,
}

/// The blocks of the index. Positions are sums of lengths.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Directory {
    /// Whether operations and their blocks say where they are.
    pub(super) placed: bool,
    /// Whether some content is the plain text of deflate streams; only for writing.
    pub(super) inside: bool,
    /// Whether some frames are differences to old content; only for writing.
    pub(super) differences: bool,
    /// Blocks of operations.
    pub(super) ops: Vec<OpBlockRef>,
    /// Blocks of frames, each with the stored bytes of its frames: first those of the pack itself.
    pub(super) frames: Vec<(u64, BlockRef)>,
    /// The objects that have the frames of the last blocks.
    pub(super) shared: Vec<SharedRef>,
}

impl Directory {
    pub(super) fn op_count(&self) -> u64 {
        self.ops.iter().map(|named| named.block.count).sum()
    }

    /// Operations up to the end of each block.
    pub(super) fn op_ends(&self) -> Vec<u64> {
        let mut end = 0;
        let counts = self.ops.iter().map(|named| named.block.count);
        counts
            .map(|count| {
                end += count;
                end
            })
            .collect()
    }

    pub(super) fn frame_count(&self) -> u64 {
        self.frames.iter().map(|(_, block)| block.count).sum()
    }

    /// Where the first block begins, given where the last one ends: all that comes before is the front.
    pub(super) fn front_len(&self, end: u64) -> u64 {
        let ops = self.ops.first().map(|named| named.block.offset);
        ops.or(self.frames.first().map(|(_, block)| block.offset)).unwrap_or(end)
    }

    /// Blocks of frames that lie in the pack itself.
    pub(super) fn own_blocks(&self) -> usize {
        let shared: u64 = self.shared.iter().map(|shared| shared.blocks).sum();
        self.frames.len().saturating_sub(usize::try_from(shared).unwrap_or(usize::MAX))
    }

    /// Stored bytes of the frames that lie in the pack itself.
    pub(super) fn own_bytes(&self) -> u64 {
        self.frames[..self.own_blocks()].iter().map(|(bytes, _)| bytes).sum()
    }

    fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.varint(self.ops.len() as u64);
        let mut last: &[u8] = &[];
        let (mut from, mut to) = (0, 0);
        for named in &self.ops {
            writer.path_after(last, &named.first);
            named.block.encode(&mut writer);
            last = named.first.as_bytes();
            if self.placed {
                writer.varint(named.from - from).varint(named.to - to);
                (from, to) = (named.from, named.to);
                writer.varint(named.within.len() as u64);
                let mut before = last;
                for path in &named.within {
                    writer.path_after(before, path);
                    before = path.as_bytes();
                }
            }
        }
        for (bytes, block) in &self.frames {
            writer.varint(*bytes);
            block.encode(&mut writer);
        }
        writer.into_bytes()
    }

    fn parse(bytes: &[u8], offset: u64, placed: bool) -> Result<(Self, u64), Error> {
        let mut reader = Reader::new(bytes);
        let mut directory = Self { placed, ..Self::default() };
        let mut end = offset;
        let mut path_bytes = 0;
        for _ in 0..reader.varint_up_to("index blocks", bytes.len() as u64)? {
            let last = directory.ops.last();
            let first = reader.path_after(last.map_or(&[][..], |last| last.first.as_bytes()))?;
            if last.is_some_and(|last| last.first >= first) {
                return Err(Error::OutOfOrder { path: first });
            }
            let block = BlockRef::parse(&mut reader, &mut end)?;
            let (from, to) = last.map_or((0, 0), |last| (last.from, last.to));
            let mut named = OpBlockRef { first, block, from, to, within: Vec::new() };
            if placed {
                named.parse_place(&mut reader)?;
            }
            path_bytes += named.path_bytes();
            if path_bytes > MAX_DIRECTORY_PATHS {
                return Err(Error::TooLarge("32 MiB of paths in a directory"));
            }
            directory.ops.push(named);
        }
        while !reader.is_empty() {
            let bytes = reader.varint_up_to("frames' stored length", i64::MAX as u64)?;
            directory.frames.push((bytes, BlockRef::parse(&mut reader, &mut end)?));
        }
        // Twice the entries: everything of one tree deleted, everything of the other put.
        if directory.op_count() > 2 * MAX_ENTRIES {
            return Err(Error::TooLarge("40,000,000 operations"));
        }
        if directory.frame_count() > MAX_FRAMES {
            return Err(Error::TooLarge("4,000,000 frames"));
        }
        let blocks = directory.ops.iter().map(|named| &named.block);
        let blocks = blocks.chain(directory.frames.iter().map(|(_, block)| block));
        if blocks.map(|block| block.raw_len).sum::<u64>() > MAX_INDEX_RAW_BYTES {
            return Err(Error::TooLarge("4 GiB of unpacked index"));
        }
        directory
            .frames
            .iter()
            .try_fold(0u64, |sum, (bytes, _)| sum.checked_add(*bytes))
            .filter(|sum| *sum <= MAX_FRAMES_BYTES)
            .ok_or(Error::TooLarge("4 EiB"))?;
        Ok((directory, end))
    }

    fn encode_shared(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        for shared in &self.shared {
            writer.digest(&shared.name).varint(shared.start).varint(shared.blocks);
        }
        writer.into_bytes()
    }

    /// Reads which of the blocks, which were read before, lie in objects of their own.
    fn parse_shared(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let mut reader = Reader::new(bytes);
        let mut left = self.frames.len() as u64;
        while !reader.is_empty() {
            if self.shared.len() >= MAX_SHARED {
                return Err(Error::TooLarge("500,000 shared objects"));
            }
            let name = reader.digest()?;
            let start = reader.varint_up_to("object's beginning", MAX_INDEX_BYTES)?;
            let blocks = reader.varint_up_to("object's blocks", left)?;
            if blocks == 0 {
                return Err(reader.invalid("object's blocks").into());
            }
            left -= blocks;
            self.shared.push(SharedRef { name, start, blocks });
        }
        Ok(())
    }
}

impl OpBlockRef {
    fn parse_place(&mut self, reader: &mut Reader<'_>) -> Result<(), Error> {
        self.from += reader.varint_up_to("block's old entries", MAX_ENTRIES)?;
        self.to += reader.varint_up_to("block's new entries", MAX_ENTRIES)?;
        let paths = reader.varint_up_to("block's paths", within::MAX_PATHS as u64)?;
        for _ in 0..paths {
            let before = self.within.last().unwrap_or(&self.first);
            let path = reader.path_after(before.as_bytes())?;
            self.within.push(path);
        }
        Ok(())
    }

    fn path_bytes(&self) -> usize {
        self.within.iter().chain([&self.first]).map(|path| path.as_bytes().len()).sum()
    }

    /// Of how many entries the `to` manifest has more than the `from` manifest before the block.
    pub(super) fn shift(&self) -> i64 {
        self.to as i64 - self.from as i64
    }
}

impl BlockRef {
    fn encode(&self, writer: &mut Writer) {
        writer.varint(self.count).varint(self.stored_len).varint(self.raw_len);
        writer.digest(&self.digest);
    }

    fn parse(reader: &mut Reader<'_>, end: &mut u64) -> Result<Self, Error> {
        let offset = *end;
        let block = Self {
            count: reader.varint_up_to("block's rows", MAX_BLOCK_ROWS)?,
            offset,
            stored_len: reader.varint_up_to("block's stored length", MAX_BLOCK_RAW + 4096)?,
            raw_len: reader.varint_up_to("block's length", MAX_BLOCK_RAW)?,
            digest: reader.digest()?,
        };
        if block.count == 0 {
            return Err(reader.invalid("block's rows").into());
        }
        *end += block.stored_len;
        if *end > MAX_INDEX_BYTES {
            return Err(Error::TooLarge("1 GiB of index"));
        }
        Ok(block)
    }
}

impl Header {
    pub(super) const MAGIC: &[u8] = b"MNPK\x01";

    /// The bytes before the first index block.
    pub(super) fn encode(&self, directory: &Directory) -> Vec<u8> {
        let mut writer = Writer::new();
        let shared = if directory.shared.is_empty() { 0 } else { SHARED };
        let placed = if directory.placed { PLACED } else { 0 };
        let inside = if directory.inside { INSIDE } else { 0 };
        let differences = if directory.differences { DIFFERENCES } else { 0 };
        let flags = shared | placed | inside | differences;
        writer.raw(Self::MAGIC).raw(&u32::to_le_bytes(flags));
        match &self.from {
            None => writer.byte(0),
            Some(from) => writer.byte(1).digest(from),
        };
        writer.varint(self.from_entries).digest(&self.to).varint(self.to_entries);
        writer.bytes(&directory.encode());
        if flags & SHARED != 0 {
            writer.bytes(&directory.encode_shared());
        }
        writer.into_bytes()
    }

    /// Reads the front of a pack: also what the blocks are, and where the last one ends.
    ///
    /// The front ends where the first block begins, or the pack, where it has none.
    pub(super) fn parse(bytes: &[u8]) -> Result<(Self, Directory, u64), Error> {
        let mut reader = Reader::new(bytes);
        reader.magic(Self::MAGIC, "a pack")?;
        let mut flags = [0; 4];
        flags.copy_from_slice(reader.take(4)?);
        let flags = u32::from_le_bytes(flags);
        let unknown = flags & !KNOWN_FLAGS;
        if unknown != 0 {
            return Err(Error::UnknownFlags(unknown));
        }
        let from = match reader.byte()? {
            0 => None,
            1 => Some(reader.digest()?),
            _ => return Err(reader.invalid("old generation").into()),
        };
        let from_entries = reader.varint_up_to("old entries", MAX_ENTRIES)?;
        if from.is_none() && from_entries != 0 {
            return Err(reader.invalid("old entries").into());
        }
        let to = reader.digest()?;
        let to_entries = reader.varint_up_to("new entries", MAX_ENTRIES)?;
        let directory = reader.bytes("directory", MAX_DIRECTORY_BYTES)?;
        let shared = match flags & SHARED {
            0 => &[][..],
            _ => reader.bytes("shared objects", MAX_DIRECTORY_BYTES)?,
        };
        let front = reader.position() as u64;
        let (mut directory, end) = Directory::parse(directory, front, flags & PLACED != 0)?;
        directory.parse_shared(shared)?;
        if directory.ops.iter().any(|named| named.from > from_entries || named.to > to_entries) {
            return Err(reader.invalid("block's place").into());
        }
        Ok((Self { from, from_entries, to, to_entries }, directory, end))
    }
}

/// Cuts stored bytes of a block out of the index and unpacks them into rows and digests.
pub(super) fn unpack(index: &[u8], block: &BlockRef) -> Result<Vec<u8>, Error> {
    let truncated = || Malformed::Truncated { at: index.len() };
    let start = usize::try_from(block.offset).map_err(|_| truncated())?;
    let end = usize::try_from(block.offset + block.stored_len).map_err(|_| truncated())?;
    let stored = index.get(start..end).ok_or_else(truncated)?;
    let actual = Digest::of(stored);
    if actual != block.digest {
        return Err(Error::WrongDigest { expected: block.digest, actual });
    }
    Ok(crate::wire::decompress(stored, block.raw_len)?)
}
