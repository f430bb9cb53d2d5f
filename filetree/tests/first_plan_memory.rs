//! What the plan of a first sync takes in memory: every entry is new, and what a plan knows of each is
//! one byte. In a program of its own, because the kernel counts by program.
//!
//! `MIRRORNET_MANIFEST_ENTRIES` makes the tree larger: ten millions stay below the same limit.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod large;

use std::sync::Arc;

use filetree::plan::{self, View};
use protocol::{
    digest::Digest,
    manifest::{BlockBuilder, Entry, EntryKind, StoredManifest},
    path::TreePath,
};

use large::{Dir, entries, peak};

/// Contents that are looked at together, a byte for each entry of up to ten millions, and blocks.
const MOST_MIB: u64 = 64;
const ENTRIES: u64 = 500_000;

/// Each content is there twice, with two times.
fn entry(n: u64) -> Entry {
    let path = TreePath::parse(format!("package-{n:08}-of-some-component.tar").as_bytes()).unwrap();
    let digest = Digest::of(&(n / 2).to_le_bytes());
    let kind = EntryKind::File { size: 10, digest, link_group: None };
    let mtime = 1_600_000_000_000_000_000 + i64::from(n.is_multiple_of(100));
    Entry { path, mode: 0o644, mtime, kind }
}

#[test]
fn a_first_sync_of_a_large_tree_is_planned_within_bounds() {
    let temp = tempfile::tempdir().unwrap();
    let dir = Arc::new(Dir(temp.path().to_owned()));
    let mut builder = BlockBuilder::default();
    let mut blocks = Vec::new();
    for n in 0..entries(ENTRIES) {
        blocks.extend(builder.push(&entry(n)).map(|block| dir.put(&block)));
    }
    blocks.extend(builder.finish().map(|block| dir.put(&block)));
    let want = Arc::new(StoredManifest::new(blocks.into_iter().collect(), dir));
    let begin = peak();
    let start = std::time::Instant::now();
    let have = StoredManifest::empty();
    let plan = plan::compare(&have, View::AS_IS, &want, View::AS_IS).unwrap();
    println!("planned in {:?}", start.elapsed());
    assert_eq!((plan.change_count(), plan.need_count()), (entries(ENTRIES), entries(ENTRIES) / 2));
    assert_eq!(plan.fetch_bytes(), entries(ENTRIES) / 2 * 10);
    let (mut needs, mut keys) = (0, 0);
    for need in plan.needs() {
        let need = need.unwrap();
        needs += 1;
        keys += need.keys.len() as u64;
    }
    assert_eq!(
        (needs, keys),
        (entries(ENTRIES) / 2, entries(ENTRIES) / 2 + entries(ENTRIES) / 100)
    );
    assert_eq!(plan.staged_bytes(), keys * 10);
    assert_eq!(
        plan.changes().map(Result::unwrap).filter(|c| c.wanted).count() as u64,
        entries(ENTRIES)
    );
    let grown = (peak() - begin) >> 20;
    println!("{grown} MiB more than at the beginning for {} entries", entries(ENTRIES));
    assert!(grown <= MOST_MIB, "{grown} MiB");
}
