//! What follows for each mirror: PulpDist's derivation, rule by rule.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    document::{Document, Mirror, Raw, Site, Source, SyncType, Tree},
    rules::fnmatch,
};

/// A mirror with everything that it inherits; in PulpDist, a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Derived {
    /// `MIRROR__SITE`, or the id of a raw repository.
    pub(super) repo_id: String,
    /// `MIRROR(SITE)`, or the id of a raw repository.
    pub(super) display_id: String,
    pub(super) display_name: String,
    pub(super) description: String,
    pub(super) kind: SyncType,
    pub(super) host: String,
    pub(super) port: Option<u16>,
    /// Where it lies at the server: `/…/`.
    pub(super) remote_path: String,
    /// Where it lies here: `/…/`.
    pub(super) local_path: String,
    /// Rules: the mirror's, then the tree's.
    pub(super) filters: (Vec<String>, Vec<String>),
    /// Patterns: sorted, each once.
    pub(super) excludes: Vec<String>,
    pub(super) listing_pattern: Option<String>,
    pub(super) listing_filters: Vec<String>,
    pub(super) listing_excludes: Vec<String>,
    pub(super) latest_link: Option<String>,
    pub(super) sync_hours: Option<u64>,
    pub(super) enabled: bool,
    pub(super) dry_run_only: bool,
    pub(super) delete_old_dirs: bool,
    pub(super) sync_latest_only: bool,
    /// Whom it is made of; nothing for a raw repository.
    pub(super) of: Option<Of>,
}

/// Ids of what a mirror is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Of {
    pub(super) mirror: String,
    pub(super) site: String,
    pub(super) tree: String,
    pub(super) source: String,
    pub(super) server: String,
}

/// All mirrors, then all raw repositories.
pub(super) fn derive(
    document: &Document,
    problems: &mut Vec<String>,
    warnings: &mut Vec<String>,
) -> Vec<Derived> {
    let mut all: Vec<Derived> = document
        .mirrors
        .iter()
        .enumerate()
        .filter_map(|(n, mirror)| of_mirror(document, n, mirror, problems, warnings))
        .collect();
    all.extend(document.raw.iter().map(|raw| of_raw(raw, warnings)));
    all
}

/// The site of that id, and the one that all others inherit from.
struct Sites<'d> {
    own: &'d Site,
    default: Option<&'d Site>,
}

impl<'d> Sites<'d> {
    /// The site's own prefix, else the default site's, else none. PulpDist promised this and did
    /// the reverse.
    fn prefix(&self, id: &str, of: fn(&Site) -> &BTreeMap<String, String>) -> &'d str {
        let both = [Some(self.own), self.default];
        both.into_iter().flatten().find_map(|site| of(site).get(id)).map_or("", String::as_str)
    }

    fn joined(&self, lists: [&[String]; 2], of: fn(&Site) -> &Vec<String>) -> Vec<String> {
        let sites = [Some(self.own), self.default].into_iter().flatten();
        let all = lists.into_iter().flatten().chain(sites.flat_map(of));
        all.cloned().collect::<BTreeSet<_>>().into_iter().collect()
    }
}

