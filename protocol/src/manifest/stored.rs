//! A manifest that is not held in memory: its list is, and one block at a time.

use std::{
    cmp::Ordering,
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use super::{
    Block, BlockList, BlockRef, Chosen, CutCheck, Each, Entries, Entry, Error, Manifest,
    ParentCheck, Positions, block::Reading,
};
use crate::{digest::Digest, path::TreePath};

/// Where the blocks of a manifest lie.
pub trait BlockSource: fmt::Debug + Send + Sync {
    /// The canonical bytes of a block. Whoever asks checks them, each time.
    fn read(&self, block: &BlockRef) -> Result<Vec<u8>, Error>;
}

/// A manifest whose blocks are read as they are needed.
///
/// Takes the memory of its list (some 100 bytes for 4,096 entries) and of one block, however many
/// entries there are. Every block is checked against the list each time that it is read.
#[derive(Debug, Clone)]
pub struct StoredManifest(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    list: BlockList,
    digest: Digest,
    /// Entries before each block.
    before: Vec<u64>,
    source: Arc<dyn BlockSource>,
    /// Where the last question was answered: the next one is likely to be about what follows.
    place: Mutex<Option<Place>>,
}

/// A place between two entries of a block.
#[derive(Debug)]
struct Place {
    block: usize,
    bytes: Vec<u8>,
    reading: Reading,
    /// The entry before the last one that was read.
    earlier: Option<TreePath>,
    last: Option<Entry>,
}

impl StoredManifest {
    /// The manifest of this list, with its blocks in `source`. They are not looked at yet.
    pub fn new(list: BlockList, source: Arc<dyn BlockSource>) -> Self {
        let mut entries = 0;
        let before = list.blocks().iter().map(|block| {
            let before = entries;
            entries += block.count;
            before
        });
        let before = before.collect();
        let (digest, place) = (list.digest(), Mutex::new(None));
        Self(Arc::new(Inner { list, digest, before, source, place }))
    }

    /// The manifest of an empty tree.
    pub fn empty() -> Self {
        Self::default()
    }

    /// The list of its blocks.
    pub fn list(&self) -> &BlockList {
        &self.0.list
    }

    /// The digest that names it.
    pub fn digest(&self) -> Digest {
        self.0.digest
    }

    /// All of it in memory.
    pub fn load(&self) -> Result<Manifest, Error> {
        Manifest::new(self.each().collect::<Result<_, _>>()?)
    }

    /// Reads every block and compares it with its digest, without looking at the entries.
    pub fn check_blocks(&self) -> Result<(), Error> {
        self.list().blocks().iter().try_for_each(|block| self.block(block).map(drop))
    }

    /// Reads all of it: blocks that fit their digests and are cut where this format cuts, entries in
    /// order and inside of directories.
    pub fn check_entries(&self) -> Result<(), Error> {
        let mut parents = ParentCheck::default();
        let blocks = self.list().blocks();
        let mut entries = self.each();
        for (number, named) in blocks.iter().enumerate() {
            let mut cut = CutCheck::default();
            for entry in entries.by_ref().take(named.count as usize) {
                let entry = entry?;
                parents.admit(&entry)?;
                cut.admit(&entry);
            }
            cut.finish(named, number + 1 == blocks.len())?;
        }
        entries.try_for_each(|entry| entry.map(drop))
    }

    /// The bytes of a block that the list names.
    fn block(&self, block: &BlockRef) -> Result<Vec<u8>, Error> {
        let bytes = self.0.source.read(block)?;
        match Digest::of(&bytes) {
            actual if actual == block.digest => Ok(bytes),
            actual => Err(Error::WrongBlock { expected: block.digest, actual }),
        }
    }

    /// Its blocks, each read when it is its turn and checked against its digest.
    pub fn each_block(&self) -> impl Iterator<Item = Result<Block, Error>> {
        let blocks = self.list().blocks();
        blocks.iter().map(|named| Ok(Block::named(named, self.block(named)?)))
    }

    pub(crate) fn read_block(&self, number: usize) -> Result<Option<Block>, Error> {
        let Some(named) = self.list().blocks().get(number) else { return Ok(None) };
        Ok(Some(Block::named(named, self.block(named)?)))
    }

    fn open(&self, block: usize) -> Result<Option<Place>, Error> {
        let Some(named) = self.list().blocks().get(block) else { return Ok(None) };
        let bytes = self.block(named)?;
        let reading = Reading::begin(&bytes)?;
        Ok(Some(Place { block, bytes, reading, earlier: None, last: None }))
    }

    /// Goes through block `block`, from where it was read last if `is_behind` says that what is
    /// wanted comes from there on, to the first entry that is not less than what is wanted.
    fn seek(
        &self,
        block: usize,
        is_behind: impl Fn(&Place) -> bool,
        order: impl Fn(u64, &Entry) -> Ordering,
    ) -> Result<Option<(u64, Entry)>, Error> {
        let mut kept = self.0.place.lock().unwrap_or_else(PoisonError::into_inner);
        let place = match kept.take().filter(|place| place.block == block && is_behind(place)) {
            Some(place) => Some(place),
            None => self.open(block)?,
        };
        let Some(mut place) = place else { return Ok(None) };
        let mut found = None;
        loop {
            if let Some(last) = &place.last {
                let at = place.reading.count - 1;
                match order(at, last) {
                    Ordering::Less => {}
                    Ordering::Equal => {
                        found = Some((self.0.before[block] + at, last.clone()));
                        break;
                    }
                    Ordering::Greater => break,
                }
            }
            let Some(next) = place.reading.next(&place.bytes)? else { break };
            place.earlier = place.last.take().map(|last| last.path);
            place.last = Some(next);
        }
        *kept = Some(place);
        Ok(found)
    }
}

impl Default for StoredManifest {
    fn default() -> Self {
        Self::from(&Manifest::empty())
    }
}

/// Two manifests with one digest have the same entries.
impl PartialEq for StoredManifest {
    fn eq(&self, other: &Self) -> bool {
        self.digest() == other.digest()
    }
}

impl Eq for StoredManifest {}

impl Entries for StoredManifest {
    fn count(&self) -> u64 {
        self.list().entry_count()
    }

    fn each(&self) -> Each<'_> {
        Box::new(All { manifest: self, block: 0, place: None, last: Vec::new() })
    }

    fn locate(&self, path: &TreePath) -> Result<Option<(u64, Entry)>, Error> {
        let after = self.list().blocks().partition_point(|block| block.first <= *path);
        let Some(block) = after.checked_sub(1) else { return Ok(None) };
        let is_behind = |place: &Place| {
            place.last.as_ref().is_none_or(|last| last.path <= *path)
                || place.earlier.as_ref().is_some_and(|earlier| earlier < path)
        };
        self.seek(block, is_behind, |_, entry| entry.path.cmp(path))
    }

    fn numbered(&self, number: u64) -> Result<Option<Entry>, Error> {
        let after = self.0.before.partition_point(|before| *before <= number);
        let Some(block) = after.checked_sub(1) else { return Ok(None) };
        let within = number - self.0.before[block];
        let is_behind = |place: &Place| place.reading.count <= within + 1;
        Ok(self.seek(block, is_behind, |at, _| at.cmp(&within))?.map(|(_, entry)| entry))
    }

    fn chosen<'a>(&'a self, positions: Positions<'a>) -> Chosen<'a> {
        Box::new(Picked { manifest: self, positions, place: None })
    }
}

