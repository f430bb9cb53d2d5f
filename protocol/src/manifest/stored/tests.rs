use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::*;
use crate::manifest::EntryKind;

fn path(text: &str) -> TreePath {
    TreePath::parse(text.as_bytes()).unwrap()
}

fn file(text: &str) -> Entry {
    let kind = EntryKind::File { size: 3, digest: Digest::of(text.as_bytes()), link_group: None };
    Entry { path: path(text), mode: 0o644, mtime: 7, kind }
}

fn many(count: usize) -> Manifest {
    Manifest::new((0..count).map(|n| file(&format!("f{n:06}"))).collect()).unwrap()
}

/// Blocks in memory, of which one may be another than its name says.
#[derive(Debug)]
struct Watched {
    blocks: HashMap<Digest, Vec<u8>>,
    reads: AtomicUsize,
}

impl BlockSource for Watched {
    fn read(&self, block: &BlockRef) -> Result<Vec<u8>, Error> {
        self.reads.fetch_add(1, Relaxed);
        let bytes = self.blocks.get(&block.digest).cloned();
        bytes.ok_or_else(|| Error::Unreadable(block.digest.to_string()))
    }
}

fn watched(manifest: &Manifest) -> Watched {
    let blocks = manifest.each_block().map(|b| (b.digest(), b.bytes().to_vec())).collect();
    Watched { blocks, reads: AtomicUsize::new(0) }
}

#[test]
fn it_answers_as_the_manifest_in_memory_does() {
    let manifest = many(30_000);
    let stored = StoredManifest::from(&manifest);
    assert!(stored.list().blocks().len() > 3);
    assert_eq!(stored.digest(), manifest.digest());
    assert_eq!(stored.load().as_ref(), Ok(&manifest));
    assert_eq!(Entries::count(&stored), 30_000);
    assert_eq!(stored.check_entries(), Ok(()));
    // Forwards, backwards, to and fro, and beside what is there.
    let asked =
        (0..30_000).step_by(7).chain((0..30_000).rev().step_by(977)).chain([5, 5, 4, 29_999]);
    for n in asked {
        let at = path(&format!("f{n:06}"));
        assert_eq!(stored.locate(&at).unwrap(), manifest.locate(&at).unwrap(), "{at}");
        assert_eq!(stored.numbered(n).unwrap().as_ref(), manifest.entries().get(n as usize));
        assert_eq!(stored.find(&path(&format!("f{n:06}x"))), Ok(None));
    }
    let numbers = || Box::new((3..30_002).step_by(1_999).chain([40_000]));
    let picked: Result<Vec<_>, _> = stored.chosen(numbers()).collect();
    assert_eq!(picked.as_ref().map(Vec::len), Ok(16));
    assert_eq!(picked, manifest.chosen(numbers()).collect());
    assert_eq!(stored.find(&path("a")), Ok(None));
    assert_eq!(stored.find(&path("z")), Ok(None));
    assert_eq!(stored.numbered(30_000), Ok(None));
    let empty = StoredManifest::empty();
    assert_eq!((empty.find(&path("a")), empty.numbered(0)), (Ok(None), Ok(None)));
    assert_eq!(empty.load(), Ok(Manifest::empty()));
}

#[test]
fn going_through_it_in_order_reads_every_block_once() {
    let manifest = many(30_000);
    let source = Arc::new(watched(&manifest));
    let stored = StoredManifest::new(manifest.list(), source.clone());
    let blocks = stored.list().blocks().len();
    for entry in manifest.entries() {
        // Beside it as well, as one who looks for what is not there.
        let beside = entry.path.child(b"x").unwrap();
        assert_eq!(stored.find(&entry.path).unwrap().as_ref(), Some(entry));
        assert_eq!(stored.find(&beside), Ok(None));
    }
    assert_eq!(source.reads.load(Relaxed), blocks);
    assert_eq!(stored.each().count(), 30_000);
    assert_eq!(source.reads.load(Relaxed), 2 * blocks);
}

#[test]
fn a_block_that_is_missing_or_damaged_is_an_error_and_no_end() {
    let manifest = many(30_000);
    let list = manifest.list();
    let second = list.blocks()[1].clone();
    for damaged in [false, true] {
        let mut source = watched(&manifest);
        match damaged {
            true => source.blocks.get_mut(&second.digest).unwrap()[40] ^= 1,
            false => drop(source.blocks.remove(&second.digest)),
        }
        let stored = StoredManifest::new(list.clone(), Arc::new(source));
        let read: Vec<_> = stored.each().collect();
        assert_eq!(read.len() as u64, list.blocks()[0].count + 1);
        assert!(read.last().unwrap().is_err());
        assert!(stored.find(&second.first).is_err());
        assert!(stored.numbered(list.blocks()[0].count).is_err());
        assert!(stored.check_blocks().is_err() && stored.load().is_err());
    }
}

#[test]
fn a_list_that_tells_another_story_than_its_blocks_is_refused() {
    let manifest = many(30_000);
    let list = manifest.list();
    let told = |change: &dyn Fn(&mut BlockRef)| {
        let mut blocks = list.blocks().to_vec();
        change(&mut blocks[1]);
        let list: BlockList = blocks.into_iter().collect();
        StoredManifest::new(list, Arc::new(watched(&manifest))).check_entries()
    };
    assert_eq!(told(&|_| {}), Ok(()));
    assert!(told(&|block| block.count += 1).is_err());
    assert!(told(&|block| block.first = block.first.child(b"x").unwrap()).is_err());
}

#[test]
fn a_list_that_unfolds_to_very_long_paths_is_refused() {
    let long = format!("{}/", "d".repeat(200)).repeat(20);
    let block = |n: usize| BlockRef {
        first: path(&format!("{long}{n:06}")),
        digest: Digest::of(b""),
        count: 1,
        bytes: 60,
    };
    let list: BlockList = (0..10_000).map(block).collect();
    let bytes = list.encode();
    assert!(bytes.len() < 600_000, "{}", bytes.len());
    assert!(matches!(BlockList::parse(&bytes), Err(Error::TooLarge(_))));
}
