use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
};

use super::*;
use crate::{
    manifest::{BlockSource, PartManifest, StoredManifest},
    mutate::{Random, try_many},
    pack::{
        BaseRange, Codec, Content, Encoder, Frame, Header, IndexBuilder, Outline, Slice,
        target_manifest,
    },
    path::TreePath,
};

fn path(text: &str) -> TreePath {
    TreePath::parse(text.as_bytes()).unwrap()
}

fn file(text: &str, version: u64) -> Entry {
    let digest = Digest::of(&[text.as_bytes(), &version.to_le_bytes()].concat());
    let kind = EntryKind::File { size: 700, digest, link_group: None };
    let mtime = 1_700_000_000_000_000_000 + version as i64 * 7_919_000;
    Entry { path: path(text), mode: 0o644, mtime, kind }
}

fn dir(text: &str) -> Entry {
    Entry { path: path(text), mode: 0o755, mtime: 0, kind: EntryKind::Dir }
}

type Tree = BTreeMap<TreePath, Entry>;

fn tree(dirs: u64, files: u64) -> Tree {
    let mut tree = Tree::new();
    for d in 0..dirs {
        let above = dir(&format!("d{d:02}"));
        tree.insert(above.path.clone(), above);
        for f in 0..files {
            let entry = file(&format!("d{d:02}/f{f:04}.txt"), 0);
            tree.insert(entry.path.clone(), entry);
        }
    }
    tree
}

/// The tree with every file changed.
fn renewed(tree: &Tree) -> Tree {
    let mut renewed = tree.clone();
    for entry in renewed.values_mut().filter(|entry| entry.is_file()) {
        *entry = file(std::str::from_utf8(entry.path.as_bytes()).unwrap(), 1);
    }
    renewed
}

fn manifest(tree: &Tree) -> Manifest {
    Manifest::new(tree.values().cloned().collect()).unwrap()
}

/// Files of a frame.
const GROUP: usize = 60;

/// The pack from one tree to another: its index, and where the front of it ends.
fn index_of(from: &Tree, to: &Tree, is_placed: bool) -> (Vec<u8>, u64) {
    let (old, new) = (manifest(from), manifest(to));
    let mut ops = BTreeMap::new();
    for (path, entry) in to {
        match from.get(path) {
            Some(before) if before == entry => {}
            Some(before) if before.kind == entry.kind => {
                let (path, mode, mtime) = (path.clone(), entry.mode, entry.mtime);
                let op = Op::Attributes { path, mode, mtime, link_group: None };
                ops.insert(entry.path.clone(), op);
            }
            _ => {
                let content = entry.is_file().then_some(Content::Absent);
                ops.insert(path.clone(), Op::Put { entry: entry.clone(), content });
            }
        }
    }
    let mut gone: Option<&TreePath> = None;
    for (path, entry) in from {
        let is_inside = gone.is_some_and(|gone| path.is_inside(gone));
        match to.get(path) {
            Some(after) if entry.is_dir() && !after.is_dir() => gone = Some(path),
            None if !is_inside => {
                gone = Some(path);
                ops.insert(path.clone(), Op::Delete { path: path.clone() });
            }
            _ => {}
        }
    }
    let mut ops: Vec<Op> = ops.into_values().collect();
    let builder = if is_placed {
        IndexBuilder::in_parts(IndexBuilder::PART_BYTES)
    } else {
        IndexBuilder::new()
    };
    let mut builder = builder;
    let mut files: Vec<&mut Op> =
        ops.iter_mut().filter(|op| matches!(op, Op::Put { content: Some(_), .. })).collect();
    for group in files.chunks_mut(GROUP) {
        let bases = group.iter().filter_map(|op| old.position(op.path()));
        let bases = bases
            .map(|at| BaseRange { entry: at as u64, offset: 0, len: 700, stream: None })
            .collect();
        let stored = Digest::of(group[0].path().as_bytes());
        let frame = builder.push_frame(&Frame {
            offset: 0,
            stored_len: 9_000,
            digest: stored,
            raw_len: GROUP as u32 * 700,
            codec: Codec::ZstdPrefix { bases },
        });
        let frame = frame.unwrap();
        for (at, op) in group.iter_mut().enumerate() {
            let Op::Put { content, .. } = op else { continue };
            let slices = vec![Slice::Frame { frame, offset: at as u32 * 700, len: 700 }];
            *content = Some(Content::Slices { encoder: Encoder::Group, slices });
        }
    }
    for op in &ops {
        match is_placed {
            true => builder.push_op_to(&old, op).unwrap(),
            false => builder.push_op(op).unwrap(),
        };
    }
    let header = Header {
        from: Some(old.digest()),
        from_entries: old.count(),
        to: new.digest(),
        to_entries: new.count(),
    };
    let bytes = builder.finish(&header).unwrap();
    let (_, directory, end) = Header::parse(&bytes).unwrap();
    (bytes, directory.front_len(end))
}

