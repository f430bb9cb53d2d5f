//! Manifests of any bytes: block lists, blocks, and lists that name damaged blocks.

use super::*;
use crate::mutate::try_many;

fn sample() -> Manifest {
    let entry = |text: &str, kind| Entry {
        path: TreePath::parse(text.as_bytes()).unwrap(),
        mode: 0o644,
        mtime: 1_700_000_000_123_456_789,
        kind,
    };
    let file = |size, group| EntryKind::File {
        size,
        digest: Digest::of(&[size as u8]),
        link_group: group,
    };
    let group = Some(LinkGroup::of_first(&TreePath::parse(b"d/b").unwrap()));
    Manifest::new(vec![
        entry("a", file(1, None)),
        entry("d", EntryKind::Dir),
        entry("d/b", file(3, group)),
        entry("d/c", file(3, group)),
        entry("d/d", EntryKind::Symlink { target: b"../\xff"[..].into() }),
        entry("d/e", EntryKind::Dir),
        entry("d/e/long-name-of-a-file.txt", file(1 << 40, None)),
        entry("z", file(0, None)),
    ])
    .unwrap()
}

#[test]
fn no_manifest_panics_or_takes_long() {
    let blocks: Vec<Vec<u8>> =
        sample().blocks().iter().map(|block| block.bytes().to_vec()).collect();
    let list = sample().list().encode();
    try_many("manifest", 50_000, |random| {
        let mut bytes = blocks[random.below(blocks.len())].clone();
        random.damage(&mut bytes);
        if let Ok(block) = Block::parse(bytes) {
            let entries = block.entries();
            // Named as it is, a damaged block still has to be a sound part of a tree.
            let list = BlockList::of(std::slice::from_ref(&block));
            if let Ok(manifest) = Manifest::from_blocks(&list, &[block]) {
                assert_eq!(manifest.entries(), entries.unwrap());
                assert_eq!(manifest.list(), list);
            }
        }
        let mut bytes = list.clone();
        random.damage(&mut bytes);
        if let Ok(list) = BlockList::parse(&bytes) {
            let _ = (list.digest(), list.entry_count());
        }
    });
}
