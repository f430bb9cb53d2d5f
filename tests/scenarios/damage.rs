//! What arrives damaged is noticed, and the tree comes identical by another way.

use std::{fs, path::PathBuf};

use tests::fixture::{OneTree, prose};

/// A network that holds generation 1, and whose upstream has published generation 2.
fn one_update_behind() -> OneTree {
    let net = OneTree::start("", "");
    for n in 0..12 {
        net.write(&format!("f{n}"), prose(n, 40_000));
    }
    net.publish_and_sync();
    for n in 0..12 {
        net.write(&format!("f{n}"), format!("{}changed\n", prose(n, 40_000)));
    }
    net.publish();
    net
}

fn stored(net: &OneTree, kind: &str) -> Vec<PathBuf> {
    let dir = net.publisher.data.join("trees/tree").join(kind);
    let files = walkdir::WalkDir::new(dir).into_iter().filter_map(Result::ok);
    files.filter(|entry| entry.file_type().is_file()).map(|entry| entry.path().to_owned()).collect()
}

fn damage(net: &OneTree, change: impl Fn(&mut Vec<u8>)) {
    let packs = stored(net, "packs");
    assert!(!packs.is_empty(), "the publisher keeps no packs");
    for pack in packs {
        let mut bytes = fs::read(&pack).unwrap();
        change(&mut bytes);
        fs::remove_file(&pack).unwrap();
        fs::write(&pack, bytes).unwrap();
    }
}

fn arrives_without_the_pack(net: &OneTree) {
    let run = net.sync();
    net.assert_same();
    assert_eq!(run["result"], "SYNC_COMPLETED", "{run:#}");
    let reasons = run["not-taken"].as_array().unwrap();
    assert!(reasons.iter().any(|reason| reason["way"] == "pack"), "{run:#}");
}

#[test]
fn a_flipped_bit_in_a_pack_is_noticed() {
    let net = one_update_behind();
    damage(&net, |bytes| {
        let last = bytes.len() - 10;
        bytes[last] ^= 1;
    });
    arrives_without_the_pack(&net);
}

#[test]
fn a_damaged_index_is_noticed() {
    let net = one_update_behind();
    damage(&net, |bytes| bytes[40] ^= 0xff);
    arrives_without_the_pack(&net);
}

#[test]
fn a_truncated_pack_is_noticed() {
    let net = one_update_behind();
    damage(&net, |bytes| bytes.truncate(bytes.len() / 2));
    arrives_without_the_pack(&net);
}

#[test]
fn a_pack_in_the_place_of_another_is_noticed() {
    let net = one_update_behind();
    for n in 0..12 {
        net.write(&format!("f{n}"), format!("{}changed again\n", prose(n, 40_000)));
    }
    net.publish();
    let packs = stored(&net, "packs");
    assert!(packs.len() > 1, "{packs:?}");
    let mut contents: Vec<_> = packs.iter().map(|pack| fs::read(pack).unwrap()).collect();
    contents.rotate_left(1);
    for (pack, content) in packs.iter().zip(contents) {
        fs::remove_file(pack).unwrap();
        fs::write(pack, content).unwrap();
    }
    arrives_without_the_pack(&net);
}

#[test]
fn a_pack_that_grew_is_not_read_past_its_signed_length() {
    let net = one_update_behind();
    damage(&net, |bytes| bytes.splice(0..0, vec![0; 1 << 20]).for_each(drop));
    arrives_without_the_pack(&net);
}

#[test]
fn a_missing_pack_is_said_and_replaced() {
    let net = one_update_behind();
    stored(&net, "packs").into_iter().for_each(|pack| fs::remove_file(pack).unwrap());
    arrives_without_the_pack(&net);
}

#[test]
fn a_damaged_manifest_changes_nothing_at_the_mirror() {
    let net = OneTree::start("", "");
    net.write("f", "content");
    net.publish();
    for file in stored(&net, "manifests").into_iter().chain(stored(&net, "blocks")) {
        let mut bytes = fs::read(&file).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 0x55;
        fs::remove_file(&file).unwrap();
        fs::write(&file, bytes).unwrap();
    }
    let output = net.agent.run_once();
    assert!(!output.status.success(), "{}", tests::programs::told(&output));
    assert!(!net.mirror().join("f").exists());
}

#[test]
fn a_local_edit_of_a_base_never_ends_in_wrong_content() {
    let net = one_update_behind();
    let base = net.mirror().join("f3");
    let mut bytes = fs::read(&base).unwrap();
    bytes[100..200].fill(b'x');
    // Through the inode, as a careless consumer would, with size and time as they were.
    let time = fs::metadata(&base).unwrap().modified().unwrap();
    let file = fs::File::options().write(true).open(&base).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &bytes, 0).unwrap();
    file.set_modified(time).unwrap();
    drop(file);
    let run = net.sync();
    net.assert_same();
    assert_eq!(run["result"], "SYNC_COMPLETED", "{run:#}");
}