fn outline(bytes: &[u8], front: u64) -> Outline {
    let front = &bytes[..front as usize];
    Outline::parse(front, Digest::of(front), bytes.len() as u64).unwrap()
}

#[derive(Debug, Default)]
struct Blocks(Mutex<HashMap<Digest, Vec<u8>>>);

impl BlockSource for Blocks {
    fn read(&self, block: &BlockRef) -> Result<Vec<u8>, manifest::Error> {
        Ok(self.0.lock().unwrap()[&block.digest].clone())
    }
}

/// Follows a pack as a site does that keeps a part; says how many bytes of the index it took, and in
/// how many requests.
fn follow(
    bytes: &[u8],
    front: u64,
    digest: Digest,
    from: &dyn Entries,
    keeps: Keeps<'_>,
) -> (Result<(Index, PartManifest), Error>, u64, usize) {
    let mut outline = outline(bytes, front);
    let (mut fetched, mut requests) = (front, 1);
    let mut ranges = outline.concerning(from, keeps).unwrap();
    while !ranges.is_empty() {
        for range in ranges {
            let part = &bytes[range.start as usize..range.end as usize];
            assert!(outline.is_right(range.start, part));
            outline.admit(range.start, part).unwrap();
            fetched += part.len() as u64;
            requests += 1;
        }
        ranges = outline.referred_to(keeps).unwrap();
    }
    let index = outline.finish().unwrap();
    let held = PartOf { digest, from, keeps, filter: Digest::of(b"filter") };
    let blocks = Arc::new(Blocks::default());
    let named = target_part(&index, held, |block| {
        blocks.0.lock().unwrap().insert(block.digest(), block.bytes().to_vec());
        Ok::<_, Error>(())
    });
    (named.map(|named| (index, PartManifest::new(named, blocks))), fetched, requests)
}

/// What is kept of a manifest, with the numbers.
fn model(whole: &Manifest, keeps: Keeps<'_>) -> Vec<(u64, Entry)> {
    let entries = (0..).zip(whole.entries().iter().cloned());
    entries.filter(|(_, entry)| keeps(&entry.path, entry.is_dir())).collect()
}

fn numbered(part: &PartManifest) -> Vec<(u64, Entry)> {
    let entries = (0..).zip(part.each());
    entries.map(|(at, entry)| (part.number_at(at), entry.unwrap())).collect()
}

#[test]
fn a_site_that_keeps_a_tenth_takes_a_corresponding_part_and_one_that_keeps_all_no_more() {
    let from = tree(20, 1_000);
    let to = renewed(&from);
    let (bytes, front) = index_of(&from, &to, true);
    let old = manifest(&from);
    let kept = [path("d07"), path("d08")];
    let keeps = |path: &TreePath, _| kept.iter().any(|top| path == top || path.is_inside(top));
    let (followed, fetched, requests) = follow(&bytes, front, old.digest(), &old, &keeps);
    let (index, part) = followed.unwrap();
    assert_eq!(numbered(&part), model(&manifest(&to), &keeps));
    assert!(!index.is_whole());
    let share = fetched as f64 / bytes.len() as f64;
    println!("{fetched} of {} bytes in {requests} requests: {share:.3}", bytes.len());
    assert!(share <= 0.25, "{share}");
    assert!(requests <= 4, "{requests} requests");
    // Whoever keeps all reads it whole, and it is hardly longer than one that can only be read so.
    let (plain, _) = index_of(&from, &to, false);
    println!("{} bytes instead of {}", bytes.len(), plain.len());
    assert!(bytes.len() as f64 <= 1.02 * plain.len() as f64);
    // Also where few changed, and places say more.
    let mut few = from.clone();
    for (n, entry) in few.values_mut().enumerate().filter(|(n, _)| n % 11 == 3) {
        *entry = file(std::str::from_utf8(entry.path.as_bytes()).unwrap(), n as u64);
    }
    let (placed, _) = index_of(&from, &few, true);
    let (plain, _) = index_of(&from, &few, false);
    println!("{} bytes instead of {}", placed.len(), plain.len());
    assert!(placed.len() as f64 <= 1.02 * plain.len() as f64);
}

