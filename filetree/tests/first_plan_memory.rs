//! What the plan of a first sync takes in memory: every entry is new, and what a plan knows of each is
//! one byte. In a program of its own, because the kernel counts by program.
//!
//! `MIRRORNET_MANIFEST_ENTRIES` makes the tree larger: ten millions stay below the same limit.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::{fs, path::PathBuf, sync::Arc};

use filetree::plan::{self, View};
use protocol::{
    digest::Digest,
    manifest::{
        self, Block, BlockBuilder, BlockRef, BlockSource, Entry, EntryKind, StoredManifest,
    },
    path::TreePath,
};

/// Contents that are looked at together, a byte for each entry of up to ten millions, and blocks.
const MOST_MIB: u64 = 64;

fn entries() -> u64 {
    let wanted = std::env::var("MIRRORNET_MANIFEST_ENTRIES").ok();
    wanted.map_or(500_000, |n| n.replace('_', "").parse().unwrap())
}

/// Each content is there twice, with two times.
fn entry(n: u64) -> Entry {
    let path = TreePath::parse(format!("package-{n:08}-of-some-component.tar").as_bytes()).unwrap();
    let digest = Digest::of(&(n / 2).to_le_bytes());
    let kind = EntryKind::File { size: 10, digest, link_group: None };
    let mtime = 1_600_000_000_000_000_000 + i64::from(n.is_multiple_of(100));
    Entry { path, mode: 0o644, mtime, kind }
}

/// Blocks in a directory, as an agent keeps them.
#[derive(Debug)]
struct Dir(PathBuf);

impl Dir {
    fn put(&self, block: &Block) -> BlockRef {
        fs::write(self.0.join(block.digest().hex()), block.bytes()).unwrap();
        BlockRef::of(block)
    }
}

impl BlockSource for Dir {
    fn read(&self, block: &BlockRef) -> Result<Vec<u8>, manifest::Error> {
        fs::read(self.0.join(block.digest.hex()))
            .map_err(|error| manifest::Error::Unreadable(error.to_string()))
    }
}

/// Largest resident set of this program so far, in bytes.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() * 1024
}

#[test]
fn a_first_sync_of_a_large_tree_is_planned_within_bounds() {
    let temp = tempfile::tempdir().unwrap();
    let dir = Arc::new(Dir(temp.path().to_owned()));
    let mut builder = BlockBuilder::default();
    let mut blocks = Vec::new();
    for n in 0..entries() {
        blocks.extend(builder.push(&entry(n)).map(|block| dir.put(&block)));
    }
    blocks.extend(builder.finish().map(|block| dir.put(&block)));
    let want = Arc::new(StoredManifest::new(blocks.into_iter().collect(), dir));
    let begin = peak();
    let start = std::time::Instant::now();
    let have = StoredManifest::empty();
    let plan = plan::compare(&have, View::AS_IS, &want, View::AS_IS).unwrap();
    println!("planned in {:?}", start.elapsed());
    assert_eq!((plan.change_count(), plan.need_count()), (entries(), entries() / 2));
    assert_eq!(plan.fetch_bytes(), entries() / 2 * 10);
    let (mut needs, mut keys) = (0, 0);
    for need in plan.needs() {
        let need = need.unwrap();
        needs += 1;
        keys += need.keys.len() as u64;
    }
    assert_eq!((needs, keys), (entries() / 2, entries() / 2 + entries() / 100));
    assert_eq!(plan.staged_bytes(), keys * 10);
    assert_eq!(plan.changes().map(Result::unwrap).filter(|c| c.wanted).count() as u64, entries());
    let grown = (peak() - begin) >> 20;
    println!("{grown} MiB more than at the beginning for {} entries", entries());
    assert!(grown <= MOST_MIB, "{grown} MiB");
}
