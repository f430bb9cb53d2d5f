//! Directories, old and new, and packs between them.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use protocol::{
    digest::Digest,
    manifest::{Entry, Manifest},
    pack::{Encoder, Frame, NoDelta, Op},
};
use tempfile::TempDir;

use crate::{
    delta::{ReadAt, choose::EncoderChoice},
    fs::Fs,
    pack::{
        BaseSource, DirSource, Error, NoBase,
        read::{Bases, FileSink, FrameSource, PackFile, PackIndex, Rebuilder, Rebuilt},
        unpack::{Unpacked, unpack},
        write::{PackOptions, PackSummary, write_pack},
    },
    scan::{ScanOptions, ScanRecord, keep_all, scan},
    signature::StoredSignature,
};

pub(super) const NOW: i64 = 4_000_000_000_000_000_000;

pub(super) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let step = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    (0..len).map(step).collect()
}

/// What is full of numbers that refer to places, as programs and indexes are.
pub(super) fn numbers(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = text(seed, len);
    for (n, place) in bytes.chunks_exact_mut(24).enumerate() {
        place[..4].copy_from_slice(&(1_000_000 + 24 * n as u32).to_le_bytes());
    }
    bytes
}

/// The same when something grew before all of the places.
pub(super) fn grown(numbers: &[u8]) -> Vec<u8> {
    let mut bytes = numbers.to_vec();
    for place in bytes.chunks_exact_mut(24) {
        let number = u32::from_le_bytes([place[0], place[1], place[2], place[3]]);
        place[..4].copy_from_slice(&(number + 24).to_le_bytes());
    }
    bytes
}

/// Text that compresses as source code does.
pub(super) fn text(seed: u64, len: usize) -> Vec<u8> {
    let words = ["fn ", "let ", "match ", "self", ".unwrap()", "{\n", "}\n", "    ", "return "];
    let mut text = Vec::with_capacity(len + 16);
    for byte in noise(seed, len) {
        let word = words.get(usize::from(byte) % 12).copied();
        match word {
            Some(word) => text.extend_from_slice(word.as_bytes()),
            None => text.push(b'a' + byte % 26),
        }
        if text.len() >= len {
            break;
        }
    }
    text.truncate(len);
    text
}

/// Two versions of a tree in a temporary directory.
pub(super) struct Trees {
    pub(super) dir: TempDir,
}

