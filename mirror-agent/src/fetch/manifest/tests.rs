use protocol::{
    filter::{Level, Origin},
    manifest::{EntryKind, Manifest, Numbers},
};

use super::*;

fn filter(rule: &str) -> Filter {
    Filter::build(&[Level::excludes(Origin::Assignment, "test", [rule])]).unwrap()
}

fn manifest(names: std::ops::Range<u32>) -> Manifest {
    let entry = |name: u32| {
        let (size, digest) = (1, Digest::of(&name.to_le_bytes()));
        let kind = EntryKind::File { size, digest, link_group: None };
        let path = TreePath::parse(format!("f{name:03}").as_bytes()).unwrap();
        Entry { path, mode: 0o644, mtime: 0, kind }
    };
    Manifest::new(names.map(entry).collect()).unwrap()
}

/// Keeps what `filter` keeps of `whole`: its entries from number 100 on.
fn put_part(store: &Store, whole: &Manifest, filter: &Filter) -> PartList {
    let kept = manifest(100..200);
    let mut numbers = Numbers::default();
    (100..200).for_each(|number| numbers.push(number).unwrap());
    kept.each_block().for_each(|block| store.put_block(&block).unwrap());
    let part = PartList {
        of: whole.digest(),
        filter: filter.digest(),
        whole_count: whole.count(),
        whole_bytes: 200,
        list: kept.list(),
        numbers,
    };
    store.put_part(&part).unwrap();
    part
}

#[test]
fn a_part_is_given_for_its_filter_alone_and_never_for_the_whole() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let (whole, mine, other) = (manifest(0..200), filter("/a"), filter("/b"));
    let digest = whole.digest();
    put_part(&store, &whole, &mine);
    let part = store.get_for(&digest, &mine).unwrap();
    assert_eq!((part.digest(), part.count()), (digest, 100));
    assert!(part.whole().is_none() && part.serves(&mine) && !part.serves(&other));
    let alone = store.get_alone(&digest, &mine.digest()).unwrap();
    assert_eq!(alone.load(), Ok(manifest(100..200)));
    assert!(store.get(&digest).is_none());
    assert!(store.get_for(&digest, &other).is_none());
    assert!(store.list_bytes(&digest).is_none(), "a relay would pass it on as the whole");
    let has = |name: &str| store.entry(&digest, &TreePath::parse(name.as_bytes()).unwrap());
    assert!(has("f150").is_some() && has("f050").is_none());

    // What is not held any more goes, its blocks too; what is held stays.
    store.keep_only(&HashSet::from([digest])).unwrap();
    assert!(store.get_for(&digest, &mine).is_some());
    store.put(&whole).unwrap();
    assert!(store.get_for(&digest, &other).unwrap().whole().is_some());
    store.keep_only(&HashSet::from([digest])).unwrap();
    assert_eq!(names(&store.parts).unwrap(), [""; 0], "beside the whole a part is of no use");
    put_part(&store, &manifest(0..199), &mine);
    store.keep_only(&HashSet::new()).unwrap();
    for dir in [&store.lists, &store.parts, &store.blocks.0] {
        assert_eq!(names(dir).unwrap(), [""; 0]);
    }
}

/// What a part lacks would be taken for gone, so nothing of a damaged one is believed.
#[test]
fn a_damaged_part_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let (whole, mine) = (manifest(0..200), filter("/a"));
    let mut part = put_part(&store, &whole, &mine);
    let name = store.parts.join(part_name(&part.of, &part.filter));
    let sound = fs::read(&name).unwrap();
    assert!(store.get_for(&whole.digest(), &mine).is_some());
    // Well packed, and not what was written.
    let digest = Digest::of(&part.encode());
    part.whole_count += 1;
    write(&name, &[digest.as_bytes(), &part.encode()[..]].concat()).unwrap();
    assert!(store.get_for(&whole.digest(), &mine).is_none());
    for at in 0..sound.len() {
        let mut damaged = sound.clone();
        damaged[at] ^= 0x10;
        fs::write(&name, damaged).unwrap();
        if let Some(found) = store.get_for(&whole.digest(), &mine) {
            assert_eq!(found.count(), 100, "byte {at}");
        }
    }
    fs::write(&name, &sound[..sound.len() / 2]).unwrap();
    assert!(store.get_for(&whole.digest(), &mine).is_none());
    // Nor is one of which a block is missing.
    fs::write(&name, &sound).unwrap();
    let block = part.list.blocks()[0].digest;
    fs::remove_file(store.blocks.path(&block)).unwrap();
    assert!(store.get_for(&whole.digest(), &mine).is_none());
}
