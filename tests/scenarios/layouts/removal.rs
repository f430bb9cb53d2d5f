//! Versions that the upstream no longer has: R60 to R69.

use std::{fs, os::unix::fs::symlink};

use super::Versions;

#[test]
fn r60_by_default_they_stay_and_the_run_says_up_to_date() {
    let net = Versions::start("layout = \"versioned\"", "");
    net.version("v1", 1);
    net.version("v2", 2);
    net.sync();
    net.gone("v1");
    assert_eq!(net.sync()["result"], "SYNC_UP_TO_DATE");
    assert_eq!(net.names(), ["v1", "v2"]);
}

#[test]
fn r61_r66_what_is_a_version_goes_and_nothing_else() {
    let net = Versions::start(
        "layout = \"versioned\"\nlisting-pattern = \"v*\"\nlisting-exclude = [\"v-keep\"]\n\
         delete-old-versions = true",
        "",
    );
    for n in 1..4 {
        net.version(&format!("v{n}"), n);
    }
    net.sync();
    net.gone("v1");
    for name in ["v-keep", "other"] {
        fs::create_dir(net.at(name)).unwrap();
        fs::write(net.at(name).join("mine"), "local").unwrap();
    }
    let run = net.sync();
    assert_eq!(run["result"], "SYNC_COMPLETED", "{run:#}");
    assert_eq!(net.names(), ["other", "v-keep", "v2", "v3"]);
}

#[test]
fn r64_anything_protected_in_a_version_keeps_it() {
    let net = Versions::start("layout = \"versioned\"\ndelete-old-versions = true", "");
    for n in 1..6 {
        net.version(&format!("v{n}"), n);
    }
    net.file("v2", "deep/er/f", "x", 2);
    net.sync();
    fs::write(net.at("v1/PROTECTED"), "").unwrap();
    fs::write(net.at("v2/deep/er/PROTECTED"), "").unwrap();
    for name in ["v1", "v2", "v3"] {
        net.gone(name);
    }
    let run = net.sync();
    assert_eq!(net.names(), ["v1", "v2", "v4", "v5"], "{run:#}");
    assert_eq!(net.read("v2/content").as_deref(), Some("of v2\n"));
}

#[test]
fn r65_the_latest_of_a_sealed_tree_is_never_removed() {
    for link in ["", "latest-link = \"latest\""] {
        let net = Versions::start(
            &format!("layout = \"sealed\"\ndelete-old-versions = true\n{link}"),
            "",
        );
        net.finished("v1", 1);
        net.finished("v2", 2);
        net.finished("v3", 3);
        net.sync();
        net.gone("v1");
        net.gone("v3");
        net.sync();
        let names = net.names();
        assert!(!names.contains(&"v1".into()) && names.contains(&"v3".into()), "{names:?}");
    }
}

#[test]
fn r67_what_only_a_rule_hides_is_still_at_the_upstream_and_stays() {
    let mut net = Versions::start("layout = \"versioned\"\ndelete-old-versions = true", "");
    net.version("v1", 1);
    net.version("v2", 2);
    net.sync();
    net.redefine(
        "layout = \"versioned\"\ndelete-old-versions = true\nlisting-filter = [\"- v1\"]",
        "",
    );
    net.file("v1", "content", "not followed any more\n", 9);
    net.sync();
    assert_eq!(net.names(), ["v1", "v2"]);
    assert_eq!(net.read("v1/content").as_deref(), Some("of v1\n"));
}

#[test]
fn r68_links_are_no_versions() {
    let net = Versions::start("layout = \"versioned\"\ndelete-old-versions = true", "");
    net.version("v1", 1);
    net.version("v2", 2);
    net.sync();
    symlink("v2", net.at("v-local")).unwrap();
    net.gone("v1");
    let run = net.sync();
    assert_eq!(run["result"], "SYNC_COMPLETED", "{run:#}");
    assert_eq!(net.names(), ["v-local -> v2", "v2"]);
}

#[test]
fn r69_no_run_removes_more_than_its_limit_and_what_goes_is_in_the_trash() {
    let mut net = Versions::start("layout = \"versioned\"\ndelete-old-versions = true", "");
    for n in 1..5 {
        net.version(&format!("v{n}"), n);
    }
    net.sync();
    for name in ["v1", "v2", "v3"] {
        net.gone(name);
    }
    assert_eq!(net.result(), "SYNC_PARTIAL");
    assert_eq!(net.names(), ["v1", "v2", "v3", "v4"]);
    let error = net.last_run()["error"].to_string();
    assert!(error.contains("max-delete-versions"), "{error}");
    net.redefine("layout = \"versioned\"\ndelete-old-versions = true\nmax-delete-versions = 3", "");
    assert_eq!(net.sync()["result"], "SYNC_COMPLETED");
    assert_eq!(net.names(), ["v4"]);
    let trash = net.agent.storage.join("work/tree@site/trash");
    let found = fs::read_dir(trash).unwrap().flatten();
    let v1 = found.map(|at| at.path().join("v1/content")).find(|path| path.exists()).unwrap();
    assert_eq!(fs::read_to_string(v1).unwrap(), "of v1\n");
}
