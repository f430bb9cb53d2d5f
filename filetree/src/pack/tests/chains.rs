//! Chains of packs beside a model: random trees, random filters, three packs in a row.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fs,
    sync::{Arc, Mutex},
};

use proptest::prelude::*;
use protocol::{
    digest::Digest,
    manifest::{
        self, Block, BlockRef, BlockSource, Entries, Entry, Manifest, PartManifest, SharedEntries,
    },
    pack::{
        Content, NoDelta, Op, Outline, PartOf, Slice,
        chain::{Draw, Link, Wanted, draw},
        target_part,
    },
    path::TreePath,
};

use super::support::*;
use crate::{
    delta::{ReadAt, choose::EncoderChoice},
    pack::{
        BaseSource, DirSource,
        read::{Bases, FileSink, PackFile, PackIndex, Rebuilder},
        write::{PackOptions, write_pack},
    },
};

const GENERATIONS: usize = 4;

/// Four generations of a tree and the three packs between them.
struct Chain {
    trees: Trees,
    manifests: Vec<Manifest>,
    packs: Vec<(PackIndex, PackFile)>,
}

/// What a pack's writer is told, and what it is not told.
#[derive(Debug, Clone, Copy)]
struct Making {
    encoders: EncoderChoice,
    /// Directories are told apart as filters would.
    classes: bool,
    /// How small the blocks of the index are.
    block_bytes: usize,
}

impl Chain {
    /// `contents[g]` gives the files of generation `g`.
    fn new(contents: &[BTreeMap<String, Vec<u8>>], making: &[Making]) -> Self {
        let trees = Trees::new();
        let mut manifests = Vec::new();
        for (generation, files) in contents.iter().enumerate() {
            let side = format!("g{generation}");
            fs::create_dir(trees.path(&side)).unwrap();
            files.iter().for_each(|(path, content)| trees.write(&side, path, content));
            manifests.push(trees.manifest(&side));
        }
        let mut packs = Vec::new();
        for (number, making) in making.iter().enumerate() {
            let (old, new) =
                (trees.source(&format!("g{number}")), trees.source(&format!("g{}", number + 1)));
            let out = trees.path(&format!("p{number}"));
            let class = |path: &TreePath| if making.classes { path.as_bytes()[1] } else { 0 };
            let options = PackOptions {
                encoders: making.encoders,
                level: Some(3),
                class: &class,
                block_bytes: making.block_bytes,
                ..PackOptions::new()
            };
            let (from, to) = (&manifests[number], &manifests[number + 1]);
            write_pack(Some(from), &old, to, &new, &out, &options).unwrap();
            packs.push(PackFile::open(&out).unwrap());
        }
        Self { trees, manifests, packs }
    }

