//! A site that keeps a tenth of a tree: it fetches what concerns it of a pack's index, and knows no
//! more of the tree. Nothing is lost by that: not when the filter changes, not when something is
//! damaged, not when other sites ask this one.

use std::{fs, path::Path};

use serde_json::Value;
use tests::{
    compare,
    fixture::{OneTree, prose},
    network::bytes_by,
    programs,
};

const DIRS: u64 = 20;
const FILES: u64 = 660;
const TENTH: &str = "filter = [\"+ /d07/***\", \"+ /d08/***\", \"- /*\"]";
const KEPT: [&str; 3] = ["+ /d07/***", "+ /d08/***", "- /*"];

/// Every file of the tree, of that version.
fn write_all(net: &OneTree, version: u64) {
    for d in 0..DIRS {
        for f in 0..FILES {
            let text = prose(d * FILES + f, 60);
            net.write(&format!("d{d:02}/f{f:03}.txt"), format!("{version}\n{text}"));
        }
    }
}

/// The newest pack at the publisher, as `inspect` tells of it.
fn newest_pack(net: &OneTree) -> Value {
    let packs = fs::read_dir(net.publisher.data.join("trees/tree/packs")).unwrap();
    let packs = packs.map(|pack| pack.unwrap().path());
    let newest = packs.max_by_key(|pack| pack.metadata().unwrap().modified().unwrap()).unwrap();
    let mut inspect = programs::program("publisher");
    inspect.arg("inspect").arg(newest).args(["--output", "json"]);
    serde_json::from_slice(&inspect.output().unwrap().stdout).unwrap()
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// What the agent keeps of manifests: how many whole ones, and how many parts.
fn kept(net: &OneTree) -> (usize, usize) {
    let manifests = net.agent.data.join("manifests");
    (names(&manifests.join("lists")).len(), names(&manifests.join("parts")).len())
}

fn assign(net: &OneTree, filter: &str) {
    net.testbed.apply(&format!(
        "[[assignment]]\nsite = \"site\"\ntree = \"tree\"\nkeep-withdrawn = \"0s\"\n{filter}\n"
    ));
}

#[test]
fn a_site_that_keeps_a_tenth_fetches_little_of_the_index_and_loses_nothing_by_it() {
    let net = OneTree::start("", TENTH);
    write_all(&net, 1);
    net.publish_and_sync();
    compare::assert_same(&net.upstream, &net.mirror(), &KEPT);
    assert_eq!(kept(&net), (1, 0), "no pack leads there from nothing");

    // Everything changes: a tenth of the index is what it takes, and some.
    write_all(&net, 2);
    fs::remove_file(net.upstream.join("d07/f003.txt")).unwrap();
    fs::remove_dir_all(net.upstream.join("d03")).unwrap();
    net.write("d08/new.txt", "new");
    let run = net.publish_and_sync();
    compare::assert_same(&net.upstream, &net.mirror(), &KEPT);
    let pack = newest_pack(&net);
    let index = pack["index_length"].as_u64().unwrap();
    let metadata = bytes_by(&run, "metadata");
    assert!(index > 400_000, "the test needs a longer index than {index}");
    assert!(metadata * 4 <= index, "{metadata} of {index} bytes: {run:#}");
    assert_eq!(bytes_by(&run, "whole") + bytes_by(&run, "rsync"), 0, "{run:#}");
    let drawn = bytes_by(&run, "pack");
    assert!(drawn * 100 <= pack["length"].as_u64().unwrap() * 15, "{drawn}: {pack:#}");
    assert_eq!(kept(&net), (0, 1));

    // A small pack leads on from the part.
    net.write("d08/f005.txt", "small");
    net.write("d01/f005.txt", "small");
    fs::remove_file(net.upstream.join("d02/f005.txt")).unwrap();
    let run = net.publish_and_sync();
    compare::assert_same(&net.upstream, &net.mirror(), &KEPT);
    assert_eq!(kept(&net), (0, 1));
    assert!(bytes_by(&run, "metadata") < 2_000, "{run:#}");
    // And deltas of what comes after it find their bases by number.
    net.write("d08/f005.txt", prose(1, 30_000));
    net.publish_and_sync();
    net.write("d08/f005.txt", format!("{}one line more", prose(1, 30_000)));
    let run = net.publish_and_sync();
    compare::assert_same(&net.upstream, &net.mirror(), &KEPT);
    assert!(bytes_by(&run, "pack") < 1_000, "{run:#}");
    assert_eq!(bytes_by(&run, "whole") + bytes_by(&run, "rsync"), 0, "{run:#}");

    // What is damaged is found by the part and repaired.
    fs::write(net.mirror().join("d07/f009.txt"), "damaged").unwrap();
    fs::remove_file(net.mirror().join("d07/f010.txt")).unwrap();
    net.agent.command(&["verify", "tree"]).output().unwrap();
    compare::assert_same(&net.upstream, &net.mirror(), &KEPT);

    // A filter that keeps more needs more than was ever known.
    assign(&net, "filter = [\"- /d07/\", \"- /d01/\"]");
    let run = net.sync();
    let all = ["- /d01/"];
    compare::assert_same(&net.upstream.join("d04"), &net.mirror().join("d04"), &[]);
    assert!(net.mirror().join("d07/f001.txt").exists(), "what is newly left out stays: {run:#}");
    assert_eq!(kept(&net), (1, 0));
    net.write("d04/f007.txt", "changed");
    net.publish_and_sync();
    assign(&net, "filter = [\"- /d01/\"]");
    net.sync();
    compare::assert_same(&net.upstream, &net.mirror(), &all);
}
