//! What was fetched for others, piece by piece.
//!
//! An agent behind the relay asks for ranges: the index of a pack, then what its filter needs of it.
//! So an object is kept as a sparse file with a list of the pieces that are there, and only what
//! somebody asked for is ever fetched. What is whole, and named by its bytes, is digested once: what is
//! not what it is called is forgotten. Nothing outlives the process: what a crash leaves is removed.

use std::{
    collections::HashMap,
    fs::File,
    io,
    ops::Range,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use protocol::digest::{Digest, DigestWriter};

/// What is fetched at least, and kept or not as one.
pub(super) const PIECE: u64 = 256 << 10;
/// Most pieces that are fetched by one request: whoever waits for the first must not wait long.
const TOGETHER: u64 = 4;

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
    file: File,
    length: u64,
    /// What its bytes have to have, where it is named by them.
    digest: Option<Digest>,
    pieces: Mutex<Pieces>,
    filling: tokio::sync::Mutex<()>,
    used: AtomicU64,
}

#[derive(Debug)]
struct Pieces {
    there: Vec<bool>,
    bytes: u64,
    missing: usize,
}

/// An object that is larger than everything that may be kept.
#[derive(Debug, thiserror::Error)]
#[error("{length} bytes are more than this relay keeps (relay.cache)")]
pub(super) struct TooLarge {
    length: u64,
}

impl Cache {
    /// An empty cache in `dir`, which is made or emptied.
    pub(super) fn open(dir: &Path, max_bytes: u64) -> io::Result<Self> {
        match std::fs::remove_dir_all(dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        use std::os::unix::fs::DirBuilderExt as _;
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let (objects, clock) = (Mutex::default(), AtomicU64::new(0));
        Ok(Self { dir: dir.to_owned(), max_bytes, objects, clock })
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
        let file = File::options().read(true).write(true).create_new(true).open(&path)?;
        let count = usize::try_from(length.div_ceil(PIECE)).map_err(io::Error::other)?;
        let pieces = Pieces { there: vec![false; count], bytes: 0, missing: count };
        let made = Arc::new(Cached {
            path,
            file,
            length,
            digest,
            pieces: Mutex::new(pieces),
            filling: tokio::sync::Mutex::default(),
            used: AtomicU64::new(0),
        });
        self.touch(&made);
        objects.insert(name, Arc::clone(&made));
        Ok(made)
    }

    /// Takes in what was fetched of an object; forgets it if it is not what it is called, and others if
    /// there is too much. Reads and writes the disk.
    fn keep(&self, name: &Digest, object: &Arc<Cached>, from: u64, bytes: &[u8]) -> io::Result<()> {
        object.file.write_all_at(bytes, from)?;
        let whole = {
            let mut pieces = lock(&object.pieces);
            let end = from + bytes.len() as u64;
            for number in numbers(from..end) {
                if !std::mem::replace(&mut pieces.there[number], true) {
                    pieces.missing -= 1;
                }
            }
            pieces.bytes = pieces.bytes.saturating_add(bytes.len() as u64).min(object.length);
            pieces.missing == 0
        };
        if whole && !object.is_what_it_is_called()? {
            tracing::warn!(object = %name, "what was fetched is damaged; it is forgotten");
            self.forget(name, object);
        }
        self.make_room();
        Ok(())
    }

    fn forget(&self, name: &Digest, object: &Arc<Cached>) {
        let mut objects = lock(&self.objects);
        if objects.get(name).is_some_and(|kept| Arc::ptr_eq(kept, object)) {
            objects.remove(name);
        }
    }

    /// Forgets what nobody reads now and was asked for the longest time ago.
    fn make_room(&self) {
        let mut objects = lock(&self.objects);
        let mut kept: u64 = objects.values().map(|object| lock(&object.pieces).bytes).sum();
        while kept > self.max_bytes {
            let idle = objects.iter().filter(|(_, object)| Arc::strong_count(object) == 1);
            let oldest = idle.min_by_key(|(_, object)| object.used.load(Ordering::Relaxed));
            let Some(name) = oldest.map(|(name, _)| *name) else { return };
            if let Some(object) = objects.remove(&name) {
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
        if !self.has(&first) {
            // One at a time: whoever waits here finds what the one before has fetched.
            let _one = self.filling.lock().await;
            if !self.has(&first) {
                let missing = self.missing(range.start..range.end.min(self.length));
                let bytes = source.fetch(missing.clone()).await?;
                let (cache, name, object) = (Arc::clone(cache), *name, Arc::clone(self));
                let keeping = move || cache.keep(&name, &object, missing.start, &bytes);
                tokio::task::spawn_blocking(keeping).await.map_err(io::Error::other)??;
            }
        }
        let object = Arc::clone(self);
        let reading = move || {
            let len = usize::try_from(first.end - first.start).map_err(io::Error::other)?;
            let mut bytes = vec![0; len];
            object.file.read_exact_at(&mut bytes, first.start)?;
            Ok(bytes)
        };
        tokio::task::spawn_blocking(reading).await.map_err(io::Error::other)?
    }

    fn has(&self, range: &Range<u64>) -> bool {
        let pieces = lock(&self.pieces);
        numbers(range.clone()).all(|number| pieces.there.get(number).copied().unwrap_or(true))
    }

    /// The first missing pieces of a range that lie side by side.
    fn missing(&self, range: Range<u64>) -> Range<u64> {
        let pieces = lock(&self.pieces);
        let is_there = |number: u64| {
            usize::try_from(number).is_ok_and(|n| pieces.there.get(n).copied().unwrap_or(true))
        };
        let first = range.start / PIECE;
        let last = range.end.div_ceil(PIECE).min(first + TOGETHER);
        let end = (first + 1..last).find(|&number| is_there(number)).unwrap_or(last);
        first * PIECE..(end * PIECE).min(self.length)
    }

    fn is_what_it_is_called(&self) -> io::Result<bool> {
        let Some(wanted) = self.digest else { return Ok(true) };
        let mut writer = DigestWriter::new();
        let mut buffer = vec![0; PIECE as usize];
        let mut at = 0;
        while at < self.length {
            let len = buffer.len().min(usize::try_from(self.length - at).unwrap_or(usize::MAX));
            self.file.read_exact_at(&mut buffer[..len], at)?;
            io::Write::write_all(&mut writer, &buffer[..len])?;
            at += len as u64;
        }
        Ok(writer.finish() == wanted)
    }
}

impl Drop for Cached {
    fn drop(&mut self) {
        // What is left of it is removed at the next start.
        drop(std::fs::remove_file(&self.path));
    }
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
}