    fn links(&self) -> Vec<Link<'_>> {
        let packs = self.packs.iter().zip(&self.manifests);
        packs.map(|((index, _), from)| Link { index, from }).collect()
    }

    /// The indexes as a site has them that keeps a part: only the blocks that concern it, and beside
    /// each the part of the manifest that it leads from.
    fn parts(&self, keeps: &(dyn Fn(&TreePath) -> bool + Sync)) -> Vec<(PackIndex, SharedEntries)> {
        let keeps = |path: &TreePath, is_dir: bool| match is_dir {
            true => keeps(&path.child(b"x").unwrap()),
            false => keeps(path),
        };
        let mut from: SharedEntries = Arc::new(self.manifests[0].clone());
        let mut parts = Vec::new();
        for ((index, _), old) in self.packs.iter().zip(&self.manifests) {
            let (bytes, front) = (index.as_bytes(), PackIndex::front(index.as_bytes()).unwrap());
            let outline = Outline::parse(front, Digest::of(front), bytes.len() as u64);
            // Blocks are so small here that what is joined would be all.
            let mut outline = outline.unwrap().joining(0);
            let mut ranges = outline.concerning(&from, &keeps).unwrap();
            while !ranges.is_empty() {
                for range in ranges {
                    let part = &bytes[range.start as usize..range.end as usize];
                    outline.admit(range.start, part).unwrap();
                }
                ranges = outline.referred_to(&keeps).unwrap();
            }
            let index = outline.finish().unwrap();
            let held =
                PartOf { digest: old.digest(), from: &from, keeps: &keeps, filter: old.digest() };
            let blocks = Arc::new(Blocks::default());
            let named = target_part(&index, held, |block| blocks.put(block)).unwrap();
            let to: SharedEntries = Arc::new(PartManifest::new(named, blocks));
            parts.push((index, std::mem::replace(&mut from, to)));
        }
        parts
    }

    fn target(&self) -> &Manifest {
        &self.manifests[GENERATIONS - 1]
    }

    /// Whether the first generation has it, as far as `keeps` keeps that.
    fn held(
        &self,
        keeps: &(dyn Fn(&TreePath) -> bool + Sync),
        path: &TreePath,
        digest: &Digest,
    ) -> bool {
        keeps(path) && self.manifests[0].get(path).and_then(Entry::digest) == Some(*digest)
    }

    /// Contents that a site needs, each once.
    fn needs(&self, keeps: &(dyn Fn(&TreePath) -> bool + Sync)) -> Vec<(TreePath, Digest)> {
        let mut seen = HashSet::new();
        let mut needs = Vec::new();
        for entry in self.target().entries() {
            let Some(digest) = entry.digest() else { continue };
            if keeps(&entry.path) && !self.held(keeps, &entry.path, &digest) && seen.insert(digest)
            {
                needs.push((entry.path.clone(), digest));
            }
        }
        needs
    }

    /// Carries a draw out as an agent does, and gives what was made.
    fn carry_out(
        &self,
        links: &[Link<'_>],
        draw: &Draw,
        keeps: &(dyn Fn(&TreePath) -> bool + Sync),
    ) -> HashMap<Digest, Vec<u8>> {
        let made = Mutex::new(HashMap::new());
        for (number, step) in draw.steps.iter().enumerate() {
            let Link { index, from } = links[number];
            let (_, file) = PackFile::open(&self.trees.path(&format!("p{number}"))).unwrap();
            let bases =
                Held { chain: self, first: self.trees.source("g0"), from, keeps, made: &made };
            let mut frames = Counted { inner: file, asked: Vec::new() };
            let mut sink = Into { made: &made, bytes: Vec::new() };
            let rebuilt = Rebuilder::new(index, &bases)
                .rebuild(&step.selection, &mut frames, &mut sink)
                .unwrap();
            assert_eq!(rebuilt.failed_files(), 0, "{:?}", rebuilt.first_failed);
            let asked: BTreeSet<u32> = frames.asked.iter().copied().collect();
            assert_eq!(asked.into_iter().collect::<Vec<_>>(), step.selection.frames);
        }
        made.into_inner().unwrap()
    }
}

#[derive(Debug, Default)]
struct Blocks(Mutex<HashMap<Digest, Vec<u8>>>);

impl Blocks {
    fn put(&self, block: Block) -> Result<(), protocol::pack::Error> {
        self.0.lock().unwrap().insert(block.digest(), block.into_bytes());
        Ok(())
    }
}

impl BlockSource for Blocks {
    fn read(&self, block: &BlockRef) -> Result<Vec<u8>, manifest::Error> {
        Ok(self.0.lock().unwrap()[&block.digest].clone())
    }
}

/// What an agent has: what it held, and what it made so far.
struct Held<'a> {
    chain: &'a Chain,
    first: DirSource,
    from: &'a dyn Entries,
    keeps: &'a (dyn Fn(&TreePath) -> bool + Sync),
    made: &'a Mutex<HashMap<Digest, Vec<u8>>>,
}

impl Bases for Held<'_> {
    fn open(&self, number: u64) -> std::io::Result<Option<Box<dyn ReadAt>>> {
        let entry = self.from.numbered(number).unwrap().unwrap();
        let digest = entry.digest().unwrap();
        if self.chain.held(self.keeps, &entry.path, &digest) {
            return Ok(BaseSource::content(&self.first, &entry));
        }
        let made = self.made.lock().unwrap().get(&digest).cloned();
        Ok(made.map(|bytes| Box::new(bytes) as Box<dyn ReadAt>))
    }
}

