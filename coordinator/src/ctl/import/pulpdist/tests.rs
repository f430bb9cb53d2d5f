//! What follows from a document, in a table that was written by hand from the rules.

use serde_json::{Value, json};

use super::{
    check,
    derive::{Derived, derive},
    document::Document,
    import,
};

/// Three sites, of which one has everything of its own and one nothing but its name.
fn document() -> Value {
    json!({
        "REMOTE_SERVERS": [
            { "server_id": "demo", "name": "Demo server", "dns": "rsync.example.org" },
            { "server_id": "odd_port", "name": "Other", "dns": "::1", "rsync_port": 8730,
              "old_daemon": true },
        ],
        "REMOTE_SOURCES": [
            { "source_id": "sync_demo", "server_id": "demo", "name": "Demo trees",
              "remote_path": "test_data", "listing_suffix": "*" },
            { "source_id": "root", "server_id": "odd_port", "name": "Whole daemon",
              "remote_path": "/", "listing_suffix": "" },
        ],
        "REMOTE_TREES": [
            { "tree_id": "simple_sync", "source_id": "sync_demo", "name": "Simple tree",
              "description": "A tree", "tree_path": "simple", "sync_type": "simple",
              "sync_hours": 6, "exclude_from_sync": ["*skip*", "/top"],
              "sync_filters": ["exclude_dull/"] },
            { "tree_id": "versioned_sync", "source_id": "sync_demo", "name": "Versions",
              "tree_path": "versioned/", "sync_type": "versioned", "listing_prefix": "re*ev",
              "exclude_from_sync": ["/anchored"], "sync_filters": ["include_/keep", "-_drop"],
              "listing_filters": ["exclude_relevant-but*"],
              "exclude_from_listing": ["dull", "re*"] },
            { "tree_id": "snapshot_sync", "source_id": "root", "name": "Snapshots",
              "tree_path": "module/snap", "sync_type": "snapshot", "listing_pattern": "20*",
              "latest_link": "latest", "sync_hours": 24 },
        ],
        "SITE_SETTINGS": [
            { "site_id": "default", "name": "Default", "storage_prefix": "/mnt/tests",
              "exclude_from_sync": ["*.tmp"], "exclude_from_listing": ["never"],
              "server_prefixes": { "demo": "from_default" },
              "source_prefixes": { "sync_demo": "sources" } },
            { "site_id": "other", "name": "Other", "storage_prefix": "srv",
              "exclude_from_sync": ["*.bak"], "server_prefixes": { "demo": "own" } },
            { "site_id": "bare", "name": "Bare" },
        ],
        "LOCAL_MIRRORS": [
            { "mirror_id": "simple_sync", "tree_id": "simple_sync", "enabled": true,
              "exclude_from_sync": ["*skip*", "mine"], "sync_filters": ["include_dull/keep"] },
            { "mirror_id": "simple_sync", "tree_id": "simple_sync", "site_id": "other",
              "mirror_path": "else/where", "name": "Our own", "description": "" },
            { "mirror_id": "versions", "tree_id": "versioned_sync", "enabled": true,
              "delete_old_dirs": true, "listing_filters": ["include_relevant-but-mine"] },
            { "mirror_id": "snaps", "tree_id": "snapshot_sync", "site_id": "bare", "enabled": true,
              "sync_latest_only": true, "dry_run_only": true },
        ],
        "RAW_REPOS": [
            { "repo_id": "by_hand", "display_name": "By hand", "importer_type_id": "simple_tree",
              "anything": 1,
              "importer_config": { "tree_name": "x", "remote_server": "rsync.example.org",
                "remote_path": "/mod/deep/", "local_path": "/mnt/tests/raw/", "enabled": true,
                "bandwidth_limit": 300 } },
        ],
    })
}

fn derived(document: &Value) -> Vec<Derived> {
    let mut problems = Vec::new();
    let read = Document::read(document, &mut problems);
    check::check(&read, &mut problems, &mut Vec::new());
    let derived = derive(&read, &mut problems, &mut Vec::new());
    assert_eq!(problems, [] as [&str; 0]);
    derived
}