impl Trees {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["old", "new"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        Self { dir }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(super) fn write(&self, side: &str, path: &str, content: &[u8]) {
        let path = self.path(side).join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub(super) fn both(&self, path: &str, content: &[u8]) {
        self.write("old", path, content);
        self.write("new", path, content);
    }

    pub(super) fn manifest(&self, side: &str) -> Manifest {
        manifest(&self.path(side))
    }

    pub(super) fn source(&self, side: &str) -> DirSource {
        DirSource::new(Fs::disk().open_root(&self.path(side)).unwrap())
    }

    pub(super) fn pack_with(
        &self,
        base: &dyn BaseSource,
        options: &PackOptions<'_>,
    ) -> Result<PackSummary, Error> {
        let (from, to) = (self.manifest("old"), self.manifest("new"));
        write_pack(Some(&from), base, &to, &self.source("new"), &self.path("pack"), options)
    }

    pub(super) fn pack(&self, encoders: EncoderChoice) -> PackSummary {
        // Levels are tried elsewhere; here they would only take time.
        let options = PackOptions { encoders, level: Some(6), ..PackOptions::new() };
        self.pack_with(&self.source("old"), &options).unwrap()
    }

    pub(super) fn pack_from_nothing(&self) -> PackSummary {
        let to = self.manifest("new");
        let (out, options) =
            (self.path("pack"), PackOptions { level: Some(3), ..PackOptions::new() });
        write_pack(None, &NoBase, &to, &self.source("new"), &out, &options).unwrap()
    }

    pub(super) fn unpack(&self, base: Option<&str>) -> Result<Unpacked, Error> {
        let base = base.map(|base| self.path(base));
        let (pack, out) = (self.path("pack"), self.path("out"));
        unpack(&Fs::disk(), &pack, base.as_deref(), &out, &keep_all, NOW)
    }

    /// Unpacks against the old tree and compares everything with the new one; then does the same
    /// with nothing but librsync deltas.
    pub(super) fn assert_round_trip(&self, base: Option<&str>) -> Unpacked {
        let unpacked = self.assert_unpacks(base);
        if base == Some("old")
            && self.manifest("old").digest() == self.index().header().from.unwrap()
        {
            let kept = fs::read(self.path("pack")).unwrap();
            self.pack(EncoderChoice::Rsync);
            let forced = self.encoders();
            let others = forced.values().filter(|e| matches!(e, Encoder::Patch | Encoder::Group));
            assert_eq!(others.count(), 0, "{forced:?}");
            self.assert_unpacks(base);
            fs::write(self.path("pack"), kept).unwrap();
        }
        unpacked
    }

    fn assert_unpacks(&self, base: Option<&str>) -> Unpacked {
        let before = self.manifest("old");
        let unpacked = self.unpack(base).unwrap();
        assert_eq!(self.manifest("out"), self.manifest("new"));
        assert_eq!(self.manifest("old"), before, "the base was touched");
        fs::remove_dir_all(self.path("out")).unwrap();
        let left: Vec<_> = fs::read_dir(self.dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !["old", "new", "pack"].contains(&name.as_str()))
            .collect();
        assert!(left.is_empty(), "left behind: {left:?}");
        unpacked
    }

    pub(super) fn index(&self) -> PackIndex {
        PackFile::open(&self.path("pack")).unwrap().0
    }

    /// Which encoder made each file.
    pub(super) fn encoders(&self) -> BTreeMap<String, Encoder> {
        let encoder = |op: Op| Some((op.path().to_string(), op.content()?.encoder()?));
        self.index().ops().filter_map(|op| encoder(op.unwrap().1)).collect()
    }
}

pub(super) fn manifest(root: &Path) -> Manifest {
    let root = Fs::disk().open_root(root).unwrap();
    scan(&root, &ScanRecord::empty(), &ScanOptions::new(NOW)).unwrap().manifest
}

/// A small release: changed, new, deleted, renamed, linked, empty, odd files and directories.
pub(super) fn release() -> Trees {
    let trees = Trees::new();
    for n in 0..40 {
        let content = text(n, 12_000 + 117 * n as usize);
        trees.write("old", &format!("src/mod{n}.rs"), &content);
        let mut changed = content.clone();
        if n % 3 == 0 {
            let at = changed.len() / 2;
            changed.splice(at..at, b"// one more line\n".iter().copied());
        }
        if n != 7 {
            trees.write("new", &format!("src/mod{n}.rs"), &changed);
        }
    }
    trees.write("new", "src/added.rs", &text(3, 5000));
    trees.both("README", b"the same");
    trees.write("new", "empty", b"");
    let moved = noise(90, 20_000);
    trees.write("old", "data/moved.bin", &moved);
    trees.write("new", "data/elsewhere/kept.bin", &moved);
    let mut image = noise(91, 3 << 20);
    trees.write("old", "image-1.2.iso", &image);
    image.splice(1_000_000..1_000_010, noise(92, 5000));
    trees.write("new", "image-1.3.iso", &image);
    trees.write("new", "twin-a", &text(50, 9000));
    trees.write("new", "twin-b", &text(50, 9000));
    trees.write("old", "turns/into", b"a directory first");
    trees.write("new", "turns", b"a file then");
    trees.write("old", "back", b"a file first");
    trees.write("new", "back/into", b"a directory then");
    trees.write("new", "linked-1", &text(60, 4000));
    fs::hard_link(trees.path("new/linked-1"), trees.path("new/linked-2")).unwrap();
    symlink("README", trees.path("new/link")).unwrap();
    symlink("../outside", trees.path("old/link")).unwrap();
    symlink("/etc/passwd", trees.path("new/src/absolute")).unwrap();
    let script = trees.path("new/README");
    fs::set_permissions(script, fs::Permissions::from_mode(0o755)).unwrap();
    let secret = trees.path("new/data/elsewhere");
    fs::set_permissions(secret, fs::Permissions::from_mode(0o700)).unwrap();
    trees
}

/// Keeps signatures of a directory's files and nothing else.
pub(super) struct SignaturesOnly(pub(super) DirSource);

impl BaseSource for SignaturesOnly {
    fn content(&self, _entry: &Entry) -> Option<Box<dyn ReadAt>> {
        None
    }

    fn signature(&self, entry: &Entry) -> Option<StoredSignature> {
        let content = BaseSource::content(&self.0, entry)?;
        let stored = StoredSignature::calculate(&*content, entry.size()).ok()?;
        Some(StoredSignature::parse(&stored.encode()).unwrap())
    }
}

/// Keeps the content of `still.txt` and signatures of everything else.
pub(super) struct OnlySiblings(pub(super) DirSource);

impl BaseSource for OnlySiblings {
    fn content(&self, entry: &Entry) -> Option<Box<dyn ReadAt>> {
        let is_still = entry.path.as_bytes().ends_with(b"still.txt");
        is_still.then(|| BaseSource::content(&self.0, entry)).flatten()
    }

    fn signature(&self, entry: &Entry) -> Option<StoredSignature> {
        let content = BaseSource::content(&self.0, entry)?;
        StoredSignature::calculate(&*content, entry.size()).ok()
    }
}

/// Old content by number, from a directory and its manifest.
pub(super) struct DirBases {
    pub(super) manifest: Manifest,
    pub(super) source: DirSource,
}

impl Bases for DirBases {
    fn open(&self, number: u64) -> std::io::Result<Option<Box<dyn ReadAt>>> {
        Ok(BaseSource::content(&self.source, &self.manifest.entries()[number as usize]))
    }
}

/// Gathers what was made, by path.
#[derive(Default)]
pub(super) struct Gather {
    pub(super) files: BTreeMap<String, Result<Vec<u8>, NoDelta>>,
    bytes: Vec<u8>,
}

impl FileSink for Gather {
    fn begin(&mut self, _entry: &Entry) -> std::io::Result<()> {
        self.bytes.clear();
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn end(&mut self, entry: &Entry, made: Result<Encoder, NoDelta>) -> std::io::Result<()> {
        let made = made.map(|_| std::mem::take(&mut self.bytes));
        if let Ok(bytes) = &made {
            assert_eq!(Some(Digest::of(bytes)), entry.digest(), "{} is wrong", entry.path);
        }
        self.files.insert(entry.path.to_string(), made);
        Ok(())
    }
}

/// Passes frames on and remembers which were asked for.
pub(super) struct Counted<F> {
    pub(super) inner: F,
    pub(super) asked: Vec<u32>,
}

impl<F: FrameSource> FrameSource for Counted<F> {
    fn frame(&mut self, number: u32, frame: &Frame) -> std::io::Result<Vec<u8>> {
        self.asked.push(number);
        self.inner.frame(number, frame)
    }
}

/// Makes all wanted files from a pack, with bases from `side`.
pub(super) fn rebuild(
    trees: &Trees,
    side: &str,
    wanted: impl Fn(&str) -> bool,
) -> (Gather, Rebuilt, Vec<u32>) {
    let (index, file) = PackFile::open(&trees.path("pack")).unwrap();
    let bases = DirBases { manifest: trees.manifest("old"), source: trees.source(side) };
    let selection = index.select(|path| wanted(&path.to_string())).unwrap();
    let mut frames = Counted { inner: file, asked: Vec::new() };
    let mut gather = Gather::default();
    let rebuilder = Rebuilder::new(&index, &bases);
    let rebuilt = rebuilder.rebuild(&selection, &mut frames, &mut gather).unwrap();
    (gather, rebuilt, frames.asked)
}
