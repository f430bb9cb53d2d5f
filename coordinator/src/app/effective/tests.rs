//! What is merged, as tables.

use protocol::{
    filter::Filter,
    path::TreePath,
    spec::{OnEnd, Switch},
    v1::{
        agent::{Origin, Stopped},
        definitions::ApplyRequest,
    },
};

use super::*;
use crate::app::definition::{Context, plan_apply};

const NETWORK: &str = r#"
[[upstream]]
name = "build"
kind = "publisher"
publisher = "build-1"

[[upstream]]
name = "other"
kind = "rsyncd"
url = "rsync://mirror.example.org:8873/"

[[source]]
name = "releases"
upstream = "build"
path = "/srv/releases/"
exclude = [".nfs*"]
guard = { max-delete-files = "5%", must-contain = ["README"] }

[[source]]
name = "debian"
upstream = "other"
path = "debian"

[[tree]]
name = "fedora"
source = "releases"
path = "linux/fedora"
limit = ["- /embargo/"]
filter = ["- *.iso"]
exclude = ["*~"]
interval = "5m"
guard = { max-delete-bytes = 1000, must-contain = ["repodata/repomd.xml"] }

[[tree]]
name = "dists"
source = "debian"
path = "dists"

[[site]]
name = "lisbon"
prefix = "pub/mirror"
exclude = ["*.tmp"]
default-rate = "2MiB/s"

[[grant]]
site = "lisbon"
tree = "fedora"
until = 2027-01-01T00:00:00Z

[[assignment]]
site = "lisbon"
tree = "fedora"
filter = ["+ /keep.iso"]
exclude = ["*.log"]
switch = "in-place"
linger = "1h"

[[assignment]]
site = "lisbon"
tree = "dists"
path = "deb"
agent = "lisbon-2"
enabled = false
on-end = "trash"
"#;

fn now() -> Timestamp {
    "2026-06-01T00:00:00Z".parse().unwrap()
}

fn agents() -> Vec<(IdentityName, SiteName)> {
    [("porto-1", "porto"), ("lisbon-1", "lisbon")]
        .map(|(name, site)| (name.parse().unwrap(), site.parse().unwrap()))
        .to_vec()
}

fn definitions(text: &str) -> Definitions {
    let file = protocol::v1::definitions::DefinitionFile {
        name: "network.toml".into(),
        text: text.into(),
    };
    let request = ApplyRequest {
        files: vec![file],
        rule_files: vec![],
        dry_run: false,
        prune: false,
        if_revision: None,
        imported: None,
    };
    let context = Context { agents: vec![], now: now() };
    plan_apply(&Definitions::default(), &request, &context).unwrap().next
}

fn merged(name: &str) -> EffectiveAssignment {
    assignment(&definitions(NETWORK), &name.parse().unwrap(), &agents(), now()).unwrap()
}

#[test]
fn each_setting_comes_from_the_closest_definition_and_says_so() {
    let merged = merged("fedora@lisbon");
    let shown = |key: &str| {
        let found = merged.settings.iter().find(|setting| setting.key == key);
        found.map(|setting| format!("{} ({})", setting.value, setting.from)).unwrap_or_default()
    };
    let expected = [
        ("agent", "\"lisbon-1\" (default)"),
        ("path", "\"pub/mirror/fedora\" (default)"),
        ("enabled", "true (default)"),
        ("upstream", "\"build\" (source releases)"),
        ("upstream-path", "\"/srv/releases/linux/fedora\" (tree fedora)"),
        ("interval", "\"5m\" (tree fedora)"),
        ("guard.max-delete-files", "\"5%\" (source releases)"),
        ("guard.max-delete-bytes", "\"1000\" (tree fedora)"),
        ("guard.must-contain", "[\"repodata/repomd.xml\"] (tree fedora)"),
        ("switch", "\"in-place\" (assignment fedora@lisbon)"),
        ("on-end", "\"keep\" (default)"),
        ("chmod", "null (default)"),
        ("linger", "\"1h\" (assignment fedora@lisbon)"),
        ("keep-withdrawn", "\"15m\" (default)"),
        ("default-rate", "\"2MiB/s\" (site lisbon)"),
    ];
    for (key, text) in expected {
        assert_eq!(shown(key), text, "{key}");
    }
}

