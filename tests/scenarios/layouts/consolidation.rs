//! Equal files of several versions: R30 to R36.

use std::{fs, os::unix::fs::PermissionsExt};

use tests::fixture::prose;

use super::{Versions, upstream::set_time};

#[test]
fn r30_r31_r32_equal_files_of_versions_are_one_and_come_once() {
    for layout in ["versioned", "sealed"] {
        let net = Versions::start(&format!("layout = \"{layout}\""), "");
        let big = prose(7, 300_000);
        for n in 1..4 {
            let name = format!("v{n}");
            net.finished(&name, n);
            net.file(&name, "big", &big, 0);
            set_time(&net.upstream.join(&name), n);
        }
        let run = net.sync();
        assert_eq!(net.inode("v1/big"), net.inode("v3/big"), "{layout}");
        assert_eq!(net.inode("v1/common"), net.inode("v2/common"));
        assert_ne!(net.inode("v1/content"), net.inode("v2/content"));
        let received: u64 = run["ways"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|way| way["received-bytes"].as_u64())
            .sum();
        assert!(received < 300_000, "the second and third came as differences: {received}");
    }
}

#[test]
fn r33_a_change_in_one_version_leaves_the_other_alone() {
    let net = Versions::start("layout = \"versioned\"", "");
    net.version("v1", 1);
    net.version("v2", 2);
    net.sync();
    assert_eq!(net.inode("v1/common"), net.inode("v2/common"));
    net.file("v2", "common", "changed in v2 only\n", 0);
    net.sync();
    assert_eq!(net.read("v1/common").as_deref(), Some("the same everywhere\n"));
    assert_eq!(net.read("v2/common").as_deref(), Some("changed in v2 only\n"));
}

#[test]
fn r34_equal_name_size_and_time_with_other_bytes_are_two_files() {
    let net = Versions::start("layout = \"versioned\"", "");
    for (name, text) in [("v1", "aaaa"), ("v2", "bbbb"), ("v3", "aaaa")] {
        net.version(name, 1);
        net.file(name, "clamped", text, 0);
    }
    net.sync();
    assert_eq!(net.read("v1/clamped").as_deref(), Some("aaaa"));
    assert_eq!(net.read("v2/clamped").as_deref(), Some("bbbb"));
    assert_eq!(net.inode("v1/clamped"), net.inode("v3/clamped"));
}

#[test]
fn r35_r36_only_equal_mode_and_time_make_one_file_and_nothing_is_shared_with_what_is_protected() {
    let net = Versions::start("layout = \"versioned\"", "");
    net.version("v1", 1);
    for name in ["same", "time", "mode", "kept/same"] {
        net.file("v1", name, name, 0);
    }
    net.sync();
    fs::write(net.at("v1/kept/PROTECTED"), "").unwrap();
    net.version("v2", 2);
    net.file("v2", "same", "same", 0);
    net.file("v2", "time", "time", 99);
    net.file("v2", "mode", "mode", 0);
    fs::set_permissions(net.upstream.join("v2/mode"), fs::Permissions::from_mode(0o755)).unwrap();
    net.file("v2", "kept/same", "kept/same", 0);
    net.sync();
    assert_eq!(net.inode("v1/same"), net.inode("v2/same"));
    for name in ["time", "mode", "kept/same"] {
        assert_ne!(net.inode(&format!("v1/{name}")), net.inode(&format!("v2/{name}")), "{name}");
    }
}
