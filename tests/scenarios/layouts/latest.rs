//! The link to the latest: R90 to R95.

use std::{fs, os::unix::fs::symlink};

use tests::wait_until;

use super::Versions;

const SEALED: &str = "layout = \"sealed\"\nlatest-link = \"latest\"";

#[test]
fn r90_without_a_name_no_link_is_touched() {
    let net = Versions::start("layout = \"sealed\"", "");
    net.finished("v1", 1);
    net.sync();
    symlink("nowhere", net.at("latest")).unwrap();
    net.finished("v2", 2);
    net.sync();
    assert_eq!(net.names(), ["latest -> nowhere", "v1", "v2"]);
}

#[test]
fn r91_r92_r93_the_link_names_the_one_that_was_completed_last_and_replaces_what_is_no_directory() {
    let net = Versions::start(SEALED, "");
    net.finished("zz-first", 1);
    net.finished("aa-last", 2);
    net.sync();
    assert_eq!(net.names(), ["aa-last", "latest -> aa-last", "zz-first"]);
    let link = fs::symlink_metadata(net.at("latest")).unwrap();
    net.sync();
    let same = fs::symlink_metadata(net.at("latest")).unwrap();
    assert_eq!(link.modified().unwrap(), same.modified().unwrap(), "r92: untouched");
    fs::remove_file(net.at("latest")).unwrap();
    fs::write(net.at("latest"), "a plain file").unwrap();
    net.finished("m", 3);
    net.sync();
    assert_eq!(fs::read_link(net.at("latest")).unwrap().to_str(), Some("m"));
    // A directory that is not empty stays, and an admin hears of it.
    fs::remove_file(net.at("latest")).unwrap();
    fs::create_dir(net.at("latest")).unwrap();
    fs::write(net.at("latest/mine"), "local").unwrap();
    net.finished("n", 4);
    let run = net.sync();
    assert_eq!(net.read("latest/mine").as_deref(), Some("local"));
    assert!(run["notices"].to_string().contains("latest link latest was not made"), "{run:#}");
    fs::remove_file(net.at("latest/mine")).unwrap();
    net.finished("o", 5);
    net.sync();
    assert_eq!(fs::read_link(net.at("latest")).unwrap().to_str(), Some("o"));
}

#[test]
fn r94_the_link_survives_runs_that_fail() {
    let mut net = Versions::start(SEALED, "");
    net.finished("v1", 1);
    net.sync();
    net.rsyncd.take().unwrap().stop();
    assert_eq!(net.result(), "SYNC_FAILED");
    assert_eq!(net.names(), ["latest -> v1", "v1"]);
}

#[test]
fn r95_whoever_reads_the_link_while_it_changes_always_finds_one() {
    let net = Versions::start(SEALED, "");
    net.finished("v0", 0);
    net.sync();
    for n in 1..12 {
        net.finished(&format!("v{n:02}"), n);
    }
    let (link, stop) = (net.at("latest"), std::sync::atomic::AtomicBool::new(false));
    let seen = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut seen = std::collections::BTreeSet::new();
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let target = fs::read_link(&link).expect("the link is always there");
                assert!(link.join("content").exists(), "it leads to a whole version");
                seen.insert(target);
            }
            seen
        });
        net.sync();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        reader.join().unwrap()
    });
    assert!(seen.len() > 2, "{seen:?}");
    wait_until("the link to be the last", || fs::read_link(&link).unwrap().ends_with("v11"));
}
