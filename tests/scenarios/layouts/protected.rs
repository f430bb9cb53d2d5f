//! PROTECTED in versions: R50 to R57.

use std::fs;

use super::{Versions, upstream::names};

#[test]
fn r50_r51_r52_r53_r55_r56_what_is_protected_in_a_version_does_not_change_at_all() {
    let net = Versions::start(
        "layout = \"versioned\"\nguard = { max-delete-files = \"100%\", max-delete-bytes = \"100%\" }",
        "",
    );
    net.version("v1", 1);
    for path in ["a/b/f", "a/gone/f", "q[1]/f", "both/a", "x/safe/f", "safe/f"] {
        net.file("v1", path, "as it was\n", 1);
    }
    net.sync();
    // One is only here, one is here and at the upstream, one has wildcards in its name.
    for path in ["a/b", "q[1]", "both", "safe"] {
        fs::write(net.at("v1").join(path).join("PROTECTED"), "").unwrap();
    }
    fs::write(net.at("v1/both/mine"), "mine").unwrap();
    let inode = net.inode("v1/both/a");
    for path in ["a/b", "a/gone", "q[1]", "x/safe", "safe"] {
        fs::remove_dir_all(net.upstream.join("v1").join(path)).unwrap();
    }
    net.file("v1", "both/a", "changed\n", 5);
    net.file("v1", "both/b", "new\n", 5);
    let run = net.sync();
    assert_eq!(names(&net.at("v1/a")), ["b"], "r52: the sibling is gone: {run:#}");
    assert_eq!(net.read("v1/a/b/f").as_deref(), Some("as it was\n"), "r51");
    assert_eq!(net.read("v1/q[1]/f").as_deref(), Some("as it was\n"), "r55");
    assert_eq!(names(&net.at("v1/both")), ["PROTECTED", "a", "mine"], "r53");
    assert_eq!(
        (net.read("v1/both/a").as_deref(), net.inode("v1/both/a")),
        (Some("as it was\n"), inode)
    );
    assert_eq!(net.read("v1/safe/f").as_deref(), Some("as it was\n"));
    assert!(!net.at("v1/x/safe").exists(), "r56: by path, not by name");
}

#[test]
fn r54_a_protected_directory_of_versions_is_frozen_as_a_whole_and_says_so() {
    let net = Versions::start(
        "layout = \"versioned\"\ndelete-old-versions = true\nlatest-link = \"latest\"",
        "",
    );
    net.version("v1", 1);
    net.version("v2", 2);
    net.sync();
    fs::write(net.at("PROTECTED"), "").unwrap();
    let before = net.everything();
    net.gone("v1");
    net.version("v3", 3);
    net.file("v2", "content", "changed\n", 9);
    let run = net.sync();
    assert_eq!(net.everything(), before);
    assert!(run["notices"].to_string().contains("PROTECTED"), "{run:#}");
    fs::remove_file(net.at("PROTECTED")).unwrap();
    net.sync();
    assert_eq!(net.names(), ["latest -> v3", "v2", "v3"]);
}
