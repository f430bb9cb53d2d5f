//! What the document refers to: everything has to be there, once, and may be together.

use std::collections::BTreeSet;

use super::document::{Document, Mirror, SyncType, Tree};

/// Notes what is wrong, and what has no effect.
pub(super) fn check(document: &Document, problems: &mut Vec<String>, warnings: &mut Vec<String>) {
    let servers = ids("REMOTE_SERVERS", document.servers.iter().map(|s| &s.id), problems);
    let sources = ids("REMOTE_SOURCES", document.sources.iter().map(|s| &s.id), problems);
    let trees = ids("REMOTE_TREES", document.trees.iter().map(|t| &t.id), problems);
    let sites = ids("SITE_SETTINGS", document.sites.iter().map(|s| &s.id), problems);
    let raw = ids("RAW_REPOS", document.raw.iter().map(|r| &r.id), problems);
    let mut refer = |place: String, what: &str, id: &str, known: &BTreeSet<&str>| {
        if !known.contains(id) {
            problems.push(format!("{place}: there is no {what} {id:?}"));
        }
    };
    for (n, source) in document.sources.iter().enumerate() {
        refer(format!("REMOTE_SOURCES[{n}].server_id"), "server", &source.server, &servers);
    }
    for (n, tree) in document.trees.iter().enumerate() {
        refer(format!("REMOTE_TREES[{n}].source_id"), "source", &tree.source, &sources);
    }
    for (n, site) in document.sites.iter().enumerate() {
        for id in site.server_prefixes.keys() {
            refer(format!("SITE_SETTINGS[{n}].server_prefixes"), "server", id, &servers);
        }
        for id in site.source_prefixes.keys() {
            refer(format!("SITE_SETTINGS[{n}].source_prefixes"), "source", id, &sources);
        }
    }
    for (n, mirror) in document.mirrors.iter().enumerate() {
        refer(format!("LOCAL_MIRRORS[{n}].tree_id"), "tree", &mirror.tree, &trees);
        refer(format!("LOCAL_MIRRORS[{n}].site_id"), "site", &mirror.site, &sites);
    }
    let mut seen = BTreeSet::new();
    for (n, mirror) in document.mirrors.iter().enumerate() {
        if !seen.insert((&mirror.id, &mirror.site)) {
            let (id, site) = (&mirror.id, &mirror.site);
            problems.push(format!("LOCAL_MIRRORS[{n}]: mirror {id:?} is at site {site:?} already"));
        }
        let repo = format!("{}__{}", mirror.id, mirror.site);
        if raw.contains(repo.as_str()) {
            problems
                .push(format!("LOCAL_MIRRORS[{n}]: its repository {repo:?} is also in RAW_REPOS"));
        }
        if let Some(tree) = document.trees.iter().find(|tree| tree.id == mirror.tree) {
            warn_of_mirror(mirror, tree, warnings);
        }
    }
    for (n, tree) in document.trees.iter().enumerate() {
        check_listing(n, tree, problems);
        warn_of_tree(tree, warnings);
    }
    if !document.mirrors.is_empty() && !sites.contains("default") {
        warnings.push(
            "there is no site \"default\", so no site inherits from it (PulpDist refused this)"
                .to_owned(),
        );
    }
}

fn ids<'d>(
    list: &str,
    ids: impl Iterator<Item = &'d String>,
    problems: &mut Vec<String>,
) -> BTreeSet<&'d str> {
    let mut seen = BTreeSet::new();
    for (n, id) in ids.enumerate() {
        if !seen.insert(id.as_str()) {
            problems.push(format!("{list}[{n}]: {id:?} is defined twice"));
        }
    }
    seen
}

fn check_listing(n: usize, tree: &Tree, problems: &mut Vec<String>) {
    match (&tree.listing_pattern, &tree.listing_prefix) {
        (Some(_), Some(_)) => problems.push(format!(
            "REMOTE_TREES[{n}]: set either listing_pattern or listing_prefix, not both"
        )),
        (None, None) if tree.sync_type != SyncType::Simple => {
            problems
                .push(format!("REMOTE_TREES[{n}]: set either listing_pattern or listing_prefix"));
        }
        _ => {}
    }
}

fn warn_of_tree(tree: &Tree, warnings: &mut Vec<String>) {
    let of_versions = [
        ("listing_pattern", tree.listing_pattern.is_some()),
        ("listing_prefix", tree.listing_prefix.is_some()),
        ("exclude_from_listing", !tree.listing_excludes.is_empty()),
        ("listing_filters", !tree.listing_filters.is_empty()),
    ];
    let sealed = ("latest_link", tree.latest_link.is_some());
    let unused: Vec<&str> = match tree.sync_type {
        SyncType::Simple => of_versions.into_iter().chain([sealed]).filter_map(set).collect(),
        SyncType::Versioned => set(sealed).into_iter().collect(),
        SyncType::Snapshot => Vec::new(),
    };
    for key in unused {
        warnings.push(format!(
            "tree {}: {key} does not apply to its sync_type and is left out",
            tree.id
        ));
    }
}

fn warn_of_mirror(mirror: &Mirror, tree: &Tree, warnings: &mut Vec<String>) {
    let of_versions = [
        ("delete_old_dirs", mirror.delete_old_dirs),
        ("exclude_from_listing", !mirror.listing_excludes.is_empty()),
        ("listing_filters", !mirror.listing_filters.is_empty()),
    ];
    let sealed = ("sync_latest_only", mirror.sync_latest_only);
    let unused: Vec<&str> = match tree.sync_type {
        SyncType::Simple => of_versions.into_iter().chain([sealed]).filter_map(set).collect(),
        SyncType::Versioned => set(sealed).into_iter().collect(),
        SyncType::Snapshot => Vec::new(),
    };
    let id = format!("{}({})", mirror.id, mirror.site);
    for key in unused {
        let tree = &tree.id;
        warnings.push(format!(
            "mirror {id}: {key} does not apply to the sync_type of tree {tree} and is left out"
        ));
    }
    if mirror.has_notes {
        warnings
            .push(format!("mirror {id}: its notes have no place in definitions and are left out"));
    }
}

fn set<'k>((key, is_set): (&'k str, bool)) -> Option<&'k str> {
    is_set.then_some(key)
}
