//! What packs do for those who mean well.

use std::{fs, process::Command, sync::atomic::AtomicBool, time::SystemTime};

use proptest::prelude::*;
use protocol::{
    pack::{Encoder, NoDelta},
    path::TreePath,
};

use super::support::*;
use crate::{
    delta::choose::EncoderChoice,
    fs::Fs,
    pack::{
        Error,
        inspect::{extract_delta, inspect},
        unpack::unpack,
        write::{PackOptions, PackSummary, Phase, write_pack},
    },
    scan::{ScanOptions, ScanRecord, keep_all, scan},
};

const CHOICES: [EncoderChoice; 5] = [
    EncoderChoice::Auto,
    EncoderChoice::Rsync,
    EncoderChoice::Patch,
    EncoderChoice::Group,
    EncoderChoice::Whole,
];

#[test]
fn a_release_survives_with_every_encoder() {
    let trees = release();
    let mut lengths = Vec::new();
    for encoders in CHOICES {
        let options = PackOptions { encoders, ..PackOptions::new() };
        let summary = trees.pack_with(&trees.source("old"), &options).unwrap();
        assert_eq!(summary.length, fs::metadata(trees.path("pack")).unwrap().len());
        trees.assert_round_trip(Some("old"));
        lengths.push((summary.length, encoders));
    }
    let whole = lengths.pop().unwrap().0;
    for (length, choice) in &lengths {
        assert!(*length < whole / 10, "{choice:?}: {length} of {whole}");
    }
}

#[test]
fn each_file_gets_the_encoder_that_fits_it() {
    let trees = release();
    trees.pack(EncoderChoice::Auto);
    let encoders = trees.encoders();
    assert_eq!(encoders["src/mod0.rs"], Encoder::Group);
    assert_eq!(encoders["src/added.rs"], Encoder::Group);
    assert_eq!(encoders["data/elsewhere/kept.bin"], Encoder::Copy);
    assert_eq!(encoders["image-1.3.iso"], Encoder::Patch);
    assert_eq!(encoders["twin-b"], Encoder::Copy);
    assert_eq!(encoders["linked-2"], Encoder::Copy);
    assert!(!encoders.contains_key("README"), "only its mode changed");
    trees.pack(EncoderChoice::Rsync);
    let encoders = trees.encoders();
    assert_eq!(encoders["src/mod9.rs"], Encoder::Rsync);
    assert_eq!(encoders["image-1.3.iso"], Encoder::Rsync);
    assert_eq!(encoders["twin-a"], Encoder::Whole);
    trees.pack(EncoderChoice::Patch);
    assert_eq!(trees.encoders()["src/mod0.rs"], Encoder::Patch);
    trees.pack(EncoderChoice::Whole);
    assert_eq!(trees.encoders()["src/mod0.rs"], Encoder::Whole);
}

#[test]
fn what_is_compressed_already_goes_as_it_is_and_costs_hardly_more_than_reading_it() {
    let trees = Trees::new();
    for (name, seed) in [("a.tar.gz", 1), ("b.iso", 2), ("c.deb", 3)] {
        trees.write("old", name, &noise(seed, 9_000_000));
        trees.write("new", name, &noise(seed + 10, 9_000_000));
    }
    // Of the hardest work that there is, nothing is done.
    let options = PackOptions { level: Some(19), ..PackOptions::new() };
    let summary = trees.pack_with(&trees.source("old"), &options).unwrap();
    let index = trees.index();
    for number in 0..index.frame_count() {
        let (first, frames) = index.frames_around(number).unwrap();
        let codec = &frames[(number - first) as usize].codec;
        assert_eq!(*codec, protocol::pack::Codec::Raw, "frame {number}");
    }
    assert!(trees.encoders().values().all(|encoder| *encoder == Encoder::Whole));
    assert!(summary.length < 27_010_000, "{}", summary.length);
}

#[test]
fn a_pack_from_nothing_makes_the_whole_tree() {
    let trees = release();
    let summary = trees.pack_from_nothing();
    assert_eq!(summary.from, None);
    let unpacked = trees.assert_round_trip(None);
    assert_eq!(unpacked.unchanged_files, 0);
    assert_eq!(trees.encoders()["linked-2"], Encoder::Copy);
}

