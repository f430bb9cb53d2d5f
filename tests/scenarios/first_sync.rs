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

/// Files of one frame, all of this size.
fn frame(files: usize, size: usize) -> impl Iterator<Item = usize> {
    std::iter::repeat_n(size, files)
}

/// Files of these sizes, in the order of their paths, come by the pack alone, and nothing of it twice.
fn parts_share(sizes: impl Iterator<Item = usize>, layout: &str, dir: &str) {
    let net = OneTree::start(&format!("initial-pack = true\n{layout}"), "");
    let mut files = 0;
    for (number, size) in sizes.enumerate() {
        let mut text = prose(number as u64 + 1, size);
        text.truncate(size);
        net.write(&format!("{dir}f{number:05}"), text);
        files += 1;
    }
    assert!(files > AT_A_TIME, "there are two parts");
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
fn the_last_files_of_a_part_come_with_the_first_of_the_next() {
    let few = 8;
    let others = AT_A_TIME - MEMBERS - few;
    let sizes = frame(others, CONTENT_BYTES / others).chain(frame(MEMBERS, 100));
    parts_share(sizes.chain(frame(few + 300, 1_000)), "", "");
}

#[test]
fn the_first_files_of_a_part_of_a_version_come_with_the_last_of_the_one_before() {
    let few = 12;
    let sizes = frame(few, CONTENT_BYTES / few).chain(frame(MEMBERS, 100));
    parts_share(sizes.chain(frame(MEMBERS, 100)), "layout = \"versioned\"", "1.0/");
}
