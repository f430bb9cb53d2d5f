//! The rules by which a file gets its encoder, each at both of its sides.

use std::{
    collections::HashSet,
    io,
    sync::{Condvar, Mutex},
    thread::ThreadId,
    time::Duration,
};

use protocol::{
    manifest::Entry,
    pack::{Codec, Encoder, NoDelta},
    path::TreePath,
};

use super::support::*;
use crate::{
    delta::{ReadAt, choose::EncoderChoice},
    pack::{
        ContentSource, DirSource, NoBase,
        write::{PackOptions, PackSummary, write_pack},
    },
};

const MIB: usize = 1 << 20;

/// One file `file`, old and new; what became of it.
fn of_one_file(old: &[u8], new: &[u8], encoders: EncoderChoice) -> (Encoder, PackSummary) {
    let trees = Trees::new();
    trees.write("old", "file", old);
    trees.write("new", "file", new);
    let summary = trees.pack(encoders);
    trees.assert_round_trip(Some("old"));
    (trees.encoders()["file"], summary)
}

/// What begins as `old` does for this share of it, and goes on otherwise.
fn kept(old: &[u8], share: f64, other: &[u8]) -> Vec<u8> {
    let at = (old.len() as f64 * share) as usize;
    [&old[..at], &other[at..]].concat()
}

fn codecs(trees: &Trees) -> Vec<Codec> {
    let frames = trees.index().frames_around(0).unwrap().1;
    frames.iter().map(|frame| frame.codec.clone()).collect()
}

#[test]
fn new_files_without_a_likeness_go_whole_and_raw_where_they_do_not_shrink() {
    for (content, codec) in [(noise(3, 3_000), Codec::Raw), (text(3, 3_000), Codec::Zstd)] {
        let trees = Trees::new();
        trees.both("other", &text(1, 20_000));
        trees.write("new", "brand-new", &content);
        trees.pack(EncoderChoice::Auto);
        trees.assert_round_trip(Some("old"));
        assert_eq!(trees.encoders()["brand-new"], Encoder::Whole);
        assert_eq!(codecs(&trees), [codec]);
    }
}

#[test]
fn compressed_content_is_a_delta_only_where_a_tenth_of_it_is_in_the_old_file() {
    let (old, other) = (noise(1, 9 * MIB), noise(2, 9 * MIB));
    let (encoder, summary) = of_one_file(&old, &kept(&old, 0.07, &other), EncoderChoice::Auto);
    assert_eq!(encoder, Encoder::Whole);
    assert_eq!(summary.without_delta[&NoDelta::LargerThanWhole], 1, "{summary:?}");
    let (encoder, summary) = of_one_file(&old, &kept(&old, 0.15, &other), EncoderChoice::Auto);
    assert_eq!(encoder, Encoder::Patch);
    assert!(summary.length < 8 * MIB as u64, "{summary:?}");
    assert!(summary.without_delta.is_empty(), "{summary:?}");
}

#[test]
fn old_content_is_depended_on_only_where_that_saves_a_tenth() {
    // Small files against their old versions.
    let (old, other) = (text(1, 60_000), text(2, 60_000));
    let small = |share, choice| of_one_file(&old, &kept(&old, share, &other), choice);
    assert_eq!(small(0.03, EncoderChoice::Auto).0, Encoder::Whole);
    assert_eq!(small(0.3, EncoderChoice::Auto).0, Encoder::Group);
    // The same as librsync deltas, which say why not.
    let (encoder, summary) = small(0.03, EncoderChoice::Rsync);
    assert_eq!(encoder, Encoder::Whole);
    assert_eq!(summary.without_delta[&NoDelta::LargerThanWhole], 1, "{summary:?}");
    assert_eq!(small(0.3, EncoderChoice::Rsync).0, Encoder::Rsync);
    // Large ones, by what of them is literal.
    let (old, other) = (noise(3, 6 * MIB), noise(4, 6 * MIB));
    let large = |share| of_one_file(&old, &kept(&old, share, &other), EncoderChoice::Rsync);
    let (encoder, summary) = large(0.05);
    assert_eq!(encoder, Encoder::Whole);
    assert_eq!(summary.without_delta[&NoDelta::LargerThanWhole], 1, "{summary:?}");
    assert_eq!(large(0.3).0, Encoder::Rsync);
}

