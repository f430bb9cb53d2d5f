//! Large payloads that several packs share.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Mutex,
};

use protocol::{
    digest::Digest,
    manifest::Entry,
    pack::{Encoder, NoDelta, SHARED_FROM_BYTES},
};

use super::support::{NOW, Trees, manifest, noise, text};
use crate::{
    delta::{ReadAt, choose::EncoderChoice},
    fs::Fs,
    pack::{
        ContentSource, DirSource, Error, NoBase,
        read::PackFile,
        unpack::unpack,
        write::{PackOptions, PackSummary, Shared, SharedObject, write_pack},
    },
    scan::keep_all,
};

/// Objects in a directory.
struct Objects {
    dir: PathBuf,
    kept: Mutex<Vec<SharedObject>>,
}

impl Objects {
    fn names(&self) -> Vec<Digest> {
        self.kept.lock().unwrap().iter().map(|object| object.name).collect()
    }

    fn file(&self, number: usize) -> PathBuf {
        self.dir.join(self.names()[number].hex())
    }
}

impl Shared for Objects {
    fn find(&self, from: Option<Digest>, to: Digest) -> Option<(SharedObject, PathBuf)> {
        let kept = self.kept.lock().unwrap();
        let found = kept.iter().find(|object| (object.from, object.to) == (from, to))?;
        Some((*found, self.dir.join(found.name.hex())))
    }

    fn unfinished(&self) -> io::Result<PathBuf> {
        Ok(self.dir.join("unfinished"))
    }

    fn keep(&self, object: SharedObject, unfinished: &Path) -> io::Result<()> {
        let bytes = fs::read(unfinished)?;
        assert_eq!((bytes.len() as u64, Digest::of(&bytes)), (object.length, object.name));
        fs::rename(unfinished, self.dir.join(object.name.hex()))?;
        self.kept.lock().unwrap().push(object);
        Ok(())
    }
}

/// A tree with an image and two generations before it, which have the same older image.
struct World {
    trees: Trees,
    objects: Objects,
}

impl World {
    fn new() -> Self {
        let trees = Trees::new();
        let dir = trees.path("objects");
        fs::create_dir(&dir).unwrap();
        fs::create_dir(trees.path("packs")).unwrap();
        let world = Self { trees, objects: Objects { dir, kept: Mutex::default() } };
        let mut image = noise(1, 6 << 20);
        for (side, n) in [("older", 1), ("old", 2), ("new", 3)] {
            if side == "new" {
                image[1_000_000..3_000_000].copy_from_slice(&noise(2, 2_000_000));
            }
            world.trees.write(side, "image.bin", &image);
            world.trees.write(side, "notes.txt", &text(n, 30_000));
        }
        world
    }

    fn pack(&self, from: Option<&str>, source: &dyn ContentSource) -> Result<PackSummary, Error> {
        self.pack_as(from, source, EncoderChoice::Auto)
    }

    fn pack_as(
        &self,
        from: Option<&str>,
        source: &dyn ContentSource,
        encoders: EncoderChoice,
    ) -> Result<PackSummary, Error> {
        let options = PackOptions {
            encoders,
            level: Some(3),
            shared: Some(&self.objects),
            ..PackOptions::new()
        };
        let to = self.trees.manifest("new");
        let out = self.trees.path("packs").join(from.unwrap_or("nothing"));
        let Some(from) = from else {
            return write_pack(None, &NoBase, &to, source, &out, &options);
        };
        let base = self.trees.source(from);
        write_pack(Some(&manifest(&self.trees.path(from))), &base, &to, source, &out, &options)
    }

    fn new_tree(&self) -> DirSource {
        self.trees.source("new")
    }

    fn unpack(&self, from: Option<&str>) -> Result<(), Error> {
        let pack = self.trees.path("packs").join(from.unwrap_or("nothing"));
        let (base, out) = (from.map(|from| self.trees.path(from)), self.trees.path("out"));
        unpack(&Fs::disk(), &pack, base.as_deref(), &out, &keep_all, NOW)?;
        assert_eq!(self.trees.manifest("out"), self.trees.manifest("new"));
        fs::remove_dir_all(out).unwrap();
        Ok(())
    }
}

/// A tree whose image must not be read.
struct WithoutImage(DirSource);

