//! Packs of what is compressed already.

use std::{
    fs,
    io::Write,
    process::{Command, Stdio},
};

use protocol::pack::{Content, Encoder, NoDelta, Op, Slice, Stream};

use super::support::*;
use crate::{delta::choose::EncoderChoice, pack::write::PackOptions};

/// What gzip makes of `plain`.
fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut gzip = Command::new("gzip");
    let mut child = gzip.arg("-nc").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut stdin, plain) = (child.stdin.take().unwrap(), plain.to_vec());
    let writer = std::thread::spawn(move || stdin.write_all(&plain).unwrap());
    let made = child.wait_with_output().unwrap();
    writer.join().unwrap();
    made.stdout
}

/// A zip file of these members, as Python makes it.
fn zip(trees: &Trees, members: &[(&str, &[u8])]) -> Vec<u8> {
    let dir = tempfile::tempdir_in(trees.path("")).unwrap();
    let mut script = String::from("import zipfile\nz = zipfile.ZipFile('made.zip', 'w', 8)\n");
    for (at, (name, content)) in members.iter().enumerate() {
        fs::write(dir.path().join(at.to_string()), content).unwrap();
        script.push_str(&format!("z.writestr('{name}', open('{at}', 'rb').read())\n"));
    }
    script.push_str("z.close()\n");
    let made = Command::new("python3").current_dir(dir.path()).args(["-c", &script]).status();
    assert!(made.unwrap().success());
    fs::read(dir.path().join("made.zip")).unwrap()
}

fn edited(content: &[u8]) -> Vec<u8> {
    let half = content.len() / 2;
    [&content[..half], b"edited", &content[half..]].concat()
}

/// A wheel and its next version, a tarball and its next version, small indexes.
fn archives() -> Trees {
    let trees = Trees::new();
    let stays = noise(1, 300_000);
    let members = |edit: bool| {
        let of = |seed, len| {
            let text = text(seed, len);
            if edit { edited(&text) } else { text }
        };
        zip(
            &trees,
            &[
                ("pkg/a.py", &of(2, 900_000)),
                ("pkg/data.bin", &stays),
                ("pkg/empty", b""),
                ("pkg/b.py", &of(3, 2_500_000)),
            ],
        )
    };
    let (old, new) = (members(false), members(true));
    assert!(new.len() > 1 << 20, "{} bytes are small", new.len());
    trees.write("old", "pool/pkg-1.1.whl", &old);
    trees.write("new", "pool/pkg-1.1.whl", &old);
    trees.write("new", "pool/pkg-1.2.whl", &new);
    let tar = text(4, 18_000_000);
    trees.write("old", "src/pkg-1.1.tgz", &gzip(&tar));
    trees.write("new", "src/pkg-1.2.tgz", &gzip(&edited(&tar)));
    for n in 0..20 {
        let index = text(10 + n, 60_000);
        trees.write("old", &format!("index/{n}.json.gz"), &gzip(&index));
        trees.write("new", &format!("index/{n}.json.gz"), &gzip(&edited(&index)));
    }
    // The same words as its neighbors.
    trees.write("new", "index/20.json.gz", &gzip(&text(10, 50_000)));
    trees
}

fn pack_with(trees: &Trees, encoders: EncoderChoice) -> u64 {
    let options = PackOptions { encoders, level: Some(9), ..PackOptions::new() };
    trees.pack_with(&trees.source("old"), &options).unwrap().length
}

fn pack(trees: &Trees) -> u64 {
    pack_with(trees, EncoderChoice::Auto)
}

#[test]
fn archives_are_compared_by_what_is_inside() {
    let trees = archives();
    let length = pack(&trees);
    assert!(length < 60_000, "{length} bytes");
    let encoders = trees.encoders();
    for path in ["pool/pkg-1.2.whl", "src/pkg-1.2.tgz", "index/3.json.gz", "index/20.json.gz"] {
        assert_eq!(encoders[path], Encoder::Inside, "{path}");
    }
    let unpacked = trees.assert_round_trip(Some("old"));
    let made = unpacked.made_files.iter().find(|made| made.0 == Encoder::Inside).unwrap();
    assert_eq!(made.1, 23);
    // Also where there is no place for a file beside.
    let (made, _, _) = rebuild(&trees, "old", |path| path.ends_with("gz"));
    assert!(made.files["index/3.json.gz"].is_ok());
    assert_eq!(made.files["src/pkg-1.2.tgz"], Err(NoDelta::OverLimit));
}

