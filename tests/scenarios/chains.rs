//! Agents that were away: by a chain of packs, or by one that was squashed for them.

use std::{fs, path::Path};

use tests::{
    compare,
    fixture::{OneTree, noise, prose},
    network::bytes_by,
    programs,
};

/// A tree of which the site leaves out `debug`, held as generation 1.
fn away() -> OneTree {
    let net = OneTree::start("", "filter = [\"- /debug/\"]");
    for n in 0..20 {
        net.write(&format!("src/file{n}.txt"), prose(n, 60_000));
        net.write(&format!("debug/file{n}.txt"), prose(n + 100, 2_000));
    }
    net.publish_and_sync();
    net
}

/// An edit of what every generation edits: some files of a group, and what is left out.
fn edit(net: &OneTree, step: usize) {
    for n in [3, 4, 11] {
        let text = prose(n, 60_000);
        let lines: String = (0..=step).map(|step| format!("line of step {step}\n")).collect();
        let at = text[..30_000].rfind('\n').unwrap_or(0);
        net.write(&format!("src/file{n}.txt"), format!("{}{lines}{}", &text[..at], &text[at..]));
        net.write(&format!("debug/file{n}.txt"), prose(n + 200 + step as u64, 2_000));
    }
}

/// Bytes of the packs that lead to a generation.
fn packs_to(net: &OneTree, generation: u64) -> Vec<u64> {
    let list = net.testbed.ctl_json(&["get", "generations", &format!("tree@{generation}")]);
    let packs = list[0]["packs"].as_array().unwrap().iter();
    packs.map(|pack| pack["length"].as_u64().unwrap()).collect()
}

fn assert_only_packs(net: &OneTree) -> u64 {
    let run = net.sync();
    compare::assert_same(&net.upstream, &net.mirror(), &["- /debug/"]);
    assert_eq!(bytes_by(&run, "rsync") + bytes_by(&run, "whole"), 0, "{run:#}");
    let left = fs::read_dir(net.agent.storage.join("work/tree@site/partial/bases"));
    assert!(left.map_or(0, Iterator::count) == 0, "bases are left over");
    bytes_by(&run, "pack")
}

#[test]
fn an_agent_that_was_away_comes_back_by_a_chain_of_packs_and_nothing_else() {
    let net = away();
    for step in 0..3 {
        // Nothing could be squashed: each generation brings as much that stays.
        net.write(&format!("src/new{step}"), noise(step as u64, 400_000));
        edit(&net, step);
        net.publish();
    }
    assert_eq!(packs_to(&net, 4).len(), 1, "a pack is offered that is no better than the chain");
    let by_pack = assert_only_packs(&net);
    assert!((1_200_000..1_260_000).contains(&by_pack), "{by_pack} bytes");
}

#[test]
fn a_pack_is_squashed_for_agents_that_were_away_where_that_is_cheaper() {
    let net = away();
    for step in 0..3 {
        net.write("src/rolling", noise(step as u64, 400_000));
        edit(&net, step);
        net.publish();
    }
    let packs = packs_to(&net, 4);
    assert_eq!(packs.len(), 2, "{packs:?}");
    let by_pack = assert_only_packs(&net);
    assert!((400_000..440_000).contains(&by_pack), "{by_pack} bytes");
}

/// Starts the publisher anew with more configuration.
fn reconfigured(net: OneTree, more: &str) -> OneTree {
    let config = fs::read_to_string(&net.publisher.config).unwrap();
    fs::write(&net.publisher.config, format!("{config}\n{more}\n")).unwrap();
    let OneTree { testbed, publisher, publishing, agent, upstream } = net;
    assert!(publishing.stop().success());
    let publishing = testbed.run_publisher(&publisher);
    OneTree { testbed, publisher, publishing, agent, upstream }
}

#[test]
fn where_only_signatures_are_kept_agents_that_were_away_still_come_by_deltas() {
    let net = away();
    let views = net.publisher.data.join("view/tree");
    let net = reconfigured(net, "retain = { mode = \"signatures\", generations = 4 }");
    assert_signatures_lead_on(&net, &views);
}

#[test]
fn where_content_can_be_neither_shared_nor_linked_only_signatures_of_the_past_are_kept() {
    let Ok(other) = tempfile::tempdir_in("/dev/shm") else {
        eprintln!("*** SKIPPED: there is no other file system here");
        return;
    };
    let lines = format!("view = {:?}\nretain = {{ generations = 4 }}", other.path());
    let net = reconfigured(away(), &lines);
    assert_signatures_lead_on(&net, &other.path().join("tree"));
    assert!(net.publishing.log().contains("only signatures"), "{}", net.publishing.log());
}

fn assert_signatures_lead_on(net: &OneTree, views: &Path) {
    net.write("src/first", prose(500, 1_000));
    net.publish_and_sync();
    for step in 0..3 {
        net.write("src/rolling", noise(step as u64, 400_000));
        edit(net, step);
        net.publish();
    }
    assert_eq!(fs::read_dir(views).unwrap().count(), 1, "old content is kept");
    let by_pack = assert_only_packs(net);
    assert!((400_000..470_000).contains(&by_pack), "{by_pack} bytes");
    let run = net.last_run();
    let rsync = run["encoders"].as_array().unwrap().iter().find(|e| e["encoder"] == "rsync");
    assert!(rsync.unwrap()["files"].as_u64().unwrap() >= 3, "{run:#}");
}

#[test]
fn a_tree_that_asks_for_librsync_deltas_gets_them_in_every_pack_and_rdiff_applies_them() {
    let net = OneTree::start("encoders = \"rsync\"", "");
    for n in 0..10 {
        net.write(&format!("f{n}"), prose(n, 40_000));
    }
    net.write("image", noise(1, 2_500_000));
    net.publish_and_sync();
    let old = fs::read(net.upstream.join("f3")).unwrap();
    for n in 0..10 {
        net.write(&format!("f{n}"), format!("one line more\n{}", prose(n, 40_000)));
    }
    let mut image = noise(1, 2_500_000);
    image.splice(1_000_000..1_000_000, *b"inserted");
    net.write("image", image);
    let run = net.publish_and_sync();
    net.assert_same();
    let encoders = run["encoders"].as_array().unwrap();
    assert_eq!(encoders.len(), 1, "{run:#}");
    assert_eq!((&encoders[0]["encoder"], &encoders[0]["files"]), (&"rsync".into(), &11.into()));

    let packs = fs::read_dir(net.publisher.data.join("trees/tree/packs")).unwrap();
    let pack = packs.map(|pack| pack.unwrap().path()).next().unwrap();
    let (delta, base, result) =
        (net.testbed.path("delta"), net.testbed.path("base"), net.testbed.path("result"));
    fs::write(&base, old).unwrap();
    let mut inspect = programs::program("publisher");
    inspect.arg("inspect").arg(pack).args(["--extract", "f3", "--out"]).arg(&delta);
    programs::succeed(&mut inspect);
    let mut rdiff = std::process::Command::new("rdiff");
    rdiff.arg("patch").args([&base, &delta, &result]);
    programs::succeed(&mut rdiff);
    assert_eq!(fs::read(result).unwrap(), fs::read(net.upstream.join("f3")).unwrap());
}
