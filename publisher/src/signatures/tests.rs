use filetree::{
    fs::Fs,
    scan::{ScanOptions, ScanRecord, scan},
};

use super::*;

/// A tree's directory and a source, both temporary.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("source")).unwrap();
        std::fs::create_dir(dir.path().join("tree")).unwrap();
        Self { dir }
    }

    fn write(&self, name: &str, seed: u8, len: usize) {
        let content: Vec<u8> = (0..len).map(|n| (n / 7) as u8 ^ seed).collect();
        std::fs::write(self.dir.path().join("source").join(name), content).unwrap();
    }

    fn root(&self, name: &str) -> Dir {
        Fs::disk().open_root(&self.dir.path().join(name)).unwrap()
    }

    fn signatures(&self) -> Signatures {
        Signatures::open(&self.root("tree")).unwrap()
    }

    fn manifest(&self) -> Manifest {
        let options = ScanOptions::new(4_000_000_000_000_000_000);
        scan(&self.root("source"), &ScanRecord::empty(), &options).unwrap().manifest
    }

    /// Keeps signatures of what is there now.
    fn store(&self) -> Manifest {
        let (manifest, source) = (self.manifest(), self.root("source"));
        let open = |entry: &Entry| source.open_file(entry.path.name()).ok();
        self.signatures().store(&manifest, &open).unwrap();
        manifest
    }

    fn files(&self) -> Vec<std::path::PathBuf> {
        let files = std::fs::read_dir(self.dir.path().join("tree/signatures")).unwrap();
        files.map(|file| file.unwrap().path()).collect()
    }
}

/// How many of a manifest's files have a signature, all of them looked for in one go.
fn held(signatures: &Signatures, manifest: &Manifest) -> usize {
    let digests = manifest.entries().iter().filter_map(Entry::digest);
    digests.filter(|digest| signatures.get(digest).is_some()).count()
}

#[test]
fn small_files_share_a_file_of_signatures_and_large_ones_have_their_own() {
    let place = Place::new();
    (0..100).for_each(|n| place.write(&format!("small{n}"), n, 4000 + usize::from(n)));
    place.write("large", 1, 100_000);
    place.write("tiny", 1, 1000);
    let manifest = place.store();
    assert_eq!(place.files().len(), 2);
    assert_eq!(held(&place.signatures(), &manifest), 101, "all but the tiny one");
    place.store();
    assert_eq!(place.files().len(), 2, "nothing is stored twice");
}

#[test]
fn bundles_go_or_are_written_anew_when_most_of_them_is_not_needed() {
    let place = Place::new();
    (0..100).for_each(|n| place.write(&format!("f{n}"), n, 4000 + usize::from(n)));
    let first = place.store();
    (0..40).for_each(|n| place.write(&format!("f{n}"), n, 9000 + usize::from(n)));
    let second = place.store();
    let signatures = place.signatures();
    signatures.collect(&[(&second).into()]).unwrap();
    assert_eq!(held(&place.signatures(), &first), 100, "more than half is needed");
    (40..80).for_each(|n| place.write(&format!("f{n}"), n, 9000 + usize::from(n)));
    let third = place.store();
    place.signatures().collect(&[(&third).into()]).unwrap();
    assert_eq!(held(&place.signatures(), &first), 20);
    assert_eq!(held(&place.signatures(), &third), 100);
    place.signatures().collect(&[]).unwrap();
    assert_eq!(place.files().len(), 0);
}

#[test]
fn many_small_bundles_become_one() {
    let place = Place::new();
    for n in 0..20 {
        place.write(&format!("f{n}"), n, 4000 + usize::from(n));
        place.store();
    }
    assert_eq!(place.files().len(), 20);
    let manifest = place.manifest();
    place.signatures().collect(&[(&manifest).into()]).unwrap();
    assert_eq!(place.files().len(), 1);
    assert_eq!(held(&place.signatures(), &manifest), 20);
}

#[test]
fn a_damaged_bundle_gives_fewer_signatures_and_never_wrong_ones() {
    let place = Place::new();
    (0..3).for_each(|n| place.write(&format!("f{n}"), n, 2000 + usize::from(n)));
    let manifest = place.store();
    let bundle = place.files().remove(0);
    let good = std::fs::read(&bundle).unwrap();
    for at in 0..good.len() {
        let mut damaged = good.clone();
        damaged[at] ^= 0x40;
        std::fs::write(&bundle, damaged).unwrap();
        assert!(held(&place.signatures(), &manifest) < 3, "byte {at}");
        std::fs::write(&bundle, &good[..at]).unwrap();
        assert!(held(&place.signatures(), &manifest) < 3, "cut at {at}");
    }
}