/// Entries of ascending positions. Blocks that have none of them are not read.
struct Picked<'a> {
    manifest: &'a StoredManifest,
    positions: Positions<'a>,
    /// The block that is open, and its number.
    place: Option<(usize, Vec<u8>, Reading)>,
}

impl Picked<'_> {
    fn step(&mut self) -> Result<Option<(u64, Entry)>, Error> {
        let manifest = self.manifest;
        let Some(number) = self.positions.next() else { return Ok(None) };
        let (before, blocks) = (&manifest.0.before, manifest.list().blocks());
        let block = before.partition_point(|before| *before <= number).checked_sub(1);
        let Some(block) = block.filter(|block| number - before[*block] < blocks[*block].count)
        else {
            return Ok(None);
        };
        if self.place.as_ref().is_none_or(|(open, ..)| *open != block) {
            let bytes = manifest.block(&blocks[block])?;
            let reading = Reading::begin(&bytes)?;
            self.place = Some((block, bytes, reading));
        }
        let Some((_, bytes, reading)) = &mut self.place else { return Ok(None) };
        let within = number - before[block];
        while let Some(entry) = reading.next(bytes)? {
            if reading.count > within {
                return Ok(Some((number, entry)));
            }
        }
        Err(Error::WrongCount { expected: blocks[block].count, actual: reading.count })
    }
}

