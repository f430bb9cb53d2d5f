//! A first sync of more files than are brought at a time.

use std::os::unix::fs::MetadataExt as _;

use tests::{
    fixture::{OneTree, prose},
    network::bytes_by,
};

/// What an agent brings together, and what a group of small files has at most.
const AT_A_TIME: usize = 8_192;
const MEMBERS: usize = 4_096;
const CONTENT_BYTES: usize = 4 << 20;

/// The sizes of files, in the order of their paths, of which each line is a frame of the pack. One has
/// few files before the end of the first part, another few after the end of the second.
fn sizes() -> Vec<usize> {
    let frame = |files: usize, size: usize| std::iter::repeat_n(size, files);
    let few = 8;
    let before = AT_A_TIME - MEMBERS - few;
    let filling = 12;
    let sizes: Vec<usize> = frame(before, CONTENT_BYTES / before)
        .chain(frame(MEMBERS, 100))
        .chain(frame(MEMBERS, 100))
        .chain(frame(filling, CONTENT_BYTES / filling))
        .chain(frame(MEMBERS, 100))
        .collect();
    assert_eq!(sizes.len(), 2 * AT_A_TIME - few + filling, "{filling} - {few} in the last part");
    sizes
}

fn parts_share(layout: &str, dir: &str) {
    let net = OneTree::start(&format!("initial-pack = true\n{layout}"), "");
    for (number, size) in sizes().into_iter().enumerate() {
        let mut text = prose(number as u64 + 1, size);
        text.truncate(size);
        net.write(&format!("{dir}f{number:05}"), text);
    }
    net.publish();
    let run = net.sync();
    net.assert_same();
    let ways: Vec<&str> =
        run["ways"].as_array().unwrap().iter().map(|way| way["way"].as_str().unwrap()).collect();
    assert!(!ways.contains(&"whole") && ways.contains(&"pack"), "{:#}", run["ways"]);
    let packs = std::fs::read_dir(net.publisher.data.join("trees/tree/packs")).unwrap();
    let pack = packs.map(|pack| pack.unwrap().metadata().unwrap().size()).max().unwrap();
    let came = bytes_by(&run, "pack") + bytes_by(&run, "metadata");
    assert!(came <= pack + 1_000, "{came} of {pack}");
}

#[test]
fn what_parts_share_comes_once_and_nothing_is_asked_for_by_itself() {
    parts_share("", "");
}

#[test]
fn what_parts_of_a_version_share_comes_once() {
    parts_share("layout = \"versioned\"", "1.0/");
}