/// One random step in the life of a tree.
fn changed(tree: &Tree, random: &mut Random) -> Tree {
    let mut next = tree.clone();
    for _ in 0..1 + random.below(300) {
        let above = format!("d{:02}", random.below(12));
        let at = format!("{above}/f{:04}.txt", random.below(150));
        let is_dir = next.get(&path(&above)).is_some_and(Entry::is_dir);
        let empty = |next: &mut Tree, top: &TreePath| next.retain(|path, _| !path.is_inside(top));
        match random.below(40) {
            0 => {
                next.remove(&path(&above));
                empty(&mut next, &path(&above));
            }
            1 => {
                empty(&mut next, &path(&above));
                next.insert(path(&above), file(&above, random.below(1000) as u64));
            }
            2 => {
                next.insert(path(&above), dir(&above));
            }
            3..10 => {
                next.remove(&path(&at));
            }
            10..14 if is_dir => {
                let entry = next.get_mut(&path(&at));
                if let Some(entry) = entry {
                    entry.mtime += 1;
                }
            }
            14..24 if is_dir => {
                let entry = file(&at, random.below(1_000_000) as u64);
                next.insert(entry.path.clone(), entry);
            }
            _ if is_dir => {
                let entry = file(&format!("{at}.{}", random.below(3)), random.below(9) as u64);
                next.insert(entry.path.clone(), entry);
            }
            _ => {}
        }
    }
    next
}

#[test]
fn random_parts_are_followed_through_chains_of_three_and_keep_their_numbers() {
    for seed in 1..=24 {
        let random = &mut Random::new(seed);
        let kept = random.below(1 << 12);
        let only_some = random.below(3) == 0;
        let keeps = |path: &TreePath, is_dir: bool| {
            let top = &path.as_bytes()[1..3];
            let number: usize = std::str::from_utf8(top).unwrap().parse().unwrap();
            let name = path.as_bytes();
            kept >> number & 1 == 1
                && (is_dir || !only_some || !name.ends_with(b"7.txt") || name.len() < 5)
        };
        let mut from = tree(12, 150);
        let mut part: Option<PartManifest> = None;
        for _ in 0..3 {
            let to = changed(&from, random);
            let (bytes, front) = index_of(&from, &to, true);
            let (old, new) = (manifest(&from), manifest(&to));
            let whole = Index::parse(bytes.clone(), Digest::of(&bytes)).unwrap();
            assert_eq!(target_manifest(&whole, &old), Ok(new.clone()));
            let held: &dyn Entries = part.as_ref().map_or(&old as &dyn Entries, |part| part);
            let (followed, ..) = follow(&bytes, front, old.digest(), held, &keeps);
            let (index, next) = followed.unwrap();
            let expected = model(&new, &keeps);
            assert_eq!(numbered(&next), expected);
            for (position, (number, entry)) in (0..).zip(&expected) {
                assert_eq!(next.numbered(*number).unwrap().as_ref(), Some(entry));
                assert_eq!(next.locate(&entry.path).unwrap(), Some((position, entry.clone())));
            }
            // What is kept has its content as in the whole index.
            let kept_ops = |index: &Index| -> Vec<(u64, Op)> {
                let ops = index.ops().map(Result::unwrap);
                ops.filter(|(_, op)| match op {
                    Op::Put { entry, .. } => keeps(&entry.path, entry.is_dir()),
                    _ => false,
                })
                .collect()
            };
            assert_eq!(kept_ops(&index), kept_ops(&whole));
            let named = next.named();
            assert_eq!(PartList::parse(&named.encode()).as_ref(), Ok(named));
            part = (random.below(4) > 0).then_some(next);
            from = to;
        }
    }
}

