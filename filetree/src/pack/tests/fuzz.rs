//! Packs of which every part is well named and nothing else is right: whatever is made of them has
//! the digest that it must have, or is not made.

use std::io;

use protocol::{
    digest::Digest,
    manifest::{Entry, EntryKind, Manifest},
    pack::{
        BaseRange, Codec, Content, Encoder, Frame, Header, IndexBuilder, NoDelta, Op, Slice, Stream,
    },
    path::TreePath,
};

use crate::{
    delta::{ReadAt, differences::Differences, frame, inside},
    mutate::{Random, try_many},
    pack::read::{Bases, FileSink, FrameSource, PackIndex, Rebuilder},
};

const OLD_LEN: usize = 400;
/// A stream in old files.
const STREAM: Stream = Stream { at: 0, stored_len: 65, plain_len: 60 };
const NEW: &[u8] = b"what the file should be: some bytes that are new, and what was there before";

struct Old(Vec<u8>);

impl Bases for Old {
    fn open(&self, number: u64) -> io::Result<Option<Box<dyn ReadAt>>> {
        Ok((number < 2).then(|| Box::new(self.0.clone()) as Box<dyn ReadAt>))
    }
}

struct InMemory(Vec<Vec<u8>>);

impl FrameSource for InMemory {
    fn frame(&mut self, number: u32, _frame: &Frame) -> io::Result<Vec<u8>> {
        self.0.get(number as usize).cloned().ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

#[derive(Default)]
struct Checked {
    bytes: Vec<u8>,
    made: usize,
}

impl FileSink for Checked {
    fn begin(&mut self, _entry: &Entry) -> io::Result<()> {
        self.bytes.clear();
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn end(&mut self, entry: &Entry, made: Result<Encoder, NoDelta>) -> io::Result<()> {
        if made.is_ok() {
            assert_eq!(Some(Digest::of(&self.bytes)), entry.digest());
            self.made += 1;
        }
        assert!(self.bytes.len() as u64 <= entry.size());
        Ok(())
    }
}

/// A frame: sound, damaged before it was packed, or after.
fn some_frame(random: &mut Random, old: &[u8]) -> (Vec<u8>, u32, Codec) {
    let mut raw = NEW.to_vec();
    if random.below(3) == 0 {
        random.damage(&mut raw);
    }
    if raw.is_empty() {
        raw.push(0);
    }
    let len = 1 + random.below(OLD_LEN);
    let offset = random.below(OLD_LEN + 20) as u64;
    let entry = random.below(3) as u64;
    let bases = vec![BaseRange { entry, offset, len: len as u32, stream: None }];
    let codec = match random.below(4) {
        0 => Codec::Raw,
        1 => Codec::Zstd,
        2 => Codec::ZstdPrefix { bases },
        _ => Codec::Differences { bases },
    };
    let prefix = match codec.bases() {
        [] => &[],
        _ => {
            let at = (offset as usize).min(old.len());
            &old[at..(at + len).min(old.len())]
        }
    };
    let raw_len = raw.len() as u32;
    let mut stored = match &codec {
        Codec::Raw => raw,
        Codec::Differences { .. } => {
            let differences = Differences::find(prefix, &raw);
            differences.map_or_else(|| b"no recipe".to_vec(), |found| found.pack(1).unwrap())
        }
        Codec::Zstd | Codec::ZstdPrefix { .. } => {
            frame::compress(&[prefix, &raw].concat(), prefix.len(), 1).unwrap()
        }
    };
    if random.below(4) == 0 && codec != Codec::Raw {
        random.damage(&mut stored);
        stored.push(0);
    }
    (stored, raw_len, codec)
}

fn some_content(random: &mut Random, raw_lens: &[u32]) -> Content {
    let mut slices = Vec::new();
    let mut frame = 0;
    for _ in 0..random.below(4) {
        frame += random.below(2);
        let Some(raw_len) = raw_lens.get(frame) else { break };
        let offset = random.below(*raw_len as usize) as u32;
        let len = 1 + random.below((raw_len - offset) as usize) as u32;
        slices.push(Slice::Frame { frame: frame as u32, offset, len });
    }
    let whole = |slices| Content::Slices { encoder: Encoder::Whole, slices };
    match random.below(8) {
        0 => Content::Copy { from_entry: random.below(2) as u64 },
        1 => Content::RsyncDelta { base_entry: random.below(2) as u64, slices },
        2 => {
            let (offset, len) = (random.below(500) as u64, 1 + random.below(500) as u64);
            slices.push(Slice::Base { entry: random.below(2) as u64, offset, len });
            Content::Slices { encoder: Encoder::Patch, slices }
        }
        3 => Content::Absent,
        6 | 7 => {
            let offset = random.below(40) as u64;
            let len = 1 + random.below(60 - offset as usize) as u64;
            slices.push(Slice::Inside {
                entry: random.below(2) as u64,
                stream: STREAM,
                offset,
                len,
            });
            let total: u64 = slices.iter().map(Slice::len).sum();
            Content::Inside { recipe_len: random.below(total as usize + 1) as u64, slices }
        }
        4 => whole(vec![Slice::Frame { frame: 0, offset: 0, len: raw_lens[0] }]),
        _ => whole(slices),
    }
}

#[test]
fn no_pack_gives_anything_but_what_it_should_or_panics() {
    let mut old: Vec<u8> = (0..OLD_LEN as u32).map(|n| (n.wrapping_mul(31) >> 3) as u8).collect();
    // The stream: one block of bytes as they are.
    old[..5].copy_from_slice(&[1, 60, 0, !60, 255]);
    let path = TreePath::parse(b"f").unwrap();
    let kind =
        EntryKind::File { size: NEW.len() as u64, digest: Digest::of(NEW), link_group: None };
    let entry = Entry { path, mode: 0o644, mtime: 0, kind };
    let to = Manifest::new(vec![entry.clone()]).unwrap();
    let header =
        Header { from: Some(Digest::of(b"old")), from_entries: 3, to: to.digest(), to_entries: 1 };
    let made = std::sync::atomic::AtomicUsize::new(0);
    try_many("pack", 3_000, |random| {
        let frames: Vec<_> = (0..=random.below(3)).map(|_| some_frame(random, &old)).collect();
        let raw_lens: Vec<u32> = frames.iter().map(|(_, raw_len, _)| *raw_len).collect();
        let mut builder = IndexBuilder::new();
        let mut stored_frames = Vec::new();
        for (stored, raw_len, codec) in frames {
            let (stored_len, digest) = (stored.len() as u32, Digest::of(&stored));
            builder.push_frame(&Frame { offset: 0, stored_len, digest, raw_len, codec }).unwrap();
            stored_frames.push(stored);
        }
        let content = some_content(random, &raw_lens);
        builder.push_op(&Op::Put { entry: entry.clone(), content: Some(content) }).unwrap();
        let Ok(index) = PackIndex::parse_unsigned(builder.finish(&header).unwrap()) else { return };
        let selection = index.select(|_| true).unwrap();
        let bases = Old(old.clone());
        let mut sink = Checked::default();
        let rebuilder = Rebuilder::new(&index, &bases);
        rebuilder.rebuild(&selection, &mut InMemory(stored_frames), &mut sink).unwrap();
        made.fetch_add(sink.made, std::sync::atomic::Ordering::Relaxed);
    });
    assert!(made.into_inner() > 0, "nothing was sound enough to be made");
}

/// A file that is made of a recipe and a view.
struct Sound {
    entry: Entry,
    header: Header,
    view: Vec<u8>,
    recipe_len: u64,
}

impl Sound {
    fn of(file: Vec<u8>) -> Self {
        let path = TreePath::parse(b"f").unwrap();
        let (size, digest) = (file.len() as u64, Digest::of(&file));
        let kind = EntryKind::File { size, digest, link_group: None };
        let entry = Entry { path, mode: 0o644, mtime: 0, kind };
        let to = Manifest::new(vec![entry.clone()]).unwrap();
        let header = Header { from: None, from_entries: 0, to: to.digest(), to_entries: 1 };
        let new = inside::File { content: Box::new(file), len: size };
        let views = inside::look(new, None, &|| Ok(inside::Store::Memory(1 << 20))).unwrap();
        let view = views.new.range(0, views.new.len() as usize).unwrap();
        Self { entry, header, view, recipe_len: views.recipe_len }
    }
}

/// What gzip makes of a file.
fn gzipped(plain: &[u8]) -> Vec<u8> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, plain).unwrap();
    let made = std::process::Command::new("gzip").arg("-nc").arg(file.path()).output().unwrap();
    assert!(made.status.success());
    made.stdout
}

#[test]
fn no_recipe_gives_anything_but_the_file_or_panics() {
    let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/pack-3-new.gz");
    // Two members with little in each, so that as much is tried as can be; now and then a real file.
    let words: Vec<u8> = (0..120u32).flat_map(|n| format!("{:x} ", n * n).into_bytes()).collect();
    let small =
        Sound::of([gzipped(&words), gzipped(b"a few words, and again a few words")].concat());
    let large = Sound::of(std::fs::read(fixture).unwrap());
    let made = std::sync::atomic::AtomicUsize::new(0);
    try_many("recipe", 3_000, |random| {
        let sound = if random.below(1_000) == 0 { &large } else { &small };
        let mut view = sound.view.clone();
        let mut recipe_len = sound.recipe_len;
        if random.below(16) > 0 {
            // Mostly the recipe itself, which is a small part of both.
            let mut recipe: Vec<u8> = view.drain(..recipe_len as usize).collect();
            let is_view = random.below(4) == 0;
            random.damage(if is_view { &mut view } else { &mut recipe });
            recipe_len = recipe.len() as u64;
            view.splice(..0, recipe);
        }
        if random.below(16) == 0 {
            recipe_len = random.below(view.len() + 1) as u64;
        }
        let (len, digest) = (view.len() as u32, Digest::of(&view));
        let frame = Frame { offset: 0, stored_len: len, digest, raw_len: len, codec: Codec::Raw };
        let mut builder = IndexBuilder::new();
        builder.push_frame(&frame).unwrap();
        let slices = vec![Slice::Frame { frame: 0, offset: 0, len }];
        let content = Some(Content::Inside { recipe_len, slices });
        builder.push_op(&Op::Put { entry: sound.entry.clone(), content }).unwrap();
        let index = PackIndex::parse_unsigned(builder.finish(&sound.header).unwrap()).unwrap();
        let selection = index.select(|_| true).unwrap();
        let (bases, mut sink) = (Old(Vec::new()), Checked::default());
        let rebuilder = Rebuilder::new(&index, &bases);
        rebuilder.rebuild(&selection, &mut InMemory(vec![view]), &mut sink).unwrap();
        made.fetch_add(sink.made, std::sync::atomic::Ordering::Relaxed);
    });
    assert!(made.into_inner() > 0, "nothing was sound enough to be made");
}