fn of_mirror(
    document: &Document,
    n: usize,
    mirror: &Mirror,
    problems: &mut Vec<String>,
    warnings: &mut Vec<String>,
) -> Option<Derived> {
    let tree = document.trees.iter().find(|tree| tree.id == mirror.tree)?;
    let source = document.sources.iter().find(|source| source.id == tree.source)?;
    let server = document.servers.iter().find(|server| server.id == source.server)?;
    let site = |id: &str| document.sites.iter().find(|site| site.id == id);
    let sites = Sites { own: site(&mirror.site)?, default: site("default") };
    let storage = sites.own.storage_prefix.as_deref();
    let storage = storage.or_else(|| sites.default?.storage_prefix.as_deref());
    let Some(storage) = storage else {
        problems.push(format!(
            "LOCAL_MIRRORS[{n}]: neither site {:?} nor the default site has a storage_prefix",
            mirror.site
        ));
        return None;
    };
    let display_id = format!("{}({})", mirror.id, mirror.site);
    let listing_pattern = listing_pattern(tree, source);
    let listing_excludes = sites
        .joined([&mirror.listing_excludes, &tree.listing_excludes], |site| &site.listing_excludes);
    let (kept, dropped): (Vec<String>, Vec<String>) = listing_excludes
        .into_iter()
        .partition(|exclude| !listing_pattern.as_deref().is_some_and(|p| fnmatch(p, exclude)));
    for exclude in dropped {
        let pattern = listing_pattern.as_deref().unwrap_or_default();
        warnings.push(format!(
            "mirror {display_id}: exclude_from_listing {exclude:?} would leave out what listing_pattern {pattern:?} asks for, and is left out"
        ));
    }
    let filters = (mirror.filters.clone(), tree.filters.clone());
    let listing_filters = [mirror.listing_filters.clone(), tree.listing_filters.clone()].concat();
    let is_sealed = tree.sync_type == SyncType::Snapshot;
    Some(Derived {
        repo_id: format!("{}__{}", mirror.id, mirror.site),
        display_id,
        display_name: text(&mirror.name).unwrap_or(&tree.name).to_owned(),
        description: text(&mirror.description)
            .or_else(|| text(&tree.description))
            .unwrap_or_default()
            .to_owned(),
        kind: tree.sync_type,
        host: server.dns.clone(),
        port: server.port,
        remote_path: joined(&[&source.remote_path, &tree.path]),
        local_path: joined(&[
            storage,
            sites.prefix(&server.id, |site| &site.server_prefixes),
            sites.prefix(&source.id, |site| &site.source_prefixes),
            mirror.path.as_deref().unwrap_or(&tree.path),
        ]),
        excludes: sites.joined([&mirror.excludes, &tree.excludes], |site| &site.excludes),
        filters,
        listing_pattern,
        listing_filters,
        listing_excludes: kept,
        latest_link: tree.latest_link.clone().filter(|_| is_sealed),
        sync_hours: tree.sync_hours,
        enabled: mirror.enabled,
        dry_run_only: mirror.dry_run_only,
        delete_old_dirs: mirror.delete_old_dirs && tree.sync_type != SyncType::Simple,
        sync_latest_only: mirror.sync_latest_only && is_sealed,
        of: Some(Of {
            mirror: mirror.id.clone(),
            site: mirror.site.clone(),
            tree: tree.id.clone(),
            source: source.id.clone(),
            server: server.id.clone(),
        }),
    })
}

/// The tree's own pattern, else its prefix with the source's suffix.
fn listing_pattern(tree: &Tree, source: &Source) -> Option<String> {
    if tree.sync_type == SyncType::Simple {
        return None;
    }
    let by_prefix = || Some(format!("{}{}", tree.listing_prefix.as_ref()?, source.listing_suffix));
    tree.listing_pattern.clone().or_else(by_prefix)
}

fn of_raw(raw: &Raw, warnings: &mut Vec<String>) -> Derived {
    let id = &raw.id;
    if let Some(limit) = raw.bandwidth_limit.filter(|limit| *limit > 0) {
        warnings.push(format!(
            "repository {id}: its bandwidth_limit of {limit} KiB/s is left out; rates are set for a site (default-rate, bandwidth)"
        ));
    }
    if raw.old_daemon {
        warnings.push(format!(
            "repository {id}: old_remote_daemon is left out; nothing depends on it here"
        ));
    }
    let versions = raw.sync_type != SyncType::Simple;
    let is_sealed = raw.sync_type == SyncType::Snapshot;
    let sorted =
        |list: &[String]| list.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect();
    Derived {
        repo_id: id.clone(),
        display_id: id.clone(),
        display_name: raw.name.clone(),
        description: String::new(),
        kind: raw.sync_type,
        host: raw.server.clone(),
        port: raw.port,
        remote_path: joined(&[&raw.remote_path]),
        local_path: joined(&[&raw.local_path]),
        filters: (raw.filters.clone(), Vec::new()),
        excludes: sorted(&raw.excludes),
        listing_pattern: versions
            .then(|| raw.listing_pattern.clone().unwrap_or_else(|| "*".into())),
        listing_filters: raw.listing_filters.clone(),
        listing_excludes: sorted(&raw.listing_excludes),
        latest_link: raw.latest_link.clone().filter(|_| is_sealed),
        sync_hours: raw.sync_hours,
        enabled: raw.enabled,
        dry_run_only: raw.dry_run_only,
        delete_old_dirs: raw.delete_old_dirs && versions,
        sync_latest_only: raw.sync_latest_only && is_sealed,
        of: None,
    }
}

/// Text that says something: empty text counts as none.
fn text(text: &Option<String>) -> Option<&str> {
    text.as_deref().filter(|text| !text.is_empty())
}

/// Parts of a path with one slash between each two, one before and one after.
fn joined(parts: &[&str]) -> String {
    let components = parts
        .iter()
        .flat_map(|part| part.split('/'))
        .filter(|part| !part.is_empty() && *part != ".");
    let path: Vec<&str> = components.collect();
    if path.is_empty() { "/".to_owned() } else { format!("/{}/", path.join("/")) }
}
