use proptest::prelude::*;

use super::*;
use crate::manifest::{Entry, EntryKind, LinkGroup, Manifest};

fn path(text: &str) -> TreePath {
    TreePath::parse(text.as_bytes()).unwrap()
}

fn file(text: &str, content: &[u8]) -> Entry {
    let (size, digest) = (content.len() as u64, Digest::of(content));
    let kind = EntryKind::File { size, digest, link_group: None };
    Entry { path: path(text), mode: 0o644, mtime: 1_700_000_000_123_456_789, kind }
}

fn dir(text: &str) -> Entry {
    Entry { path: path(text), mode: 0o755, mtime: -5, kind: EntryKind::Dir }
}

fn symlink(text: &str, target: &[u8]) -> Entry {
    let kind = EntryKind::Symlink { target: target.into() };
    Entry { path: path(text), mode: 0, mtime: 0, kind }
}

fn frame(stored: &[u8], raw_len: u32, codec: Codec) -> Frame {
    let stored_len = stored.len() as u32;
    Frame { offset: 0, stored_len, digest: Digest::of(stored), raw_len, codec }
}

fn slice(frame: u32, offset: u32, len: u32) -> Slice {
    Slice::Frame { frame, offset, len }
}

fn whole(slices: Vec<Slice>) -> Option<Content> {
    Some(Content::Slices { encoder: Encoder::Whole, slices })
}

/// One old tree, one new tree, and operations of every kind between them.
pub(super) fn sample() -> (Manifest, Manifest, Vec<Op>, Vec<Frame>) {
    let mut chmod = file("d/same", b"same");
    let from = Manifest::new(vec![
        file("a", b"old a"),
        dir("d"),
        chmod.clone(),
        dir("gone"),
        file("gone/x", b"x"),
        dir("turns"),
        file("turns/y", b"y"),
    ])
    .unwrap();
    chmod.mode = 0o755;
    let mut first = file("l1", b"linked");
    let mut second = file("l2", b"linked");
    for entry in [&mut first, &mut second] {
        if let EntryKind::File { link_group, .. } = &mut entry.kind {
            *link_group = Some(LinkGroup::of_first(&path("l1")));
        }
    }
    let puts = vec![
        (file("a", b"new a"), whole(vec![slice(0, 0, 5)])),
        (file("copied", b"x"), Some(Content::Copy { from_entry: 4 })),
        (first, whole(vec![slice(0, 5, 6)])),
        (second, Some(Content::Same { op: 4 })),
        (symlink("s", b"../\xff"), None),
        (file("turns", b"ab"), {
            let base = Slice::Base { entry: 0, offset: 4, len: 1 };
            Some(Content::Slices { encoder: Encoder::Patch, slices: vec![base, slice(1, 3, 1)] })
        }),
        (
            file("z", b"delta"),
            Some(Content::RsyncDelta { base_entry: 6, slices: vec![slice(1, 0, 4)] }),
        ),
        (file("z2", b"elsewhere"), Some(Content::Absent)),
        (file("zip", b"compressed"), {
            let stream = Stream { at: 3, stored_len: 9, plain_len: 70 };
            let inside = |offset, len| Slice::Inside { entry: 2, stream, offset, len };
            let slices = vec![
                slice(1, 4, 9),
                inside(5, 60),
                Slice::Base { entry: 2, offset: 0, len: 3 },
                inside(65, 5),
            ];
            Some(Content::Inside { recipe_len: 7, slices })
        }),
    ];
    let mut ops: Vec<Op> = puts
        .into_iter()
        .map(|(entry, content)| Op::Put { entry, content })
        .chain([
            Op::Attributes {
                path: path("d/same"),
                mode: 0o755,
                mtime: chmod.mtime,
                link_group: None,
            },
            Op::Delete { path: path("gone") },
        ])
        .collect();
    ops.sort_by(|a, b| a.path().cmp(b.path()));
    let mut entries: Vec<Entry> = ops
        .iter()
        .filter_map(|op| match op {
            Op::Put { entry, .. } => Some(entry.clone()),
            _ => None,
        })
        .collect();
    entries.extend([dir("d"), chmod]);
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    let to = Manifest::new(entries).unwrap();
    let bases = vec![
        BaseRange { entry: 2, offset: 0, len: 4, stream: None },
        BaseRange { entry: 0, offset: 1, len: 3, stream: None },
    ];
    let other = Some(Stream { at: 1, stored_len: 2, plain_len: 8 });
    let inside = vec![
        BaseRange { entry: 2, offset: 0, len: 4, stream: None },
        BaseRange { entry: 2, offset: 1, len: 3, stream: other },
        BaseRange { entry: 2, offset: 5, len: 3, stream: other },
        BaseRange { entry: 3, offset: 0, len: 3, stream: other },
    ];
    let frames = vec![
        frame(b"new alinked", 11, Codec::Raw),
        frame(b"stored", 400, Codec::ZstdPrefix { bases: bases.clone() }),
        frame(b"plain text", 400, Codec::ZstdPrefix { bases: inside.clone() }),
        frame(b"differences", 400, Codec::Differences { bases }),
        frame(b"inside", 400, Codec::Differences { bases: inside }),
    ];
    (from, to, ops, frames)
}

