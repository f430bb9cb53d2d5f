//! What an update takes by pack, for trees of several kinds, beside rsync and beside one patch over
//! everything. Bytes alone: they are the same on any line and any machine.

use std::{fs, path::Path, process::Command};

use serde_json::Value;
use tests::programs::{isolate, program, succeed};

use crate::{
    corpus::{self, Releases},
    figure::Figure,
    line::solid_patch,
};

/// A kind of tree, and the most that its pack may take of what rsync -az moves.
type Kind = (&'static str, fn() -> Releases, f64);

const KINDS: [Kind; 6] = [
    ("source trees", corpus::sources, 0.33),
    ("unpacked wheels", corpus::releases, 0.33),
    ("a disk image", corpus::image, 0.33),
    // Most of what it takes are the new lines, which rsync compresses as well.
    ("a log that grew", corpus::log, 0.7),
    // What is compressed has little in common with its older version, unless one looks inside.
    ("a package pool", corpus::pool, 0.15),
    ("files that gzip made", corpus::gzipped, 0.15),
];

/// Of each kind an older and a newer tree.
pub(crate) fn run() -> Vec<Figure> {
    let mut figures = Vec::new();
    for (kind, corpus, most) in KINDS {
        let Releases { old, new } = corpus();
        let signatures = pack(&old, &new, "rsync")["length"].as_f64().unwrap();
        let pack = pack(&old, &new, "auto");
        let (length, cpu) = (pack["length"].as_f64(), pack["cpu_milliseconds"].as_f64());
        let (length, cpu) = (length.unwrap(), cpu.unwrap() / 1_000.0);
        let rsync = rsync(&old, &new) as f64;
        let (solid, solid_cpu) = solid_patch(&old, &new);
        println!(
            "{kind}: pack {length} B (index {}), {cpu:.1} s of CPU; rsync -az {rsync} B; \
             one patch {solid} B, {solid_cpu:.1} s\n{:#}",
            pack["index_length"], pack["encoders"]
        );
        let figure = |peer: &'static str, bytes: f64, most: f64| Figure {
            what: format!("update of {kind}, payload and index"),
            ours: length,
            unit: "B",
            peer: Some((peer, bytes)),
            most,
        };
        figures.push(figure("rsync -az", rsync, most));
        figures.push(Figure {
            what: format!("update of {kind}, librsync deltas from signatures alone"),
            ours: signatures,
            unit: "B",
            peer: Some(("rsync -az", rsync)),
            most: 1.0,
        });
        figures.push(figure("zstd --patch-from -19", solid as f64, 1.0));
        figures.push(Figure {
            what: format!("update of {kind}, CPU of packing"),
            ours: cpu,
            unit: "s",
            peer: Some(("zstd --patch-from -19", solid_cpu)),
            most: 0.25,
        });
    }
    figures
}

/// What `publisher pack` says of the pack that it wrote.
fn pack(old: &Path, new: &Path, encoder: &str) -> Value {
    let dir = tempfile::tempdir().unwrap();
    let mut publisher = program("publisher");
    publisher.args(["pack", "--output", "json", "--from"]).arg(old).arg("--to").arg(new);
    publisher.args(["--encoder", encoder]).arg("--out").arg(dir.path().join("pack"));
    serde_json::from_str(&succeed(&mut publisher)).unwrap()
}

/// Bytes that rsync counts itself, both ways.
fn rsync(old: &Path, new: &Path) -> u64 {
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("copy");
    let mut copying = Command::new("cp");
    succeed(copying.arg("-a").arg(old).arg(&copy));
    let mut rsync = Command::new("rsync");
    isolate(&mut rsync);
    rsync.args(["-az", "--no-whole-file", "--delete", "--stats"]);
    let told = succeed(rsync.arg(format!("{}/", new.display())).arg(&copy));
    let total = |line: &str| line.split(": ").nth(1)?.replace(',', "").parse::<u64>().ok();
    let both = told.lines().filter(|line| line.starts_with("Total bytes "));
    let sum = both.filter_map(total).sum();
    assert!(sum > 0 && fs::metadata(&copy).is_ok(), "{told}");
    sum
}
