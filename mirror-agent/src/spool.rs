//! Manifests that one run needs for itself alone: their blocks lie in a file without a name.
//!
//! What a server lists, and what would become of it, is as large as the tree and of no use once the
//! run is over. So it goes to the disk as any manifest does, but into one file that the system removes
//! when nobody has it open any more, however the run ends.

use std::{
    collections::HashMap,
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use filetree::scan::ScanRecord;
use protocol::{
    digest::Digest,
    manifest::{
        self, Block, BlockBuilder, BlockList, BlockRef, BlockSource, BlockWriter, Entry, EntryKind,
        StoredManifest, write_blocks,
    },
    wire,
};

use crate::fetch::manifest::Error;

/// Digests that are all the same, and paths that share beginnings: the fastest level does it.
const LEVEL: i32 = 1;
/// The name that the file has until it is open.
const NAME: &str = "listed";

/// A block of a list that is read together with many others takes some so many bytes.
const PIECE_BYTES: usize = 64 << 10;
/// What an entry takes in a block beside its names.
const PIECE_ENTRY_BYTES: usize = 48;

/// A file of blocks.
#[derive(Debug)]
pub struct Spool {
    file: File,
    /// The directory on whose disk it lies, for messages.
    dir: PathBuf,
    places: Mutex<Places>,
}

#[derive(Debug, Default)]
struct Places {
    end: u64,
    /// Where a block begins, and its length there.
    of: HashMap<Digest, (u64, usize)>,
}

impl Spool {
    /// Begins one on the disk of `dir`, a private directory.
    pub fn begin(dir: &Path) -> Result<Arc<Self>, Error> {
        let path = dir.join(NAME);
        let failed = |source| Error::Store { path: path.clone(), source };
        // What a crash left between the two calls below.
        remove(&path).map_err(failed)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        let file = options.open(&path).map_err(failed)?;
        remove(&path).map_err(failed)?;
        Ok(Arc::new(Self { file, dir: dir.to_owned(), places: Mutex::default() }))
    }

    /// Keeps what these entries make up.
    pub fn keep<E: From<Error> + From<manifest::Error>>(
        self: &Arc<Self>,
        entries: impl IntoIterator<Item = Result<Entry, E>>,
    ) -> Result<StoredManifest, E> {
        let list = write_blocks(entries, |block| Ok(self.put(&block)?))?;
        Ok(StoredManifest::new(list, self.clone()))
    }

    /// Keeps entries that are in order and need not make up a manifest, in small blocks: whoever reads
    /// many such lists at a time holds one block of each.
    pub fn keep_in_pieces(
        self: &Arc<Self>,
        entries: impl IntoIterator<Item = Entry>,
    ) -> Result<StoredManifest, Error> {
        let (mut builder, mut bytes) = (BlockBuilder::default(), 0);
        let mut blocks = Vec::new();
        let mut full = |block: Block| {
            blocks.push(BlockRef::of(&block));
            self.put(&block)
        };
        for entry in entries {
            bytes += PIECE_ENTRY_BYTES + text_bytes(&entry);
            let is_full = bytes >= PIECE_BYTES;
            let mut block = builder.push(&entry);
            if is_full && block.is_none() {
                block = std::mem::take(&mut builder).finish();
            }
            if let Some(block) = block {
                full(block)?;
                bytes = 0;
            }
        }
        builder.finish().map_or(Ok(()), &mut full)?;
        let list: BlockList = blocks.into_iter().collect();
        Ok(StoredManifest::new(list, self.clone()))
    }

    /// The same for one entry after the other.
    pub fn writer(self: &Arc<Self>) -> SpoolWriter {
        SpoolWriter { spool: self.clone(), blocks: BlockWriter::default() }
    }

    /// Keeps what a scan remembers for the next one, part after part.
    pub fn keep_record(&self, records: &mut ScanRecords, part: &ScanRecord) -> Result<(), Error> {
        let bytes = part.encode();
        let mut places = self.lock();
        let failed = |source| Error::Store { path: self.dir.clone(), source };
        self.file.write_all_at(&bytes, places.end).map_err(failed)?;
        records.places.push((places.end, bytes.len()));
        places.end += bytes.len() as u64;
        Ok(())
    }

    fn put(&self, block: &Block) -> Result<(), Error> {
        let failed = |source| Error::Store { path: self.dir.clone(), source };
        let mut places = self.lock();
        if places.of.contains_key(&block.digest()) {
            return Ok(());
        }
        let packed = wire::compress(block.bytes(), LEVEL).map_err(failed)?;
        self.file.write_all_at(&packed, places.end).map_err(failed)?;
        let place = (places.end, packed.len());
        places.of.insert(block.digest(), place);
        places.end += packed.len() as u64;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes a manifest into such a file.
#[derive(Debug)]
pub struct SpoolWriter {
    spool: Arc<Spool>,
    blocks: BlockWriter,
}

impl SpoolWriter {
    /// Takes the next entry.
    pub fn push(&mut self, entry: &Entry) -> Result<(), Error> {
        self.blocks.push(entry, &mut |block| self.spool.put(&block))
    }

    /// What the entries make up.
    pub fn finish(self) -> Result<StoredManifest, Error> {
        let list = self.blocks.finish(&mut |block| self.spool.put(&block))?;
        Ok(StoredManifest::new(list, self.spool))
    }
}

/// What a scan remembers for the next one, in such a file.
#[derive(Debug, Default)]
pub struct ScanRecords {
    spool: Option<Arc<Spool>>,
    places: Vec<(u64, usize)>,
}

impl ScanRecords {
    /// Records that know nothing.
    pub fn none() -> Self {
        Self::default()
    }

    /// None yet, to be kept in this file.
    pub fn begin(spool: &Arc<Spool>) -> Self {
        Self { spool: Some(spool.clone()), places: Vec::new() }
    }

    /// One after the other. A part that cannot be read any more is passed over: what it knew is read
    /// again.
    pub fn each(&self) -> impl Iterator<Item = ScanRecord> {
        self.places.iter().filter_map(|(at, len)| {
            let mut bytes = vec![0; *len];
            self.spool.as_ref()?.file.read_exact_at(&mut bytes, *at).ok()?;
            ScanRecord::from_bytes(bytes).ok()
        })
    }
}

/// Bytes of an entry's names, which no format makes smaller.
pub fn text_bytes(entry: &Entry) -> usize {
    let target = match &entry.kind {
        EntryKind::Symlink { target } => target.len(),
        EntryKind::File { .. } | EntryKind::Dir => 0,
    };
    entry.path.as_bytes().len() + target
}

impl BlockSource for Spool {
    fn read(&self, block: &BlockRef) -> Result<Vec<u8>, manifest::Error> {
        let unreadable = |why: String| manifest::Error::Unreadable(why);
        let place = self.lock().of.get(&block.digest).copied();
        let (at, len) = place.ok_or_else(|| unreadable(block.digest.to_string()))?;
        let mut packed = vec![0; len];
        self.file.read_exact_at(&mut packed, at).map_err(|error| {
            unreadable(format!("a file on the disk of {}: {error}", self.dir.display()))
        })?;
        Ok(wire::decompress(&packed, block.bytes)?)
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use protocol::{
        manifest::{Entries, Manifest},
        path::TreePath,
    };

    use super::*;

    fn entries(count: u32) -> Vec<Entry> {
        let entry = |n: u32| {
            let digest = Digest::of(&n.to_le_bytes());
            let kind = EntryKind::File { size: 1, digest, link_group: None };
            let path = TreePath::parse(format!("f{n:06}").as_bytes()).unwrap();
            Entry { path, mode: 0o644, mtime: 7, kind }
        };
        (0..count).map(entry).collect()
    }

    #[test]
    fn what_is_kept_comes_back_and_leaves_no_name() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(NAME), "of a crash").unwrap();
        let spool = Spool::begin(dir.path()).unwrap();
        let all = entries(20_000);
        let kept = spool.keep(all.iter().cloned().map(Ok::<_, Error>)).unwrap();
        let whole = Manifest::new(all.clone()).unwrap();
        assert_eq!(kept.digest(), whole.digest());
        assert_eq!(kept.load().unwrap(), whole);
        let pieces = spool.keep_in_pieces(all.clone()).unwrap();
        let sizes = pieces.list().blocks().iter().map(|block| block.bytes);
        assert!(sizes.max() <= Some(PIECE_BYTES as u64 + 4096));
        assert_eq!(pieces.each().collect::<Result<Vec<_>, _>>().unwrap(), all);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn entry_after_entry_makes_up_the_same_and_records_lie_between_its_blocks() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::begin(dir.path()).unwrap();
        let (all, record) = (entries(20_000), ScanRecord::empty());
        let (mut writer, mut records) = (spool.writer(), ScanRecords::begin(&spool));
        for (number, entry) in all.iter().enumerate() {
            writer.push(entry).unwrap();
            if number % 7_000 == 0 {
                spool.keep_record(&mut records, &record).unwrap();
            }
        }
        let kept = writer.finish().unwrap();
        assert_eq!(kept.load().unwrap(), Manifest::new(all).unwrap());
        assert_eq!(records.each().collect::<Vec<_>>(), [(); 3].map(|()| record.clone()));
        spool.file.write_all_at(b"damage", records.places[1].0).unwrap();
        assert_eq!(records.each().count(), 2);
        assert_eq!(ScanRecords::none().each().count(), 0);
    }

    #[test]
    fn what_the_disk_gives_back_is_checked() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::begin(dir.path()).unwrap();
        let kept = spool.keep(entries(9).into_iter().map(Ok::<_, Error>)).unwrap();
        let mut byte = [0];
        spool.file.read_exact_at(&mut byte, 20).unwrap();
        spool.file.write_all_at(&[byte[0] ^ 1], 20).unwrap();
        assert!(kept.check_blocks().is_err());
        spool.file.set_len(3).unwrap();
        assert!(matches!(kept.check_blocks(), Err(manifest::Error::Unreadable(_))));
    }
}
