use proptest::prelude::*;

use super::*;

fn path(text: &str) -> TreePath {
    TreePath::parse(text.as_bytes()).unwrap()
}

fn file(text: &str, size: u64) -> Entry {
    let kind = EntryKind::File { size, digest: Digest::of(text.as_bytes()), link_group: None };
    Entry { path: path(text), mode: 0o644, mtime: 1_700_000_000_000_000_000, kind }
}

fn dir(text: &str) -> Entry {
    Entry { path: path(text), mode: 0o755, mtime: -5, kind: EntryKind::Dir }
}

fn symlink(text: &str, target: &[u8]) -> Entry {
    let kind = EntryKind::Symlink { target: target.into() };
    Entry { path: path(text), mode: 0, mtime: 0, kind }
}

fn many(count: usize) -> Vec<Entry> {
    (0..count).map(|n| file(&format!("f{n:07}"), n as u64)).collect()
}

fn read_back(manifest: &Manifest) -> Result<Manifest, Error> {
    let list = BlockList::parse(&manifest.list().encode())?;
    let blocks: Result<Vec<_>, _> =
        manifest.blocks().iter().map(|block| Block::parse(block.bytes().to_vec())).collect();
    Manifest::from_blocks(&list, &blocks?)
}

#[test]
fn every_kind_of_entry_survives() {
    let mut linked = file("d/b", 3);
    linked.kind = EntryKind::File {
        size: 3,
        digest: Digest::of(b"x"),
        link_group: Some(LinkGroup::of_first(&path("d/b"))),
    };
    let manifest =
        Manifest::new(vec![dir("d"), linked, symlink("d/c", b"../\xff"), file("e", 0)]).unwrap();
    assert_eq!(read_back(&manifest), Ok(manifest.clone()));
    assert_eq!(manifest.position(&path("e")), Some(3));
    assert_eq!(read_back(&Manifest::empty()), Ok(Manifest::empty()));
}

#[test]
fn an_insertion_changes_one_block_and_no_other_cut() {
    let entries = many(60_000);
    let before = Manifest::new(entries.clone()).unwrap();
    let mut more = entries;
    more.insert(30_000, file("f0029999x", 1));
    let after = Manifest::new(more).unwrap();
    let old: Vec<_> = before.list().blocks().to_vec();
    let new: Vec<_> = after.list().blocks().to_vec();
    assert!(old.len() > 5, "{} blocks", old.len());
    assert_eq!(new.iter().filter(|block| !old.contains(block)).count(), 1);
}

#[test]
fn orphans_and_disorder_are_refused() {
    let orphan = Manifest::new(vec![file("a/b", 1)]);
    assert_eq!(orphan, Err(Error::NoParent { path: path("a/b") }));
    let below_file = Manifest::new(vec![file("a", 1), file("a/b", 1)]);
    assert_eq!(below_file, Err(Error::NoParent { path: path("a/b") }));
    let below_link = Manifest::new(vec![symlink("a", b"/etc"), file("a/b", 1)]);
    assert_eq!(below_link, Err(Error::NoParent { path: path("a/b") }));
    let twice = Manifest::new(vec![file("a", 1), file("a", 1)]);
    assert_eq!(twice, Err(Error::OutOfOrder { path: path("a") }));
}

#[test]
fn a_swapped_block_is_noticed() {
    let one = Manifest::new(many(10)).unwrap();
    let other = Manifest::new(many(11)).unwrap();
    let swapped = Manifest::from_blocks(&one.list(), &other.blocks());
    assert!(matches!(swapped, Err(Error::WrongBlock { .. })));
}

#[test]
fn the_digest_of_format_1_never_changes() {
    let manifest = Manifest::new(vec![dir("d"), file("d/a", 7), symlink("l", b"d/a")]).unwrap();
    let digest = "b3:196b4c82e9bcd705f771109084086af526d6095e98d744537d336edd043368c0";
    assert_eq!(manifest.digest().to_string(), digest);
}

proptest! {
    #[test]
    fn damaged_blocks_never_panic_and_never_pass_as_the_original(
        at in 0usize..400, flip in 1u8..,
    ) {
        let block = Manifest::new(many(8)).unwrap().blocks().remove(0);
        let mut bytes = block.bytes().to_vec();
        let at = at % bytes.len();
        bytes[at] ^= flip;
        if let Ok(damaged) = Block::parse(bytes) {
            prop_assert_ne!(damaged.digest(), block.digest());
        }
    }

    #[test]
    fn what_parses_is_canonical(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let bytes = [&b"MNMB\x01"[..], &bytes].concat();
        if let Ok(block) = Block::parse(bytes.clone()) {
            let mut builder = BlockBuilder::default();
            let mut again = Vec::new();
            for entry in block.entries().unwrap() {
                again.extend(builder.push(&entry));
            }
            again.extend(builder.finish());
            if again.len() == 1 {
                prop_assert_eq!(again[0].bytes(), &bytes[..]);
            }
        }
    }
}

#[test]
fn a_block_that_is_cut_elsewhere_is_refused() {
    let file = |number: usize| Entry {
        path: TreePath::parse(format!("{number:06}").as_bytes()).unwrap(),
        mode: 0o644,
        mtime: 0,
        kind: EntryKind::File { size: 1, digest: Digest::of(b"x"), link_group: None },
    };
    let whole = Manifest::new((0..20_000).map(file).collect()).unwrap();
    let blocks = whole.blocks();
    assert!(blocks.len() > 2);
    let cut_anew = |at: &[usize]| {
        let mut parts = Vec::new();
        let mut begin = 0;
        for end in at.iter().copied().chain([20_000]) {
            let part = Manifest::new((begin..end).map(file).collect()).unwrap().blocks();
            assert_eq!(part.len(), 1);
            parts.extend(part);
            begin = end;
        }
        parts
    };
    let mut ends: Vec<usize> = Vec::new();
    for block in &blocks {
        ends.push(ends.last().unwrap_or(&0) + block.count() as usize);
    }
    ends.pop();
    let source = |blocks: &[Block]| {
        let source: Vec<(Digest, Vec<u8>)> =
            blocks.iter().map(|block| (block.digest(), block.bytes().to_vec())).collect();
        StoredManifest::new(BlockList::of(blocks), std::sync::Arc::new(Given(source)))
    };
    assert_eq!(Manifest::from_blocks(&BlockList::of(&blocks), &blocks).unwrap(), whole);
    source(&cut_anew(&ends)).check_entries().unwrap();
    // One cut more, in the middle of the first block.
    let mut more = ends.clone();
    more.insert(0, ends[0] / 2);
    let wrong = cut_anew(&more);
    let refused = Manifest::from_blocks(&BlockList::of(&wrong), &wrong).unwrap_err();
    assert!(matches!(&refused, Error::WrongCut { first } if first.to_string() == "000000"));
    assert_eq!(source(&wrong).check_entries().unwrap_err(), refused);
}

/// Blocks in memory.
#[derive(Debug)]
struct Given(Vec<(Digest, Vec<u8>)>);

impl BlockSource for Given {
    fn read(&self, block: &BlockRef) -> Result<Vec<u8>, Error> {
        let found = self.0.iter().find(|(digest, _)| *digest == block.digest);
        Ok(found.map(|(_, bytes)| bytes.clone()).unwrap_or_default())
    }
}