#[test]
fn a_part_does_not_pass_for_the_whole() {
    let from = tree(8, 1_000);
    let to = renewed(&from);
    let (bytes, front) = index_of(&from, &to, true);
    let old = manifest(&from);
    let keeps = |path: &TreePath, _: bool| path.as_bytes().starts_with(b"d01");
    let (followed, ..) = follow(&bytes, front, old.digest(), &old, &keeps);
    let (index, part) = followed.unwrap();
    assert_eq!(target_manifest(&index, &old), Err(Error::Partial));
    // Another filter needs blocks that are not there.
    let other = |path: &TreePath, _: bool| path.as_bytes().starts_with(b"d05");
    let held = PartOf { digest: old.digest(), from: &old, keeps: &other, filter: old.digest() };
    let put = |_| Ok::<_, Error>(());
    assert_eq!(target_part(&index, held, put).err(), Some(Error::Partial));
    let held = PartOf { digest: Digest::of(b"x"), ..held };
    assert!(matches!(target_part(&index, held, put), Err(Error::WrongBase { .. })));
    // Nor does an index without places.
    let (plain, front) = index_of(&from, &to, false);
    let front = &plain[..front as usize];
    let refused = Outline::parse(front, Digest::of(front), plain.len() as u64).err();
    assert_eq!(refused, Some(Error::Partial));
    let plain = Index::parse_unsigned(plain).unwrap();
    let held = PartOf { digest: old.digest(), from: &old, keeps: &keeps, filter: old.digest() };
    assert_eq!(target_part(&plain, held, put).err(), Some(Error::Partial));
    assert_eq!(part.named().whole_count, old.count());
}

#[test]
fn blocks_that_are_not_the_named_ones_are_refused() {
    let from = tree(4, 1_000);
    let to = renewed(&from);
    let (bytes, front) = index_of(&from, &to, true);
    let sound = outline(&bytes, front);
    let blocks: Vec<_> = sound.blocks_for_tests();
    assert!(blocks.len() > 4);
    let stored = |range: &std::ops::Range<u64>| &bytes[range.start as usize..range.end as usize];
    let refuse = |start: u64, bytes: &[u8]| {
        let mut outline = sound.clone();
        assert!(!outline.is_right(start, bytes));
        assert!(outline.admit(start, bytes).is_err());
        assert_eq!(outline.all(), sound.all(), "nothing was taken");
    };
    // Swapped, at no block's beginning, cut short, too long, damaged.
    refuse(blocks[0].start, stored(&blocks[1]));
    refuse(blocks[1].start, &[stored(&blocks[2]), stored(&blocks[1])].concat());
    refuse(blocks[0].start + 1, stored(&blocks[0]));
    refuse(0, stored(&blocks[0]));
    refuse(u64::MAX, stored(&blocks[0]));
    refuse(blocks[2].start, &stored(&blocks[2])[1..]);
    refuse(blocks[2].start, &[stored(&blocks[2]), b"x"].concat());
    let mut damaged = stored(&blocks[3]).to_vec();
    damaged[7] ^= 1;
    refuse(blocks[3].start, &damaged);
    // A front that is not the signed one, of another length, or with something behind it.
    let signed = Digest::of(&bytes[..front as usize]);
    let mut other = bytes[..front as usize].to_vec();
    other[front as usize - 1] ^= 1;
    assert!(matches!(
        Outline::parse(&other, signed, bytes.len() as u64),
        Err(Error::WrongDigest { .. })
    ));
    let parse = |front: &[u8], len| Outline::parse(front, Digest::of(front), len);
    assert!(parse(&bytes[..front as usize], bytes.len() as u64 + 1).is_err());
    assert!(parse(&bytes[..front as usize + 1], bytes.len() as u64).is_err());
    assert!(parse(&bytes[..front as usize - 1], bytes.len() as u64).is_err());
}

