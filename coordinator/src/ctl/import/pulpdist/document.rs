//! The document in itself: keys, types and texts.

use std::{collections::BTreeMap, net::Ipv6Addr};

use serde_json::Value;

use super::reader::Reader;

/// A whole site configuration.
#[derive(Debug, Default)]
pub(super) struct Document {
    pub(super) servers: Vec<Server>,
    pub(super) sources: Vec<Source>,
    pub(super) trees: Vec<Tree>,
    pub(super) sites: Vec<Site>,
    pub(super) mirrors: Vec<Mirror>,
    pub(super) raw: Vec<Raw>,
}

#[derive(Debug)]
pub(super) struct Server {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) dns: String,
    pub(super) old_daemon: bool,
    pub(super) port: Option<u16>,
}

#[derive(Debug)]
pub(super) struct Source {
    pub(super) id: String,
    pub(super) server: String,
    pub(super) name: String,
    pub(super) remote_path: String,
    pub(super) listing_suffix: String,
}

/// What a tree's path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SyncType {
    Simple,
    Versioned,
    Snapshot,
}

#[derive(Debug)]
pub(super) struct Tree {
    pub(super) id: String,
    pub(super) source: String,
    pub(super) name: String,
    pub(super) path: String,
    pub(super) sync_type: SyncType,
    pub(super) description: Option<String>,
    pub(super) sync_hours: Option<u64>,
    pub(super) excludes: Vec<String>,
    pub(super) filters: Vec<String>,
    pub(super) listing_pattern: Option<String>,
    pub(super) listing_prefix: Option<String>,
    pub(super) latest_link: Option<String>,
    pub(super) listing_excludes: Vec<String>,
    pub(super) listing_filters: Vec<String>,
}

#[derive(Debug)]
pub(super) struct Site {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) storage_prefix: Option<String>,
    pub(super) excludes: Vec<String>,
    pub(super) listing_excludes: Vec<String>,
    pub(super) server_prefixes: BTreeMap<String, String>,
    pub(super) source_prefixes: BTreeMap<String, String>,
}

#[derive(Debug)]
pub(super) struct Mirror {
    pub(super) id: String,
    pub(super) tree: String,
    pub(super) site: String,
    pub(super) name: Option<String>,
    pub(super) description: Option<String>,
    pub(super) path: Option<String>,
    pub(super) excludes: Vec<String>,
    pub(super) filters: Vec<String>,
    pub(super) listing_excludes: Vec<String>,
    pub(super) listing_filters: Vec<String>,
    pub(super) has_notes: bool,
    pub(super) enabled: bool,
    pub(super) dry_run_only: bool,
    pub(super) delete_old_dirs: bool,
    pub(super) sync_latest_only: bool,
}

/// A repository that was written by hand.
#[derive(Debug)]
pub(super) struct Raw {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) sync_type: SyncType,
    pub(super) server: String,
    pub(super) port: Option<u16>,
    pub(super) old_daemon: bool,
    pub(super) remote_path: String,
    pub(super) local_path: String,
    pub(super) excludes: Vec<String>,
    pub(super) filters: Vec<String>,
    pub(super) listing_pattern: Option<String>,
    pub(super) listing_excludes: Vec<String>,
    pub(super) listing_filters: Vec<String>,
    pub(super) latest_link: Option<String>,
    pub(super) sync_hours: Option<u64>,
    pub(super) bandwidth_limit: Option<u64>,
    pub(super) enabled: bool,
    pub(super) dry_run_only: bool,
    pub(super) delete_old_dirs: bool,
    pub(super) sync_latest_only: bool,
}

const TOP: [&str; 6] = [
    "LOCAL_MIRRORS",
    "REMOTE_TREES",
    "REMOTE_SOURCES",
    "REMOTE_SERVERS",
    "SITE_SETTINGS",
    "RAW_REPOS",
];

const ID: &str = "an id of letters, digits, '_' and '-'";
const PATH: &str = "a path of plain characters";
const BELOW: &str = "a path below another: relative, and without '..'";
const RULE: &str = "a filter rule in the characters that PulpDist takes";
const ONE_NAME: &str = "one name, without '/' and not '.' or '..'";
const HOST: &str = "a host name or an address";
const TEXT: &str = "text";

impl Document {
    /// Reads it, and notes all that is wrong.
    pub(super) fn read(value: &Value, problems: &mut Vec<String>) -> Self {
        let Some(top) = value.as_object() else {
            problems.push("the document has to be an object".to_owned());
            return Self::default();
        };
        for key in top.keys().filter(|key| !TOP.contains(&key.as_str())) {
            problems.push(format!("{key}: unknown key; known are {}", TOP.join(", ")));
        }
        Self {
            mirrors: each(top.get(TOP[0]), TOP[0], problems, mirror),
            trees: each(top.get(TOP[1]), TOP[1], problems, tree),
            sources: each(top.get(TOP[2]), TOP[2], problems, source),
            servers: each(top.get(TOP[3]), TOP[3], problems, server),
            sites: each(top.get(TOP[4]), TOP[4], problems, site),
            raw: each(top.get(TOP[5]), TOP[5], problems, raw),
        }
    }
}