#[test]
fn whoever_asks_for_other_encoders_gets_no_views() {
    let trees = archives();
    for encoders in
        [EncoderChoice::Rsync, EncoderChoice::Patch, EncoderChoice::Group, EncoderChoice::Whole]
    {
        pack_with(&trees, encoders);
        assert!(trees.encoders().values().all(|encoder| *encoder != Encoder::Inside));
    }
    // Nor where there is no time.
    let hasty = PackOptions { level: Some(3), ..PackOptions::new() };
    trees.pack_with(&trees.source("old"), &hasty).unwrap();
    assert!(trees.encoders().values().all(|encoder| *encoder != Encoder::Inside));
}

#[test]
fn signatures_alone_show_nothing_inside() {
    let trees = archives();
    let base = SignaturesOnly(trees.source("old"));
    trees.pack_with(&base, &PackOptions { level: Some(9), ..PackOptions::new() }).unwrap();
    let encoders = trees.encoders();
    assert_ne!(encoders["pool/pkg-1.2.whl"], Encoder::Inside);
    assert_ne!(encoders["src/pkg-1.2.tgz"], Encoder::Inside);
    trees.unpack(Some("old")).unwrap();
}

#[test]
fn what_only_looks_like_an_archive_goes_as_it_is() {
    let trees = Trees::new();
    let lies = |seed| [&b"\x1f\x8b\x08\0\0\0\0\0\0\x03"[..], &noise(seed, 3_000_000)].concat();
    trees.write("old", "a.gz", &lies(1));
    trees.write("new", "a.gz", &lies(2));
    let cut = gzip(&text(1, 9_000_000));
    trees.write("old", "cut.gz", &cut);
    trees.write("new", "cut.gz", &cut[..cut.len() - 5000]);
    trees.write("old", "small.gz", &lies(3)[..3000]);
    trees.write("new", "small.gz", &lies(4)[..3000]);
    let zip = [&b"PK\x03\x04"[..], &noise(5, 2_000_000), b"PK\x05\x06", &noise(6, 18)].concat();
    trees.write("old", "b.zip", &zip);
    trees.write("new", "b.zip", &edited(&zip));
    pack(&trees);
    assert!(trees.encoders().values().all(|encoder| *encoder != Encoder::Inside));
    trees.assert_round_trip(Some("old"));
}

#[test]
fn members_of_gzip_files_are_followed() {
    let trees = Trees::new();
    let parts: Vec<Vec<u8>> = (0..30).map(|n| text(n, 200_000)).collect();
    let joined = |parts: &[Vec<u8>]| parts.iter().flat_map(|part| gzip(part)).collect::<Vec<u8>>();
    trees.write("old", "many.gz", &joined(&parts));
    let mut changed: Vec<Vec<u8>> = parts.iter().map(|part| edited(part)).collect();
    changed.remove(7);
    trees.write("new", "many.gz", &[&joined(&changed)[..], b"trailing"].concat());
    let length = pack(&trees);
    assert!(length < 40_000, "{length} bytes");
    assert_eq!(trees.encoders()["many.gz"], Encoder::Inside);
    trees.assert_round_trip(Some("old"));
}

#[test]
fn an_old_archive_that_is_another_one_is_noticed() {
    let trees = archives();
    pack(&trees);
    for path in ["index/3.json.gz", "pool/pkg-1.1.whl"] {
        let mut content = fs::read(trees.path("old").join(path)).unwrap();
        let at = content.len() / 2;
        content[at] ^= 1;
        trees.write("edited", path, &content);
    }
    let (made, _, _) =
        rebuild(&trees, "edited", |path| path.contains("3.json") || path.contains("1.2.whl"));
    assert!(made.files["index/3.json.gz"].is_err());
    assert!(made.files["pool/pkg-1.2.whl"].is_err());
}

#[test]
fn a_stream_that_is_not_where_the_pack_says_costs_the_file_alone() {
    let trees = archives();
    pack(&trees);
    let index = trees.index();
    let ops: Vec<Op> = index.ops().map(|op| op.unwrap().1).collect();
    let inside = ops.iter().filter(|op| matches!(op.content(), Some(Content::Inside { .. })));
    assert!(inside.clone().count() > 20);
    // Of a large file, what is kept is referred to in the plain text.
    let slices: Vec<Slice> =
        inside.flat_map(|op| op.content().unwrap().slices().to_vec()).collect();
    let of_plain = |slice: &Slice| matches!(slice, Slice::Inside { stream: Stream { .. }, .. });
    assert!(slices.iter().any(of_plain), "{slices:?}");
}