struct Into<'a> {
    made: &'a Mutex<HashMap<Digest, Vec<u8>>>,
    bytes: Vec<u8>,
}

impl FileSink for Into<'_> {
    fn begin(&mut self, _entry: &Entry) -> std::io::Result<()> {
        self.bytes.clear();
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn end(
        &mut self,
        entry: &Entry,
        made: Result<protocol::pack::Encoder, NoDelta>,
    ) -> std::io::Result<()> {
        if made.is_ok() {
            let bytes = std::mem::take(&mut self.bytes);
            self.made.lock().unwrap().insert(entry.digest().unwrap(), bytes);
        }
        Ok(())
    }
}

/// The slow and obvious way to find what a content needs: frames, or `None` if it cannot be made.
struct Model<'a> {
    chain: &'a Chain,
    keeps: &'a (dyn Fn(&TreePath) -> bool + Sync),
    ops: Vec<Vec<Op>>,
}

impl<'a> Model<'a> {
    fn new(chain: &'a Chain, keeps: &'a (dyn Fn(&TreePath) -> bool + Sync)) -> Self {
        let all = |(index, _): &(PackIndex, _)| index.ops().map(|op| op.unwrap().1).collect();
        Self { chain, keeps, ops: chain.packs.iter().map(all).collect() }
    }

    /// Frames, as (pack, number), that make the content of `path` in generation `generation`.
    fn frames(&self, generation: usize, path: &TreePath) -> Option<BTreeSet<(usize, u32)>> {
        let digest = self.chain.manifests[generation].get(path)?.digest()?;
        if self.chain.held(self.keeps, path, &digest) {
            return Some(BTreeSet::new());
        }
        self.made(generation, path)
    }

    fn made(&self, generation: usize, path: &TreePath) -> Option<BTreeSet<(usize, u32)>> {
        let pack = generation.checked_sub(1)?;
        let ops = &self.ops[pack];
        let op = ops.iter().find(|op| op.path() == path);
        let Some(Op::Put { content: Some(content), .. }) = op else {
            return self.frames(pack, path);
        };
        let content = match content {
            Content::Same { op } => ops[*op as usize].content().unwrap(),
            content => content,
        };
        let (index, _) = &self.chain.packs[pack];
        let old = |number: u64| &self.chain.manifests[pack].entries()[number as usize].path;
        let mut frames = BTreeSet::new();
        if let Content::Copy { from_entry: base } | Content::RsyncDelta { base_entry: base, .. } =
            content
        {
            frames.extend(self.frames(pack, old(*base))?);
        }
        for slice in content.slices() {
            match *slice {
                Slice::Base { entry, .. } | Slice::Inside { entry, .. } => {
                    frames.extend(self.frames(pack, old(entry))?);
                }
                Slice::Frame { frame, .. } => {
                    let (first, around) = index.frames_around(frame).unwrap();
                    for base in around[(frame - first) as usize].bases() {
                        frames.extend(self.frames(pack, old(base.entry))?);
                    }
                    frames.insert((pack, frame));
                }
            }
        }
        Some(frames)
    }

    fn bytes(&self, frames: &BTreeSet<(usize, u32)>) -> u64 {
        let len = |(pack, frame): &(usize, u32)| {
            u64::from(self.chain.packs[*pack].0.frame_stored_len(*frame))
        };
        frames.iter().map(len).sum()
    }
}

/// A step in the life of one file.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Same,
    Edited,
    Gone,
    Renamed,
    Anew,
}

fn fates() -> impl Strategy<Value = Vec<(u8, usize, [Fate; GENERATIONS - 1])>> {
    let fate = prop_oneof![
        3 => Just(Fate::Same),
        4 => Just(Fate::Edited),
        1 => Just(Fate::Gone),
        1 => Just(Fate::Renamed),
        1 => Just(Fate::Anew),
    ];
    proptest::collection::vec((0u8..4, 200usize..9_000, [fate.clone(), fate.clone(), fate]), 3..14)
}

