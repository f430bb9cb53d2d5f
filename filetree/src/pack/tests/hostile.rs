//! What packs do to those who do not mean well, and to those who are unlucky.

use std::fs;

use proptest::prelude::*;
use protocol::{
    digest::Digest,
    manifest::{Entry, EntryKind, Manifest},
    pack::{
        BaseRange, Codec, Content, Encoder, Frame, Header, IndexBuilder, MAX_PLAIN_BYTES, NoDelta,
        Op, Slice, Stream,
    },
    path::TreePath,
    wire::Writer,
};

use super::support::*;
use crate::{
    delta::{choose::EncoderChoice, frame, inside::DEFLATE},
    pack::{
        Error,
        read::{PackFile, PackIndex, Rebuilder},
    },
};

#[test]
fn a_wrong_base_gives_a_reason_and_never_wrong_bytes() {
    for choice in [EncoderChoice::Auto, EncoderChoice::Rsync, EncoderChoice::Patch] {
        let trees = release();
        trees.pack(choice);
        fs::create_dir(trees.path("wrong")).unwrap();
        for entry in trees.manifest("old").entries() {
            if entry.digest().is_some() {
                let mut content = fs::read(trees.path("old").join(entry.path.to_string())).unwrap();
                content.reverse();
                trees.write("wrong", &entry.path.to_string(), &content);
            }
        }
        let (made, rebuilt, _) = rebuild(&trees, "wrong", |_| true);
        assert_eq!(made.files["src/mod9.rs"].clone().err(), Some(NoDelta::WrongBase), "{choice:?}");
        assert_eq!(
            made.files["image-1.3.iso"].clone().err(),
            Some(NoDelta::WrongBase),
            "{choice:?}"
        );
        assert_eq!(made.files["data/elsewhere/kept.bin"], Err(NoDelta::WrongBase));
        assert!(rebuilt.failed[&NoDelta::WrongBase] >= 15);
    }
}

#[test]
fn a_wrong_base_of_differences_spoils_only_what_copies_from_it() {
    let trees = Trees::new();
    for (n, name) in ["a", "b", "c"].into_iter().enumerate() {
        let old = numbers(n as u64, 20_000);
        trees.write("old", name, &old);
        trees.write("new", name, &grown(&old));
        trees.write("wrong", name, &old);
    }
    trees.pack(EncoderChoice::Auto);
    let frames = trees.index().frames_around(0).unwrap().1;
    assert!(matches!(&frames[..], [Frame { codec: Codec::Differences { .. }, .. }]), "{frames:?}");
    let mut wrong = fs::read(trees.path("old/b")).unwrap();
    wrong[7_000] ^= 1;
    trees.write("wrong", "b", &wrong);
    let (made, ..) = rebuild(&trees, "wrong", |_| true);
    assert!(made.files["a"].is_ok() && made.files["c"].is_ok());
    assert_eq!(made.files["b"], Err(NoDelta::WrongBase));
}

#[test]
fn a_base_that_is_not_held_takes_only_what_needs_it() {
    let trees = release();
    trees.pack(EncoderChoice::Auto);
    fs::create_dir(trees.path("bare")).unwrap();
    let (made, rebuilt, _) = rebuild(&trees, "bare", |_| true);
    assert_eq!(made.files["src/mod9.rs"], Err(NoDelta::BaseNotHeld));
    assert_eq!(made.files["empty"], Ok(Vec::new()));
    assert_eq!(rebuilt.failed.keys().copied().collect::<Vec<_>>(), [NoDelta::BaseNotHeld]);
    trees.pack(EncoderChoice::Whole);
    let (_, rebuilt, _) = rebuild(&trees, "bare", |path| !path.ends_with("kept.bin"));
    assert_eq!(rebuilt.failed_files(), 0);
}

