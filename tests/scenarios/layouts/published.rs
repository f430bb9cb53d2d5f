//! Directories of versions of a publisher: the same rules, by packs, statements and receipts.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use serde_json::Value;
use tests::fixture::{OneTree, prose};

use super::upstream::{names, set_time};

fn version(net: &OneTree, name: &str, n: u64, files: u64) {
    for file in 0..files {
        let path = format!("{name}/f{file}");
        // Most files are the same in every version.
        let text = if file % 5 == 0 { prose(n * 100 + file, 3_000) } else { prose(file, 3_000) };
        net.write(&path, text);
        set_time(&net.upstream.join(&path), file);
    }
    set_time(&net.upstream.join(name), n);
}

fn by_way(run: &Value, way: &str, what: &str) -> u64 {
    let ways = run["ways"].as_array().unwrap();
    ways.iter().filter(|w| w["way"] == way).filter_map(|w| w[what].as_u64()).sum()
}

#[test]
fn a_publishers_versions_come_by_pack_switch_alone_and_share_their_files() {
    let net = OneTree::start("layout = \"versioned\"\nlatest-link = \"latest\"", "");
    version(&net, "v1", 1, 20);
    version(&net, "v2", 2, 20);
    net.publish_and_sync();
    let mirror = net.mirror();
    assert_eq!(names(&mirror), ["latest -> v2", "v1", "v2"]);
    let inode = |path: &str| fs::metadata(mirror.join(path)).unwrap().ino();
    assert_eq!(inode("v1/f1"), inode("v2/f1"), "equal files are one");
    assert_ne!(inode("v1/f0"), inode("v2/f0"));
    let first = inode("v1");

    version(&net, "v3", 3, 20);
    net.write("v2/f0", "changed");
    let run = net.publish_and_sync();
    assert_eq!(run["result"], "SYNC_COMPLETED", "{run:#}");
    assert_eq!(names(&mirror), ["latest -> v3", "v1", "v2", "v3"]);
    assert_eq!(fs::read_to_string(mirror.join("v2/f0")).unwrap(), "changed");
    assert_eq!(inode("v1"), first, "a version that did not change was not switched");
    let whole = by_way(&run, "whole", "files");
    assert!(
        by_way(&run, "pack", "files") > 0 && whole <= 1,
        "a file of few bytes at most: {run:#}"
    );
    assert_eq!(run["to"]["generation"], 2, "{run:#}");
    // The receipt says that the generation is held: nothing is left to do.
    let status = net.testbed.ctl_json(&["status"]);
    assert_eq!(status["assignments"][0]["holds"]["generation"], 2, "{status:#}");
    assert_eq!(net.sync()["to"]["generation"], 2);
}

/// Everything of a version's directory that a reader sees, its own time included.
fn look(dir: &Path) -> BTreeMap<PathBuf, (i64, u32, Vec<u8>)> {
    let seen = |entry: walkdir::DirEntry| {
        let meta = entry.metadata().unwrap();
        let content = if meta.is_file() { fs::read(entry.path()).unwrap() } else { Vec::new() };
        let path = entry.path().strip_prefix(dir).unwrap().to_owned();
        (path, (meta.mtime(), meta.mode(), content))
    };
    walkdir::WalkDir::new(dir).into_iter().map(|entry| seen(entry.unwrap())).collect()
}

/// Damages two versions in several ways; gives how many damages a verification has to find.
fn damage(mirror: &Path) -> u64 {
    let over = |path: &str, text: &str| {
        // Another inode: what the versions share is not damaged in both.
        fs::remove_file(mirror.join(path)).unwrap();
        fs::write(mirror.join(path), text).unwrap();
    };
    over("v1/f0", "damaged");
    over("v2/f0", "damaged too");
    over("v2/f1", &prose(7, 3_000));
    fs::remove_file(mirror.join("v2/f5")).unwrap();
    fs::write(mirror.join("v2/extra"), "does not belong").unwrap();
    5
}

fn verify(agent: &tests::network::Agent) -> Value {
    let output = agent.command(&["verify", "tree", "--output", "json"]).output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(output.status.success(), "{}", tests::programs::told(&output));
    report[0].clone()
}

#[test]
fn damage_inside_of_versions_is_repaired_from_a_publisher_and_a_stock_server() {
    let net = OneTree::start("layout = \"sealed\"\nlatest-link = \"latest\"", "");
    for n in 1..3 {
        version(&net, &format!("v{n}"), n, 10);
        net.write(&format!("v{n}/STATUS"), "FINISHED");
        set_time(&net.upstream.join(format!("v{n}")), n);
    }
    net.publish_and_sync();
    let stock = super::Versions::start("layout = \"versioned\"", "");
    for n in 1..3 {
        for file in 0..10 {
            let seed = if file % 5 == 0 { n * 100 + file } else { file };
            stock.file(&format!("v{n}"), &format!("f{file}"), &prose(seed, 3_000), file);
        }
        set_time(&stock.upstream.join(format!("v{n}")), n);
    }
    stock.sync();
    for (agent, mirror) in [(&net.agent, net.mirror()), (&stock.agent, stock.at(""))] {
        let before = look(&mirror);
        assert_eq!(verify(agent)["result"], "SYNC_UP_TO_DATE");
        let damaged = damage(&mirror);
        let report = verify(agent);
        let checked = &report["checked"];
        let of =
            |keys: &[&str]| keys.iter().map(|key| checked[*key].as_u64().unwrap()).sum::<u64>();
        let found = of(&["flipped", "cut", "missing", "extra", "attributes"]);
        assert!(found >= damaged, "{report:#}");
        assert_eq!(of(&["repaired", "trashed"]), found, "{report:#}");
        assert_eq!(report["result"], "SYNC_COMPLETED", "{report:#}");
        assert_eq!(
            names(&mirror).len(),
            before.keys().filter(|p| p.components().count() == 1).count()
        );
        let now = look(&mirror);
        // The directory above the versions is nobody's.
        let differs = |(path, seen): &(&PathBuf, &_)| {
            !path.as_os_str().is_empty() && before.get(*path) != Some(*seen)
        };
        let wrong = now.iter().filter(differs);
        let wrong: Vec<_> = wrong.map(|(path, seen)| (path, seen.0, seen.1)).collect();
        assert!(wrong.is_empty() && now.len() == before.len(), "{wrong:?}");
        assert_eq!(verify(agent)["result"], "SYNC_UP_TO_DATE");
    }
}

