//! What happens in the middle of a transfer: an end, a revocation, a crash elsewhere.

use std::fs;

use tests::{
    fixture::{OneTree, noise},
    network::bytes_by,
    valve::Valve,
};

const FILES: u64 = 24;
const FILE_BYTES: usize = 1 << 20;
const ALL: u64 = FILES * FILE_BYTES as u64;

/// A tree whose first `old` files are held in old versions. The whole new generation is published
/// and incompressible, and the agent reaches its publisher through a valve that lets `limit` bytes
/// of it pass.
fn one_update_behind(old: u64, limit: u64) -> (OneTree, Valve) {
    let net = OneTree::start("", "");
    for n in 0..old {
        net.write(&format!("f{n}"), old_content(n));
    }
    net.publish_and_sync();
    for n in 0..FILES {
        net.write(&format!("f{n}"), noise(n, FILE_BYTES));
    }
    net.publish();
    let valve = behind_a_valve(&net, limit);
    (net, valve)
}

/// From now on the agent reaches its publisher through a valve that lets `limit` bytes pass.
fn behind_a_valve(net: &OneTree, limit: u64) -> Valve {
    let address = fs::read_to_string(net.publisher.data.join("listen")).unwrap();
    let valve = Valve::start(address.trim().parse().unwrap(), limit);
    let config = fs::read_to_string(&net.agent.config).unwrap();
    fs::write(&net.agent.config, config + &valve.setting()).unwrap();
    valve
}

fn old_content(n: u64) -> Vec<u8> {
    noise(n + 1_000, FILE_BYTES)
}

fn still_holds_the_old(net: &OneTree, old: u64) {
    for n in 0..old {
        let held = fs::read(net.mirror().join(format!("f{n}"))).unwrap();
        assert!(held == old_content(n), "f{n} is not the old one");
    }
    assert_eq!(fs::read_dir(net.mirror()).unwrap().count() as u64, old);
}

fn remove_packs(net: &OneTree) {
    for pack in fs::read_dir(net.publisher.data.join("trees/tree/packs")).unwrap() {
        fs::remove_file(pack.unwrap().path()).unwrap();
    }
}

fn ends_in_the_middle_and_goes_on(way: &str, old: u64, prepare: impl Fn(&OneTree)) {
    let (net, valve) = one_update_behind(old, ALL * 3 / 4);
    prepare(&net);
    let agent = net.testbed.run_agent(&net.agent);
    valve.wait_until_shut();
    assert!(agent.stop().success(), "it did not drain");
    still_holds_the_old(&net, old);
    valve.open();
    let run = net.sync();
    net.assert_same();
    let received = bytes_by(&run, way);
    assert!(received > 0 && received < ALL * 7 / 10, "{received} of {ALL} bytes: {run:#}");
}

#[test]
fn a_pack_that_an_end_cut_short_is_not_fetched_again() {
    ends_in_the_middle_and_goes_on("pack", 1, |_| ());
}

#[test]
fn whole_files_that_came_before_an_end_are_not_fetched_again() {
    ends_in_the_middle_and_goes_on("whole", 1, remove_packs);
}

#[test]
fn an_rsync_that_an_end_cut_short_is_resumed() {
    // Where old versions are held, rsync is asked for what has no pack.
    ends_in_the_middle_and_goes_on("rsync", FILES, remove_packs);
}

#[test]
fn files_are_made_while_the_rest_of_a_pack_is_on_its_way() {
    const SHIFTED: usize = 40;
    let net = OneTree::start("", "");
    for n in 0..SHIFTED {
        net.write(&format!("same/f{n}"), format!("the same content {n}"));
    }
    net.publish_and_sync();
    for n in 0..FILES {
        net.write(&format!("new/f{n}"), noise(n, FILE_BYTES));
    }
    // The content is here, but files that share an inode with the live ones cannot have other times.
    for n in 0..SHIFTED {
        let file = fs::File::open(net.upstream.join(format!("same/f{n}"))).unwrap();
        file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000))
            .unwrap();
    }
    net.publish();
    let valve = behind_a_valve(&net, ALL / 2);
    let agent = net.testbed.run_agent(&net.agent);
    valve.wait_until_shut();
    let staged = |is_meant: &dyn Fn(u64) -> bool| {
        let staging = net.agent.storage.join("work/tree@site/staging");
        let names = fs::read_dir(staging).into_iter().flatten().flatten();
        let sizes = names.filter(|name| !name.file_name().to_string_lossy().starts_with("tmp-"));
        sizes
            .filter(|name| name.metadata().is_ok_and(|meta| meta.is_file() && is_meant(meta.len())))
            .count()
    };
    tests::wait_until("what came to be made into files", || {
        staged(&|size| size == FILE_BYTES as u64) as u64 >= FILES / 4
    });
    tests::wait_until("files of which only the times differ to be copied", || {
        staged(&|size| size < 100) == SHIFTED
    });
    assert!(fs::metadata(net.mirror().join("new")).is_err(), "half a generation is published");
    valve.open();
    net.testbed.wait_for_generation("tree@site", 2);
    net.assert_same();
    assert!(agent.stop().success());
}

#[test]
fn a_revocation_ends_a_download_that_is_under_way() {
    let (mut net, valve) = one_update_behind(1, 1 << 20);
    let agent = net.testbed.run_agent(&net.agent);
    valve.wait_until_shut();
    net.testbed.ctl(&["revoke", "agent/agent", "--reason", "test"]);
    net.publishing.wait_for_log("its certificate lost its standing");
    valve.open();
    tests::wait_until("the run to end", || agent.log().contains("run failed"));
    tests::wait_until("the agent to be told", || agent.log().to_lowercase().contains("revoked"));
    still_holds_the_old(&net, 1);
    let passed = valve.passed();
    assert!(passed < ALL / 2, "{passed} of {ALL} bytes came after the revocation");
}

#[test]
fn a_crash_of_the_coordinator_does_not_stop_a_run() {
    let (mut net, valve) = one_update_behind(1, 1 << 20);
    let agent = net.testbed.run_agent(&net.agent);
    valve.wait_until_shut();
    net.testbed.kill_coordinator();
    valve.open();
    tests::wait_until("the generation to be whole", || {
        fs::read_dir(net.mirror()).is_ok_and(|files| files.count() as u64 == FILES)
    });
    net.assert_same();
    net.testbed.start_coordinator();
    net.testbed.wait_for_generation("tree@site", 2);
    assert!(agent.stop().success());
}