fn contents(lives: &[(u8, usize, [Fate; GENERATIONS - 1])]) -> Vec<BTreeMap<String, Vec<u8>>> {
    let mut generations = vec![BTreeMap::new(); GENERATIONS];
    for (n, (dir, len, fates)) in lives.iter().enumerate() {
        let mut path = format!("d{dir}/f{n}.txt");
        let mut content = Some(text(n as u64, *len));
        // Some files come only later.
        if n % 5 == 4 {
            content = None;
        }
        for (generation, files) in generations.iter_mut().enumerate() {
            if let Some(content) = &content {
                files.insert(path.clone(), content.clone());
            }
            let seed = (n * 10 + generation) as u64;
            match fates.get(generation) {
                Some(Fate::Edited) => {
                    if let Some(content) = &mut content {
                        let at = content.len() / 2;
                        content.splice(at..at, noise(seed, 60));
                    }
                }
                Some(Fate::Gone) => content = None,
                Some(Fate::Renamed) => path = format!("d{}/r{n}-{generation}.txt", (dir + 1) % 4),
                Some(Fate::Anew) => content = Some(text(seed + 1000, *len)),
                Some(Fate::Same) | None => {}
            }
        }
    }
    generations
}

fn making() -> impl Strategy<Value = Making> {
    let encoders = prop_oneof![
        4 => Just(EncoderChoice::Auto),
        1 => Just(EncoderChoice::Patch),
        1 => Just(EncoderChoice::Rsync),
        1 => Just(EncoderChoice::Whole),
    ];
    let block_bytes = prop_oneof![Just(1usize), Just(120), Just(32 << 10)];
    (encoders, any::<bool>(), block_bytes).prop_map(|(encoders, classes, block_bytes)| Making {
        encoders,
        classes,
        block_bytes,
    })
}

fn cases() -> u32 {
    std::env::var("MIRRORNET_FUZZ_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(48)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn a_draw_is_what_the_model_finds_and_gives_every_content_it_promises(
        lives in fates(),
        making in proptest::collection::vec(making(), GENERATIONS - 1),
        kept_dirs in 1u8..16,
        prices in proptest::collection::vec(0u64..4_000, 14),
    ) {
        let chain = Chain::new(&contents(&lives), &making);
        let keeps = |path: &TreePath| {
            let dir = path.as_bytes().get(1).map_or(0, |digit| digit - b'0');
            kept_dirs & (1 << dir) != 0
        };
        let needs = chain.needs(&keeps);
        let model = Model::new(&chain, &keeps);
        let held = |path: &TreePath, digest: &Digest| chain.held(&keeps, path, digest);
        let wanted = |price: &dyn Fn(usize) -> Option<u64>| -> Vec<Wanted<'_>> {
            let needs = needs.iter().enumerate();
            needs.map(|(n, (path, digest))| {
                Wanted { path, digest: *digest, otherwise: price(n) }
            }).collect()
        };

        // Without another way, everything that can be made is made, and nothing else is promised.
        let all = draw(&chain.links(), &wanted(&|_| None), &held).unwrap();
        let closures: Vec<_> =
            needs.iter().map(|(path, _)| model.made(GENERATIONS - 1, path)).collect();
        for ((path, _), (made_by, closure)) in needs.iter().zip(all.made_by.iter().zip(&closures)) {
            prop_assert_eq!(made_by.is_ok(), closure.is_some(), "{}: {:?}", path, made_by);
        }
        let frames: BTreeSet<_> = closures.iter().flatten().flatten().copied().collect();
        prop_assert_eq!(all.cost.frame_bytes, model.bytes(&frames));
        let made = chain.carry_out(&chain.links(), &all, &keeps);
        for ((path, digest), made_by) in needs.iter().zip(&all.made_by) {
            if made_by.is_ok() {
                let right = fs::read(chain.trees.path("g3").join(path.to_string())).unwrap();
                prop_assert!(made.get(digest) == Some(&right), "{}", path);
            }
        }

        // With prices, no other choice costs less.
        let cheap = draw(&chain.links(), &wanted(&|n| Some(prices[n % prices.len()])), &held);
        let cheap = cheap.unwrap();
        let price = |n: usize| prices[n % prices.len()];
        let makeable: Vec<usize> =
            (0..needs.len()).filter(|n| closures[*n].is_some()).collect();
        let cost = |drawn: &dyn Fn(usize) -> bool| -> u64 {
            let mut frames = BTreeSet::new();
            let mut bytes = 0;
            for &n in &makeable {
                match drawn(n) {
                    true => frames.extend(closures[n].iter().flatten().copied()),
                    false => bytes += price(n),
                }
            }
            bytes + model.bytes(&frames)
        };
        let ours = cost(&|n| cheap.made_by[n].is_ok());
        for choice in 0..1u32 << makeable.len() {
            let place = |n: usize| makeable.iter().position(|m| *m == n).unwrap();
            prop_assert!(ours <= cost(&|n| choice & (1 << place(n)) != 0));
        }
        chain.carry_out(&chain.links(), &cheap, &keeps);

        // Whoever has only the parts of the indexes that concern it promises nothing more, and
        // nothing that does not come true; whoever keeps all loses nothing.
        let parts = chain.parts(&keeps);
        let links: Vec<Link<'_>> =
            parts.iter().map(|(index, from)| Link { index, from: &**from }).collect();
        let in_parts = draw(&links, &wanted(&|_| None), &held).unwrap();
        for (made_by, whole) in in_parts.made_by.iter().zip(&all.made_by) {
            prop_assert!(made_by.is_err() || made_by == whole);
            prop_assert!(kept_dirs != 15 || made_by == whole);
        }
        let made = chain.carry_out(&links, &in_parts, &keeps);
        for ((path, digest), made_by) in needs.iter().zip(&in_parts.made_by) {
            if made_by.is_ok() {
                let right = fs::read(chain.trees.path("g3").join(path.to_string())).unwrap();
                prop_assert!(made.get(digest) == Some(&right), "{}", path);
            }
        }
    }
}