#[test]
fn places_that_lie_are_refused() {
    let from = tree(3, 400);
    let (old, mut next) = (manifest(&from), from.clone());
    next.remove(&path("d01/f0100.txt"));
    let changed = file("d01/f0200.txt", 9);
    next.insert(changed.path.clone(), changed.clone());
    let header = Header {
        from: Some(old.digest()),
        from_entries: old.count(),
        to: manifest(&next).digest(),
        to_entries: manifest(&next).count(),
    };
    let delete = Op::Delete { path: path("d01/f0100.txt") };
    let put = Op::Put { entry: changed, content: Some(Content::Absent) };
    let (at, other) = (Place::of(&delete, &old), Place::of(&put, &old));
    assert_eq!((at.gone, other.gone), (1, 1));
    let lead = |places: [Place; 2]| {
        let mut builder = IndexBuilder::in_parts(IndexBuilder::PART_BYTES);
        builder.push(&delete, places[0])?;
        builder.push(&put, places[1])?;
        let index = Index::parse_unsigned(builder.finish(&header)?)?;
        let keeps = |_: &TreePath, _: bool| true;
        let held = PartOf { digest: old.digest(), from: &old, keeps: &keeps, filter: header.to };
        target_part(&index, held, |_| Ok::<_, Error>(()))
    };
    assert!(lead([at, other]).is_ok());
    let lies = [
        [Place { gone: 0, ..at }, other],
        [Place { gone: 2, ..at }, other],
        [Place { from: at.from - 1, ..at }, other],
        [Place { from: at.from + 1, ..at }, other],
        [at, Place { gone: 0, ..other }],
        [at, Place { gone: 500, ..other }],
        [at, Place { gone: u64::MAX, ..other }],
        [at, Place { from: other.from + 1, ..other }],
        [at, Place { from: u64::MAX >> 2, ..other }],
        [Place { from: 5_000, ..at }, other],
    ];
    for lie in lies {
        assert!(lead(lie).is_err(), "{lie:?}");
    }
}

#[test]
fn no_front_and_no_block_panics_or_gives_a_part_that_contradicts_itself() {
    let from = tree(3, 300);
    let mut random = Random::new(7);
    let to = changed(&from, &mut random);
    let (bytes, front) = index_of(&from, &to, true);
    let old = manifest(&from);
    let mut sound = outline(&bytes, front);
    sound.admit(front, &bytes[front as usize..]).unwrap();
    let keeps = |path: &TreePath, _: bool| !path.as_bytes().starts_with(b"d02");
    try_many("index in parts", 20_000, |random| {
        // Damage within the front, named by its digest all the same.
        let mut damaged = bytes[..front as usize].to_vec();
        random.damage(&mut damaged);
        if let Ok(outline) = Outline::parse(&damaged, Digest::of(&damaged), bytes.len() as u64) {
            let _ = outline.concerning(&old, &keeps);
            let _ = outline.referred_to(&keeps);
            let mut outline = outline;
            for range in outline.all() {
                let part = &bytes[range.start as usize..range.end as usize];
                let _ = outline.admit(range.start, part);
            }
            if let Ok(index) = outline.finish() {
                let held = PartOf {
                    digest: old.digest(),
                    from: &old,
                    keeps: &keeps,
                    filter: old.digest(),
                };
                if let Ok(part) = target_part(&index, held, |_| Ok::<_, Error>(())) {
                    assert_eq!(PartList::parse(&part.encode()), Ok(part));
                }
            }
        }
        // Damage within a block, named by its digest.
        if random.below(8) == 0 {
            let damaged = sound.with_damaged_block(random);
            if let Ok(index) = damaged.finish() {
                let held = PartOf {
                    digest: old.digest(),
                    from: &old,
                    keeps: &keeps,
                    filter: old.digest(),
                };
                let _ = index.select(|path| keeps(path, false));
                if let Ok(part) = target_part(&index, held, |_| Ok::<_, Error>(())) {
                    assert_eq!(PartList::parse(&part.encode()), Ok(part));
                }
            }
        }
    });
}

#[test]
fn a_stored_manifest_serves_as_what_a_part_is_cut_from() {
    let from = tree(3, 200);
    let (bytes, front) = index_of(&from, &from, true);
    let old = StoredManifest::from(manifest(&from));
    let keeps = |path: &TreePath, _: bool| path.as_bytes().starts_with(b"d01");
    let (followed, ..) = follow(&bytes, front, old.digest(), &old, &keeps);
    assert_eq!(numbered(&followed.unwrap().1), model(&manifest(&from), &keeps));
}
