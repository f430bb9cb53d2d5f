//! What was fetched for others, piece by piece.
//!
//! An agent behind the relay asks for ranges: the index of a pack, then what its filter needs of it.
//! So an object is kept as a sparse file with a list of the pieces that are there, and only what
//! somebody asked for is ever fetched. What is whole, and named by its bytes, is digested once: what is
//! not what it is called is forgotten.
//!
//! Objects that are named by their bytes (packs, what they share, files) outlive the process: a
//! [`record`] beside each says which pieces lie there, and each is looked at before it is believed again.
//! Manifests and their blocks do not: they are small, and another packing of the same has another length.
//! Files are opened where they are needed, because there may be more objects than open files.

mod record;

use std::{
    collections::{HashMap, HashSet},
    ffi::OsString,
    fs::{self, File},
    io,
    ops::Range,
    os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use protocol::digest::{Digest, DigestWriter};

use self::record::{About, Record};

/// What is fetched at least, and kept or not as one.
pub(super) const PIECE: u64 = 256 << 10;
/// Most pieces that are fetched by one request: whoever waits for the first must not wait long.
const TOGETHER: u64 = 4;
/// Most objects that are kept.
const MAX_OBJECTS: usize = 100_000;
/// Ending of a record's name; the object has the same name without it.
const RECORD: &str = "pieces";

/// Everything that is kept.
#[derive(Debug)]
pub(super) struct Cache {
    dir: PathBuf,
    max_bytes: u64,
    objects: Mutex<HashMap<Digest, Arc<Cached>>>,
    clock: AtomicU64,
}

/// One object of which some pieces are there.
#[derive(Debug)]
pub(super) struct Cached {
    path: PathBuf,
    length: u64,
    /// Where it is named by its bytes: what they have to have, and what is known of them.
    record: Option<Record>,
    pieces: Mutex<Pieces>,
    filling: tokio::sync::Mutex<()>,
    used: AtomicU64,
    is_forgotten: AtomicBool,
}

#[derive(Debug)]
struct Pieces {
    state: Vec<Piece>,
    /// Their lengths together, in bytes.
    bytes: u64,
    missing: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece {
    Missing,
    /// An earlier process left it, under this seal.
    Left(Digest),
    There,
}

/// An object that is larger than everything that may be kept.
#[derive(Debug, thiserror::Error)]
#[error("{length} bytes are more than this relay keeps (relay.cache)")]
pub(super) struct TooLarge {
    length: u64,
}

impl Cache {
    /// The cache in `dir`, which is made where it is not there; with what an earlier process left.
    pub(super) fn open(dir: &Path, max_bytes: u64) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let (objects, clock) = (Mutex::default(), AtomicU64::new(0));
        let cache = Self { dir: dir.to_owned(), max_bytes, objects, clock };
        cache.take_up()?;
        cache.make_room();
        Ok(cache)
    }

    /// Takes up what lies in the directory, and removes what is nothing of the kind.
    fn take_up(&self) -> io::Result<()> {
        let mut left = Vec::new();
        let mut names = HashSet::<OsString>::new();
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            let is_record = path.extension().is_some_and(|ending| ending == RECORD);
            if is_record
                && left.len() < MAX_OBJECTS
                && let Ok(object) = Cached::left(path.clone(), self.max_bytes)
            {
                names.extend(path.file_name().map(Into::into));
                names.extend(object.path.file_name().map(Into::into));
                left.push(object);
            }
        }
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            if !names.contains(&entry.file_name()) {
                match entry.file_type()?.is_dir() {
                    true => fs::remove_dir_all(entry.path())?,
                    false => fs::remove_file(entry.path())?,
                }
            }
        }
        left.sort_by_key(|object| object.record.as_ref().and_then(Record::used));
        let mut objects = lock(&self.objects);
        for object in left {
            self.touch(&object);
            let Some(name) = object.record.as_ref().map(|record| record.about.name) else {
                continue;
            };
            if let Some(older) = objects.insert(name, Arc::new(object)) {
                older.is_forgotten.store(true, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    /// What is kept under that name.
    pub(super) fn get(&self, name: &Digest) -> Option<Arc<Cached>> {
        let found = lock(&self.objects).get(name).cloned()?;
        self.touch(&found);
        Some(found)
    }

    /// Begins to keep an object, unless somebody else just did.
    pub(super) fn insert(
        &self,
        name: Digest,
        length: u64,
        digest: Option<Digest>,
    ) -> io::Result<Arc<Cached>> {
        if length > self.max_bytes {
            return Err(io::Error::other(TooLarge { length }));
        }
        let mut objects = lock(&self.objects);
        if let Some(found) = objects.get(&name) {
            return Ok(Arc::clone(found));
        }
        let path = self.dir.join(uuid::Uuid::now_v7().simple().to_string());
        File::options().write(true).create_new(true).mode(0o600).open(&path)?;
        let about = digest.map(|digest| About { name, digest, length });
        let record = about.map(|about| Record::create(path.with_extension(RECORD), about));
        let made = Arc::new(Cached::new(path, length, record.transpose()?)?);
        self.touch(&made);
        objects.insert(name, Arc::clone(&made));
        Ok(made)
    }

    /// Takes in what was fetched of an object; forgets it if it is not what it is called, and others if
    /// there is too much. Reads and writes the disk.
    fn keep(&self, name: &Digest, object: &Arc<Cached>, from: u64, bytes: &[u8]) -> io::Result<()> {
        object.write(from, bytes)?;
        let is_whole = {
            let mut pieces = lock(&object.pieces);
            for number in numbers(from..from + bytes.len() as u64) {
                pieces.put(number, object.len_of(number));
            }
            pieces.missing == 0
        };
        if is_whole && !object.is_what_it_is_called()? {
            tracing::warn!(object = %name, "what was fetched is damaged; it is forgotten");
            self.forget(name, object);
        }
        self.make_room();
        Ok(())
    }

    /// Forgets an object, so that it is asked for anew.
    fn forget(&self, name: &Digest, object: &Arc<Cached>) {
        let mut objects = lock(&self.objects);
        if objects.get(name).is_some_and(|kept| Arc::ptr_eq(kept, object)) {
            objects.remove(name);
        }
        object.is_forgotten.store(true, Ordering::Relaxed);
    }

    /// Forgets what nobody reads now and was asked for the longest time ago.
    fn make_room(&self) {
        let mut objects = lock(&self.objects);
        let mut kept: u64 = objects.values().map(|object| lock(&object.pieces).bytes).sum();
        while kept > self.max_bytes || objects.len() > MAX_OBJECTS {
            let idle = objects.iter().filter(|(_, object)| Arc::strong_count(object) == 1);
            let oldest = idle.min_by_key(|(_, object)| object.used.load(Ordering::Relaxed));
            let Some(name) = oldest.map(|(name, _)| *name) else { return };
            if let Some(object) = objects.remove(&name) {
                object.is_forgotten.store(true, Ordering::Relaxed);
                kept -= lock(&object.pieces).bytes;
            }
        }
    }

    fn touch(&self, object: &Cached) {
        object.used.store(self.clock.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
    }
}

/// Fetches a range of an object from elsewhere: exactly its bytes.
pub(super) trait Fetch: Send + Sync {
    /// The bytes of that range.
    fn fetch(&self, range: Range<u64>) -> impl Future<Output = io::Result<Vec<u8>>> + Send;
}

impl Cached {
    fn new(path: PathBuf, length: u64, record: Option<Record>) -> io::Result<Self> {
        let count = count(length).ok_or_else(|| io::Error::other(TooLarge { length }))?;
        let pieces = Pieces { state: vec![Piece::Missing; count], bytes: 0, missing: count };
        Ok(Self {
            path,
            length,
            record,
            pieces: Mutex::new(pieces),
            filling: tokio::sync::Mutex::default(),
            used: AtomicU64::new(0),
            is_forgotten: AtomicBool::new(false),
        })
    }

    /// What an earlier process left, by its record.
    fn left(record: PathBuf, max_bytes: u64) -> io::Result<Self> {
        let path = record.with_extension("");
        let most = |length| if length > max_bytes { None } else { count(length) };
        let (record, seals) = Record::open(record, most)?;
        let reached = fs::metadata(&path)?.len();
        let object = Self::new(path, record.about.length, Some(record))?;
        for (number, seal) in seals {
            let len = object.len_of(number);
            if number as u64 * PIECE + len <= reached {
                let mut pieces = lock(&object.pieces);
                pieces.put(number, len);
                pieces.state[number] = Piece::Left(seal);
            }
        }
        Ok(object)
    }

    /// Its length, in bytes.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Reads the beginning of `range`, one piece at most, and fetches what is missing of the range.
    pub(super) async fn read(
        self: &Arc<Self>,
        cache: &Arc<Cache>,
        name: &Digest,
        range: Range<u64>,
        source: &impl Fetch,
    ) -> io::Result<Vec<u8>> {
        let end = range.end.min((range.start / PIECE + 1) * PIECE).min(self.length);
        let first = range.start..end;
        if !self.has(&first).await? {
            // One at a time: whoever waits here finds what the one before has fetched.
            let _one = self.filling.lock().await;
            if !self.has(&first).await? {
                let missing = self.missing(range.start..range.end.min(self.length));
                let bytes = source.fetch(missing.clone()).await?;
                let (cache, name, object) = (Arc::clone(cache), *name, Arc::clone(self));
                blocking(move || cache.keep(&name, &object, missing.start, &bytes)).await?;
            }
        }
        let object = Arc::clone(self);
        blocking(move || object.bytes(first)).await
    }

    /// Whether a range, which lies in one piece, is there. What an earlier process left is looked at.
    async fn has(self: &Arc<Self>, range: &Range<u64>) -> io::Result<bool> {
        let Some(number) = numbers(range.clone()).next() else { return Ok(true) };
        let state = lock(&self.pieces).state.get(number).copied();
        match state {
            Some(Piece::Missing) => Ok(false),
            Some(Piece::There) | None => Ok(true),
            Some(Piece::Left(seal)) => {
                let object = Arc::clone(self);
                blocking(move || Ok(object.look_at(number, seal))).await
            }
        }
    }

    /// Whether a piece still fits its seal; it is missing where it does not. Reads the disk.
    fn look_at(&self, number: usize, seal: Digest) -> bool {
        let start = number as u64 * PIECE;
        let bytes = self.bytes(start..start + self.len_of(number));
        let fits = bytes.is_ok_and(|bytes| self.seal(number, &bytes) == Some(seal));
        let mut pieces = lock(&self.pieces);
        // Somebody else may have looked, and fetched it anew.
        if pieces.state[number] == Piece::Left(seal) {
            match fits {
                true => pieces.state[number] = Piece::There,
                false => pieces.lose(number, self.len_of(number)),
            }
        }
        pieces.state[number] == Piece::There
    }

    fn seal(&self, number: usize, bytes: &[u8]) -> Option<Digest> {
        let number = u32::try_from(number).ok()?;
        Some(self.record.as_ref()?.about.seal(number, bytes))
    }

    /// Writes whole pieces, and notes them. Writes the disk.
    fn write(&self, from: u64, bytes: &[u8]) -> io::Result<()> {
        File::options().write(true).open(&self.path)?.write_all_at(bytes, from)?;
        let Some(record) = &self.record else { return Ok(()) };
        let first = numbers(from..from + 1).start;
        let pieces = bytes.chunks(PIECE as usize).zip(first..);
        let seals = pieces.filter_map(|(bytes, number)| {
            let seal = self.seal(number, bytes)?;
            Some((u32::try_from(number).ok()?, seal))
        });
        record.add(&seals.collect::<Vec<_>>())
    }

    fn bytes(&self, range: Range<u64>) -> io::Result<Vec<u8>> {
        let len = usize::try_from(range.end - range.start).map_err(io::Error::other)?;
        let mut bytes = vec![0; len];
        File::open(&self.path)?.read_exact_at(&mut bytes, range.start)?;
        Ok(bytes)
    }

    fn len_of(&self, number: usize) -> u64 {
        self.length.saturating_sub(number as u64 * PIECE).min(PIECE)
    }

    /// The first missing pieces of a range that lie side by side.
    fn missing(&self, range: Range<u64>) -> Range<u64> {
        let pieces = lock(&self.pieces);
        let is_there = |number: u64| {
            let state = usize::try_from(number).ok().and_then(|number| pieces.state.get(number));
            state != Some(&Piece::Missing)
        };
        let first = range.start / PIECE;
        let last = range.end.div_ceil(PIECE).min(first + TOGETHER);
        let end = (first + 1..last).find(|&number| is_there(number)).unwrap_or(last);
        first * PIECE..(end * PIECE).min(self.length)
    }

    fn is_what_it_is_called(&self) -> io::Result<bool> {
        let Some(wanted) = self.record.as_ref().map(|record| record.about.digest) else {
            return Ok(true);
        };
        let file = File::open(&self.path)?;
        let mut writer = DigestWriter::new();
        let mut buffer = vec![0; PIECE as usize];
        let mut at = 0;
        while at < self.length {
            let len = buffer.len().min(usize::try_from(self.length - at).unwrap_or(usize::MAX));
            file.read_exact_at(&mut buffer[..len], at)?;
            writer.update(&buffer[..len]);
            at += len as u64;
        }
        Ok(writer.finish() == wanted)
    }
}

impl Drop for Cached {
    fn drop(&mut self) {
        let record = match (&self.record, self.is_forgotten.load(Ordering::Relaxed)) {
            (Some(_), false) => return,
            (record, _) => record.as_ref(),
        };
        // What is left of it is removed at the next start.
        if let Some(record) = record {
            drop(fs::remove_file(record.path()));
        }
        drop(fs::remove_file(&self.path));
    }
}

impl Pieces {
    fn put(&mut self, number: usize, len: u64) {
        if std::mem::replace(&mut self.state[number], Piece::There) == Piece::Missing {
            self.missing -= 1;
            self.bytes += len;
        }
    }

    fn lose(&mut self, number: usize, len: u64) {
        if std::mem::replace(&mut self.state[number], Piece::Missing) != Piece::Missing {
            self.missing += 1;
            self.bytes -= len;
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

/// How many pieces an object of that length has, if their numbers can be written down.
fn count(length: u64) -> Option<usize> {
    u32::try_from(length.div_ceil(PIECE)).ok().and_then(|count| usize::try_from(count).ok())
}

/// The pieces that a range touches.
fn numbers(range: Range<u64>) -> Range<usize> {
    let number = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
    number(range.start / PIECE)..number(range.end.div_ceil(PIECE))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives the bytes of a content and counts them.
    struct Counted {
        content: Vec<u8>,
        asked: Mutex<Vec<Range<u64>>>,
    }

    impl Fetch for Counted {
        async fn fetch(&self, range: Range<u64>) -> io::Result<Vec<u8>> {
            lock(&self.asked).push(range.clone());
            Ok(self.content[range.start as usize..range.end as usize].to_vec())
        }
    }

    fn content(pieces: u64) -> Vec<u8> {
        (0..pieces * PIECE - 100).map(|at| (at / 7 % 251) as u8).collect()
    }

    fn source(content: &[u8]) -> Counted {
        Counted { content: content.to_vec(), asked: Mutex::default() }
    }

    async fn read_all(
        cache: &Arc<Cache>,
        name: &Digest,
        object: &Arc<Cached>,
        range: Range<u64>,
        source: &Counted,
    ) -> Vec<u8> {
        let (mut all, mut at) = (Vec::new(), range.start);
        while at < range.end {
            let bytes = object.read(cache, name, at..range.end, source).await.unwrap();
            at += bytes.len() as u64;
            all.extend(bytes);
        }
        all
    }

    #[tokio::test]
    async fn only_what_is_asked_for_is_fetched_and_only_once() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Arc::new(Cache::open(&dir.path().join("c"), 1 << 30).unwrap());
        let bytes = content(40);
        let (name, source) = (Digest::of(&bytes), source(&bytes));
        let object = cache.insert(name, bytes.len() as u64, Some(name)).unwrap();
        let middle = 3 * PIECE + 10..5 * PIECE + 20;
        let read = |range: Range<u64>| read_all(&cache, &name, &object, range, &source);
        assert_eq!(read(middle.clone()).await, bytes[middle.start as usize..middle.end as usize]);
        assert_eq!(*lock(&source.asked), vec![3 * PIECE..6 * PIECE]);
        read(middle).await;
        assert_eq!(lock(&source.asked).len(), 1, "it is there now");
        assert_eq!(read(0..bytes.len() as u64).await, bytes);
        let fetched: u64 = lock(&source.asked).iter().map(|range| range.end - range.start).sum();
        assert_eq!(fetched, bytes.len() as u64, "no byte came twice");
        assert!(cache.get(&name).is_some());
    }

    #[tokio::test]
    async fn what_is_not_what_it_is_called_is_forgotten_when_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Arc::new(Cache::open(&dir.path().join("c"), 1 << 30).unwrap());
        let bytes = content(2);
        let name = Digest::of(b"something else");
        let object = cache.insert(name, bytes.len() as u64, Some(name)).unwrap();
        read_all(&cache, &name, &object, 0..bytes.len() as u64, &source(&bytes)).await;
        assert!(cache.get(&name).is_none());
    }

    #[tokio::test]
    async fn there_is_never_more_than_the_bound_and_the_least_used_goes_first() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c");
        let cache = Arc::new(Cache::open(&path, 5 * PIECE).unwrap());
        let bytes = content(2);
        for number in 0..4_u8 {
            let name = Digest::of(&[number]);
            let object = cache.insert(name, bytes.len() as u64, None).unwrap();
            read_all(&cache, &name, &object, 0..bytes.len() as u64, &source(&bytes)).await;
            drop(object);
            cache.get(&Digest::of(&[0]));
        }
        let there = |number: u8| cache.get(&Digest::of(&[number])).is_some();
        assert_eq!([there(0), there(1), there(2), there(3)], [true, false, false, true]);
        assert_eq!(std::fs::read_dir(&path).unwrap().count(), 2, "what was forgotten is gone");
        assert!(cache.insert(Digest::of(b"large"), 6 * PIECE, None).is_err());
        std::fs::write(path.join("left over"), "x").unwrap();
        drop(Cache::open(&path, 1).unwrap());
        assert_eq!(std::fs::read_dir(&path).unwrap().count(), 0);
    }

    /// Reads an object of a cache that was opened just now; which ranges had to be fetched.
    async fn read_again(path: &Path, bytes: &[u8]) -> Vec<Range<u64>> {
        let cache = Arc::new(Cache::open(path, 1 << 30).unwrap());
        let (name, source) = (Digest::of(b"path"), source(bytes));
        let object = cache.insert(name, bytes.len() as u64, Some(Digest::of(bytes))).unwrap();
        assert_eq!(read_all(&cache, &name, &object, 0..bytes.len() as u64, &source).await, bytes);
        source.asked.into_inner().unwrap()
    }

    #[tokio::test]
    async fn what_is_named_by_its_bytes_outlives_the_process_and_what_was_damaged_comes_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c");
        let bytes = content(7);
        {
            // Only a part of it was asked for, and of another object that no digest names.
            let cache = Arc::new(Cache::open(&path, 1 << 30).unwrap());
            let (name, source) = (Digest::of(b"path"), source(&bytes));
            let object = cache.insert(name, bytes.len() as u64, Some(Digest::of(&bytes))).unwrap();
            read_all(&cache, &name, &object, PIECE..3 * PIECE, &source).await;
            let other = Digest::of(b"other");
            let unnamed = cache.insert(other, 10, None).unwrap();
            read_all(&cache, &other, &unnamed, 0..10, &source).await;
        }
        assert_eq!(read_again(&path, &bytes).await, [0..PIECE, 3 * PIECE..bytes.len() as u64]);
        assert_eq!(std::fs::read_dir(&path).unwrap().count(), 2, "an object and its record");
        assert_eq!(read_again(&path, &bytes).await, []);
        // A byte flips, and the end is lost.
        let entries = std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path());
        let data = entries.into_iter().find(|path| path.extension().is_none()).unwrap();
        let file = File::options().read(true).write(true).open(&data).unwrap();
        file.write_all_at(&[!bytes[2 * PIECE as usize + 5]], 2 * PIECE + 5).unwrap();
        file.set_len(6 * PIECE).unwrap();
        let again = read_again(&path, &bytes).await;
        assert_eq!(again, [2 * PIECE..3 * PIECE, 6 * PIECE..bytes.len() as u64]);
        assert_eq!(read_again(&path, &bytes).await, []);
        // Where less may be kept, less is taken up.
        drop(Cache::open(&path, 6 * PIECE).unwrap());
        assert_eq!(std::fs::read_dir(&path).unwrap().count(), 0);
    }
}