#[test]
fn the_order_says_the_same_as_the_settings() {
    let EffectiveAssignment { agent, order, .. } = merged("fedora@lisbon");
    assert_eq!(agent.unwrap().as_str(), "lisbon-1");
    assert_eq!(order.path.to_string(), "pub/mirror/fedora");
    assert_eq!(order.stopped, None);
    assert_eq!(order.interval, Span::from_secs(300));
    assert_eq!(order.guard.max_delete_files, Some(Threshold::Percent(5)));
    assert_eq!(order.switch, Switch::InPlace);
    assert_eq!(order.linger, Span::from_secs(3600));
    assert!(matches!(&order.origin, Origin::Publisher(origin)
        if origin.publisher.as_str() == "build-1" && origin.address.is_none()));

    let EffectiveAssignment { order, .. } = merged("dists@lisbon");
    assert_eq!(order.on_end, OnEnd::Trash);
    assert_eq!(order.interval, DEFAULT_ASK_INTERVAL);
    assert!(matches!(&order.origin, Origin::Rsyncd(origin)
        if origin.host == "mirror.example.org" && origin.port == 8873
            && origin.path == "debian/dists"));
}

#[test]
fn rules_are_in_the_order_in_which_they_are_asked_each_with_its_definition() {
    let merged = merged("fedora@lisbon");
    let rules: Vec<_> =
        merged.rules.iter().map(|rule| (rule.rule.as_str(), rule.from.as_str())).collect();
    let expected = [
        ("- /embargo/", "tree fedora, limit"),
        ("+ /keep.iso", "assignment fedora@lisbon, filter"),
        ("- *.iso", "tree fedora, filter"),
        ("*.log", "assignment fedora@lisbon, exclude"),
        ("*~", "tree fedora, exclude"),
        (".nfs*", "source releases, exclude"),
        ("*.tmp", "site lisbon, exclude"),
    ];
    assert_eq!(rules, expected);

    let filter = Filter::build(&merged.order.filter).unwrap();
    let kept = |path: &str| filter.keeps(&TreePath::parse(path.as_bytes()).unwrap(), false);
    let left_out = ["a.iso", "a.log", "a~", ".nfs1", "a.tmp", "embargo/a"];
    assert_eq!(left_out.map(kept), [false; 6]);
    assert_eq!(["keep.iso", "a"].map(kept), [true; 2]);
}

#[test]
fn a_grant_ends_at_its_time_and_disabling_comes_before_it() {
    let definitions = definitions(NETWORK);
    let stopped = |name: &str, now: &str| {
        let (name, now) = (name.parse().unwrap(), now.parse().unwrap());
        assignment(&definitions, &name, &agents(), now).unwrap().order.stopped
    };
    assert_eq!(stopped("fedora@lisbon", "2026-12-31T23:59:59Z"), None);
    assert_eq!(stopped("fedora@lisbon", "2027-01-01T00:00:00Z"), Some(Stopped::NoGrant));
    assert_eq!(stopped("dists@lisbon", "2026-06-01T00:00:00Z"), Some(Stopped::Disabled));
}

#[test]
fn the_oldest_agent_holds_what_names_none_and_a_name_counts_only_at_its_site() {
    let definitions = definitions(NETWORK);
    let held_by = |name: &str, agents: &[(&str, &str)]| {
        let agents: Vec<_> = agents
            .iter()
            .map(|(name, site)| (name.parse().unwrap(), site.parse().unwrap()))
            .collect();
        let merged = assignment(&definitions, &name.parse().unwrap(), &agents, now()).unwrap();
        merged.agent.map(|agent| agent.to_string()).map_err(|reason| reason.to_string())
    };
    let two = [("lisbon-9", "lisbon"), ("lisbon-2", "lisbon")];
    assert_eq!(held_by("fedora@lisbon", &two).as_deref(), Ok("lisbon-9"));
    assert_eq!(held_by("dists@lisbon", &two).as_deref(), Ok("lisbon-2"));
    let none = held_by("fedora@lisbon", &[("a", "porto")]).unwrap_err();
    assert!(none.contains("mirrorctl invite --role agent"), "{none}");
    let elsewhere = held_by("dists@lisbon", &[("lisbon-2", "porto")]).unwrap_err();
    assert!(elsewhere.contains("not enrolled at site lisbon"), "{elsewhere}");
}