#[test]
fn a_damaged_frame_takes_only_its_own_files() {
    let trees = Trees::new();
    for n in 0..12 {
        trees.write("new", &format!("f{n:02}"), &noise(n, 900_000));
    }
    trees.pack_from_nothing();
    let index = trees.index();
    let (_, frames) = index.frames_around(0).unwrap();
    let mut pack = fs::read(trees.path("pack")).unwrap();
    pack[frames[1].offset as usize + 5] ^= 1;
    fs::write(trees.path("pack"), pack).unwrap();
    let (made, rebuilt, _) = rebuild(&trees, "old", |_| true);
    let failed: Vec<_> = made.files.iter().filter(|(_, made)| made.is_err()).collect();
    assert_eq!(failed.len(), 4);
    assert!(failed.iter().all(|(_, made)| **made == Err(NoDelta::Corrupt)));
    assert_eq!(rebuilt.made_files(), 8);
    assert!(matches!(
        trees.unpack(None),
        Err(Error::Incomplete { count: 4, reason: NoDelta::Corrupt, .. })
    ));
    assert!(!trees.path("out").exists(), "nothing, rather than a part");
}

#[test]
fn truncated_and_swapped_packs_are_refused() {
    let trees = release();
    trees.pack(EncoderChoice::Auto);
    let pack = fs::read(trees.path("pack")).unwrap();
    for cut in [0, 4, 30, 70, 1000, pack.len() / 2, pack.len() - 1] {
        fs::write(trees.path("pack"), &pack[..cut]).unwrap();
        assert!(trees.unpack(Some("old")).is_err(), "cut at {cut}");
    }
    fs::write(trees.path("pack"), [&pack[..], b"x"].concat()).unwrap();
    assert!(trees.unpack(Some("old")).is_err());
    fs::write(trees.path("pack"), &pack).unwrap();
    let swapped = trees.unpack(Some("new"));
    let swapped = swapped.unwrap_err().to_string();
    assert!(swapped.contains("leads on from"), "{swapped}");
    assert!(trees.unpack(None).is_err());
    assert_eq!(fs::read_dir(trees.dir.path()).unwrap().count(), 3);
    trees.assert_round_trip(Some("old"));
}

#[test]
fn resuming_needs_only_the_frames_that_are_missing() {
    let trees = Trees::new();
    for n in 0..12 {
        trees.write("new", &format!("f{n:02}"), &noise(n, 900_000));
    }
    trees.pack_from_nothing();
    let (first, _, asked_first) = rebuild(&trees, "old", |path| path < "f05");
    let missing = |path: &str| !first.files.contains_key(path);
    let (rest, _, asked_rest) = rebuild(&trees, "old", missing);
    assert_eq!(first.files.len() + rest.files.len(), 12);
    assert_eq!(asked_first, [0, 1]);
    assert_eq!(asked_rest, [1, 2]);
}

/// A pack of one file with hand-made frames.
fn forged(
    content: Content,
    expected: &[u8],
    frames: Vec<(Vec<u8>, u32, Codec)>,
    from: &Manifest,
) -> (Vec<u8>, u64) {
    let kind = EntryKind::File {
        size: expected.len() as u64,
        digest: Digest::of(expected),
        link_group: None,
    };
    let path = TreePath::parse(b"f").unwrap();
    let entry = Entry { path, mode: 0o644, mtime: 0, kind };
    let to = Manifest::new(vec![entry.clone()]).unwrap();
    let mut builder = IndexBuilder::new();
    let mut stored_frames = Vec::new();
    for (stored, raw_len, codec) in frames {
        let digest = Digest::of(&stored);
        let stored_len = stored.len() as u32;
        builder.push_frame(&Frame { offset: 0, stored_len, digest, raw_len, codec }).unwrap();
        stored_frames.extend(stored);
    }
    for old in from.entries() {
        builder.push_op(&Op::Delete { path: old.path.clone() }).unwrap();
    }
    builder.push_op(&Op::Put { entry, content: Some(content) }).unwrap();
    let header = Header {
        from: Some(from.digest()),
        from_entries: from.entries().len() as u64,
        to: to.digest(),
        to_entries: 1,
    };
    let mut pack = builder.finish(&header).unwrap();
    let index_len = pack.len() as u64;
    pack.extend(stored_frames);
    (pack, index_len)
}