fn header(from: &Manifest, to: &Manifest) -> Header {
    Header {
        from: Some(from.digest()),
        from_entries: from.entries().len() as u64,
        to: to.digest(),
        to_entries: to.entries().len() as u64,
    }
}

fn build(header: &Header, ops: &[Op], frames: &[Frame]) -> Vec<u8> {
    let mut builder = IndexBuilder::new();
    for frame in frames {
        builder.push_frame(frame).unwrap();
    }
    for op in ops {
        builder.push_op(op).unwrap();
    }
    builder.finish(header).unwrap()
}

fn sample_bytes() -> Vec<u8> {
    let (from, to, ops, frames) = sample();
    build(&header(&from, &to), &ops, &frames)
}

#[test]
fn every_kind_of_operation_and_frame_survives_and_leads_to_the_target() {
    let (from, to, ops, frames) = sample();
    let bytes = build(&header(&from, &to), &ops, &frames);
    let index = Index::parse(bytes.clone(), Digest::of(&bytes)).unwrap();
    let read: Vec<Op> = index.ops().map(|op| op.unwrap().1).collect();
    assert_eq!(read, ops);
    let (first, read) = index.frames_around(1).unwrap();
    assert_eq!((first, read.len()), (0, 5));
    assert_eq!(read[0].offset, index.len());
    assert_eq!(read[1].offset, index.len() + 11);
    for (read, written) in read.iter().zip(&frames) {
        assert_eq!(read.codec, written.codec);
    }
    assert_eq!(index.pack_len(), index.len() + 44);
    assert_eq!(target_manifest(&index, &from), Ok(to.clone()));
    assert_eq!(
        target_manifest(&index, &to),
        Err(Error::WrongBase { expected: from.digest(), actual: to.digest() })
    );
}

#[test]
fn a_selection_draws_in_exactly_what_its_files_need() {
    let index = Index::parse_unsigned(sample_bytes()).unwrap();
    let select = |name: &str| index.select(|path| path.as_bytes() == name.as_bytes()).unwrap();
    let linked = select("l2");
    assert_eq!((linked.frames, linked.bases), (vec![0], vec![]));
    let copied = select("copied");
    assert_eq!((copied.frames, copied.bases), (vec![], vec![4]));
    let patched = select("turns");
    assert_eq!((patched.frames, patched.bases), (vec![1], vec![0, 2]));
    assert_eq!(patched.cost.frame_bytes, 6);
    let delta = select("z");
    assert_eq!((delta.frames, delta.bases), (vec![1], vec![0, 2, 6]));
    let inside = select("zip");
    assert_eq!((inside.frames, inside.bases), (vec![1], vec![0, 2]));
    let absent = select("z2");
    assert_eq!((absent.ops.len(), absent.cost.absent_files), (0, 1));
    assert_eq!(index.select(|_| true).unwrap().ranges.len(), 1);
}

#[test]
fn ranges_are_joined_across_gaps_that_cost_less_than_a_request() {
    let joined = coalesce(vec![0..10, 10..20, 100..110, 111..120], 50);
    assert_eq!(joined, vec![0..20, 100..120]);
    assert_eq!(coalesce(vec![0..10, 60..70], 50), vec![0..70]);
}

#[test]
fn an_index_that_is_not_the_announced_one_is_refused() {
    let bytes = sample_bytes();
    let other = Digest::of(b"other");
    assert!(matches!(Index::parse(bytes.clone(), other), Err(Error::WrongDigest { .. })));
    for cut in 0..bytes.len() {
        assert!(Index::parse_unsigned(bytes[..cut].to_vec()).is_err(), "cut at {cut}");
        assert!(matches!(Index::length(&bytes[..cut]), Ok(None | Some(_))), "cut at {cut}");
    }
    let longer = [&bytes[..], b"x"].concat();
    assert!(Index::parse_unsigned(longer).is_err());
}

