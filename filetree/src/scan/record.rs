//! What a scan remembers for the next one.
//!
//! A cache and nothing more: a record that cannot be read, or was cut short or altered, is refused
//! as a whole and the tree is read again. Format 1: magic, count, entries in path order (path
//! after the previous one, device, inode, size, mtime, ctime, content), and the digest of all
//! that.

use protocol::{
    digest::Digest,
    path::TreePath,
    wire::{Malformed, Reader, Writer},
};

use crate::fs::{FileId, Meta};

const MAGIC: &[u8] = b"MNSCAN\x01\n";
/// A change this close before the scan could be followed by another in the same clock tick.
const RECENT: i64 = 1_000_000_000;
const MAX_ENTRIES: u64 = 20_000_000;

/// The content of every file and symlink that a scan saw. [`ScanRecord::default`] knows nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScanRecord {
    pub(super) entries: Vec<Known>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) path: TreePath,
    id: FileId,
    size: u64,
    mtime: i64,
    ctime: i64,
    pub(super) content: Content,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Content {
    File(Digest),
    Symlink(Box<[u8]>),
}

/// Bytes that are not a record: the tree has to be read again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordDamaged {
    /// The checksum does not fit.
    #[error("the scan record was cut short or altered")]
    Checksum,
    /// The structure does not fit.
    #[error("the scan record cannot be read")]
    Malformed(#[from] Malformed),
}

impl ScanRecord {
    /// A record that knows nothing.
    pub fn empty() -> Self {
        Self::default()
    }

    /// How many files and symlinks are known.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The bytes to keep on a disk.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.raw(MAGIC).varint(self.entries.len() as u64);
        let mut previous: &[u8] = b"";
        for known in &self.entries {
            out.path_after(previous, &known.path)
                .varint(known.id.dev)
                .varint(known.id.ino)
                .varint(known.size)
                .signed(known.mtime)
                .signed(known.ctime);
            match &known.content {
                Content::File(digest) => out.byte(0).digest(digest),
                Content::Symlink(target) => out.byte(1).bytes(target),
            };
            previous = known.path.as_bytes();
        }
        let mut bytes = out.into_bytes();
        let sum = Digest::of(&bytes);
        bytes.extend_from_slice(sum.as_bytes());
        bytes
    }

    /// Reads what [`ScanRecord::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordDamaged> {
        let Some((body, sum)) = bytes.split_last_chunk::<{ Digest::LEN }>() else {
            return Err(RecordDamaged::Checksum);
        };
        if Digest::of(body).as_bytes() != sum {
            return Err(RecordDamaged::Checksum);
        }
        let mut reader = Reader::new(body);
        reader.magic(MAGIC, "a scan record")?;
        let count = reader.varint_up_to("entries", MAX_ENTRIES)?;
        let mut entries: Vec<Known> = Vec::new();
        for _ in 0..count {
            let previous = entries.last().map_or(&b""[..], |known| known.path.as_bytes());
            let path = reader.path_after(previous)?;
            if entries.last().is_some_and(|last| last.path >= path) {
                return Err(reader.invalid("order of paths").into());
            }
            let id = FileId { dev: reader.varint()?, ino: reader.varint()? };
            let (size, mtime, ctime) = (reader.varint()?, reader.signed()?, reader.signed()?);
            let content = match reader.byte()? {
                0 => Content::File(reader.digest()?),
                1 => Content::Symlink(reader.bytes("link target", 4095)?.into()),
                _ => return Err(reader.invalid("kind").into()),
            };
            entries.push(Known { path, id, size, mtime, ctime, content });
        }
        reader.finish()?;
        Ok(Self { entries })
    }

    /// Remembers an entry, unless it changed too recently to be told from a later change.
    pub(super) fn note(&mut self, path: &TreePath, meta: &Meta, content: Content, now: i64) {
        if meta.ctime.saturating_add(RECENT) < now {
            let Meta { id, size, mtime, ctime, .. } = *meta;
            self.entries.push(Known { path: path.clone(), id, size, mtime, ctime, content });
        }
    }
}

impl Known {
    /// Whether the object is, as far as the kernel can tell, the one that was read.
    pub(super) fn still_is(&self, meta: &Meta) -> bool {
        let kind = match self.content {
            Content::File(_) => crate::fs::Kind::File,
            Content::Symlink(_) => crate::fs::Kind::Symlink,
        };
        kind == meta.kind
            && self.id == meta.id
            && self.size == meta.size
            && self.mtime == meta.mtime
            && self.ctime == meta.ctime
    }
}
