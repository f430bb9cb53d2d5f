//! Signatures of small files, many to a file.
//!
//! A signature of a small file is a tenth of it, but a file of its own would take a block and an
//! inode, as much as the content. So those that are made together are written together, once, and
//! a bundle goes or is written anew when most of what it holds is no longer needed.
//!
//! ```text
//! "MNSB\x01"  count (u32)  count × (digest of the content, length (u32))  signatures
//! ```
//!
//! Numbers are little-endian. Every signature carries its own checksum; a damaged table leads to
//! bytes that are no signature.

use std::{
    collections::{HashMap, HashSet},
    io,
};

use filetree::{fs::Dir, signature::StoredSignature};
use protocol::digest::Digest;

use crate::durable;

const MAGIC: &[u8; 5] = b"MNSB\x01";
const PREFIX: &str = "bundle-";
const HEAD_LEN: usize = MAGIC.len() + 4;
const RECORD_LEN: usize = Digest::LEN + 4;
/// Signatures that are written together.
const BUNDLE_BYTES: usize = 4 << 20;
/// Largest table that is read.
const MAX_RECORDS: usize = 1 << 16;
/// Bundles with less than this are small, and are joined when there are too many of them.
const SMALL_BYTES: u64 = 512 << 10;
const MOST_SMALL: usize = 16;

/// Where each signature lies.
#[derive(Debug, Default)]
pub(super) struct Bundles {
    names: Vec<Vec<u8>>,
    places: HashMap<Digest, Place>,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    bundle: usize,
    offset: u64,
    len: u32,
}

impl Bundles {
    /// Reads the tables of all bundles; what cannot be read holds nothing.
    pub(super) fn open(dir: &Dir) -> io::Result<Self> {
        let mut bundles = Self::default();
        for entry in dir.entries().map_err(durable::io)? {
            if !entry.name.starts_with(PREFIX.as_bytes()) {
                continue;
            }
            let bundle = bundles.names.len();
            for (content, offset, len) in table(dir, &entry.name).unwrap_or_default() {
                bundles.places.insert(content, Place { bundle, offset, len });
            }
            bundles.names.push(entry.name.into());
        }
        Ok(bundles)
    }

    /// Whether there is no bundle at all.
    pub(super) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The content whose signatures are here.
    pub(super) fn contents(&self) -> impl Iterator<Item = Digest> {
        self.places.keys().copied()
    }

    /// The signature of some content; one that is damaged is none.
    pub(super) fn get(&self, dir: &Dir, content: &Digest) -> Option<StoredSignature> {
        let stored = StoredSignature::parse(&self.bytes(dir, content)?).ok()?;
        (stored.content == *content).then_some(stored)
    }

    /// Removes what nobody needs, as far as it is worth it.
    pub(super) fn collect(&self, dir: &Dir, needed: &HashSet<Digest>) -> io::Result<()> {
        let mut kept = vec![Vec::new(); self.names.len()];
        let mut held = vec![0usize; self.names.len()];
        let mut kept_bytes = vec![0u64; self.names.len()];
        for (content, place) in &self.places {
            held[place.bundle] += 1;
            if needed.contains(content) {
                kept[place.bundle].push(*content);
                kept_bytes[place.bundle] += u64::from(place.len);
            }
        }
        let small = kept_bytes.iter().filter(|bytes| **bytes < SMALL_BYTES).count();
        let mut writer = Writer::new(dir);
        let mut obsolete = Vec::new();
        for (bundle, mut kept) in kept.into_iter().enumerate() {
            let is_surplus = small > MOST_SMALL && kept_bytes[bundle] < SMALL_BYTES;
            if kept.len() * 2 >= held[bundle].max(1) && !is_surplus {
                continue;
            }
            kept.sort_unstable();
            for content in kept {
                if let Some(bytes) = self.bytes(dir, &content) {
                    writer.push(content, bytes)?;
                }
            }
            obsolete.push(&self.names[bundle]);
        }
        let written = writer.finish()?;
        for name in obsolete.into_iter().filter(|name| !written.contains(name)) {
            dir.unlink(name).map_err(durable::io)?;
        }
        Ok(())
    }

    fn bytes(&self, dir: &Dir, content: &Digest) -> Option<Vec<u8>> {
        let place = self.places.get(content)?;
        read_at(dir, &self.names[place.bundle], place.offset, place.len as usize).ok()
    }
}

/// Writes bundles as they fill.
pub(super) struct Writer<'a> {
    dir: &'a Dir,
    table: Vec<u8>,
    signatures: Vec<u8>,
    written: Vec<Vec<u8>>,
}

impl<'a> Writer<'a> {
    pub(super) fn new(dir: &'a Dir) -> Self {
        Self { dir, table: Vec::new(), signatures: Vec::new(), written: Vec::new() }
    }

    /// Adds an encoded signature.
    pub(super) fn push(&mut self, content: Digest, bytes: Vec<u8>) -> io::Result<()> {
        self.table.extend_from_slice(content.as_bytes());
        self.table.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        self.signatures.extend_from_slice(&bytes);
        if self.signatures.len() >= BUNDLE_BYTES { self.flush() } else { Ok(()) }
    }

    /// Writes the last one; returns the names of all.
    pub(super) fn finish(mut self) -> io::Result<Vec<Vec<u8>>> {
        self.flush()?;
        Ok(self.written)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.table.is_empty() {
            return Ok(());
        }
        let count = (self.table.len() / RECORD_LEN) as u32;
        let mut bytes = [&MAGIC[..], &count.to_le_bytes()].concat();
        bytes.append(&mut self.table);
        bytes.append(&mut self.signatures);
        let name = format!("{PREFIX}{}", Digest::of(&bytes).hex()).into_bytes();
        durable::replace(self.dir, &name, &bytes)?;
        self.written.push(name);
        Ok(())
    }
}

/// Content, offset and length of every signature in a bundle.
fn table(dir: &Dir, name: &[u8]) -> io::Result<Vec<(Digest, u64, u32)>> {
    let head = read_at(dir, name, 0, HEAD_LEN)?;
    let damaged = || io::Error::from(io::ErrorKind::InvalidData);
    let count = head.strip_prefix(MAGIC).and_then(le_u32).ok_or_else(damaged)? as usize;
    if count > MAX_RECORDS {
        return Err(damaged());
    }
    let table = read_at(dir, name, HEAD_LEN as u64, count * RECORD_LEN)?;
    let mut offset = (HEAD_LEN + table.len()) as u64;
    let mut places = Vec::with_capacity(count);
    for record in table.chunks_exact(RECORD_LEN) {
        let (content, len) = record.split_at(Digest::LEN);
        let content = <[u8; Digest::LEN]>::try_from(content).map_err(|_| damaged())?;
        let len = le_u32(len).filter(|len| *len as usize <= BUNDLE_BYTES).ok_or_else(damaged)?;
        places.push((Digest::from_bytes(content), offset, len));
        offset += u64::from(len);
    }
    Ok(places)
}

fn le_u32(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

fn read_at(dir: &Dir, name: &[u8], offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let file = dir.open_file(name).map_err(durable::io)?;
    let mut bytes = vec![0; len];
    let read = file.read_at(offset, &mut bytes).map_err(durable::io)?;
    if read < len { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(bytes) }
}