#[test]
fn unknown_required_flags_are_refused() {
    let mut bytes = sample_bytes();
    bytes[5] = 16;
    assert_eq!(Index::parse_unsigned(bytes).err(), Some(Error::UnknownFlags(16)));
}

#[test]
fn frames_of_shared_objects_lie_behind_the_pack_where_no_range_joins_them() {
    let (from, to, ops, frames) = sample();
    let mut builder = IndexBuilder::new();
    builder.push_frame(&frames[0]).unwrap();
    let objects = [Digest::of(b"first"), Digest::of(b"second")];
    builder.begin_shared(objects[0], 77).unwrap();
    builder.push_frame(&frames[1]).unwrap();
    builder.begin_shared(objects[1], 5).unwrap();
    for _ in 0..2 {
        builder.push_frame(&frames[0]).unwrap();
    }
    for op in &ops {
        builder.push_op(op).unwrap();
    }
    let bytes = builder.finish(&header(&from, &to)).unwrap();
    assert_eq!(bytes[5] & 1, 1, "readers that do not know shared objects refuse it");
    for cut in 0..bytes.len() {
        assert!(Index::parse_unsigned(bytes[..cut].to_vec()).is_err(), "cut at {cut}");
    }
    let index = Index::parse_unsigned(bytes).unwrap();
    assert_eq!(index.pack_len(), index.len() + 11, "what is shared is not counted");
    let frame = |number| {
        let (first, frames) = index.frames_around(number).unwrap();
        frames[(number - first) as usize].clone()
    };
    let parts: Vec<_> = (0..4).map(|number| index.shared_part(&frame(number)).copied()).collect();
    assert_eq!(parts[0], None);
    let named = |part: Option<SharedPart>| part.map(|p| (p.name, p.start, p.bytes));
    assert_eq!(named(parts[1]), Some((objects[0], 77, 6)));
    assert_eq!(named(parts[2]), Some((objects[1], 5, 22)));
    assert_eq!(parts[2], parts[3]);
    assert_eq!(frame(3).offset, frame(2).offset + 11);
    let offsets: Vec<_> = [0, 1, 2].map(|n| frame(n).offset..frame(n).offset + 1).into();
    assert_eq!(coalesce(offsets, JOINED_GAP_BYTES).len(), 3);
    assert_eq!(target_manifest(&index, &from), Ok(to));
}

#[test]
fn references_to_what_does_not_exist_are_refused() {
    let (from, to, _, frames) = sample();
    let header = header(&from, &to);
    let file = |content| Op::Put { entry: file("f", b"12345"), content: Some(content) };
    let slices = |slices| Content::Slices { encoder: Encoder::Whole, slices };
    let inside = |entry, offset, len| {
        let stream = Stream { at: 0, stored_len: 5, plain_len: 9 };
        Slice::Inside { entry, stream, offset, len }
    };
    let refused = [
        (file(Content::Copy { from_entry: 7 }), "an old entry"),
        (file(Content::Same { op: 0 }), "an earlier operation"),
        (file(slices(vec![slice(5, 0, 5)])), "a frame"),
        (file(slices(vec![slice(0, 7, 5)])), "bytes of a frame"),
        (file(slices(vec![slice(1, 0, 2), slice(0, 0, 3)])), "a frame in order"),
        (file(slices(vec![Slice::Base { entry: 7, offset: 0, len: 5 }])), "an old entry"),
        (
            file(slices(vec![Slice::Base { entry: 0, offset: u64::MAX, len: 5 }])),
            "bytes of an old entry",
        ),
        (file(Content::RsyncDelta { base_entry: 9, slices: vec![slice(0, 0, 5)] }), "an old entry"),
        (
            file(Content::RsyncDelta {
                base_entry: 0,
                slices: vec![Slice::Base { entry: 0, offset: 0, len: 5 }],
            }),
            "a delta",
        ),
        (file(Content::Inside { recipe_len: 0, slices: vec![inside(7, 0, 9)] }), "an old entry"),
        (file(Content::Inside { recipe_len: 0, slices: vec![inside(0, 5, 5)] }), "plain text"),
    ];
    for (op, what) in refused {
        let read = Index::parse_unsigned(build(&header, std::slice::from_ref(&op), &frames));
        let expected = Error::BadReference { path: path("f"), what };
        assert_eq!(read.err(), Some(expected), "{op:?}");
    }
}