#[test]
fn librsync_deltas_are_made_only_where_nothing_better_can_be() {
    let (old, other) = (text(1, 60_000), text(2, 60_000));
    let new = kept(&old, 0.8, &other);
    let trees = Trees::new();
    trees.write("old", "file", &old);
    trees.write("new", "file", &new);
    let options = PackOptions::new();
    let known = trees.pack_with(&trees.source("old"), &options).unwrap().length;
    assert_eq!(trees.encoders()["file"], Encoder::Group);
    let signatures = SignaturesOnly(trees.source("old"));
    let unknown = trees.pack_with(&signatures, &options).unwrap().length;
    assert_eq!(trees.encoders()["file"], Encoder::Rsync);
    assert!(known < unknown, "{known} bytes with the old file, {unknown} with its signature");
}

#[test]
fn no_pack_is_larger_for_knowing_what_was_there() {
    let grown = |seed: u64, share| kept(&noise(seed, MIB), share, &noise(seed + 1, MIB));
    let trees = release();
    for (n, share) in [0.0, 0.02, 0.09, 0.11, 0.5].into_iter().enumerate() {
        let seed = 100 * n as u64;
        trees.write("old", &format!("noise-{n}"), &noise(seed, MIB));
        trees.write("new", &format!("noise-{n}"), &grown(seed, share));
        let (old, other) = (text(seed + 5, 20_000), text(seed + 6, 20_000));
        trees.write("old", &format!("text-{n}"), &old);
        trees.write("new", &format!("text-{n}"), &kept(&old, share, &other));
    }
    let payload = |summary: PackSummary| summary.length - summary.index_length;
    let whole = payload(trees.pack(EncoderChoice::Whole));
    for choice in
        [EncoderChoice::Auto, EncoderChoice::Rsync, EncoderChoice::Patch, EncoderChoice::Group]
    {
        let chosen = payload(trees.pack(choice));
        assert!(chosen <= whole, "{choice:?}: {chosen} bytes, {whole} without anything old");
    }
}

/// Content that is given only once so many threads ask for some, or a while has passed.
struct Meeting {
    source: DirSource,
    wanted: usize,
    there: Mutex<HashSet<ThreadId>>,
    came: Condvar,
}

impl ContentSource for Meeting {
    fn open(&self, entry: &Entry) -> io::Result<Box<dyn ReadAt>> {
        let mut there = self.there.lock().unwrap();
        there.insert(std::thread::current().id());
        self.came.notify_all();
        let alone = |there: &mut HashSet<ThreadId>| there.len() < self.wanted;
        drop(self.came.wait_timeout_while(there, Duration::from_secs(20), alone).unwrap());
        self.source.open(entry)
    }
}

#[test]
fn as_many_threads_encode_at_the_same_time_as_there_are_cores_and_memory_for() {
    let trees = Trees::new();
    for n in 0..8 {
        trees.write("new", &format!("{n}"), &text(n, 10_000));
    }
    let to = trees.manifest("new");
    // Each file is a piece of work of its own.
    let class = |path: &TreePath| path.as_bytes()[0] - b'0';
    for (threads, memory, expected) in [(4, 4 << 30, 4), (4, 512 << 20, 2), (1, 4 << 30, 1)] {
        let meeting = Meeting {
            source: trees.source("new"),
            wanted: expected,
            there: Mutex::default(),
            came: Condvar::new(),
        };
        let options = PackOptions { threads, memory, class: &class, ..PackOptions::new() };
        write_pack(None, &NoBase, &to, &meeting, &trees.path("pack"), &options).unwrap();
        let there = meeting.there.into_inner().unwrap().len();
        assert_eq!(there, expected, "{threads} threads within {memory} bytes");
    }
}

#[test]
fn where_numbers_changed_all_over_a_file_their_differences_travel() {
    for (len, encoder) in [(60_000, Encoder::Group), (9 * MIB, Encoder::Patch)] {
        let old = numbers(5, len);
        let (made, summary) = of_one_file(&old, &grown(&old), EncoderChoice::Auto);
        assert_eq!(made, encoder);
        // Every record has another number: as bytes that end matches they would take a tenth.
        assert!(summary.length < 900 + len as u64 / 1_000, "{} of {len} bytes", summary.length);
    }
    let trees = Trees::new();
    let old = numbers(5, 60_000);
    let texts = [text(6, 60_000), [text(6, 30_000), text(7, 9), text(6, 60_000)].concat()];
    for (name, old, new) in [("d/numbers", &old, &grown(&old)), ("t/text", &texts[0], &texts[1])] {
        trees.write("old", name, old);
        trees.write("new", name, new);
    }
    let class = |path: &TreePath| path.as_bytes()[0];
    trees
        .pack_with(&trees.source("old"), &PackOptions { class: &class, ..PackOptions::new() })
        .unwrap();
    trees.assert_round_trip(Some("old"));
    let codecs = codecs(&trees);
    let [Codec::Differences { .. }, Codec::ZstdPrefix { .. }] = &codecs[..] else {
        panic!("{codecs:?}");
    };
}
