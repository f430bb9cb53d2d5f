//! Links that the upstream has beside its versions: R80 to R88.

use std::{fs, os::unix::fs::symlink};

use super::Versions;

#[test]
fn r80_r81_r82_r88_only_links_to_a_directory_that_lies_here_are_made() {
    let net = Versions::start("layout = \"versioned\"\nlisting-exclude = [\"hidden\"]", "");
    net.version("v1", 1);
    net.version("hidden", 2);
    fs::write(net.upstream.join("file"), "plain").unwrap();
    net.link("good", "v1");
    net.link("to-hidden", "hidden");
    net.link("to-file", "v1/content");
    net.link("outside", "/etc");
    net.link("climbs", "../../..");
    net.link("with space", "v1");
    net.link("odd -> name", "v1");
    let run = net.sync();
    assert_eq!(net.names(), ["good -> v1", "odd -> name -> v1", "v1", "with space -> v1"]);
    let notices = run["notices"].to_string();
    assert!(notices.contains("leads out of the tree: outside -> /etc"), "r88: {notices}");
    // r82: what it would name is a link that leads back to it.
    symlink("ring", net.at("back")).unwrap();
    net.link("ring", "back");
    net.sync();
    assert!(fs::symlink_metadata(net.at("ring")).is_err());
}

#[test]
fn r83_r84_r87_a_right_link_stays_and_another_or_a_file_is_replaced() {
    let net = Versions::start("layout = \"versioned\"", "");
    net.version("v1", 1);
    net.version("v2", 2);
    net.link("stable", "v1");
    net.sync();
    let link = |name: &str| fs::symlink_metadata(net.at(name)).unwrap();
    let before = link("stable").modified().unwrap();
    net.sync();
    assert_eq!(link("stable").modified().unwrap(), before, "r83");
    net.link("stable", "v2");
    fs::write(net.at("other"), "a file").unwrap();
    net.link("other", "v1");
    net.sync();
    assert_eq!(net.names(), ["other -> v1", "stable -> v2", "v1", "v2"]);
}

#[test]
fn r85_r86_a_directory_in_its_place_goes_to_the_trash_unless_something_in_it_is_protected() {
    let net = Versions::start("layout = \"versioned\"", "");
    net.version("v1", 1);
    net.version("moves", 2);
    net.version("stays", 3);
    net.sync();
    fs::create_dir(net.at("stays/deep")).unwrap();
    fs::write(net.at("stays/deep/PROTECTED"), "").unwrap();
    for name in ["moves", "stays"] {
        net.gone(name);
        net.link(name, "v1");
    }
    let run = net.sync();
    assert_eq!(net.names(), ["moves -> v1", "stays", "v1"]);
    assert_eq!(net.read("stays/content").as_deref(), Some("of stays\n"));
    assert!(run["notices"].to_string().contains("PROTECTED"), "{run:#}");
    let trash = net.agent.storage.join("work/tree@site/trash");
    let kept =
        fs::read_dir(trash).unwrap().flatten().any(|at| at.path().join("moves/content").exists());
    assert!(kept, "what was there is in the trash");
}