impl ContentSource for WithoutImage {
    fn open(&self, entry: &Entry) -> io::Result<Box<dyn ReadAt>> {
        assert!(entry.size() < SHARED_FROM_BYTES, "{} was read", entry.path);
        ContentSource::open(&self.0, entry)
    }
}

#[test]
fn a_large_file_is_encoded_once_for_all_packs_that_carry_it() {
    let world = World::new();
    let first = world.pack(Some("old"), &world.new_tree()).unwrap();
    let [object] = first.shared[..] else { panic!("{first:?}") };
    assert!(object.length > SHARED_FROM_BYTES && object.length < 3 << 20, "{object:?}");
    assert!(first.length < 100_000, "the pack itself has the rest: {first:?}");
    world.unpack(Some("old")).unwrap();

    let second = world.pack(Some("older"), &WithoutImage(world.new_tree())).unwrap();
    assert_eq!(second.shared, first.shared);
    assert_eq!(world.objects.names(), [object.name]);
    world.unpack(Some("older")).unwrap();

    // From nothing it is another payload, which a publisher without the old image makes as well.
    let whole = world.pack(None, &world.new_tree()).unwrap();
    assert_eq!(world.objects.names(), [object.name, whole.shared[0].name]);
    world.unpack(None).unwrap();
    let image = world.trees.path("older/image.bin");
    fs::remove_file(&image).unwrap();
    let third = world.pack(Some("older"), &world.new_tree()).unwrap();
    assert_eq!(third.shared, whole.shared, "new files need nothing old");
    world.unpack(Some("older")).unwrap();
}

#[test]
fn an_object_is_itself_a_pack_of_one_file_and_says_what_it_leads_from_and_to() {
    let world = World::new();
    let summary = world.pack(Some("old"), &world.new_tree()).unwrap();
    let (index, _) = PackFile::open(&world.objects.file(0)).unwrap();
    let alone = |side: &str| {
        let manifest = world.trees.manifest(side);
        let image = manifest.entries().iter().find(|e| e.size() > SHARED_FROM_BYTES).unwrap();
        protocol::pack::one_file(image.size(), image.digest().unwrap()).unwrap().digest()
    };
    assert_eq!(index.header().from, Some(alone("old")));
    assert_eq!(index.header().to, alone("new"));
    let frame_bytes = summary.shared_length();
    assert_eq!(index.pack_len(), index.len() + frame_bytes);
}

#[test]
fn what_other_encoders_made_is_made_anew_and_so_is_what_is_damaged() {
    let world = World::new();
    let patch = world.pack(Some("old"), &world.new_tree()).unwrap();
    let delta = world.pack_as(Some("older"), &world.new_tree(), EncoderChoice::Rsync).unwrap();
    assert_ne!(delta.shared, patch.shared);
    let (index, _) = PackFile::open(&world.trees.path("packs/older")).unwrap();
    let made = index.ops().filter_map(|op| op.unwrap().1.content().and_then(|c| c.encoder()));
    let made: Vec<Encoder> = made.collect();
    assert_eq!(made, [Encoder::Rsync, Encoder::Whole], "what is new needs nothing old");
    world.unpack(Some("older")).unwrap();

    fs::write(world.objects.file(0), b"MNPK\x01 not an index").unwrap();
    let again = world.pack(Some("old"), &world.new_tree()).unwrap();
    assert_eq!(again.shared, patch.shared, "equal input gives equal bytes");
    world.unpack(Some("old")).unwrap();
}

#[test]
fn an_object_that_is_missing_or_damaged_makes_nothing_and_is_named_as_the_reason() {
    let world = World::new();
    world.pack(Some("old"), &world.new_tree()).unwrap();
    let file = world.objects.file(0);
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, bytes).unwrap();
    let reason = |failed: Result<(), Error>| match failed {
        Err(Error::Incomplete { count: 1, reason, .. }) => reason,
        other => panic!("{other:?}"),
    };
    assert_eq!(reason(world.unpack(Some("old"))), NoDelta::Corrupt);
    fs::remove_file(&file).unwrap();
    assert_eq!(reason(world.unpack(Some("old"))), NoDelta::PointUnreachable);
    assert!(!world.trees.path("out").exists());
}
