//! Agents that were away: by a chain of packs, or by one that was squashed for them.

use tests::{
    compare,
    fixture::{OneTree, noise, prose},
    network::bytes_by,
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
    let left = std::fs::read_dir(net.agent.storage.join("work/tree@site/partial/bases"));
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
