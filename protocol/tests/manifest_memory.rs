//! What manifests take in memory while one leads to the next. In a program of its own, because the
//! kernel counts by program.
#![allow(clippy::unwrap_used)]

use protocol::{
    digest::Digest,
    manifest::{Entry, EntryKind, Manifest},
    pack::{Content, Encoder, Header, Index, IndexBuilder, Op, target_manifest},
    path::TreePath,
};

const ENTRIES: u64 = 200_000;
/// Two manifests of paths of some 40 bytes, and what it takes to make the second.
const MOST_BYTES_PER_ENTRY: u64 = 420;

fn file(n: u64, mtime: i64) -> Entry {
    let path = TreePath::parse(format!("pool-component-{n:07}-of-a-package.tar").as_bytes());
    let kind = EntryKind::File { size: 0, digest: Digest::of(&n.to_le_bytes()), link_group: None };
    Entry { path: path.unwrap(), mode: 0o644, mtime, kind }
}

/// Largest resident set of this program so far, in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() * 1024
}

#[test]
fn a_manifest_leads_to_the_next_in_little_more_memory_than_the_two_of_them() {
    let from = Manifest::new((0..ENTRIES).map(|n| file(n, 1)).collect()).unwrap();
    let changed = |n: &u64| n.is_multiple_of(1_000);
    let index = {
        let expected: Vec<Entry> =
            (0..ENTRIES).map(|n| file(n, if changed(&n) { 2 } else { 1 })).collect();
        let to = Manifest::new(expected).unwrap();
        let mut builder = IndexBuilder::new();
        for n in (0..ENTRIES).filter(changed) {
            let content = Content::Slices { encoder: Encoder::Whole, slices: Vec::new() };
            builder.push_op(&Op::Put { entry: file(n, 2), content: Some(content) }).unwrap();
        }
        let header = Header {
            from: Some(from.digest()),
            from_entries: ENTRIES,
            to: to.digest(),
            to_entries: ENTRIES,
        };
        Index::parse_unsigned(builder.finish(&header).unwrap()).unwrap()
    };
    let to = target_manifest(&index, &from).unwrap();
    let again = to.clone();
    assert_eq!(again.digest(), index.header().to);
    let per_entry = peak() / ENTRIES;
    println!("{per_entry} bytes for each of {ENTRIES} entries, both manifests together");
    assert!(per_entry <= MOST_BYTES_PER_ENTRY, "{per_entry} bytes for each entry");
}
