//! Which directories are versions: R25 to R27, R40, R41, R60 to R62.

use std::fs;

use super::{Versions, upstream::names};

#[test]
fn r25_r27_the_directory_is_listed_as_it_is_and_names_are_matched_here() {
    let net = Versions::start(
        "layout = \"versioned\"\nlisting-pattern = \"rel*\"\n\
         listing-filter = [\"+ relic-1\", \"- relic-*\"]\nlisting-exclude = [\"rel-dull\"]",
        "",
    );
    for (age, name) in
        ["rel-1", "rel-2", "relic-1", "relic-2", "rel-dull", "other"].iter().enumerate()
    {
        net.version(name, age as u64);
    }
    std::fs::write(net.upstream.join("rel-file"), "no version").unwrap();
    net.version("relq[1]", 10);
    net.version("relq1", 11);
    net.version("rel two words", 12);
    let run = net.sync();
    assert_eq!(run["result"], "SYNC_COMPLETED", "{run:#}");
    assert_eq!(net.names(), ["rel two words", "rel-1", "rel-2", "relic-1", "relq1", "relq[1]"]);
    for name in ["relq[1]", "relq1", "rel two words"] {
        assert_eq!(net.read(&format!("{name}/content")), Some(format!("of {name}\n")));
    }
    // The version's own time is the upstream's: it decides the order.
    let time = |path: &std::path::Path| fs::metadata(path).unwrap().modified().unwrap();
    assert_eq!(time(&net.at("rel-2")), time(&net.upstream.join("rel-2")));
    let before = net.everything();
    assert_eq!(net.sync()["result"], "SYNC_UP_TO_DATE");
    assert_eq!(net.everything(), before, "nothing new changes nothing");
}

#[test]
fn r26_links_that_lead_nowhere_hide_nothing() {
    let net = Versions::start("layout = \"versioned\"\nlisting-pattern = \"*\"", "");
    net.version("v1", 1);
    net.link("dangling", "nowhere");
    net.link("loop", "loop");
    net.link("good", "v1");
    net.sync();
    assert_eq!(net.names(), ["good -> v1", "v1"]);
}

#[test]
fn r40_r62_no_version_at_all_fails_and_touches_nothing() {
    let mut net = Versions::start(
        "layout = \"versioned\"\nlisting-pattern = \"v*\"\ndelete-old-versions = true",
        "",
    );
    net.version("v1", 1);
    net.version("v2", 2);
    net.sync();
    let before = net.everything();
    net.gone("v1");
    net.gone("v2");
    net.version("other", 3);
    assert_eq!(net.result(), "SYNC_FAILED");
    let error = net.last_run()["error"].to_string();
    assert!(error.contains("listing-pattern") && error.contains("v*"), "{error}");
    assert_eq!(net.everything(), before);
    // A listing that fails is not an empty one.
    net.version("v1", 1);
    net.rsyncd.take().unwrap().stop();
    assert_eq!(net.result(), "SYNC_FAILED");
    assert_eq!(net.everything(), before);
}

#[test]
fn r23_r24_excluded_names_that_exist_here_stay_and_other_extras_go() {
    let net = Versions::start("layout = \"versioned\"\nexclude = [\"skip*\", \"dull/\"]", "");
    net.version("v1", 1);
    net.file("v1", "skip.upstream", "no", 1);
    net.file("v1", "deep/dull/x", "no", 1);
    net.sync();
    assert_eq!(names(&net.at("v1")), ["common", "content", "deep"]);
    assert_eq!(names(&net.at("v1/deep")), [] as [&str; 0]);
    fs::write(net.at("v1/skip.local"), "mine").unwrap();
    fs::write(net.at("v1/extra"), "not excluded").unwrap();
    net.file("v1", "content", "new\n", 5);
    net.sync();
    assert_eq!(net.read("v1/content").as_deref(), Some("new\n"));
    // What appeared in the tree that was exchanged is found after the switch: one more run.
    net.file("v1", "content", "newer\n", 6);
    net.sync();
    assert_eq!(names(&net.at("v1")), ["common", "content", "deep", "skip.local"]);
}

#[test]
fn r21_r22_a_sites_include_comes_before_the_trees_exclude() {
    let net = Versions::start(
        "layout = \"versioned\"\nfilter = [\"- *.txt\"]\nexclude = [\"*.log\"]",
        "filter = [\"+ keep.txt\", \"+ keep.log\"]",
    );
    net.version("v1", 1);
    for name in ["keep.txt", "drop.txt", "keep.log", "drop.log"] {
        net.file("v1", name, name, 1);
    }
    net.sync();
    assert_eq!(names(&net.at("v1")), ["common", "content", "keep.log", "keep.txt"]);
}