fn outcome(trees: &Trees, pack: &[u8]) -> Result<Vec<u8>, NoDelta> {
    fs::write(trees.path("pack"), pack).unwrap();
    rebuild(trees, "old", |_| true).0.files.remove("f").unwrap()
}

#[test]
fn hostile_frames_and_deltas_end_cleanly() {
    let trees = Trees::new();
    trees.write("old", "base", &noise(1, 1000));
    let from = trees.manifest("old");
    let expected = b"expected";
    let slices = |len| vec![Slice::Frame { frame: 0, offset: 0, len }];
    let whole = |len| Content::Slices { encoder: Encoder::Whole, slices: slices(len) };
    let delta = |len| Content::RsyncDelta { base_entry: 0, slices: slices(len) };
    let raw = |bytes: &[u8]| (bytes.to_vec(), bytes.len() as u32, Codec::Raw);
    let bomb = frame::compress(&vec![0; 32 << 20], 0, 3).unwrap();
    let bases = |offset| vec![BaseRange { entry: 0, offset, len: 500, stream: None }];
    let prefix = |offset| Codec::ZstdPrefix { bases: bases(offset) };
    let differences = |offset| Codec::Differences { bases: bases(offset) };
    // Eight bytes from there.
    let recipe = |at: i64| {
        let mut seeks = Writer::new();
        seeks.signed(at);
        let mut recipe = Writer::new();
        recipe.bytes(&[8]).bytes(&[0]).bytes(seeks.as_slice());
        recipe.bytes(b"").bytes(b"").bytes(b"");
        frame::compress(recipe.as_slice(), 0, 3).unwrap()
    };
    // A delta that copies its base for ever.
    let mut endless = b"rs\x02\x36".to_vec();
    endless.extend([0x46, 0, 0x03, 0xe8].repeat(3));
    endless.push(0);
    let cases = [
        ("bomb", whole(8), (bomb.clone(), 8, Codec::Zstd), NoDelta::Corrupt),
        ("no zstd", whole(8), (b"garbage!".to_vec(), 8, Codec::Zstd), NoDelta::Corrupt),
        ("wrong content", whole(8), raw(b"EXPECTED"), NoDelta::Corrupt),
        ("no delta", delta(8), raw(b"nonsense"), NoDelta::Corrupt),
        ("endless delta", delta(17), raw(&endless[..17]), NoDelta::Corrupt),
        ("delta outside", delta(8), raw(b"rs\x02\x36\x46\xff\x03\xe8"), NoDelta::Corrupt),
        ("base outside", whole(8), (bomb.clone(), 8, prefix(900)), NoDelta::WrongBase),
        ("bomb of differences", whole(8), (bomb, 8, differences(0)), NoDelta::WrongBase),
        ("no recipe", whole(8), (b"garbage!".to_vec(), 8, differences(0)), NoDelta::WrongBase),
        ("other old bytes", whole(8), (recipe(8), 8, differences(0)), NoDelta::WrongBase),
        ("copy from outside", whole(8), (recipe(600), 8, differences(0)), NoDelta::WrongBase),
    ];
    for (what, content, frame, reason) in cases {
        let (pack, _) = forged(content, expected, vec![frame], &from);
        assert_eq!(outcome(&trees, &pack), Err(reason), "{what}");
    }
    let beyond = Slice::Base { entry: 0, offset: 996, len: 8 };
    let content = Content::Slices { encoder: Encoder::Patch, slices: vec![beyond] };
    let (pack, _) = forged(content, expected, Vec::new(), &from);
    assert_eq!(outcome(&trees, &pack), Err(NoDelta::WrongBase));
    let (pack, _) = forged(Content::Absent, expected, Vec::new(), &from);
    fs::write(trees.path("pack"), pack).unwrap();
    let refused = trees.unpack(Some("old"));
    assert!(matches!(
        refused,
        Err(Error::Incomplete { count: 1, reason: NoDelta::NotPublished, .. })
    ));
}