#[test]
fn equal_input_gives_equal_bytes_on_any_number_of_threads() {
    let trees = release();
    let mut packs = Vec::new();
    for (threads, memory) in [(1, 512 << 20), (4, 1 << 30), (3, 272 << 20)] {
        let options = PackOptions { threads, memory, ..PackOptions::new() };
        let summary = trees.pack_with(&trees.source("old"), &options).unwrap();
        packs.push((summary.digest, fs::read(trees.path("pack")).unwrap()));
    }
    assert!(packs.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(packs[0].0, protocol::digest::Digest::of(&packs[0].1));
}

#[test]
fn signatures_alone_are_enough_for_deltas() {
    let trees = release();
    let summary =
        trees.pack_with(&SignaturesOnly(trees.source("old")), &PackOptions::new()).unwrap();
    trees.assert_round_trip(Some("old"));
    let encoders = trees.encoders();
    assert_eq!(encoders["src/mod9.rs"], Encoder::Rsync);
    assert_eq!(encoders["image-1.3.iso"], Encoder::Rsync);
    assert!(summary.length < 60_000, "{} bytes", summary.length);
}

/// 200 small files, each with a line more, of which only signatures are left.
fn small_edits() -> Trees {
    let trees = Trees::new();
    for n in 0..200 {
        let mut content = text(1000 + n, 4000);
        let path = format!("{}/{n:03}.txt", if n % 2 == 0 { "even" } else { "odd" });
        trees.write("old", &path, &content);
        content.splice(2000..2000, format!("one line that was added to {n}\n").into_bytes());
        trees.write("new", &path, &content);
    }
    trees
}

#[test]
fn small_files_edited_in_place_share_frames_of_deltas() {
    let trees = small_edits();
    let payload = |summary: PackSummary| summary.length - summary.index_length;
    let options = PackOptions::new();
    let whole = payload(trees.pack_with(&crate::pack::NoBase, &options).unwrap());
    let base = SignaturesOnly(trees.source("old"));
    for encoders in [EncoderChoice::Auto, EncoderChoice::Rsync] {
        let options = PackOptions { encoders, ..PackOptions::new() };
        let deltas = payload(trees.pack_with(&base, &options).unwrap());
        trees.assert_round_trip(Some("old"));
        assert!(deltas * 5 < whole, "{encoders:?}: {deltas} bytes instead of {whole}");
        assert!(trees.encoders().values().all(|encoder| *encoder == Encoder::Rsync));
        assert_eq!(trees.index().select(|_| true).unwrap().frames.len(), 1);
        assert_rdiff_makes(&trees, "odd/117.txt", "odd/117.txt");
    }
    let class = |path: &TreePath| u8::from(path.as_bytes().starts_with(b"odd"));
    trees.pack_with(&base, &PackOptions { class: &class, ..options }).unwrap();
    trees.assert_round_trip(Some("old"));
    let index = trees.index();
    let frames = |wanted| index.select(|path| class(path) == wanted).unwrap().frames;
    assert!(frames(0).iter().all(|frame| !frames(1).contains(frame)));
}

#[test]
fn deltas_do_not_need_the_siblings_of_new_files() {
    let trees = small_edits();
    trees.both("odd/still.txt", &text(5, 30_000));
    trees.write("new", "odd/added.txt", &text(5, 20_000));
    trees.pack_with(&OnlySiblings(trees.source("old")), &PackOptions::new()).unwrap();
    trees.assert_round_trip(Some("old"));
    assert_eq!(trees.encoders()["odd/added.txt"], Encoder::Group);
    assert_rdiff_makes(&trees, "odd/117.txt", "odd/117.txt");
}

#[test]
fn files_that_are_alike_go_whole_where_that_is_smaller_together() {
    let trees = Trees::new();
    for n in 0..100 {
        trees.write("old", &format!("{n}"), &[text(n, 2000), noise(n, 2000)].concat());
        trees.write("new", &format!("{n}"), &[text(n, 130), noise(7, 900), text(8, 900)].concat());
    }
    let whole = trees.pack_with(&crate::pack::NoBase, &PackOptions::new()).unwrap().length;
    let base = SignaturesOnly(trees.source("old"));
    let chosen = trees.pack_with(&base, &PackOptions::new()).unwrap().length;
    trees.assert_round_trip(Some("old"));
    assert!(chosen <= whole + whole / 50, "{chosen} bytes instead of {whole}");
}

#[test]
fn without_anything_old_files_go_whole_and_the_summary_says_why() {
    let trees = release();
    let summary = trees.pack_with(&crate::pack::NoBase, &PackOptions::new()).unwrap();
    trees.assert_round_trip(Some("old"));
    // The 13 changed sources, the image and its likeness, the added source.
    assert!(summary.without_delta[&NoDelta::BaseNotHeld] >= 14, "{:?}", summary.without_delta);
    assert_eq!(trees.encoders()["src/mod9.rs"], Encoder::Whole);
}

#[test]
fn old_content_that_was_edited_in_place_is_not_used() {
    let trees = release();
    let from = trees.manifest("old");
    let to = trees.manifest("new");
    for edited in ["old/src/mod9.rs", "old/image-1.2.iso"] {
        let mut content = fs::read(trees.path(edited)).unwrap();
        content[100] ^= 1;
        fs::write(trees.path(edited), content).unwrap();
    }
    let (old, new) = (trees.source("old"), trees.source("new"));
    let out = trees.path("pack");
    write_pack(Some(&from), &old, &to, &new, &out, &PackOptions::new()).unwrap();
    assert_eq!(trees.encoders()["image-1.3.iso"], Encoder::Whole);
    let (made, rebuilt, _) = rebuild(&trees, "old", |path| path == "image-1.3.iso");
    assert_eq!(rebuilt.failed_files(), 0);
    assert!(made.files["image-1.3.iso"].is_ok());
}

fn assert_rdiff_makes(trees: &Trees, path: &str, old: &str) {
    let tree_path = TreePath::parse(path.as_bytes()).unwrap();
    let (delta, base) = extract_delta(&trees.path("pack"), &tree_path).unwrap();
    let base = trees.manifest("old").entries()[base as usize].path.to_string();
    assert_eq!(base, old);
    let dir = tempfile::tempdir().unwrap();
    let (delta_path, result) = (dir.path().join("delta"), dir.path().join("result"));
    fs::write(&delta_path, delta).unwrap();
    let args = [&trees.path("old").join(old), &delta_path, &result];
    assert!(Command::new("rdiff").arg("patch").args(args).status().unwrap().success());
    let expected = fs::read(trees.path("new").join(path)).unwrap();
    assert!(fs::read(result).unwrap() == expected, "{path}");
}

#[test]
fn rdiff_applies_an_extracted_delta() {
    let trees = release();
    trees.pack(EncoderChoice::Rsync);
    assert_rdiff_makes(&trees, "src/mod9.rs", "src/mod9.rs");
    assert_rdiff_makes(&trees, "image-1.3.iso", "image-1.2.iso");
    let added = TreePath::parse(b"src/added.rs").unwrap();
    let refused = extract_delta(&trees.path("pack"), &added).unwrap_err().to_string();
    assert!(refused.contains("src/added.rs") && refused.contains("whole"), "{refused}");
}

#[test]
fn a_large_file_is_patched_in_segments_that_find_their_old_place() {
    let trees = Trees::new();
    let old = noise(5, 20 << 20);
    // Something in front shifts everything; something inside moves to the end.
    let mut new = noise(6, 3 << 20);
    new.extend_from_slice(&old[..12 << 20]);
    new.extend_from_slice(&old[14 << 20..]);
    new.extend_from_slice(&old[12 << 20..14 << 20]);
    trees.write("old", "image", &old);
    trees.write("new", "image", &new);
    let summary = trees.pack(EncoderChoice::Auto);
    trees.assert_round_trip(Some("old"));
    assert!(summary.length < (3 << 20) + 100_000, "{} bytes", summary.length);
    let options =
        PackOptions { encoders: EncoderChoice::Rsync, level: Some(3), ..PackOptions::new() };
    let base = SignaturesOnly(trees.source("old"));
    let summary = trees.pack_with(&base, &options).unwrap();
    trees.assert_round_trip(Some("old"));
    assert!(summary.length < (3 << 20) + 100_000, "{} bytes", summary.length);
}

#[test]
fn where_little_changed_only_that_is_compressed_against_what_was_there() {
    let trees = Trees::new();
    let old = noise(10, 16 << 20);
    let mut new = old.clone();
    // A few bytes differ in one place of ten, and in another some come and some go.
    for at in (1..16).map(|n| (n << 20) + 12_345) {
        new[at..at + 40].fill(7);
    }
    new.splice(6_500_000..6_500_100, noise(11, 3_000));
    trees.write("old", "image", &old);
    trees.write("new", "image", &new);
    let summary = trees.pack(EncoderChoice::Auto);
    trees.assert_round_trip(Some("old"));
    assert!(summary.length < 6_000, "{} bytes", summary.length);
    let index = trees.index();
    let (mut content, mut prefix) = (0, 0);
    for frame in index.frames_around(0).unwrap().1 {
        content += u64::from(frame.raw_len);
        prefix += frame.bases().iter().map(|base| u64::from(base.len)).sum::<u64>();
    }
    // Whole segments against whole ranges would be 16 MiB against more than as much.
    assert!(content < 200_000 && prefix < 3 << 20, "{content} bytes against {prefix}");
}

#[test]
fn what_grew_at_its_end_refers_to_the_old_file_instead_of_repeating_it() {
    let trees = Trees::new();
    let mut log = noise(8, 24 << 20);
    trees.write("old", "log", &log);
    log.extend(text(9, 10_000));
    trees.write("new", "log", &log);
    let summary = trees.pack(EncoderChoice::Auto);
    assert!(summary.length < 20_000, "{} bytes", summary.length);
    trees.assert_round_trip(Some("old"));
}

#[test]
fn a_filtered_selection_takes_few_ranges_and_each_frame_once() {
    let trees = Trees::new();
    for dir in 0..20 {
        for n in 0..20 {
            let seed = dir * 100 + n;
            trees.write("new", &format!("d{dir:02}/f{n:02}"), &noise(seed, 60_000));
        }
    }
    trees.pack_from_nothing();
    let index = trees.index();
    let all = index.select(|_| true).unwrap();
    assert!(all.frames.len() > 4);
    assert_eq!(all.cost.requests, 1);
    let few = index.select(|path| path.as_bytes().starts_with(b"d07")).unwrap();
    assert_eq!(few.cost.requests, 1);
    assert!(few.cost.fetched_bytes <= 3 * (4 << 20), "{:?}", few.cost);
    let (made, _, asked) = rebuild(&trees, "old", |_| true);
    assert_eq!(made.files.len(), 400);
    assert_eq!(asked, all.frames, "each frame once, in the order of the file");
}

#[test]
fn files_of_two_classes_share_neither_frames_nor_bases() {
    let trees = release();
    for n in 0..20 {
        trees.write("new", &format!("debug/mod{n}.rs"), &text(n, 12_000 + 117 * n as usize));
    }
    let class = |path: &TreePath| u8::from(path.as_bytes().starts_with(b"debug/"));
    let options = PackOptions { class: &class, ..PackOptions::new() };
    trees.pack_with(&trees.source("old"), &options).unwrap();
    trees.assert_round_trip(Some("old"));
    let index = trees.index();
    let debug = index.select(|path| class(path) == 1).unwrap();
    let rest = index.select(|path| class(path) == 0).unwrap();
    // Equal content is shared by reference, whatever its class; nothing else is.
    assert!(debug.frames.iter().all(|frame| !rest.frames.contains(frame)));
    assert!(!rest.frames.is_empty());
    let old = trees.manifest("old");
    let foreign = debug.bases.iter().map(|number| &old.entries()[*number as usize].path);
    assert_eq!(foreign.filter(|path| class(path) == 0).count(), 0);
}

#[test]
fn a_file_that_changes_after_the_scan_stops_the_pack_and_is_named() {
    for (changed, len) in [("src/mod9.rs", 100), ("image-1.3.iso", 3 << 20), ("linked-1", 0)] {
        let trees = release();
        let (from, to) = (trees.manifest("old"), trees.manifest("new"));
        fs::write(trees.path("new").join(changed), noise(77, len)).unwrap();
        for base in [true, false] {
            let (old, new) = (trees.source("old"), trees.source("new"));
            let old: &dyn crate::pack::BaseSource = if base { &old } else { &crate::pack::NoBase };
            let out = trees.path("pack");
            let failed = write_pack(Some(&from), old, &to, &new, &out, &PackOptions::new());
            match failed {
                Err(Error::Changed { path }) => assert_eq!(path.to_string(), changed),
                other => panic!("{changed}: {other:?}"),
            }
        }
        let left: Vec<_> = fs::read_dir(trees.dir.path()).unwrap().collect();
        assert_eq!(left.len(), 2, "only the trees are left");
    }
}

#[test]
fn progress_reaches_its_end_and_cancellation_leaves_nothing() {
    let trees = release();
    let seen = std::sync::Mutex::new(Vec::new());
    let progress = |at: crate::pack::write::Progress| seen.lock().unwrap().push(at);
    let options = PackOptions { progress: &progress, ..PackOptions::new() };
    trees.pack_with(&trees.source("old"), &options).unwrap();
    for phase in [Phase::Encode, Phase::Write] {
        let seen = seen.lock().unwrap();
        let last = seen.iter().rev().find(|at| at.phase == phase).unwrap();
        assert_eq!(last.done_bytes, last.total_bytes, "{phase:?}");
    }
    fs::remove_file(trees.path("pack")).unwrap();
    let cancel = AtomicBool::new(true);
    let options = PackOptions { cancel: &cancel, ..PackOptions::new() };
    let canceled = trees.pack_with(&trees.source("old"), &options);
    assert!(matches!(canceled, Err(Error::Canceled)));
    assert_eq!(fs::read_dir(trees.dir.path()).unwrap().count(), 2);
}

#[test]
fn a_filter_unpacks_its_part_and_no_more() {
    let trees = release();
    trees.pack(EncoderChoice::Auto);
    let keep = |path: &TreePath, _: bool| {
        !path.as_bytes().starts_with(b"src") && path.as_bytes() != b"linked-1"
    };
    let (fs_disk, pack, base) = (Fs::disk(), trees.path("pack"), trees.path("old"));
    let out = trees.path("out");
    fs::create_dir(&out).unwrap();
    unpack(&fs_disk, &pack, Some(&base), &out, &keep, NOW).unwrap();
    let made: Vec<String> =
        manifest(&out).entries().iter().map(|entry| entry.path.to_string()).collect();
    let expected: Vec<String> = trees
        .manifest("new")
        .entries()
        .iter()
        .filter(|entry| keep(&entry.path, true))
        .map(|entry| entry.path.to_string())
        .collect();
    assert_eq!(made, expected);
    let again = unpack(&fs_disk, &pack, Some(&base), &out, &keep_all, NOW);
    assert!(matches!(again, Err(Error::OutNotEmpty(_))));
}

#[test]
fn a_pack_of_a_filtered_part_unpacks_from_a_base_that_has_more() {
    let trees = release();
    let keep = |path: &TreePath, _: bool| !path.as_bytes().starts_with(b"data");
    let part = |side: &str| {
        let root = Fs::disk().open_root(&trees.path(side)).unwrap();
        let options = ScanOptions { keep: &keep, ..ScanOptions::new(NOW) };
        scan(&root, &ScanRecord::empty(), &options).unwrap().manifest
    };
    let (from, to, out) = (part("old"), part("new"), trees.path("pack"));
    let (old, new) = (trees.source("old"), trees.source("new"));
    write_pack(Some(&from), &old, &to, &new, &out, &PackOptions::new()).unwrap();
    let (base, result) = (trees.path("old"), trees.path("out"));
    unpack(&Fs::disk(), &out, Some(&base), &result, &keep, NOW).unwrap();
    assert_eq!(manifest(&result), to);
    fs::remove_dir_all(&result).unwrap();
    let without_filter = unpack(&Fs::disk(), &out, Some(&base), &result, &keep_all, NOW);
    assert!(without_filter.unwrap_err().to_string().contains("leads on from"));
}

#[test]
fn long_runs_of_zeros_become_holes() {
    use std::os::unix::fs::MetadataExt;
    let trees = Trees::new();
    let mut image = noise(4, 100_000);
    image.resize(6 << 20, 0);
    image.extend(noise(5, 1000));
    image.resize(9 << 20, 0);
    trees.write("new", "image", &image);
    trees.pack_from_nothing();
    trees.unpack(None).unwrap();
    assert!(fs::read(trees.path("out/image")).unwrap() == image);
    let blocks = fs::metadata(trees.path("out/image")).unwrap().blocks();
    assert!(blocks * 512 < 1 << 20, "{blocks} blocks");
}

#[test]
fn inspection_sums_up_what_was_written() {
    let trees = release();
    let summary = trees.pack(EncoderChoice::Auto);
    let inspection = inspect(&trees.path("pack")).unwrap();
    assert_eq!(inspection.length, summary.length);
    assert_eq!(inspection.content_bytes, summary.content_bytes);
    assert_eq!(inspection.attributes + inspection.deleted + inspection.put, summary.operations);
    for share in &inspection.encoders {
        let written = summary.encoders.iter().find(|s| s.encoder == share.encoder).unwrap();
        assert_eq!((share.files, share.content_bytes), (written.files, written.content_bytes));
    }
}

#[test]
fn times_are_kept_to_the_nanosecond() {
    let trees = release();
    let when = SystemTime::UNIX_EPOCH + std::time::Duration::new(1_234_567_890, 123_456_789);
    fs::File::open(trees.path("new/README")).unwrap().set_modified(when).unwrap();
    fs::File::open(trees.path("new/src")).unwrap().set_modified(when).unwrap();
    trees.pack(EncoderChoice::Auto);
    trees.assert_round_trip(Some("old"));
}

/// What may become of a path from one version to the next.
#[derive(Debug, Clone)]
enum Fate {
    Same,
    Gone,
    New,
    Edited(u16),
    Dir,
    Swapped,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        Just(Fate::Same),
        Just(Fate::Gone),
        Just(Fate::New),
        any::<u16>().prop_map(Fate::Edited),
        Just(Fate::Dir),
        Just(Fate::Swapped),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn random_trees_survive(
        fates in proptest::collection::vec((fate(), 0usize..20_000, any::<bool>()), 1..25),
        choice in 0usize..5,
        signatures in any::<bool>(),
    ) {
        let trees = Trees::new();
        for (n, (fate, len, nested)) in fates.iter().enumerate() {
            let name = if *nested { format!("d{}/f{n}", n % 3) } else { format!("f{n}") };
            let content = if n % 2 == 0 { text(n as u64, *len) } else { noise(n as u64, *len) };
            match fate {
                Fate::Same => trees.both(&name, &content),
                Fate::Gone => trees.write("old", &name, &content),
                Fate::New => trees.write("new", &name, &content),
                Fate::Edited(at) => {
                    trees.write("old", &name, &content);
                    let mut edited = content.clone();
                    let at = usize::from(*at) % (edited.len() + 1);
                    edited.splice(at..at, noise(u64::from(*len as u32), 50));
                    trees.write("new", &name, &edited);
                }
                Fate::Dir => {
                    trees.write("old", &name, &content);
                    trees.write("new", &format!("{name}/inside"), &content);
                }
                Fate::Swapped => {
                    trees.write("old", &format!("{name}/inside"), &content);
                    trees.write("new", &name, b"short");
                }
            }
        }
        let options =
            PackOptions { encoders: CHOICES[choice], level: Some(3), ..PackOptions::new() };
        if signatures {
            trees.pack_with(&SignaturesOnly(trees.source("old")), &options).unwrap();
        } else {
            trees.pack_with(&trees.source("old"), &options).unwrap();
        }
        trees.assert_round_trip(Some("old"));
    }
}