fn errors(change: impl FnOnce(&mut Value)) -> Vec<String> {
    let mut document = document();
    change(&mut document);
    import(&document.to_string()).unwrap_err()
}

#[test]
fn r10_r11_r13_r14_r15_r16_every_mirror_has_the_names_and_paths_of_the_table() {
    // id, name, description, remote path, local path
    let table = [
        (
            "simple_sync(default)",
            "Simple tree",
            "A tree",
            "/test_data/simple/",
            "/mnt/tests/from_default/sources/simple/",
        ),
        // r15: the site's own prefix before the default's, which is used where it has none.
        (
            "simple_sync(other)",
            "Our own",
            "A tree",
            "/test_data/simple/",
            "/srv/own/sources/else/where/",
        ),
        (
            "versions(default)",
            "Versions",
            "",
            "/test_data/versioned/",
            "/mnt/tests/from_default/sources/versioned/",
        ),
        // r16: without a storage_prefix of its own, the default site's.
        ("snaps(bare)", "Snapshots", "", "/module/snap/", "/mnt/tests/module/snap/"),
        ("by_hand", "By hand", "", "/mod/deep/", "/mnt/tests/raw/"),
    ];
    let derived = derived(&document());
    let found: Vec<_> = derived
        .iter()
        .map(|m| {
            (
                m.display_id.as_str(),
                m.display_name.as_str(),
                m.description.as_str(),
                m.remote_path.as_str(),
                m.local_path.as_str(),
            )
        })
        .collect();
    assert_eq!(found, table);
    assert_eq!(derived[0].repo_id, "simple_sync__default");
    assert_eq!((derived[3].host.as_str(), derived[3].port), ("::1", Some(8730)), "r12");
}

#[test]
fn r17_r18_r19_r1a_filters_and_patterns_are_those_of_the_table() {
    let derived = derived(&document());
    let texts = |list: &[String]| list.join(" ");
    assert_eq!(derived[0].filters.0, ["include_dull/keep"], "r17: the mirror's first");
    assert_eq!(derived[0].filters.1, ["exclude_dull/"]);
    assert_eq!(texts(&derived[0].excludes), "*.tmp *skip* /top mine", "r18");
    assert_eq!(texts(&derived[1].excludes), "*.bak *.tmp *skip* /top", "r18: default's too");
    assert_eq!(derived[2].listing_pattern.as_deref(), Some("re*ev*"), "r1a");
    assert_eq!(
        derived[2].listing_filters,
        ["include_relevant-but-mine", "exclude_relevant-but*"],
        "r19"
    );
    assert_eq!(texts(&derived[2].listing_excludes), "dull never", "r19: re* covers the pattern");
    assert_eq!(derived[3].latest_link.as_deref(), Some("latest"));
    assert_eq!(derived[2].latest_link, None, "r1a: never derived");
}

