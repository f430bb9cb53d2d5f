//! Blocks: canonical bytes of about 4,096 neighboring entries.

use super::{BlockRef, Entry, EntryKind, Error, LinkGroup};
use crate::{
    digest::Digest,
    path::TreePath,
    wire::{Malformed, Reader, Writer},
};

const MAGIC: &[u8] = b"MNMB\x01";
/// On average one path in this many ends a block.
const MEAN_ENTRIES: u32 = 4096;
/// A block ends here at the latest, whatever its paths hash to.
pub const MAX_BLOCK_ENTRIES: usize = 32_768;
/// Largest encoded block: most entries, each with the longest path and target.
pub const MAX_BLOCK_BYTES: u64 = 64 << 20;

const KIND_MASK: u8 = 0b11;
const KIND_FILE: u8 = 0;
const KIND_DIR: u8 = 1;
const KIND_SYMLINK: u8 = 2;
const LINKED: u8 = 0b100;

/// Encoded entries, in order, and their digest.
///
/// Decoded only on demand, so that a list of blocks costs little more than its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    bytes: Vec<u8>,
    digest: Digest,
    first: TreePath,
    count: u64,
}

impl Block {
    /// Reads a block and checks all of it: entries, order and canonical form. Takes no more memory
    /// than its bytes, whatever they unfold to.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, Error> {
        let mut reading = Reading::begin(&bytes)?;
        let first = reading.next(&bytes)?.ok_or(Malformed::Truncated { at: bytes.len() })?.path;
        while reading.next(&bytes)?.is_some() {}
        Ok(Self { digest: Digest::of(&bytes), count: reading.count, bytes, first })
    }

    /// A block whose bytes have the digest that a list names, and were checked before.
    pub(super) fn named(named: &BlockRef, bytes: Vec<u8>) -> Self {
        Self { bytes, digest: named.digest, first: named.first.clone(), count: named.count }
    }

    /// The canonical bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The canonical bytes, to be kept.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Digest of [`Block::bytes`].
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Path of the first entry.
    pub fn first(&self) -> &TreePath {
        &self.first
    }

    /// Number of entries.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Decodes the entries.
    pub fn entries(&self) -> Result<Vec<Entry>, Error> {
        self.each().collect()
    }

    /// Decodes one entry after the other.
    pub fn each(&self) -> impl Iterator<Item = Result<Entry, Error>> {
        let mut reading = Some(Reading::begin(&self.bytes));
        std::iter::from_fn(move || {
            let mut at = match reading.take()? {
                Ok(at) => at,
                Err(error) => return Some(Err(error)),
            };
            let next = at.next(&self.bytes);
            if let Ok(Some(_)) = next {
                reading = Some(Ok(at));
            }
            next.transpose()
        })
    }
}

/// Cuts a stream of entries into blocks.
#[derive(Debug, Default)]
pub struct BlockBuilder {
    writer: Writer,
    first: Option<TreePath>,
    last: Vec<u8>,
    last_mtime: i64,
    count: u64,
}

impl BlockBuilder {
    /// Whether the last block is complete and no entry has come since: the next block begins here.
    pub fn is_between_blocks(&self) -> bool {
        self.first.is_none()
    }

    /// Adds the next entry in path order; returns a block when this entry completes one.
    pub fn push(&mut self, entry: &Entry) -> Option<Block> {
        if self.first.is_none() {
            self.writer.raw(MAGIC);
            self.first = Some(entry.path.clone());
        }
        self.encode(entry);
        self.count += 1;
        let full = self.count as usize >= MAX_BLOCK_ENTRIES
            || self.writer.len() as u64 > MAX_BLOCK_BYTES - 16_384;
        if full || ends_block(&entry.path) { self.take() } else { None }
    }

    /// The last block, if entries are left.
    pub fn finish(mut self) -> Option<Block> {
        self.take()
    }

    fn take(&mut self) -> Option<Block> {
        let done = std::mem::take(self);
        let bytes = done.writer.into_bytes();
        Some(Block { first: done.first?, digest: Digest::of(&bytes), bytes, count: done.count })
    }

