//! Packs that earlier releases wrote.

use std::{collections::BTreeSet, fs, path::PathBuf};

use protocol::{
    manifest::Entry,
    pack::{Codec, Encoder},
};

use super::support::*;
use crate::{
    delta::ReadAt,
    pack::{BaseSource, DirSource, write::PackOptions},
    signature::StoredSignature,
};

fn fixture(format: u32) -> PathBuf {
    let fixtures = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures");
    fixtures.join(format!("pack-{format}.pack"))
}

/// Format 1 has an index that is read whole, format 2 one that is read in parts, format 3 plain text
/// of deflate streams, format 4 differences.
const NEWEST: u32 = 4;

/// Holds the content of some files and the signatures of others.
struct Mixed(DirSource);

impl BaseSource for Mixed {
    fn content(&self, entry: &Entry) -> Option<Box<dyn ReadAt>> {
        let is_signed = entry.path.name().starts_with(b"signed");
        if is_signed { None } else { BaseSource::content(&self.0, entry) }
    }

    fn signature(&self, entry: &Entry) -> Option<StoredSignature> {
        SignaturesOnly(DirSource::new(self.0.root.reopen().ok()?)).signature(entry)
    }
}

/// The trees that the fixture of a format leads between. Never changed.
fn trees(format: u32) -> Trees {
    let trees = Trees::new();
    let edited = |content: &[u8]| [&content[..1000], b"edited", &content[1000..]].concat();
    for n in 0..4 {
        let content = text(n, 9000);
        trees.write("old", &format!("src/f{n}.rs"), &content);
        trees.write("new", &format!("src/f{n}.rs"), &edited(&content));
    }
    let signed = noise(10, 20_000);
    trees.write("old", "signed", &signed);
    trees.write("new", "signed", &edited(&signed));
    let image = noise(11, 1_500_000);
    trees.write("old", "image", &image);
    trees.write("new", "image", &edited(&image));
    trees.write("old", "before", &noise(12, 3000));
    trees.write("new", "after", &noise(12, 3000));
    trees.write("new", "packed.gz", &noise(13, 5000));
    trees.write("new", "empty", b"");
    if format > 2 {
        for side in ["old", "new"] {
            let file = fixture(format).with_file_name(format!("pack-3-{side}.gz"));
            trees.write(side, "text.gz", &fs::read(file).unwrap());
        }
    }
    if format > 3 {
        let table = numbers(14, 40_000);
        trees.write("old", "table", &table);
        trees.write("new", "table", &grown(&table));
    }
    trees
}

#[test]
fn packs_of_every_format_are_still_read() {
    for format in 1..=NEWEST {
        reads(format);
    }
    assert!(!fixture(NEWEST + 1).exists(), "a fixture that no test reads");
}

fn reads(format: u32) {
    let trees = trees(format);
    fs::copy(fixture(format), trees.path("pack")).unwrap();
    assert_eq!(trees.index().is_placed(), format > 1);
    let encoders: BTreeSet<Encoder> = trees.encoders().into_values().collect();
    let mut expected = BTreeSet::from(Encoder::ALL);
    if format < 3 {
        expected.remove(&Encoder::Inside);
    }
    assert_eq!(encoders, expected);
    let (made, rebuilt, _) = rebuild(&trees, "old", |_| true);
    assert_eq!(rebuilt.failed_files(), 0);
    for (path, content) in &made.files {
        let expected = fs::read(trees.path("new").join(path)).unwrap();
        assert!(content.as_ref() == Ok(&expected), "{path}");
    }
    assert_eq!(made.files.len(), [9, 9, 10, 11][format as usize - 1]);
    let frames = trees.index().frames_around(0).unwrap().1;
    let differ = frames.iter().any(|frame| matches!(frame.codec, Codec::Differences { .. }));
    assert_eq!(differ, format > 3);
}

#[test]
#[ignore = "writes the fixture; to be run once per version of the format"]
fn write_the_fixture() {
    let trees = trees(NEWEST);
    let base = Mixed(trees.source("old"));
    trees.pack_with(&base, &PackOptions::new()).unwrap();
    fs::copy(trees.path("pack"), fixture(NEWEST)).unwrap();
}
