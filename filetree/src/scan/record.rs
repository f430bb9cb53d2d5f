//! What a scan remembers for the next one.
//!
//! A cache and nothing more: a record that cannot be read, or was cut short or altered, is refused
//! as a whole and the tree is read again. Format 1: magic, count, entries in path order (path
//! after the previous one, device, inode, size, mtime, ctime, content), and the digest of all
//! that.

use protocol::{
    digest::{Digest, DigestWriter},
    path::TreePath,
    wire::{Malformed, Reader, Writer},
};

use crate::fs::{FileId, Meta};

const MAGIC: &[u8] = b"MNSCAN\x01\n";
/// A change this close before the scan could be followed by another in the same clock tick.
const RECENT: i64 = 1_000_000_000;
const MAX_ENTRIES: u64 = 20_000_000;

/// The content of every file and symlink that a scan saw. [`ScanRecord::default`] knows nothing.
///
/// Kept as its bytes: some 80 for each file, half of what the entries themselves would take.
#[derive(Debug, Clone, Default)]
pub struct ScanRecord {
    items: Writer,
    count: u64,
    /// The path of the last item.
    last: Vec<u8>,
}

/// One file or symlink that is known.
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

    /// A record that knows nothing, with room for as much as another knows.
    pub(super) fn as_long_as(other: &Self) -> Self {
        let room = other.items.len() + other.items.len() / 16;
        Self { items: Writer::from(Vec::with_capacity(room)), ..Self::default() }
    }

    /// How many files and symlinks are known.
    pub fn len(&self) -> usize {
        usize::try_from(self.count).unwrap_or(usize::MAX)
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The bytes to keep on a disk.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.front();
        bytes.reserve_exact(self.items.len() + Digest::LEN);
        bytes.extend_from_slice(self.items.as_slice());
        let sum = Digest::of(&bytes);
        bytes.extend_from_slice(sum.as_bytes());
        bytes
    }

    /// How many bytes those are, without the checksum at their end.
    pub fn encoded_len(&self) -> u64 {
        (self.front().len() + self.items.len()) as u64
    }

    /// The checksum at their end.
    pub fn checksum(&self) -> Digest {
        let mut digest = DigestWriter::new();
        digest.update(&self.front());
        digest.update(self.items.as_slice());
        digest.finish()
    }

    fn front(&self) -> Vec<u8> {
        let mut front = Writer::new();
        front.raw(MAGIC).varint(self.count);
        front.into_bytes()
    }

    /// Reads what [`ScanRecord::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordDamaged> {
        Self::from_bytes(bytes.to_vec())
    }

    /// The same, of bytes that are no more needed otherwise.
    pub fn from_bytes(mut bytes: Vec<u8>) -> Result<Self, RecordDamaged> {
        let Some((body, sum)) = bytes.split_last_chunk::<{ Digest::LEN }>() else {
            return Err(RecordDamaged::Checksum);
        };
        if Digest::of(body).as_bytes() != sum {
            return Err(RecordDamaged::Checksum);
        }
        let mut reader = Reader::new(body);
        reader.magic(MAGIC, "a scan record")?;
        let count = reader.varint_up_to("entries", MAX_ENTRIES)?;
        let front = reader.position();
        let mut last: Option<TreePath> = None;
        for _ in 0..count {
            let known = Known::read(&mut reader, last.as_ref().map_or(b"", TreePath::as_bytes))?;
            if last.is_some_and(|last| last >= known.path) {
                return Err(reader.invalid("order of paths").into());
            }
            last = Some(known.path);
        }
        reader.finish()?;
        let last = last.map(|last| last.as_bytes().to_vec()).unwrap_or_default();
        bytes.truncate(bytes.len() - Digest::LEN);
        bytes.drain(..front);
        Ok(Self { items: Writer::from(bytes), count, last })
    }

    /// All that is known, in path order.
    pub(super) fn each(&self) -> Each<'_> {
        Each { items: self.items.as_slice(), at: 0, last: None }
    }

    /// The same, of a record that nobody needs any more.
    pub(super) fn into_each(self) -> impl Iterator<Item = Known> {
        let (mut at, mut last) = (0, None);
        std::iter::from_fn(move || {
            let mut each = Each { items: self.items.as_slice(), at, last: last.take() };
            let next = each.next();
            (at, last) = (each.at, each.last);
            next
        })
    }

    /// Remembers an entry, unless it changed so recently that it may change again unnoticed. Entries
    /// come in path order.
    pub(super) fn note(&mut self, path: &TreePath, meta: &Meta, content: &Content, now: i64) {
        if meta.ctime.saturating_add(RECENT) >= now {
            return;
        }
        let Meta { id, size, mtime, ctime, .. } = *meta;
        self.items
            .path_after(&self.last, path)
            .varint(id.dev)
            .varint(id.ino)
            .varint(size)
            .signed(mtime)
            .signed(ctime);
        match content {
            Content::File(digest) => self.items.byte(0).digest(digest),
            Content::Symlink(target) => self.items.byte(1).bytes(target),
        };
        self.last.clear();
        self.last.extend_from_slice(path.as_bytes());
        self.count += 1;
    }
}

impl PartialEq for ScanRecord {
    fn eq(&self, other: &Self) -> bool {
        (self.count, self.items.as_slice()) == (other.count, other.items.as_slice())
    }
}

impl Eq for ScanRecord {}

/// The items of a record, one after the other.
pub(super) struct Each<'a> {
    items: &'a [u8],
    at: usize,
    last: Option<TreePath>,
}

impl Iterator for Each<'_> {
    type Item = Known;

    fn next(&mut self) -> Option<Known> {
        let mut reader = Reader::starting_at(self.items, self.at);
        if reader.is_empty() {
            return None;
        }
        // It was written here, or read with every check.
        let previous = self.last.as_ref().map_or(&b""[..], TreePath::as_bytes);
        let known = Known::read(&mut reader, previous).ok()?;
        self.at = reader.position();
        self.last = Some(known.path.clone());
        Some(known)
    }
}

impl Known {
    fn read(reader: &mut Reader<'_>, previous: &[u8]) -> Result<Self, Malformed> {
        let path = reader.path_after(previous)?;
        let id = FileId { dev: reader.varint()?, ino: reader.varint()? };
        let (size, mtime, ctime) = (reader.varint()?, reader.signed()?, reader.signed()?);
        let content = match reader.byte()? {
            0 => Content::File(reader.digest()?),
            1 => Content::Symlink(reader.bytes("link target", 4095)?.into()),
            _ => return Err(reader.invalid("kind")),
        };
        Ok(Self { path, id, size, mtime, ctime, content })
    }

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
