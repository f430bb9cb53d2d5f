//! The block list: what a manifest's digest is the digest of.

use super::{Block, Error, MAX_BLOCK_BYTES, MAX_BLOCK_ENTRIES, MAX_ENTRIES};
use crate::{
    digest::Digest,
    path::TreePath,
    wire::{Reader, Writer},
};

const MAGIC: &[u8] = b"MNML\x01";
/// Most blocks of a manifest.
pub const MAX_BLOCKS: usize = 200_000;
const MAX_LIST_BYTES: usize = 64 << 20;
/// Most bytes of the paths that a list names: they share beginnings, so a small list can unfold to a
/// large one.
const MAX_LIST_PATHS: usize = 32 << 20;

/// One block as its list names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockRef {
    /// Path of its first entry.
    pub first: TreePath,
    /// Digest of its canonical bytes.
    pub digest: Digest,
    /// Number of entries.
    pub count: u64,
    /// Length of its canonical bytes.
    pub bytes: u64,
}

/// Names every block of a manifest, in path order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BlockList {
    blocks: Vec<BlockRef>,
}

impl BlockRef {
    /// Names a block.
    pub fn of(block: &Block) -> Self {
        Self {
            first: block.first().clone(),
            digest: block.digest(),
            count: block.count(),
            bytes: block.bytes().len() as u64,
        }
    }
}

impl FromIterator<BlockRef> for BlockList {
    fn from_iter<I: IntoIterator<Item = BlockRef>>(blocks: I) -> Self {
        Self { blocks: blocks.into_iter().collect() }
    }
}

impl BlockList {
    /// The list of these blocks.
    pub fn of(blocks: &[Block]) -> Self {
        blocks.iter().map(BlockRef::of).collect()
    }

    /// The blocks in path order.
    pub fn blocks(&self) -> &[BlockRef] {
        &self.blocks
    }

    /// Entries of the whole manifest.
    pub fn entry_count(&self) -> u64 {
        self.blocks.iter().map(|block| block.count).sum()
    }

    /// The manifest's digest.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.encode())
    }

    /// The canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.raw(MAGIC);
        let mut last: &[u8] = &[];
        for block in &self.blocks {
            writer.path_after(last, &block.first).digest(&block.digest);
            writer.varint(block.count).varint(block.bytes);
            last = block.first.as_bytes();
        }
        writer.into_bytes()
    }

    /// Reads canonical bytes; every limit is checked before anything is allocated for it.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        if bytes.len() > MAX_LIST_BYTES {
            return Err(Error::TooLarge("64 MiB of block list"));
        }
        let mut reader = Reader::new(bytes);
        reader.magic(MAGIC, "a manifest")?;
        let mut blocks: Vec<BlockRef> = Vec::new();
        let (mut entries, mut path_bytes) = (0u64, 0);
        while !reader.is_empty() {
            if blocks.len() >= MAX_BLOCKS {
                return Err(Error::TooLarge("200,000 blocks"));
            }
            if path_bytes > MAX_LIST_PATHS {
                return Err(Error::TooLarge("32 MiB of paths in a block list"));
            }
            let last = blocks.last().map_or(&[][..], |block| block.first.as_bytes());
            let block = BlockRef {
                first: reader.path_after(last)?,
                digest: reader.digest()?,
                count: reader.varint_up_to("block's entries", MAX_BLOCK_ENTRIES as u64)?,
                bytes: reader.varint_up_to("block's length", MAX_BLOCK_BYTES)?,
            };
            if block.count == 0 {
                return Err(reader.invalid("block's entries").into());
            }
            if blocks.last().is_some_and(|last| last.first >= block.first) {
                return Err(Error::OutOfOrder { path: block.first });
            }
            path_bytes += block.first.as_bytes().len();
            entries += block.count;
            if entries > MAX_ENTRIES {
                return Err(Error::TooLarge("20,000,000 entries"));
            }
            blocks.push(block);
        }
        Ok(Self { blocks })
    }
}