/// A group of which every member changed in every generation, and a filter that keeps all.
#[test]
fn a_file_that_changed_in_every_pack_comes_through_all_of_them() {
    let generations: Vec<BTreeMap<String, Vec<u8>>> = (0..GENERATIONS)
        .map(|generation| {
            let file = |n: u64| {
                let mut content = text(n, 6_000);
                for step in 0..generation {
                    let edit = noise(n * 10 + step as u64, 40);
                    content.splice(100 * step..100 * step, edit);
                }
                (format!("d0/f{n}"), content)
            };
            (0..10).map(file).collect()
        })
        .collect();
    let making = Making { encoders: EncoderChoice::Auto, classes: false, block_bytes: 100 };
    let chain = Chain::new(&generations, &[making; GENERATIONS - 1]);
    let everything = |_: &TreePath| true;
    let needs = chain.needs(&everything);
    let wanted: Vec<Wanted<'_>> = needs
        .iter()
        .map(|(path, digest)| Wanted { path, digest: *digest, otherwise: Some(6_000) })
        .collect();
    let held = |path: &TreePath, digest: &Digest| chain.held(&everything, path, digest);
    let drawn = draw(&chain.links(), &wanted, &held).unwrap();
    assert!(drawn.made_by.iter().all(|made_by| *made_by == Ok(GENERATIONS - 2)));
    assert_eq!(drawn.steps[0].only_bases.len(), 10);
    assert!(drawn.steps[2].only_bases.is_empty());
    assert_eq!(chain.carry_out(&chain.links(), &drawn, &everything).len(), 30);
    // One small file is not worth the frames of all.
    let one = draw(&chain.links(), &wanted[..1], &held).unwrap();
    let price = one.cost.frame_bytes;
    let cheaper = [Wanted { otherwise: Some(price - 1), ..wanted[0] }];
    let dropped = draw(&chain.links(), &cheaper, &held).unwrap();
    assert_eq!(dropped.made_by, [Err(NoDelta::LargerThanWhole)]);
    assert_eq!(dropped.cost.frame_bytes, 0);
}
