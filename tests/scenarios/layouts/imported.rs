//! A PulpDist site configuration, imported, and what its mirrors then hold: exactly what the rules
//! say, from a table that was written by hand.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
};

use tests::{Rsyncd, Testbed, fixture::write, programs::told};

use super::upstream::set_time;

/// Every file below a directory with what it says; directories end with a slash, links say where.
fn found(dir: &Path) -> BTreeMap<String, String> {
    fn look(dir: &Path, above: &str, found: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let name = format!("{above}{}", entry.file_name().to_string_lossy());
            if let Ok(target) = fs::read_link(entry.path()) {
                found.insert(name, format!("-> {}", target.display()));
            } else if entry.path().is_dir() {
                look(&entry.path(), &format!("{name}/"), found);
                found.insert(name + "/", String::new());
            } else {
                found.insert(name, fs::read_to_string(entry.path()).unwrap());
            }
        }
    }
    let mut all = BTreeMap::new();
    look(dir, "", &mut all);
    all
}

fn upstream(root: &Path) {
    for (path, text) in [
        ("simple/README", "simple"),
        ("simple/skip.tmp", "no"),
        ("simple/dull/x", "no"),
        ("simple/dull/keep", "kept by no rule: its directory is left out"),
        ("versioned/relev1/f", "one"),
        ("versioned/relev1/drop", "no"),
        ("versioned/relev1/top", "no"),
        ("versioned/relev1/deep/top", "deep"),
        ("versioned/relev2/f", "two"),
        ("versioned/relev3/f", "three"),
        ("versioned/relevant-but-not/f", "no"),
        ("versioned/other/f", "no"),
        ("snap/2011/f", "eleven"),
        ("snap/2011/STATUS", "FINISHED\n"),
        ("snap/2012/f", "twelve"),
        ("snap/2012/STATUS", "FINISHED"),
        ("snap/2013/f", "not finished"),
    ] {
        write(&root.join(path), text);
        set_time(&root.join(path), 1);
    }
    for (path, mode) in [
        ("simple/README", 0o640),
        ("versioned/relev1/f", 0o755),
        ("versioned/relev1/deep", 0o711),
        ("versioned/relev2", 0o750),
        ("snap/2012/f", 0o444),
        ("snap/2012/STATUS", 0o600),
    ] {
        fs::set_permissions(root.join(path), fs::Permissions::from_mode(mode)).unwrap();
    }
    symlink("relev2", root.join("versioned/relevlink")).unwrap();
    for (n, dir) in [
        "versioned/relev1",
        "versioned/relev2",
        "versioned/relev3",
        "snap/2011",
        "snap/2012",
        "snap/2013",
    ]
    .iter()
    .enumerate()
    {
        set_time(&root.join(dir), 10 + n as u64);
    }
}