fn each<T>(
    value: Option<&Value>,
    key: &str,
    problems: &mut Vec<String>,
    read: fn(&mut Reader<'_>) -> T,
) -> Vec<T> {
    let items = match value {
        None => return Vec::new(),
        Some(Value::Array(items)) => items,
        Some(_) => {
            problems.push(format!("{key}: this has to be a list"));
            return Vec::new();
        }
    };
    let one = |(index, item)| {
        let mut reader = Reader::new(item, format!("{key}[{index}]"), problems);
        let read = read(&mut reader);
        // What else a raw repository holds is its own business.
        if key != "RAW_REPOS" {
            reader.finish();
        }
        read
    };
    items.iter().enumerate().map(one).collect()
}

fn server(from: &mut Reader<'_>) -> Server {
    Server {
        id: from.required("server_id", ID, is_id),
        name: from.required("name", TEXT, any),
        dns: from.required("dns", HOST, is_host),
        old_daemon: from.flag("old_daemon"),
        port: port(from),
    }
}

fn source(from: &mut Reader<'_>) -> Source {
    Source {
        id: from.required("source_id", ID, is_id),
        server: from.required("server_id", ID, is_id),
        name: from.required("name", TEXT, any),
        remote_path: from.required("remote_path", PATH, is_remote_path),
        listing_suffix: from.required("listing_suffix", RULE, is_rule_or_empty),
    }
}

fn tree(from: &mut Reader<'_>) -> Tree {
    let sync_type = from.required("sync_type", "simple, versioned or snapshot", |text| {
        matches!(text, "simple" | "versioned" | "snapshot")
    });
    Tree {
        id: from.required("tree_id", ID, is_id),
        source: from.required("source_id", ID, is_id),
        name: from.required("name", TEXT, any),
        path: from.required("tree_path", BELOW, is_below),
        sync_type: match sync_type.as_str() {
            "versioned" => SyncType::Versioned,
            "snapshot" => SyncType::Snapshot,
            _ => SyncType::Simple,
        },
        description: from.text("description", TEXT, any),
        sync_hours: from.number("sync_hours", u64::from(u32::MAX)),
        excludes: from.list("exclude_from_sync", RULE, is_rule),
        filters: from.list("sync_filters", RULE, is_rule),
        listing_pattern: from.text("listing_pattern", RULE, is_rule),
        listing_prefix: from.text("listing_prefix", RULE, is_rule),
        latest_link: from.text("latest_link", ONE_NAME, is_one_name),
        listing_excludes: from.list("exclude_from_listing", RULE, is_rule),
        listing_filters: from.list("listing_filters", RULE, is_rule),
    }
}

fn site(from: &mut Reader<'_>) -> Site {
    Site {
        id: from.required("site_id", ID, is_id),
        name: from.required("name", TEXT, any),
        storage_prefix: from.text("storage_prefix", PATH, is_storage),
        excludes: from.list("exclude_from_sync", RULE, is_rule),
        listing_excludes: from.list("exclude_from_listing", RULE, is_rule),
        server_prefixes: from.map("server_prefixes", BELOW, is_below),
        source_prefixes: from.map("source_prefixes", BELOW, is_below),
    }
}

fn mirror(from: &mut Reader<'_>) -> Mirror {
    Mirror {
        id: from.required("mirror_id", ID, is_id),
        tree: from.required("tree_id", ID, is_id),
        site: from.text("site_id", ID, is_id).unwrap_or_else(|| "default".to_owned()),
        name: from.text("name", TEXT, any),
        description: from.text("description", TEXT, any),
        path: from.text("mirror_path", BELOW, is_below),
        excludes: from.list("exclude_from_sync", RULE, is_rule),
        filters: from.list("sync_filters", RULE, is_rule),
        listing_excludes: from.list("exclude_from_listing", RULE, is_rule),
        listing_filters: from.list("listing_filters", RULE, is_rule),
        has_notes: from.value("notes").and_then(Value::as_object).is_some_and(|m| !m.is_empty()),
        enabled: from.flag("enabled"),
        dry_run_only: from.flag("dry_run_only"),
        delete_old_dirs: from.flag("delete_old_dirs"),
        sync_latest_only: from.flag("sync_latest_only"),
    }
}

fn raw(from: &mut Reader<'_>) -> Raw {
    let id = from.required("repo_id", ID, is_id);
    let name = from.required("display_name", TEXT, any);
    let kind =
        from.required("importer_type_id", "simple_tree, versioned_tree or snapshot_tree", |text| {
            matches!(text, "simple_tree" | "versioned_tree" | "snapshot_tree")
        });
    let hours =
        from.value("notes").and_then(|notes| notes.get("pulpdist")?.get("sync_hours")?.as_u64());
    let mut config = from.object("importer_config");
    let raw = Raw {
        id,
        name,
        sync_type: match kind.as_str() {
            "versioned_tree" => SyncType::Versioned,
            "snapshot_tree" => SyncType::Snapshot,
            _ => SyncType::Simple,
        },
        server: config.required("remote_server", HOST, is_host),
        port: port(&mut config),
        old_daemon: config.flag("old_remote_daemon"),
        remote_path: config.required(
            "remote_path",
            "a path that begins and ends with '/', without '..'",
            |text| {
                is_remote_path(text)
                    && text.len() > 1
                    && text.starts_with('/')
                    && text.ends_with('/')
            },
        ),
        local_path: config.required("local_path", "an absolute path without '..'", |text| {
            text.starts_with('/') && is_storage(text)
        }),
        excludes: config.list("exclude_from_sync", RULE, is_rule),
        filters: config.list("sync_filters", RULE, is_rule),
        listing_pattern: config.text("listing_pattern", RULE, is_rule),
        listing_excludes: config.list("exclude_from_listing", RULE, is_rule),
        listing_filters: config.list("listing_filters", RULE, is_rule),
        latest_link: config.text("latest_link_name", ONE_NAME, is_one_name),
        sync_hours: hours,
        bandwidth_limit: config.number("bandwidth_limit", u64::from(u32::MAX)),
        enabled: config.flag("enabled"),
        dry_run_only: config.flag("dry_run_only"),
        delete_old_dirs: config.flag("delete_old_dirs"),
        sync_latest_only: config.flag("sync_latest_only"),
    };
    config.required("tree_name", TEXT, any);
    config.finish();
    raw
}

fn port(from: &mut Reader<'_>) -> Option<u16> {
    from.number("rsync_port", u64::from(u16::MAX)).and_then(|port| u16::try_from(port).ok())
}

fn any(_: &str) -> bool {
    true
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '-'
}

fn is_id(text: &str) -> bool {
    !text.is_empty() && text.chars().all(is_word)
}

fn is_path(text: &str) -> bool {
    text.chars().all(|c| is_word(c) || "@%+=:,./".contains(c))
}

fn climbs(text: &str) -> bool {
    text.split('/').any(|component| component == "..")
}

fn is_remote_path(text: &str) -> bool {
    is_path(text) && !climbs(text)
}

/// Where a site keeps everything: may be absolute, as it is the site's own.
fn is_storage(text: &str) -> bool {
    is_path(text) && !climbs(text)
}

fn is_below(text: &str) -> bool {
    is_path(text) && !climbs(text) && !text.starts_with('/')
}

fn is_one_name(text: &str) -> bool {
    is_below(text) && !text.is_empty() && !text.contains('/') && text != "."
}

/// What PulpDist took, and the form with a space.
fn is_rule(text: &str) -> bool {
    !text.is_empty() && is_rule_or_empty(text)
}

fn is_rule_or_empty(text: &str) -> bool {
    text.chars().all(|c| is_word(c) || "[]*?@%+=:,./~ ".contains(c))
}

/// A dotted address, an IPv6 address, or labels of letters, digits and '-'.
fn is_host(text: &str) -> bool {
    let label = |label: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
        let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        label.len() <= 63
            && edge(label.chars().next())
            && edge(label.chars().last())
            && label.chars().all(plain)
    };
    let labels: Vec<&str> = text.split('.').collect();
    let numbers = labels.iter().all(|label| label.bytes().all(|b| b.is_ascii_digit()));
    if numbers {
        return text.parse::<std::net::Ipv4Addr>().is_ok();
    }
    text.len() <= 253 && labels.into_iter().all(label) || text.parse::<Ipv6Addr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r0c_hosts_are_names_and_addresses_of_both_kinds() {
        for text in ["a", "a.b.example.org", "1a", "10.0.0.1", "::1", "fe80::2", "x-1.y"] {
            assert!(is_host(text), "{text}");
        }
        for text in ["", "host:873", "a.b.", "a_b", "1.2", "-a", "a-", "a..b", "1.2.3.400", "a b"] {
            assert!(!is_host(text), "{text}");
        }
    }

    #[test]
    fn r0a_r0b_r0d_ids_rules_and_paths_are_matched_whole() {
        assert!(is_id("a_B-1") && !is_id("a\n") && !is_id("") && !is_id("é") && !is_id("a b"));
        assert!(is_rule("exclude_dull/") && is_rule("- *.iso") && is_rule("[ab]*?"));
        assert!(!is_rule("a;b") && !is_rule("!") && !is_rule("$x") && !is_rule("\"x\""));
        assert!(is_below("a/b") && is_below("") && !is_below("/etc") && !is_below("a/../../etc"));
        assert!(
            is_one_name("latest") && !is_one_name("a/b") && !is_one_name("..") && !is_one_name(".")
        );
    }
}
