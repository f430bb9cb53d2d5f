use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex},
};

use super::*;
use crate::{
    manifest::BlockSource,
    pack::{Content, Encoder, Header, IndexBuilder},
};

fn path(text: &str) -> TreePath {
    TreePath::parse(text.as_bytes()).unwrap()
}

fn file(text: &str, mtime: i64) -> Entry {
    let kind = EntryKind::File { size: 0, digest: Digest::of(b""), link_group: None };
    Entry { path: path(text), mode: 0o644, mtime, kind }
}

fn dir(text: &str) -> Entry {
    Entry { path: path(text), mode: 0o755, mtime: 0, kind: EntryKind::Dir }
}

fn put(entry: Entry) -> Op {
    let nothing = Content::Slices { encoder: Encoder::Whole, slices: Vec::new() };
    let content = entry.is_file().then_some(nothing);
    Op::Put { entry, content }
}

/// A hundred directories of five hundred files.
fn tree() -> BTreeMap<TreePath, Entry> {
    let dirs = (0..100).map(|n| dir(&format!("d{n:02}")));
    let files = (0..50_000).map(|n| file(&format!("d{:02}/f{:03}", n / 500, n % 500), 1));
    dirs.chain(files).map(|entry| (entry.path.clone(), entry)).collect()
}

fn manifest(entries: &BTreeMap<TreePath, Entry>) -> Manifest {
    Manifest::new(entries.values().cloned().collect()).unwrap()
}

/// Blocks, and which of them were read.
#[derive(Debug, Default)]
struct Blocks {
    kept: HashMap<Digest, Vec<u8>>,
    read: Mutex<HashSet<Digest>>,
}

impl BlockSource for Blocks {
    fn read(&self, block: &BlockRef) -> Result<Vec<u8>, manifest::Error> {
        self.read.lock().unwrap().insert(block.digest);
        Ok(self.kept[&block.digest].clone())
    }
}

/// Both ways to the result of these operations; the second says how many blocks it read.
fn lead(from: &Manifest, to: &Manifest, ops: &[Op]) -> (Result<Manifest, Error>, usize) {
    let mut builder = IndexBuilder::new();
    for op in ops {
        builder.push_op(op).unwrap();
    }
    let header = Header {
        from: Some(from.digest()),
        from_entries: from.count(),
        to: to.digest(),
        to_entries: to.count(),
    };
    let index = Index::parse_unsigned(builder.finish(&header).unwrap()).unwrap();
    let mut blocks = Blocks::default();
    for block in from.each_block() {
        blocks.kept.insert(block.digest(), block.bytes().to_vec());
    }
    let blocks = Arc::new(blocks);
    let stored = StoredManifest::new(from.list(), blocks.clone());
    let mut made = Vec::new();
    let list = target_blocks(&index, &stored, |block| {
        made.push(block);
        Ok::<_, Error>(())
    });
    let read = blocks.read.lock().unwrap().len();
    let result = list.map(|list| {
        let mut all = blocks.kept.clone();
        all.extend(made.iter().map(|block| (block.digest(), block.bytes().to_vec())));
        StoredManifest::new(list, Arc::new(Blocks { kept: all, ..Blocks::default() })).load()
    });
    let result = result.and_then(|manifest| Ok(manifest?));
    assert_eq!(result, target_manifest(&index, from));
    (result, read)
}

#[test]
fn blocks_that_nothing_concerns_are_taken_over_unread() {
    let old = tree();
    let from = manifest(&old);
    let blocks = from.list().blocks().len();
    assert!(blocks > 6, "{blocks} blocks");
    let mut new = old.clone();
    let changed = file("d50/f250", 2);
    new.insert(changed.path.clone(), changed.clone());
    let (to, read) = lead(&from, &manifest(&new), &[put(changed)]);
    assert_eq!((to, read), (Ok(manifest(&new)), 1));
}

#[test]
fn whatever_changes_both_ways_lead_to_the_same_manifest() {
    for seed in 0..12u64 {
        let old = tree();
        let mut new = old.clone();
        let mut ops: BTreeMap<TreePath, Op> = BTreeMap::new();
        let random = |n: u64| {
            let digest = Digest::of(&[seed.to_le_bytes(), n.to_le_bytes()].concat());
            usize::from(u16::from_le_bytes([digest.as_bytes()[0], digest.as_bytes()[1]]))
        };
        for n in 0..=seed {
            let (d, f) = (random(n) % 100, random(n + 100) % 500);
            let (above, at) = (format!("d{d:02}"), format!("d{d:02}/f{f:03}"));
            if ops.keys().any(|path| path.as_bytes().starts_with(above.as_bytes())) {
                continue;
            }
            let within = |new: &mut BTreeMap<TreePath, Entry>, root: &TreePath| {
                new.retain(|path, _| !path.is_inside(root));
            };
            match (n + seed) % 5 {
                0 => {
                    new.remove(&path(&at));
                    ops.insert(path(&at), Op::Delete { path: path(&at) });
                }
                // A whole directory, of which the operation names only the top.
                1 => {
                    new.remove(&path(&above));
                    within(&mut new, &path(&above));
                    ops.insert(path(&above), Op::Delete { path: path(&above) });
                }
                2 => {
                    let entry = file(&above, 3);
                    new.insert(path(&above), entry.clone());
                    within(&mut new, &path(&above));
                    ops.insert(path(&above), put(entry));
                }
                3 => {
                    for entry in [dir(&format!("{above}.new")), file(&format!("{above}.new/x"), 4)]
                    {
                        new.insert(entry.path.clone(), entry.clone());
                        ops.insert(entry.path.clone(), put(entry));
                    }
                }
                _ => {
                    let entry = file(&format!("{at}.added"), 5);
                    new.insert(entry.path.clone(), entry.clone());
                    ops.insert(entry.path.clone(), put(entry));
                }
            }
        }
        let ops: Vec<Op> = ops.into_values().collect();
        let to = manifest(&new);
        assert_eq!(lead(&manifest(&old), &to, &ops).0, Ok(to), "seed {seed}");
    }
}

#[test]
fn a_result_that_is_no_tree_is_refused_also_between_blocks_that_are_not_read() {
    let old = tree();
    let from = manifest(&old);
    let firsts: Vec<TreePath> = from.list().blocks().iter().map(|b| b.first.clone()).collect();
    // In a directory that is not there, once in the middle and once at the beginning of a block.
    let first = firsts[3].child(b"x").unwrap();
    for at in [path("d50/f250/x"), path("none/x"), first] {
        let orphan = Entry { path: at, ..file("a", 1) };
        // What the publisher says of it does not matter: the result is not looked at before.
        let (result, _) = lead(&from, &from, &[put(orphan)]);
        assert!(
            matches!(result, Err(Error::Manifest(manifest::Error::NoParent { .. }))),
            "{result:?}"
        );
    }
    let mut wrong = old.clone();
    wrong.insert(path("e"), file("e", 1));
    let (result, _) = lead(&from, &manifest(&wrong), &[put(file("e", 2))]);
    assert!(matches!(result, Err(Error::WrongResult { .. })));
}
