//! What an interruption costs, counted by what lies between the agent and its publisher.

use std::fs;

use tests::{
    fixture::{OneTree, noise},
    valve::Valve,
};

const MIB: u64 = 1 << 20;
/// Most that may be fetched again after an interruption.
const FRAME: u64 = 8 * MIB;
/// What is on its way when a process is killed and was never read.
const IN_FLIGHT: u64 = 2 * MIB;
const BIG: u64 = 40 * MIB;

/// A network with a tree in which a large file and some small ones are new, and their publisher behind
/// a valve; `hold` old versions are at the site.
fn behind_a_valve(hold: bool) -> (OneTree, Valve) {
    let net = OneTree::start("", "");
    net.write("small", noise(1, 1000));
    if hold {
        let mut old = noise(7, BIG as usize);
        // Nothing of the new version is in the old one.
        old.reverse();
        net.write("big.iso", old);
    }
    net.publish_and_sync();
    net.write("big.iso", noise(7, BIG as usize));
    for n in 0..8 {
        net.write(&format!("f{n}"), noise(100 + n, MIB as usize));
    }
    net.publish();
    let address = fs::read_to_string(net.publisher.data.join("listen")).unwrap();
    let valve = Valve::start(address.trim().parse().unwrap(), 0);
    net.configure_agent(&valve.setting());
    (net, valve)
}

fn remove_packs(net: &OneTree) {
    for pack in fs::read_dir(net.publisher.data.join("trees/tree/packs")).unwrap() {
        fs::remove_file(pack.unwrap().path()).unwrap();
    }
}

/// Kills the agent after each quarter of what there is, and lets it end after that.
fn costs_a_frame_a_kill(net: &OneTree, valve: &Valve) {
    let all = BIG + 8 * MIB;
    let kills = 3;
    for kill in 1..=kills {
        valve.open_up_to(all * kill / (kills + 1));
        let agent = net.testbed.run_agent(&net.agent);
        valve.wait_until_shut();
        agent.kill();
    }
    valve.open();
    net.sync();
    net.assert_same();
    let passed = valve.passed();
    let again = passed.saturating_sub(all + all / 50);
    eprintln!("{passed} bytes passed for {all}; again after {kills} kills: {again}");
    assert!(again <= kills * (FRAME + IN_FLIGHT), "{again} bytes came again");
}

#[test]
fn a_kill_costs_no_more_than_a_frame_of_a_pack() {
    let (net, valve) = behind_a_valve(false);
    costs_a_frame_a_kill(&net, &valve);
}

#[test]
fn a_kill_costs_no_more_than_a_frame_of_a_large_file() {
    let (net, valve) = behind_a_valve(false);
    remove_packs(&net);
    costs_a_frame_a_kill(&net, &valve);
}

#[test]
fn a_kill_costs_no_more_than_a_frame_of_what_comes_by_rsync() {
    let (net, valve) = behind_a_valve(true);
    remove_packs(&net);
    costs_a_frame_a_kill(&net, &valve);
}