#[test]
fn why_an_assignment_is_stopped_is_told_with_the_way_out() {
    assert_eq!(merged("fedora@lisbon").why_stopped(), None);
    let disabled = merged("dists@lisbon").describe().stopped.unwrap();
    assert!(disabled.contains("mirrorctl enable dists@lisbon"), "{disabled}");
}

#[test]
fn a_tree_knows_its_publisher_its_path_and_its_whole_guard() {
    let definitions = definitions(NETWORK);
    let fedora = tree(&definitions, &"fedora".parse().unwrap()).unwrap();
    assert_eq!(fedora.publisher().map(IdentityName::as_str), Some("build-1"));
    assert_eq!(fedora.path, "/srv/releases/linux/fedora");
    assert_eq!(fedora.guard.max_delete_files, Some(Threshold::Percent(5)));
    assert_eq!(fedora.guard.max_delete_bytes, Some(Threshold::Count(1000)));
    let dists = tree(&definitions, &"dists".parse().unwrap()).unwrap();
    assert_eq!((dists.publisher(), dists.path.as_str()), (None, "debian/dists"));
    assert_eq!(dists.guard.max_delete_files, Some(DEFAULT_MAX_DELETE_FILES));
    assert_eq!(tree(&definitions, &"unknown".parse().unwrap()), None);
}

#[test]
fn how_versions_are_chosen_is_joined_and_says_where_each_part_stands() {
    let text = NETWORK
        .replace(
            "limit = [\"- /embargo/\"]",
            "layout = \"sealed\"\nlisting-pattern = \"rel-*\"\nlisting-filter = [\"- rel-0*\"]\n\
             listing-exclude = [\"*-tmp\"]\nlatest-link = \"latest\"\ndelete-old-versions = true\n\
             limit = [\"- /embargo/\"]",
        )
        .replace("prefix = \"pub/mirror\"", "prefix = \"pub/mirror\"\nlisting-exclude = [\"old\"]")
        .replace(
            "switch = \"in-place\"",
            "switch = \"in-place\"\nlisting-filter = [\"+ rel-01\"]\ndelete-old-versions = false",
        );
    let definitions = definitions(&text);
    let merged =
        assignment(&definitions, &"fedora@lisbon".parse().unwrap(), &agents(), now()).unwrap();
    let order = merged.order.versions.clone().unwrap();
    assert_eq!(order.listing_filter, ["+ rel-01", "- rel-0*"]);
    assert_eq!(order.listing_exclude, ["*-tmp", "old"]);
    assert_eq!(
        (order.sealed, order.delete_old_versions, order.sync_latest_only),
        (true, false, false)
    );
    assert_eq!((order.status_file.as_str(), order.finished.as_str()), ("STATUS", "FINISHED"));
    let from =
        |key: &str| merged.settings.iter().find(|setting| setting.key == key).unwrap().from.clone();
    assert_eq!(from("listing-filter"), "assignment fedora@lisbon, tree fedora");
    assert_eq!(from("listing-exclude"), "tree fedora, site lisbon");
    assert_eq!(from("delete-old-versions"), "assignment fedora@lisbon");
    assert_eq!(from("status-file"), "default");
    // The status file is written at the site and never fetched, whatever a rule includes.
    let filter = Filter::build(&merged.order.filter).unwrap();
    let kept = |path: &str| filter.keeps(&TreePath::parse(path.as_bytes()).unwrap(), false);
    assert!(!kept("rel-1/STATUS") && !kept("rel-1/.STATUS") && kept("rel-1/deep/STATUS"));
    let simple = assignment(&definitions, &"dists@lisbon".parse().unwrap(), &agents(), now());
    assert_eq!(simple.unwrap().order.versions, None);
}