#[test]
fn an_imported_site_holds_exactly_what_pulpdists_rules_say_first_in_a_dry_run_then_in_a_real_one() {
    let testbed = Testbed::start();
    upstream(&testbed.make_dir("upstream"));
    let rsyncd =
        Rsyncd::start(&testbed.path("rsyncd"), &[("test_data", &testbed.path("upstream"))], "");
    let config = serde_json::json!({
        "REMOTE_SERVERS": [{ "server_id": "demo", "name": "Demo", "dns": "127.0.0.1",
            "rsync_port": rsyncd.port() }],
        "REMOTE_SOURCES": [{ "source_id": "demo", "server_id": "demo", "name": "Demo",
            "remote_path": "test_data", "listing_suffix": "*" }],
        "REMOTE_TREES": [
            { "tree_id": "simple", "source_id": "demo", "name": "Simple", "tree_path": "simple",
              "sync_type": "simple", "sync_filters": ["exclude_dull/"], "sync_hours": 1 },
            { "tree_id": "versions", "source_id": "demo", "name": "Versions", "sync_hours": 1,
              "tree_path": "versioned", "sync_type": "versioned", "listing_prefix": "rel*ev",
              "exclude_from_sync": ["/top"], "sync_filters": ["exclude_drop"],
              "exclude_from_listing": ["relevant-but*"] },
            { "tree_id": "snaps", "source_id": "demo", "name": "Snapshots", "sync_hours": 1,
              "tree_path": "snap", "sync_type": "snapshot", "listing_pattern": "20*",
              "latest_link": "latest" },
        ],
        "SITE_SETTINGS": [{ "site_id": "default", "name": "Default", "storage_prefix": "/mnt",
            "exclude_from_sync": ["*.tmp"], "source_prefixes": { "demo": "demo_prefix" } }],
        "LOCAL_MIRRORS": [
            { "mirror_id": "simple", "tree_id": "simple", "enabled": true },
            { "mirror_id": "versions", "tree_id": "versions", "enabled": true },
            { "mirror_id": "snaps", "tree_id": "snaps", "enabled": true, "mirror_path": "snaps" },
            { "mirror_id": "only_look", "tree_id": "versions", "enabled": true, "dry_run_only": true,
              "mirror_path": "looked/at" },
        ],
    });
    let file = testbed.path("site.json");
    fs::write(&file, config.to_string()).unwrap();
    let file = file.to_str().unwrap();
    assert!(testbed.ctl(&["validate", file]).contains("Config for versions(default) is valid"));
    testbed.ctl(&["import", "pulpdist", file, "--apply"]);
    // What was exported is what is defined: applied again it changes nothing.
    let exported = testbed.path("exported.toml");
    testbed.ctl(&["export", "--out", exported.to_str().unwrap()]);
    let again = testbed.ctl_json(&["apply", "-f", exported.to_str().unwrap(), "--dry-run"]);
    assert_eq!(again["changes"].as_array().map(Vec::len), Some(0), "{again:#}");

    let agent = testbed.enroll_agent("agent", "default");
    // What PulpDist left on the disk is adopted, its status file and link included.
    let snaps = agent.published("demo_prefix/snaps");
    write(&snaps.join("2011/f"), "eleven");
    set_time(&snaps.join("2011/f"), 1);
    write(&snaps.join("2011/STATUS"), "FINISHED\n");
    symlink("2011", snaps.join("latest")).unwrap();
    let dry = agent.command(&["sync", "--dry-run", "--output", "json"]).output().unwrap();
    let reports: serde_json::Value = serde_json::from_slice(&dry.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", told(&dry)));
    assert_eq!(reports.as_array().map(Vec::len), Some(4), "{reports:#}");
    for report in reports.as_array().unwrap() {
        assert_eq!(report["result"], "SYNC_COMPLETED_DRY_RUN", "{report:#}");
    }
    assert!(!agent.published("demo_prefix/versioned").exists());

    agent.sync();
    let table = |entries: &[(&str, &str)]| -> BTreeMap<String, String> {
        entries.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect()
    };
    assert_eq!(found(&agent.published("demo_prefix/simple")), table(&[("README", "simple")]));
    assert_eq!(
        found(&agent.published("demo_prefix/versioned")),
        table(&[
            ("relev1/", ""),
            ("relev1/deep/", ""),
            ("relev1/deep/top", "deep"),
            ("relev1/f", "one"),
            ("relev2/", ""),
            ("relev2/f", "two"),
            ("relev3/", ""),
            ("relev3/f", "three"),
            ("relevlink", "-> relev2"),
        ])
    );
    assert_eq!(
        found(&snaps),
        table(&[
            ("2011/", ""),
            ("2011/STATUS", "FINISHED\n"),
            ("2011/f", "eleven"),
            ("2012/", ""),
            ("2012/STATUS", "FINISHED\n"),
            ("2012/f", "twelve"),
            ("latest", "-> 2012"),
        ])
    );
    // Modes are the upstream's; the status file is made here.
    for (path, mode) in [
        ("simple/README", 0o640),
        ("versioned/relev1/f", 0o755),
        ("versioned/relev1/deep", 0o711),
        ("versioned/relev2", 0o750),
        ("versioned/relev3/f", 0o644),
        ("snaps/2012/f", 0o444),
        ("snaps/2012/STATUS", 0o644),
    ] {
        let meta = fs::metadata(agent.published(&format!("demo_prefix/{path}"))).unwrap();
        assert_eq!(meta.permissions().mode() & 0o7777, mode, "{path}");
    }
    assert!(!agent.published("demo_prefix/looked").exists(), "dry_run_only");
    for tree in ["simple", "versions", "snaps"] {
        let run = testbed.runs(&format!("{tree}@default")).into_iter().next().unwrap();
        assert_eq!(run["result"], "SYNC_COMPLETED", "{run:#}");
    }
}

#[test]
fn r1e_f73_the_document_comes_back_to_the_byte_and_says_what_differs_from_it_by_now() {
    let testbed = Testbed::start();
    let said = testbed.ctl_fails(&["export", "pulpdist"]);
    assert!(said.contains("import pulpdist FILE --apply"), "{said}");
    let document = r#"{
      "REMOTE_SERVERS": [{"server_id": "s", "name": "S", "dns": "rsync.example.org"}],
      "REMOTE_SOURCES": [{"source_id": "s", "server_id": "s", "name": "S", "remote_path": "m",
                          "listing_suffix": ""}],
      "REMOTE_TREES": [{"tree_id": "t", "source_id": "s", "name": "T\u00e9", "tree_path": "t",
                        "sync_type": "simple"}],
      "SITE_SETTINGS": [{"site_id": "default", "name": "D", "storage_prefix": "/srv"}],
      "LOCAL_MIRRORS": [{"mirror_id": "t", "tree_id": "t", "notes": {"owner": "somebody"}}]
    }
"#;
    let (file, out) = (testbed.path("site.json"), testbed.path("again.json"));
    fs::write(&file, document).unwrap();
    let import = ["import", "pulpdist", file.to_str().unwrap(), "--apply"];
    let export = || {
        let mut command = testbed.mirrorctl();
        command.args(["export", "pulpdist", "--out", out.to_str().unwrap()]);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", told(&output));
        (fs::read_to_string(&out).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    testbed.ctl(&import);
    assert_eq!(export(), (document.to_owned(), String::new()));
    // Again, and with nothing but spaces changed: the document is the one that was imported last.
    testbed.ctl(&import);
    fs::write(&file, format!("{document}  ")).unwrap();
    testbed.ctl(&import);
    assert_eq!(export(), (format!("{document}  "), String::new()));

    // What is defined holds: what is changed there is told, and importing anew takes it back.
    testbed.ctl(&["enable", "t@default"]);
    let (again, said) = export();
    assert_eq!(again, format!("{document}  "));
    assert!(said.contains("assignment t@default"), "{said}");
    testbed.ctl(&["delete", "assignment", "t@default"]);
    assert!(export().1.contains("assignment t@default"), "the document outlives what it defined");
    testbed.ctl(&import);
    assert_eq!(export().1, "");
    // A document that is wrong takes nobody's place.
    fs::write(&file, "{\"odd\": 1}").unwrap();
    testbed.ctl_fails(&import);
    assert_eq!(export().0, format!("{document}  "));
}

#[test]
fn a_document_that_is_wrong_is_refused_with_every_error_and_changes_nothing() {
    let testbed = Testbed::start();
    let file = testbed.path("site.json");
    fs::write(&file, r#"{"LOCAL_MIRRORS": [{"mirror_id": "a b"}], "odd": 1}"#).unwrap();
    for verb in [&["validate"][..], &["import", "pulpdist"][..]] {
        let said = testbed.ctl_fails(&[verb, &[file.to_str().unwrap()]].concat());
        for part in ["odd: unknown key", "LOCAL_MIRRORS[0].mirror_id", "LOCAL_MIRRORS[0].tree_id"] {
            assert!(said.contains(part), "{part}: {said}");
        }
    }
    assert_eq!(testbed.ctl_json(&["get", "trees"]).as_array().map(Vec::len), Some(0));
}