#[test]
fn operations_that_do_not_fit_the_old_tree_lead_nowhere() {
    let from = Manifest::new(vec![file("a", b"1"), symlink("l", b"a")]).unwrap();
    let to = Manifest::new(vec![file("a", b"1")]).unwrap();
    let header = header(&from, &to);
    let lead = |ops: &[Op]| {
        target_manifest(&Index::parse_unsigned(build(&header, ops, &[])).unwrap(), &from)
    };
    assert_eq!(lead(&[Op::Delete { path: path("l") }]), Ok(to.clone()));
    assert_eq!(lead(&[Op::Delete { path: path("x") }]), Err(Error::NotInBase { path: path("x") }));
    assert_eq!(lead(&[]).unwrap_err().to_string().split(' ').next(), Some("the"));
    assert!(matches!(lead(&[]), Err(Error::WrongResult { .. })));
    let link_group = Some(LinkGroup(1));
    let linked = Op::Attributes { path: path("l"), mode: 0, mtime: 0, link_group };
    assert!(matches!(lead(&[linked]), Err(Error::BadReference { .. })));
}

#[test]
fn many_operations_are_cut_into_path_ranged_blocks() {
    let entries: Vec<Entry> = (0..10_000).map(|n| file(&format!("f{n:06}"), b"")).collect();
    let to = Manifest::new(entries.clone()).unwrap();
    let ops: Vec<Op> =
        entries.into_iter().map(|entry| Op::Put { entry, content: whole(vec![]) }).collect();
    let header = Header { from: None, from_entries: 0, ..header(&Manifest::empty(), &to) };
    let index = Index::parse_unsigned(build(&header, &ops, &[])).unwrap();
    assert_eq!(index.op_count(), 10_000);
    let (first, around) = index.ops_around(9_999).unwrap();
    assert!(first > 0 && around.len() < 10_000);
    assert_eq!(around[(9_999 - first) as usize], ops[9_999]);
    assert_eq!(target_manifest(&index, &Manifest::empty()), Ok(to));
}

#[test]
fn declared_counts_cost_nothing_until_they_are_delivered() {
    let (from, to, ops, frames) = sample();
    let header = header(&from, &to);
    let bytes = build(&header, &ops, &frames);
    // A directory that claims ten million blocks, cut off behind the claim.
    let front = bytes.windows(32).position(|w| w == header.to.as_bytes()).unwrap() + 32;
    let mut bomb = bytes[..front].to_vec();
    bomb.push(header.to_entries as u8);
    bomb.extend([4, 0x80, 0xad, 0xe2, 0x04]);
    assert!(Index::parse_unsigned(bomb).is_err());
}

#[test]
fn an_index_of_nothing_but_bombs_is_refused_before_one_goes_off() {
    let (from, to, ..) = sample();
    let bomb = wire::compress(&vec![0; 4 << 20], 19).unwrap();
    let block = |n: u64| header::BlockRef {
        count: 4096,
        offset: n * bomb.len() as u64,
        stored_len: bomb.len() as u64,
        raw_len: 4 << 20,
        digest: Digest::of(&bomb),
    };
    let frames = |count| (0..count).map(|n| (4096, block(n))).collect();
    let parse = |count: u64| {
        let directory = header::Directory { frames: frames(count), ..header::Directory::default() };
        let mut bytes = header(&from, &to).encode(&directory);
        (0..count).for_each(|_| bytes.extend_from_slice(&bomb));
        Index::parse_unsigned(bytes).err()
    };
    assert_eq!(parse(1025), Some(Error::TooLarge("4,000,000 frames")));
    assert!(matches!(parse(3), Some(Error::Malformed(_))));
    let directory = header::Directory {
        placed: false,
        inside: false,
        differences: false,
        ops: Vec::new(),
        frames: (0..1025).map(|n| (1, header::BlockRef { count: 1, ..block(n) })).collect(),
        shared: Vec::new(),
    };
    let bytes = header(&from, &to).encode(&directory);
    let refused = Some(Error::TooLarge("4 GiB of unpacked index"));
    assert_eq!(Index::parse_unsigned(bytes).err(), refused);
}