    fn encode(&mut self, entry: &Entry) {
        let (kind, group) = match entry.kind {
            EntryKind::File { link_group, .. } => (KIND_FILE, link_group),
            EntryKind::Dir => (KIND_DIR, None),
            EntryKind::Symlink { .. } => (KIND_SYMLINK, None),
        };
        let writer = &mut self.writer;
        writer.byte(kind | if group.is_some() { LINKED } else { 0 });
        writer.path_after(&self.last, &entry.path).varint(u64::from(entry.mode));
        writer.signed(entry.mtime.wrapping_sub(self.last_mtime));
        match &entry.kind {
            EntryKind::File { size, digest, .. } => {
                writer.varint(*size).digest(digest);
                if let Some(LinkGroup(group)) = group {
                    writer.raw(&group.to_le_bytes());
                }
            }
            EntryKind::Dir => {}
            EntryKind::Symlink { target } => {
                writer.bytes(target);
            }
        }
        self.last.clear();
        self.last.extend_from_slice(entry.path.as_bytes());
        self.last_mtime = entry.mtime;
    }
}

/// Whether a block ends with this path. Depends on nothing else, so that cuts stay where they are.
fn ends_block(path: &TreePath) -> bool {
    let digest = Digest::of(path.as_bytes());
    let mut head = [0; 4];
    head.copy_from_slice(&digest.as_bytes()[28..]);
    u32::from_le_bytes(head).is_multiple_of(MEAN_ENTRIES)
}

/// How far a block's bytes were read: entry by entry, with nothing kept but the last path.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    at: usize,
    last: Vec<u8>,
    last_mtime: i64,
    /// Entries read so far.
    pub(super) count: u64,
}

impl Reading {
    /// Begins with the bytes of a block.
    pub(super) fn begin(bytes: &[u8]) -> Result<Self, Error> {
        if bytes.len() as u64 > MAX_BLOCK_BYTES {
            return Err(Error::TooLarge("64 MiB in a block"));
        }
        let mut reader = Reader::new(bytes);
        reader.magic(MAGIC, "a manifest block")?;
        Ok(Self { at: reader.position(), last: Vec::new(), last_mtime: 0, count: 0 })
    }

    /// The path that was read last.
    pub(super) fn last(&self) -> &[u8] {
        &self.last
    }

    /// The next entry of the same bytes.
    pub(super) fn next(&mut self, bytes: &[u8]) -> Result<Option<Entry>, Error> {
        let mut reader = Reader::starting_at(bytes, self.at);
        if reader.is_empty() {
            return Ok(None);
        }
        if self.count as usize >= MAX_BLOCK_ENTRIES {
            return Err(Error::TooLarge("32,768 entries in a block"));
        }
        let entry = decode_entry(&mut reader, &self.last, self.last_mtime)?;
        if self.count > 0 && !entry.path.follows(&self.last) {
            return Err(Error::OutOfOrder { path: entry.path });
        }
        self.last.clear();
        self.last.extend_from_slice(entry.path.as_bytes());
        (self.last_mtime, self.at) = (entry.mtime, reader.position());
        self.count += 1;
        Ok(Some(entry))
    }
}

fn decode_entry(reader: &mut Reader<'_>, last: &[u8], last_mtime: i64) -> Result<Entry, Malformed> {
    let flags = reader.byte()?;
    let linked = flags & LINKED != 0;
    let path = reader.path_after(last)?;
    let mode = reader.varint_up_to("mode", u64::from(Entry::MODE_BITS))? as u32;
    let mtime = last_mtime.wrapping_add(reader.signed()?);
    let kind = match (flags & KIND_MASK, flags & !(KIND_MASK | LINKED)) {
        (KIND_FILE, 0) => EntryKind::File {
            size: reader.varint_up_to("file size", i64::MAX as u64)?,
            digest: reader.digest()?,
            link_group: linked.then(|| read_group(reader)).transpose()?,
        },
        (KIND_DIR, 0) if !linked => EntryKind::Dir,
        (KIND_SYMLINK, 0) if !linked => EntryKind::Symlink { target: read_target(reader)? },
        _ => return Err(reader.invalid("kind of entry")),
    };
    Ok(Entry { path, mode, mtime, kind })
}

fn read_group(reader: &mut Reader<'_>) -> Result<LinkGroup, Malformed> {
    let mut group = [0; 8];
    group.copy_from_slice(reader.take(8)?);
    Ok(LinkGroup(u64::from_le_bytes(group)))
}

fn read_target(reader: &mut Reader<'_>) -> Result<Box<[u8]>, Malformed> {
    let target = reader.bytes("link target", Entry::MAX_TARGET as u64)?;
    if target.is_empty() || target.contains(&0) {
        return Err(reader.invalid("link target"));
    }
    Ok(target.into())
}