#[test]
fn a_version_that_cannot_be_repaired_is_named_and_keeps_no_other_waiting() {
    let mut net = OneTree::start("layout = \"versioned\"", "");
    version(&net, "v1", 1, 10);
    version(&net, "v2", 2, 10);
    net.publish_and_sync();
    assert!(net.publishing.end().success());
    let mirror = net.mirror();
    // What only one version has, and what the other one still has as well.
    fs::write(mirror.join("v1/f0"), "damaged").unwrap();
    fs::write(mirror.join("v2/added"), "does not belong").unwrap();
    let output = net.agent.command(&["verify", "tree", "--output", "json"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let error = report[0]["error"].as_str().unwrap();
    assert!(error.contains("could not be repaired") && error.contains("f0"), "{report:#}");
    assert_eq!(fs::read_to_string(mirror.join("v1/f0")).unwrap(), "damaged");
    assert!(!mirror.join("v2/added").exists(), "the other version was put right");
}

#[test]
fn a_publishers_sealed_versions_wait_until_they_are_finished_and_then_stay() {
    let net = OneTree::start(
        "layout = \"sealed\"\nlatest-link = \"latest\"\ndelete-old-versions = true\n\
         guard = { max-delete-files = \"100%\", max-delete-bytes = \"100%\" }",
        "",
    );
    version(&net, "v1", 1, 10);
    version(&net, "v2", 2, 10);
    net.write("v1/STATUS", "FINISHED\n");
    net.write("v2/STATUS", "RUNNING\n");
    set_time(&net.upstream.join("v1"), 1);
    net.publish_and_sync();
    assert_eq!(names(&net.mirror()), ["latest -> v1", "v1"]);
    assert_eq!(fs::read_to_string(net.mirror().join("v1/STATUS")).unwrap(), "FINISHED\n");
    net.write("v2/STATUS", "  FINISHED  \n");
    net.write("v1/f3", "not followed");
    net.publish_and_sync();
    assert_eq!(names(&net.mirror()), ["latest -> v2", "v1", "v2"]);
    assert_ne!(fs::read_to_string(net.mirror().join("v1/f3")).unwrap(), "not followed");
    fs::remove_dir_all(net.upstream.join("v1")).unwrap();
    net.publish_and_sync();
    assert_eq!(names(&net.mirror()), ["latest -> v2", "v2"]);
}

#[test]
fn a_directory_of_versions_is_renamed_as_a_whole_and_goes_on_where_it_is() {
    let net = OneTree::start("layout = \"versioned\"", "path = \"first/place\"");
    version(&net, "v1", 1, 20);
    net.publish_and_sync();
    let inode = |path: &str| fs::metadata(net.agent.published(path)).unwrap().ino();
    let before = (inode("first/place/v1"), inode("first/place/v1/f1"));
    let text = fs::read_to_string(net.testbed.path("network.toml")).unwrap();
    net.testbed.apply(&text.replace("first/place", "moved/here"));
    net.agent.sync();
    assert_eq!((inode("moved/here/v1"), inode("moved/here/v1/f1")), before);
    version(&net, "v2", 2, 20);
    net.publish();
    net.agent.sync();
    assert_eq!(names(&net.agent.published("moved/here")), ["v1", "v2"]);
    assert_eq!((inode("moved/here/v1"), inode("moved/here/v1/f1")), before);
}

#[test]
fn what_lies_at_the_path_is_adopted_version_by_version_and_by_another_layout_again() {
    let net = OneTree::start("layout = \"versioned\"", "");
    version(&net, "v1", 1, 20);
    version(&net, "v2", 2, 20);
    net.publish();
    // As a cron job with rsync has left it, with one file that is older and one of its own.
    tests::programs::succeed(
        std::process::Command::new("rsync")
            .args(["-a"])
            .arg(&net.upstream)
            .arg(net.agent.published("")),
    );
    fs::write(net.mirror().join("v1/f3"), "older").unwrap();
    fs::write(net.mirror().join("v2/own"), "local").unwrap();
    let inode = |path: &str| fs::metadata(net.mirror().join(path)).unwrap().ino();
    let before = inode("v2/f1");
    let run = net.sync();
    assert_eq!(inode("v2/f1"), before, "what is equal stays where it is");
    assert_eq!(by_way(&run, "whole", "files") + by_way(&run, "rsync", "files"), 1, "{run:#}");
    assert_eq!(fs::read_to_string(net.mirror().join("v1/f3")).unwrap(), prose(3, 3_000));
    assert_eq!(fs::read_to_string(net.mirror().join("v2/own")).unwrap(), "local", "never unasked");
    fs::remove_file(net.mirror().join("v2/own")).unwrap();
    let text = fs::read_to_string(net.testbed.path("network.toml")).unwrap();
    net.testbed.apply(&text.replace("layout = \"versioned\"", "layout = \"simple\""));
    version(&net, "v3", 3, 20);
    net.publish();
    net.agent.sync();
    net.assert_same();
    assert_eq!(inode("v2/f1"), before);
}