/// Number of cases of the mutation tests; raised by hand for long runs.
fn cases() -> u32 {
    std::env::var("MIRRORNET_FUZZ_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(500)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn damaged_indexes_never_panic_and_never_lead_astray(
        edits in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..6),
    ) {
        let (from, to, ..) = sample();
        let mut bytes = sample_bytes();
        for (at, byte) in edits {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        if let Ok(index) = Index::parse_unsigned(bytes) {
            let _ = index.select(|_| true);
            if let Ok(reached) = target_manifest(&index, &from) {
                prop_assert_eq!(reached.digest(), index.header().to);
                prop_assert!(reached == to || index.header().to != to.digest());
            }
        }
    }

    /// Damage behind the block digests: rows are mutated before they are packed and named.
    #[test]
    fn damaged_rows_never_panic(
        edits in proptest::collection::vec((any::<usize>(), any::<u8>()), 0..8),
        cut in any::<usize>(),
    ) {
        let (_, _, ops, frames) = sample();
        let mut columns = columns::Columns::<wire::Writer>::default();
        let mut context = op::Context::default();
        ops.iter().for_each(|op| context.write(op, &mut columns));
        let mut context = frame::Context::default();
        frames.iter().for_each(|frame| context.write(frame, &mut columns));
        let mut block = columns.into_bytes(false);
        for (at, byte) in edits {
            let at = at % block.len();
            block[at] = byte;
        }
        block.truncate(cut % (block.len() + 1) + 1);
        let Ok(mut columns) = columns::Columns::parse(&block, false) else { return Ok(()) };
        let mut context = op::Context::default();
        while let Ok(op) = context.read(&mut columns) {
            let frame_raw = &[11, 400];
            let _ = op::Bounds { from_entries: 7, ops_before: 3, frame_raw }.check(&op);
        }
        let _ = frame::Context::default().read(&mut columns, 7);
    }
}

#[test]
fn a_directory_that_unfolds_to_gigabytes_of_paths_is_refused() {
    let long = vec!["x".repeat(250); 15].join("/");
    let named = |n: usize| header::OpBlockRef {
        first: path(&format!("{long}/{n:06}")),
        block: header::BlockRef {
            count: 1,
            offset: 0,
            stored_len: 1,
            raw_len: 1,
            digest: Digest::of(b""),
        },
        from: 0,
        to: 0,
        within: Vec::new(),
    };
    let (from, to, ..) = sample();
    let parse = |blocks: usize, placed| {
        let directory = header::Directory {
            placed,
            ops: (0..blocks).map(named).collect(),
            ..Default::default()
        };
        let bytes = header(&from, &to).encode(&directory);
        assert!(bytes.len() < 1 << 20, "{} bytes", bytes.len());
        Header::parse(&bytes).map(drop)
    };
    assert_eq!(parse(5_000, true), Ok(()));
    for placed in [false, true] {
        let refused = parse(10_000, placed);
        assert_eq!(refused, Err(Error::TooLarge("32 MiB of paths in a directory")));
    }
}

#[test]
fn plain_text_is_announced_and_bounded() {
    let (from, to, ops, frames) = sample();
    let header = header(&from, &to);
    let bytes = build(&header, &ops, &frames);
    assert_eq!(bytes[5], 4 | 8, "the flags that older programs refuse");
    assert_eq!(build(&header, &ops, &frames[..3])[5], 4);
    assert_eq!(build(&header, &ops[..1], &frames[..1])[5], 0);
    let read = |content| {
        let op = Op::Put { entry: file("f", b"12345"), content: Some(content) };
        Index::parse_unsigned(build(&header, &[op], &frames)).err()
    };
    let base = |len| vec![Slice::Base { entry: 0, offset: 0, len }];
    assert_eq!(read(Content::Inside { recipe_len: 5, slices: base(1 << 20) }), None);
    let refused = [
        Content::Inside { recipe_len: 5, slices: base(2 << 20) },
        Content::Inside { recipe_len: 6, slices: base(5) },
        Content::Inside { recipe_len: MAX_RECIPE_BYTES + 1, slices: base(MAX_RECIPE_BYTES + 2) },
    ];
    for content in refused {
        assert!(matches!(read(content.clone()), Some(Error::Malformed(_))), "{content:?}");
    }
    let stream = Some(Stream { at: 0, stored_len: 5, plain_len: 9 });
    let beyond = vec![BaseRange { entry: 0, offset: 5, len: 5, stream }];
    let beyond = [frame(b"x", 5, Codec::ZstdPrefix { bases: beyond })];
    let read = Index::parse_unsigned(build(&header, &ops[..1], &beyond));
    assert!(matches!(read, Err(Error::Malformed(_))), "{read:?}");
}