impl Iterator for Picked<'_> {
    type Item = Result<(u64, Entry), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.step();
        if next.is_err() {
            self.positions = Box::new(std::iter::empty());
        }
        next.transpose()
    }
}

/// All entries, block after block.
struct All<'a> {
    manifest: &'a StoredManifest,
    /// The block that is opened next.
    block: usize,
    place: Option<(Vec<u8>, Reading)>,
    /// The last path of the block before.
    last: Vec<u8>,
}

impl All<'_> {
    fn step(&mut self) -> Result<Option<Entry>, Error> {
        let blocks = self.manifest.list().blocks();
        loop {
            let Some((bytes, reading)) = &mut self.place else {
                let Some(named) = blocks.get(self.block) else { return Ok(None) };
                let bytes = self.manifest.block(named)?;
                let reading = Reading::begin(&bytes)?;
                self.place = Some((bytes, reading));
                self.block += 1;
                continue;
            };
            // It was opened, so the list names it.
            let named = &blocks[self.block - 1];
            if let Some(entry) = reading.next(bytes)? {
                if reading.count == 1 {
                    let is_named = entry.path == named.first;
                    if !is_named || self.block > 1 && !entry.path.follows(&self.last) {
                        return Err(Error::OutOfOrder { path: entry.path });
                    }
                }
                return Ok(Some(entry));
            }
            if reading.count != named.count {
                return Err(Error::WrongCount { expected: named.count, actual: reading.count });
            }
            self.last.clear();
            self.last.extend_from_slice(reading.last());
            self.place = None;
        }
    }
}

impl Iterator for All<'_> {
    type Item = Result<Entry, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.step();
        if next.is_err() {
            self.block = usize::MAX;
            self.place = None;
        }
        next.transpose()
    }
}

/// Blocks that are held in memory after all, as their bytes.
#[derive(Debug)]
struct InMemory(HashMap<Digest, Vec<u8>>);

impl BlockSource for InMemory {
    fn read(&self, block: &BlockRef) -> Result<Vec<u8>, Error> {
        let bytes = self.0.get(&block.digest).cloned();
        bytes.ok_or_else(|| Error::Unreadable(format!("{} is not here", block.digest)))
    }
}

impl From<&Manifest> for StoredManifest {
    fn from(manifest: &Manifest) -> Self {
        let mut blocks = HashMap::new();
        let keep = |block: Block| {
            let named = BlockRef::of(&block);
            blocks.insert(named.digest, block.into_bytes());
            named
        };
        let list = manifest.each_block().map(keep).collect();
        Self::new(list, Arc::new(InMemory(blocks)))
    }
}

impl From<Manifest> for StoredManifest {
    fn from(manifest: Manifest) -> Self {
        Self::from(&manifest)
    }
}

#[cfg(test)]
mod tests;
