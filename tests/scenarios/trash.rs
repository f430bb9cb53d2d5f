//! What leaves a published tree lies in the trash for a while, and is brought back where that is
//! wanted.

use std::{fs, path::Path};

use serde_json::Value;
use tests::{
    fixture::{OneTree, prose},
    programs::{succeed, told},
    wait_until,
};

fn trash(net: &OneTree) -> Vec<Value> {
    let text = succeed(&mut net.agent.command(&["trash", "--output", "json"]));
    serde_json::from_str(&text).unwrap()
}

fn start(assignment: &str) -> OneTree {
    let net = OneTree::start("", assignment);
    for n in 0..40 {
        net.write(&format!("d{}/f{n}", n % 4), prose(n, 2_000));
    }
    net.publish_and_sync();
    net
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
fn what_the_upstream_removed_comes_back_when_an_admin_wants_it_and_stays_from_then_on() {
    for switch in ["auto", "in-place"] {
        let net = start(&format!("switch = \"{switch}\""));
        fs::remove_file(net.upstream.join("d1/f1")).unwrap();
        fs::remove_file(net.upstream.join("d2/f2")).unwrap();
        net.publish_and_sync();
        net.assert_same();
        let [batch] = &trash(&net)[..] else { panic!("{:#?}", trash(&net)) };
        assert_eq!((&batch["cause"], &batch["files"]), (&"removed".into(), &2.into()), "{batch:#}");
        assert_eq!(batch["paths"], serde_json::json!(["d1/f1", "d2/f2"]), "{batch:#}");

        net.testbed.ctl(&["undelete", "tree@site", "d1"]);
        let run = net.sync();
        assert_eq!((&run["kind"], &run["result"]), (&"undelete".into(), &"SYNC_COMPLETED".into()));
        assert!(run["notices"].to_string().contains("d1/f1"), "{run:#}");
        assert_eq!(read(&net.mirror().join("d1/f1")), prose(1, 2_000));
        assert!(!net.mirror().join("d2/f2").exists());
        let audit = net.testbed.ctl(&["audit"]);
        assert!(audit.contains("undelete") && audit.contains("tree@site"), "{audit}");
        // It was answered: neither the next run nor the next generation thinks of it again.
        net.write("d1/new", "new");
        let run = net.publish_and_sync();
        assert_eq!((&run["kind"], &run["result"]), (&"sync".into(), &"SYNC_COMPLETED".into()));
        assert_eq!(read(&net.mirror().join("d1/f1")), prose(1, 2_000), "{switch}");
        assert_eq!(read(&net.mirror().join("d1/new")), "new");

        let nothing = net.agent.command(&["undelete", "tree", "no/such"]).output().unwrap();
        assert_eq!(nothing.status.code(), Some(1), "{}", told(&nothing));
        assert!(told(&nothing).contains("the trash has nothing of that"), "{}", told(&nothing));
        // Back at the upstream with other content: what lies there is never overwritten.
        net.write("d2/f2", "another");
        net.publish_and_sync();
        let taken = net.agent.command(&["undelete", "tree", "d2/f2"]).output().unwrap();
        assert_eq!(taken.status.code(), Some(1), "{}", told(&taken));
        assert!(told(&taken).contains("1 paths are taken"), "{}", told(&taken));
        assert_eq!(read(&net.mirror().join("d2/f2")), "another");
    }
}

#[test]
fn an_assignment_that_ends_with_trash_takes_its_files_along_until_their_time_is_up() {
    let net = start("on-end = \"trash\"");
    net.testbed.ctl(&["delete", "assignment", "tree@site"]);
    net.agent.sync();
    assert!(!net.mirror().exists());
    let [batch] = &trash(&net)[..] else { panic!("{:#?}", trash(&net)) };
    assert_eq!((&batch["cause"], &batch["files"]), (&"ended".into(), &40.into()), "{batch:#}");
    let run = net.last_run();
    assert!(run["kind"] == "end" && run["notices"].to_string().contains("trash"), "{run:#}");

    let name = batch["batch"].as_str().unwrap();
    succeed(&mut net.agent.command(&["undelete", "tree", "--from", name]));
    net.assert_same();
    // It has ended all the same: nothing moves it once more.
    net.agent.sync();
    net.assert_same();
    succeed(&mut net.agent.command(&["purge", "tree"]));
    assert!(!net.mirror().exists());
    assert_eq!(trash(&net), [] as [Value; 0]);
}

#[test]
fn the_trash_empties_itself() {
    let net = start("");
    net.configure_agent("trash-keep = \"3s\"");
    fs::remove_file(net.upstream.join("d1/f1")).unwrap();
    net.publish_and_sync();
    assert_eq!(trash(&net).len(), 1);
    wait_until("the trash to be empty", || {
        net.agent.sync();
        trash(&net).is_empty()
    });
    net.configure_agent("trash-max = \"1KiB\"");
    fs::remove_file(net.upstream.join("d2/f2")).unwrap();
    net.publish_and_sync();
    assert_eq!(trash(&net), [] as [Value; 0], "2 kB are more than it may keep");
}

#[test]
fn a_tree_with_a_protected_file_stays_when_its_assignment_ends() {
    let net = start("on-end = \"trash\"");
    tests::fixture::write(&net.mirror().join("d3/local/PROTECTED"), "");
    net.testbed.ctl(&["delete", "assignment", "tree@site"]);
    net.agent.sync();
    assert_eq!(read(&net.mirror().join("d1/f1")), prose(1, 2_000));
    let run = net.last_run();
    assert!(run["notices"].to_string().contains("d3/local/PROTECTED"), "{run:#}");
}
