//! What an update takes in memory where the tree is large and little of it changes: manifests stay on
//! the disk. In a program of its own, because the kernel counts by program.
//!
//! `MIRRORNET_MANIFEST_ENTRIES` makes the tree larger: ten millions take no more than a million.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod large;

use std::sync::Arc;

use filetree::plan::{self, View};
use protocol::{
    digest::Digest,
    manifest::{BlockBuilder, BlockList, Entry, EntryKind, StoredManifest},
    pack::{self, Content, Encoder, Header, Index, IndexBuilder, Op, target_blocks},
    path::TreePath,
};

use large::{Dir, entries, peak};

const CHANGES: u64 = 1_000;
const MOST_MIB: u64 = 16;
const ENTRIES: u64 = 200_000;

fn entry(n: u64, round: i64) -> Entry {
    let path = TreePath::parse(format!("package-{n:08}-of-some-component.tar").as_bytes()).unwrap();
    let digest = Digest::of(&[n.to_le_bytes(), round.to_le_bytes()].concat());
    let kind = EntryKind::File { size: 0, digest, link_group: None };
    Entry { path, mode: 0o644, mtime: 1_600_000_000_000_000_000 + round, kind }
}

/// The list of a manifest that is written block by block.
fn list(dir: &Dir, changed: impl Fn(u64) -> bool) -> BlockList {
    let mut builder = BlockBuilder::default();
    let mut blocks = Vec::new();
    for n in 0..entries(ENTRIES) {
        let round = if changed(n) { 2 } else { 1 };
        blocks.extend(builder.push(&entry(n, round)).map(|block| dir.put(&block)));
    }
    blocks.extend(builder.finish().map(|block| dir.put(&block)));
    blocks.into_iter().collect()
}

#[test]
fn an_update_of_a_large_tree_takes_memory_for_what_changes() {
    let temp = tempfile::tempdir().unwrap();
    let dir = Arc::new(Dir(temp.path().to_owned()));
    // From one end of the tree to the other, so that nearly every block changes.
    let spread = entries(ENTRIES) / CHANGES;
    let changed = |n: u64| n.is_multiple_of(spread);
    let (from, to) = (list(&dir, |_| false), list(&dir, changed));
    let header = Header {
        from: Some(from.digest()),
        from_entries: entries(ENTRIES),
        to: to.digest(),
        to_entries: entries(ENTRIES),
    };
    let mut builder = IndexBuilder::new();
    for n in (0..entries(ENTRIES)).filter(|n| changed(*n)) {
        let content = Content::Slices { encoder: Encoder::Whole, slices: Vec::new() };
        builder.push_op(&Op::Put { entry: entry(n, 2), content: Some(content) }).unwrap();
    }
    let index = builder.finish(&header).unwrap();
    let begin = peak();
    let index = Index::parse_unsigned(index).unwrap();
    let have = StoredManifest::new(from, dir.clone());
    let target = target_blocks(&index, &have, |block| {
        dir.put(&block);
        Ok::<_, pack::Error>(())
    });
    let want = Arc::new(StoredManifest::new(target.unwrap(), dir.clone()));
    want.check_entries().unwrap();
    let plan = plan::compare(&have, View::AS_IS, &want, View::AS_IS).unwrap();
    assert_eq!((plan.change_count(), plan.need_count()), (CHANGES, CHANGES));
    assert_eq!((plan.changes().count() as u64, plan.needs().count() as u64), (CHANGES, CHANGES));
    assert_eq!(plan.kept_entries() as u64, entries(ENTRIES));
    let grown = (peak() - begin) >> 20;
    println!("{grown} MiB more than at the beginning for {} entries", entries(ENTRIES));
    assert!(grown <= MOST_MIB, "{grown} MiB");
}
