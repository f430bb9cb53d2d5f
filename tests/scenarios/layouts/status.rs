//! Sealed versions: R41 to R47, and only the latest (F34).

use std::fs;

use super::Versions;

const SEALED: &str = "layout = \"sealed\"\nlatest-link = \"latest\"";

#[test]
fn r42_only_what_says_finished_is_taken_whatever_spaces_are_around_it() {
    let net = Versions::start(SEALED, "");
    for (age, (name, text)) in
        [("a", "FINISHED"), ("b", "FINISHED\n"), ("c", "  FINISHED \n\n")].iter().enumerate()
    {
        net.version(name, age as u64);
        net.status(name, text, age as u64);
    }
    for (age, (name, text)) in
        [("w", "finished"), ("x", "RUNNING"), ("y", "FINISHED\nmore"), ("z", "")].iter().enumerate()
    {
        net.version(name, 10 + age as u64);
        net.status(name, text, 10 + age as u64);
    }
    net.version("none", 20);
    net.sync();
    assert_eq!(net.names(), ["a", "b", "c", "latest -> c"]);
    for name in ["a", "b", "c"] {
        assert_eq!(net.read(&format!("{name}/STATUS")).as_deref(), Some("FINISHED\n"), "r43");
    }
}

#[test]
fn r44_a_finished_version_is_never_looked_at_again() {
    let net = Versions::start(SEALED, "");
    net.finished("v1", 1);
    net.sync();
    net.file("v1", "content", "changed upstream\n", 50);
    let run = net.sync();
    assert_eq!(run["result"], "SYNC_UP_TO_DATE", "{run:#}");
    assert_eq!(net.read("v1/content").as_deref(), Some("of v1\n"));
    let ways = run["ways"].as_array().unwrap();
    assert!(ways.iter().all(|way| way["files"] == 0 && way["way"] == "metadata"), "{run:#}");
}

#[test]
fn r45_r47_a_version_without_its_status_file_is_completed_by_it_alone() {
    let net = Versions::start(SEALED, "");
    net.finished("v1", 1);
    net.sync();
    // As after a crash between the switch and the status file, which is written last.
    fs::remove_file(net.at("v1/STATUS")).unwrap();
    fs::remove_file(net.at("latest")).unwrap();
    let content = net.inode("v1/content");
    let run = net.sync();
    assert_eq!(run["result"], "SYNC_COMPLETED", "{run:#}");
    assert_eq!(net.names(), ["latest -> v1", "v1"]);
    assert_eq!(net.read("v1/STATUS").as_deref(), Some("FINISHED\n"));
    assert_eq!(net.inode("v1/content"), content);
}

#[test]
fn r46_r63_after_a_partial_run_there_is_no_status_no_link_no_deletion_and_the_next_completes() {
    let net = Versions::start(
        "layout = \"sealed\"\nlatest-link = \"latest\"\ndelete-old-versions = true",
        "",
    );
    net.finished("v0", 0);
    net.finished("v1", 1);
    net.sync();
    net.gone("v0");
    net.finished("v2", 2);
    // A version that cannot be switched: a file of ours is where its work would be.
    let blocked = net.agent.published("tree/v2");
    fs::write(&blocked, "in the way").unwrap();
    assert_eq!(net.result(), "SYNC_FAILED", "the only version that was worked on");
    net.finished("v3", 3);
    assert_eq!(net.result(), "SYNC_PARTIAL");
    assert!(!net.at("v2/STATUS").exists() && net.at("v0").is_dir());
    assert_eq!(fs::read_link(net.at("latest")).unwrap().to_str(), Some("v3"));
    fs::remove_file(&blocked).unwrap();
    assert_eq!(net.sync()["result"], "SYNC_COMPLETED");
    assert_eq!(net.read("v2/STATUS").as_deref(), Some("FINISHED\n"));
    assert!(!net.at("v0").exists());
}

#[test]
fn f34_only_the_latest_finished_version_comes_and_what_is_not_ready_is_passed_over() {
    let net = Versions::start(&format!("{SEALED}\nsync-latest-only = true"), "");
    net.finished("v1", 1);
    net.finished("v2", 2);
    net.version("v3", 3);
    net.sync();
    assert_eq!(net.names(), ["latest -> v2", "v2"]);
    net.status("v3", "FINISHED\n", 3);
    net.sync();
    assert_eq!(net.names(), ["latest -> v3", "v2", "v3"]);
    assert_eq!(net.sync()["result"], "SYNC_UP_TO_DATE");
}

#[test]
fn the_marker_and_its_text_are_the_trees_choice() {
    let net = Versions::start(
        "layout = \"sealed\"\nstatus-file = \"COMPOSE_ID\"\nfinished = \"DONE\"",
        "",
    );
    net.finished("v1", 1);
    net.version("v2", 2);
    fs::write(net.upstream.join("v2/COMPOSE_ID"), "DONE\n").unwrap();
    net.sync();
    assert_eq!(net.names(), ["v2"]);
    assert_eq!(net.read("v2/COMPOSE_ID").as_deref(), Some("DONE\n"));
}