#[test]
fn streams_and_recipes_that_lie_end_cleanly() {
    let trees = Trees::new();
    // A stream of one block of bytes as they are, with something before it.
    let plain = noise(1, 60);
    let old = [&b"before"[..], &[1, 60, 0, !60, 255], &plain].concat();
    trees.write("old", "base", &old);
    let from = trees.manifest("old");
    let stream = Stream { at: 6, stored_len: 65, plain_len: 60 };
    let of = |stream: Stream| Slice::Inside { entry: 0, stream, offset: 0, len: 60 };
    let inside = |recipe: &[u8], last| {
        let len = recipe.len() as u32;
        let slices = vec![Slice::Frame { frame: 0, offset: 0, len }, last];
        let content = Content::Inside { recipe_len: u64::from(len), slices };
        (content, (recipe.to_vec(), len, Codec::Raw))
    };
    let outcome_of = |(content, frame), expected: &[u8]| {
        outcome(&trees, &forged(content, expected, vec![frame], &from).0)
    };
    // No streams are made again: the plain text is the file.
    let bare = [DEFLATE, 0];
    assert_eq!(outcome_of(inside(&bare, of(stream)), &plain), Ok(plain.clone()));
    let shifted = Stream { at: 5, ..stream };
    assert_eq!(outcome_of(inside(&bare, of(shifted)), &plain), Err(NoDelta::WrongBase));
    for stream in [
        Stream { stored_len: 64, ..stream },
        Stream { stored_len: 66, ..stream },
        Stream { plain_len: 61, ..stream },
        Stream { at: 1 << 40, ..stream },
    ] {
        let refused = outcome_of(inside(&bare, of(stream)), &plain);
        assert_eq!(refused, Err(NoDelta::WrongBase), "{stream:?}");
    }
    // What would take a disk, or for ever.
    for plain_len in [20_000_000, MAX_PLAIN_BYTES] {
        let refused = outcome_of(inside(&bare, of(Stream { plain_len, ..stream })), &plain);
        assert_eq!(refused, Err(NoDelta::OverLimit));
    }
    // One stream of the whole view: 60 bytes, stored in 65.
    let corrections = [6, 15, 0, 2, 4, 60];
    let named = |plain: u8, stored: u8, corrections: &[u8]| {
        let named = [0, plain, stored, corrections.len() as u8];
        [&[DEFLATE, 4][..], &named, corrections].concat()
    };
    let sound = named(60, 65, &corrections);
    assert_eq!(outcome_of(inside(&sound, of(stream)), &old[6..]), Ok(old[6..].to_vec()));
    let lies = [
        named(59, 65, &corrections),
        named(61, 65, &corrections),
        named(60, 64, &corrections),
        named(60, 66, &corrections),
        named(60, 65, &[6, 15, 0, 2, 4, 59]),
        named(60, 65, &[6, 15, 0, 2, 0, 60]),
        named(60, 65, &[0, 15, 0, 2, 4, 60]),
        named(60, 65, &[6, 31, 0, 2, 4, 60]),
        named(60, 65, &[6, 15, 0, 9, 4, 60]),
        named(60, 65, &[6, 15]),
        [&[2][..], &sound[1..]].concat(),
        vec![DEFLATE, 99, 0],
        vec![DEFLATE],
    ];
    for recipe in lies {
        let refused = outcome_of(inside(&recipe, of(stream)), &old[6..]);
        assert!(matches!(refused, Err(NoDelta::Corrupt | NoDelta::WrongBase)), "{recipe:?}");
    }
    let bases = vec![BaseRange { entry: 0, offset: 0, len: 60, stream: Some(shifted) }];
    let frame = (b"garbage!".to_vec(), 8, Codec::ZstdPrefix { bases });
    let slices = vec![Slice::Frame { frame: 0, offset: 0, len: 8 }];
    let content = Content::Slices { encoder: Encoder::Whole, slices };
    assert_eq!(outcome_of((content, frame), b"expected"), Err(NoDelta::WrongBase));
}

