//! An update of 1,000 files among 10,000, over loopback, beside `rsync -az`.

use std::{fs, path::Path, process::Command};

use tests::{
    Rsyncd,
    fixture::{OneTree, prose, write},
    network::bytes_by,
    programs::{isolate, succeed},
};

use crate::figure::Figure;

const FILES: u64 = 10_000;
const CHANGED: u64 = 1_000;

pub(crate) fn run() -> Vec<Figure> {
    let net = OneTree::start("", "");
    for n in 0..FILES {
        write(&net.upstream.join(name(n)), prose(n, 4_000));
    }
    net.publish_and_sync();
    let peer = net.testbed.make_dir("peer");
    let rsyncd = Rsyncd::start(&net.testbed.path("rsyncd"), &[("tree", &net.upstream)], "");
    rsync(&rsyncd, &peer);

    for n in 0..CHANGED {
        let path = net.upstream.join(name(n * (FILES / CHANGED)));
        let text = fs::read_to_string(&path).unwrap();
        // Releases replace files; they do not write into them.
        let new = path.with_extension("new");
        write(&new, format!("{}one line that was added\n{}", &text[..2_000], &text[2_000..]));
        fs::rename(new, &path).unwrap();
    }
    let run = net.publish_and_sync();
    net.assert_same();
    let theirs = rsync(&rsyncd, &peer);
    let ours: u64 =
        ["pack", "whole", "rsync", "metadata"].iter().map(|way| bytes_by(&run, way)).sum();
    vec![Figure {
        what: format!("bytes of an update, {CHANGED} of {FILES} files changed"),
        ours: ours as f64,
        unit: "B",
        peer: Some(("rsync -az", theirs)),
        most: 0.9,
    }]
}

fn name(n: u64) -> String {
    format!("d{:02}/f{n:05}.txt", n % 100)
}

/// Bytes that rsync says it sent and received.
fn rsync(rsyncd: &Rsyncd, to: &Path) -> f64 {
    let mut command = Command::new("rsync");
    isolate(&mut command);
    command
        .args(["-az", "--delete", "--stats", "--no-h"])
        .arg(format!("{}tree/", rsyncd.url()))
        .arg(to);
    let told = succeed(&mut command);
    let value = |key: &str| -> f64 {
        told.lines().find_map(|line| line.strip_prefix(key)).unwrap().trim().parse().unwrap()
    };
    value("Total bytes sent:") + value("Total bytes received:")
}