#[test]
fn the_definitions_are_those_of_the_table() {
    let imported = import(&document().to_string()).unwrap();
    let text = &imported.text;
    let parsed: toml::Table = text.parse().unwrap();
    let table = |kind: &str| parsed[kind].as_array().cloned().unwrap_or_default();
    let find = |kind: &str, keys: &[(&str, &str)]| {
        let all = table(kind);
        let has = |t: &toml::Value| keys.iter().all(|(key, value)| t[*key].as_str() == Some(value));
        all.into_iter().find(has).unwrap_or_else(|| panic!("no {kind} {keys:?} in\n{text}"))
    };
    let lists = |t: &toml::Value, key: &str| {
        let list = t.get(key).and_then(toml::Value::as_array).cloned().unwrap_or_default();
        list.iter().filter_map(|v| v.as_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    assert_eq!(
        find("upstream", &[("name", "demo")])["url"].as_str(),
        Some("rsync://rsync.example.org/")
    );
    assert_eq!(
        find("upstream", &[("name", "odd_port")])["url"].as_str(),
        Some("rsync://[::1]:8730/")
    );
    assert_eq!(table("upstream").len(), 2, "the raw repository is at a server that is known");
    assert_eq!(find("source", &[("name", "root-module")])["path"].as_str(), Some("module"));
    let simple = find("tree", &[("name", "simple_sync")]);
    assert_eq!(simple["path"].as_str(), Some("simple"));
    assert_eq!(
        (lists(&simple, "filter"), simple["sync-hours"].as_integer()),
        (vec!["- dull/".into()], Some(6))
    );
    let versions = find("tree", &[("name", "versions")]);
    assert_eq!(versions["layout"].as_str(), Some("versioned"));
    assert_eq!(versions["listing-pattern"].as_str(), Some("re*ev*"));
    assert_eq!(lists(&versions, "filter"), ["+ /*/keep", "- drop"]);
    let snaps = find("tree", &[("name", "snaps")]);
    assert_eq!(snaps["layout"].as_str(), Some("sealed"));
    assert_eq!(snaps["latest-link"].as_str(), Some("latest"));
    assert_eq!(lists(&snaps, "exclude"), ["STATUS", ".STATUS"]);
    let at = |tree: &str, site: &str| find("assignment", &[("tree", tree), ("site", site)]);
    let mirror = at("simple_sync", "default");
    assert_eq!(mirror["path"].as_str(), Some("from_default/sources/simple"));
    assert_eq!(mirror["chmod"].as_str(), Some("u+rX"), "modes are the upstream's");
    assert_eq!(lists(&mirror, "filter"), ["+ dull/keep"]);
    assert_eq!(lists(&mirror, "exclude"), ["*.tmp", "*skip*", "/top", "mine"]);
    assert_eq!(at("simple_sync", "other")["enabled"].as_bool(), Some(false), "r12: off by default");
    let mirror = at("versions", "default");
    assert_eq!(lists(&mirror, "filter"), ["+ /*/"]);
    assert_eq!(lists(&mirror, "exclude"), ["*.tmp", "/*/anchored"]);
    assert_eq!(lists(&mirror, "listing-filter"), ["+ relevant-but-mine", "- relevant-but*"]);
    assert_eq!(lists(&mirror, "listing-exclude"), ["dull", "never"]);
    assert_eq!(mirror["delete-old-versions"].as_bool(), Some(true));
    let mirror = at("snaps", "bare");
    assert_eq!(
        (
            mirror["sync-latest-only"].as_bool(),
            mirror.get("enabled"),
            mirror["dry-run-only"].as_bool()
        ),
        (Some(true), None, Some(true))
    );
    assert_eq!(table("grant").len(), 5);
    let warned = imported.warnings.join("\n");
    for text in ["\"re*\" would leave out", "bandwidth_limit", "old_daemon"] {
        assert!(warned.contains(text), "{text}: {warned}");
    }
}

#[test]
fn r1c_notes_overrule_nothing_and_a_warning_says_so() {
    let mut with_notes = document();
    // PulpDist let these take the place of what the tree says.
    with_notes["LOCAL_MIRRORS"][0]["notes"] =
        json!({ "pulpdist": { "sync_hours": 1, "site_id": "other" }, "owner": "somebody" });
    let with_notes = import(&with_notes.to_string()).unwrap();
    let without = import(&document().to_string()).unwrap();
    assert_eq!(with_notes.text, without.text);
    let new = with_notes.warnings.iter().filter(|warning| !without.warnings.contains(warning));
    let new: Vec<_> = new.collect();
    assert!(
        new.len() == 1 && new[0].contains("simple_sync") && new[0].contains("notes"),
        "{new:?}"
    );
}

#[test]
fn r01_r02_r0e_everything_that_is_wrong_is_told_at_once_with_its_place() {
    let errors = errors(|document| {
        document["zzz"] = json!([]);
        document["LOCAL_MIRRORS"][0]["zzz"] = json!(1);
        document["LOCAL_MIRRORS"][1]["enabled"] = json!(1);
        document["REMOTE_TREES"][0]["tree_path"] = json!("/etc");
        document["REMOTE_TREES"][1]["sync_filters"] = json!(["fine", "a;b"]);
        document["SITE_SETTINGS"][1]["server_prefixes"] = json!({ "demo": "../../etc" });
        document["REMOTE_SERVERS"][0]["dns"] = json!("host:873");
        document["LOCAL_MIRRORS"][2]["tree_id"] = Value::Null;
    });
    let wanted = [
        "zzz: unknown key",
        "LOCAL_MIRRORS[0].zzz: unknown key",
        "LOCAL_MIRRORS[1].enabled:",
        "REMOTE_TREES[0].tree_path:",
        "REMOTE_TREES[1].sync_filters[1]:",
        "SITE_SETTINGS[1].server_prefixes.demo:",
        "REMOTE_SERVERS[0].dns:",
        "LOCAL_MIRRORS[2].tree_id:",
    ];
    assert_eq!(errors.len(), wanted.len(), "{errors:#?}");
    for place in wanted {
        assert!(errors.iter().any(|error| error.starts_with(place)), "{place} in {errors:#?}");
    }
}

#[test]
fn r03_r04_r05_r06_r08_what_is_defined_twice_or_not_at_all_is_refused() {
    let one = |change: fn(&mut Value), text: &str| {
        let errors = errors(change);
        assert!(errors.iter().any(|error| error.contains(text)), "{text}: {errors:#?}");
    };
    one(|d| d["LOCAL_MIRRORS"][1]["site_id"] = json!("default"), "is at site \"default\" already");
    one(|d| d["REMOTE_SERVERS"][1]["server_id"] = json!("demo"), "defined twice");
    one(|d| d["LOCAL_MIRRORS"][0]["tree_id"] = json!("none"), "no tree \"none\"");
    one(
        |d| d["SITE_SETTINGS"][0]["source_prefixes"] = json!({ "none": "x" }),
        "no source \"none\"",
    );
    one(|d| d["RAW_REPOS"][0]["repo_id"] = json!("versions__default"), "also in RAW_REPOS");
    one(|d| d["REMOTE_TREES"][2]["listing_prefix"] = json!("x"), "not both");
    one(|d| d["REMOTE_TREES"][2]["listing_pattern"] = Value::Null, "set either");
    one(|d| d["RAW_REPOS"][0]["importer_type_id"] = json!("odd"), "importer_type_id");
    one(|d| d["RAW_REPOS"][0]["importer_config"]["remote_path"] = json!("mod"), "remote_path");
    one(
        |d| {
            d["RAW_REPOS"][0].as_object_mut().unwrap().remove("importer_config");
        },
        "importer_config",
    );
}

#[test]
fn r07_r09_what_has_no_effect_or_was_refused_without_need_is_said() {
    let mut document = document();
    document["LOCAL_MIRRORS"][1]["delete_old_dirs"] = json!(true);
    document["REMOTE_TREES"][0]["latest_link"] = json!("latest");
    let warned = import(&document.to_string()).unwrap().warnings.join("\n");
    assert!(warned.contains("simple_sync(other): delete_old_dirs does not apply"), "{warned}");
    assert!(warned.contains("tree simple_sync: latest_link does not apply"), "{warned}");
    let alone = json!({
        "REMOTE_SERVERS": document["REMOTE_SERVERS"], "REMOTE_SOURCES": document["REMOTE_SOURCES"],
        "REMOTE_TREES": document["REMOTE_TREES"],
        "SITE_SETTINGS": [{ "site_id": "only", "name": "Only", "storage_prefix": "x" }],
        "LOCAL_MIRRORS": [{ "mirror_id": "m", "tree_id": "simple_sync", "site_id": "only" }],
    });
    let warned = import(&alone.to_string()).unwrap().warnings.join("\n");
    assert!(warned.contains("no site \"default\""), "{warned}");
}

#[test]
fn two_mirrors_of_one_remote_tree_at_one_site_are_two_trees() {
    let mut document = document();
    document["LOCAL_MIRRORS"][1] = json!({ "mirror_id": "again", "tree_id": "simple_sync",
        "mirror_path": "again" });
    let text = import(&document.to_string()).unwrap().text;
    let parsed: toml::Table = text.parse().unwrap();
    let names: Vec<_> =
        parsed["tree"].as_array().unwrap().iter().filter_map(|t| t["name"].as_str()).collect();
    assert_eq!(names, ["simple_sync", "again", "versions", "snaps", "by_hand"]);
    assert_eq!(parsed["source"].as_array().unwrap().len(), 3);
}