#[test]
fn a_pack_cannot_put_anything_outside_its_tree() {
    let trees = Trees::new();
    std::os::unix::fs::symlink("/tmp", trees.path("new/link")).unwrap();
    trees.pack_from_nothing();
    trees.unpack(None).unwrap();
    assert!(trees.path("out/link").symlink_metadata().unwrap().is_symlink());
    // Something below a link is no tree at all.
    let file = Op::Put {
        entry: Entry {
            path: TreePath::parse(b"link/x").unwrap(),
            mode: 0o644,
            mtime: 0,
            kind: EntryKind::File { size: 0, digest: Digest::of(b""), link_group: None },
        },
        content: Some(Content::Slices { encoder: Encoder::Whole, slices: Vec::new() }),
    };
    let link = Op::Put { entry: trees.manifest("new").entries()[0].clone(), content: None };
    let mut builder = IndexBuilder::new();
    builder.push_op(&link).unwrap();
    builder.push_op(&file).unwrap();
    let to = Digest::of(b"whatever");
    let header = Header { from: None, from_entries: 0, to, to_entries: 2 };
    fs::write(trees.path("pack"), builder.finish(&header).unwrap()).unwrap();
    fs::remove_dir_all(trees.path("out")).unwrap();
    let refused = trees.unpack(None).unwrap_err().to_string();
    assert!(refused.contains("link/x"), "{refused}");
}

/// Number of cases of the mutation tests; raised by hand for long runs.
fn cases() -> u32 {
    std::env::var("MIRRORNET_FUZZ_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(64)
}

/// A small pack with every kind of frame.
fn small_pack(trees: &Trees) -> Vec<u8> {
    for n in 0..6 {
        let content = text(n, 2000);
        trees.write("old", &format!("f{n}"), &content);
        trees.write("new", &format!("f{n}"), &[&content[..], b"more"].concat());
    }
    trees.write("new", "noise", &noise(3, 6000));
    trees.pack(EncoderChoice::Auto);
    fs::read(trees.path("pack")).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    /// Whatever happens to a pack's bytes: files are right or are not made.
    #[test]
    fn damaged_packs_never_panic_and_never_give_wrong_bytes(
        edits in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..5),
    ) {
        thread_local! {
            static SAMPLE: (Trees, Vec<u8>) = {
                let trees = Trees::new();
                let pack = small_pack(&trees);
                (trees, pack)
            };
        }
        SAMPLE.with(|(trees, pack)| {
            let mut pack = pack.clone();
            for (at, byte) in &edits {
                let at = at % pack.len();
                pack[at] = *byte;
            }
            fs::write(trees.path("pack"), &pack).unwrap();
            let Ok((index, mut file)) = PackFile::open(&trees.path("pack")) else { return };
            let bases = DirBases { manifest: trees.manifest("old"), source: trees.source("old") };
            let selection = index.select(|_| true).unwrap();
            // The sink compares every file that is made with its digest.
            let mut gather = Gather::default();
            let rebuilder = Rebuilder::new(&index, &bases);
            rebuilder.rebuild(&selection, &mut file, &mut gather).unwrap();
        });
    }
}

#[test]
fn an_index_is_what_was_announced_or_nothing() {
    let trees = release();
    let summary = trees.pack(EncoderChoice::Auto);
    let pack = fs::read(trees.path("pack")).unwrap();
    let index = pack[..summary.index_length as usize].to_vec();
    assert!(PackIndex::parse(index.clone(), summary.index_digest).is_ok());
    let mut damaged = index.clone();
    damaged[60] ^= 1;
    assert!(PackIndex::parse(damaged, summary.index_digest).is_err());
    assert!(PackIndex::parse(index, summary.digest).is_err());
}
