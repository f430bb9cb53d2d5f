//! Definitions for mirrors.
//!
//! `MIRROR(SITE)` becomes the assignment `MIRROR@SITE`: a tree is named after the mirror, because
//! two mirrors of one remote tree may lie at the same site. What PulpDist kept at a site (its
//! storage prefix) is what the site's agents publish; paths are relative to it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use super::{
    derive::Derived,
    document::{Document, SyncType},
    rules::{KEEP_VERSIONS, pattern, rule},
};

/// Site of repositories that were written by hand.
const RAW_SITE: &str = "default";
/// PulpDist kept the upstream's modes: who could not read a file there could not read it here. The
/// agent itself has to. Without a word everybody may read what is published.
const AS_UPSTREAM: &str = "u+rX";

/// One table of a definition file.
struct Table(String);

impl Table {
    fn new(kind: &str, comment: &str) -> Self {
        let mut text = String::new();
        for line in comment.lines() {
            writeln!(text, "# {}", line.trim()).unwrap_or_default();
        }
        writeln!(text, "[[{kind}]]").unwrap_or_default();
        Self(text)
    }

    fn text(mut self, key: &str, value: &str) -> Self {
        let value = toml::Value::String(value.to_owned());
        writeln!(self.0, "{key} = {value}").unwrap_or_default();
        self
    }

    fn maybe(self, key: &str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.text(key, value),
            None => self,
        }
    }

    fn plain(mut self, key: &str, value: impl std::fmt::Display) -> Self {
        writeln!(self.0, "{key} = {value}").unwrap_or_default();
        self
    }

    fn list(mut self, key: &str, values: &[String]) -> Self {
        if !values.is_empty() {
            let values: Vec<toml::Value> =
                values.iter().cloned().map(toml::Value::String).collect();
            writeln!(self.0, "{key} = {}", toml::Value::Array(values)).unwrap_or_default();
        }
        self
    }
}

/// Names that were given, so that two ids never become one name.
#[derive(Default)]
struct Names(BTreeMap<(&'static str, String), String>);

impl Names {
    /// An id as a name of ours: lower case, beginning and ending with a letter or digit.
    fn of(&mut self, kind: &'static str, id: &str, problems: &mut Vec<String>) -> String {
        let lower = id.to_ascii_lowercase();
        let name = lower.trim_matches(['_', '-']).to_owned();
        if name.is_empty() || name.len() > 64 {
            problems.push(format!(
                "{kind} {id:?} makes no name of 1 to 64 letters and digits; rename it"
            ));
        }
        let given = self.0.entry((kind, name.clone())).or_insert_with(|| id.to_owned());
        if given != id {
            problems.push(format!(
                "{kind}s {given:?} and {id:?} would both be named {name:?}; rename one"
            ));
        }
        name
    }
}

/// Writes everything as one definition file.
pub(super) fn write(
    document: &Document,
    mirrors: &[Derived],
    problems: &mut Vec<String>,
    warnings: &mut Vec<String>,
) -> String {
    let mut writer =
        Writer { document, problems, warnings, names: Names::default(), done: BTreeSet::new() };
    let mut tables: BTreeMap<u8, Vec<Table>> = BTreeMap::new();
    for mirror in mirrors {
        for (rank, table) in writer.mirror(mirror) {
            tables.entry(rank).or_default().push(table);
        }
    }
    let mut text = String::from("# Made by `mirrorctl import pulpdist`.\n");
    for site in &document.sites {
        if let Some(prefix) = &site.storage_prefix {
            let prefix = prefix.trim_matches('/');
            let id = &site.id;
            writeln!(text, "# Agents of site {id} publish below /{prefix}: publish = \"/{prefix}\" in mirror-agent.toml.")
                .unwrap_or_default();
        }
    }
    for Table(table) in tables.into_values().flatten() {
        text.push('\n');
        text.push_str(&table);
    }
    text
}

struct Writer<'a> {
    document: &'a Document,
    problems: &'a mut Vec<String>,
    warnings: &'a mut Vec<String>,
    names: Names,
    /// Kind and name of what is written already.
    done: BTreeSet<(&'static str, String)>,
}

impl Writer<'_> {
    /// The tables of one mirror that are not there yet, each with its rank in the file.
    fn mirror(&mut self, mirror: &Derived) -> Vec<(u8, Table)> {
        let mut tables = Vec::new();
        let mut add = |rank, table: Option<Table>| tables.extend(table.map(|table| (rank, table)));
        let (upstream, table) = self.upstream(mirror);
        add(0, table);
        let (source, below, table) = self.source(mirror, &upstream);
        add(1, table);
        let (tree, table) = self.tree(mirror, &source, below.as_deref());
        add(2, table);
        let (site, table) = self.site(mirror);
        add(3, table);
        let grant = Table::new("grant", "").text("site", &site).text("tree", &tree);
        add(4, Some(grant));
        add(5, Some(self.assignment(mirror, &site, &tree)));
        tables
    }

    fn is_new(&mut self, kind: &'static str, name: &str) -> bool {
        self.done.insert((kind, name.to_owned()))
    }

    fn upstream(&mut self, mirror: &Derived) -> (String, Option<Table>) {
        let server = mirror.of.as_ref().map(|of| of.server.clone());
        let known = self.document.servers.iter().find(|known| {
            server.as_ref().map_or((&known.dns, known.port) == (&mirror.host, mirror.port), |id| {
                known.id == *id
            })
        });
        let id = known.map_or_else(|| mirror.repo_id.clone(), |known| known.id.clone());
        let name = self.names.of("server", &id, self.problems);
        if !self.is_new("upstream", &name) {
            return (name, None);
        }
        if known.is_some_and(|known| known.old_daemon) {
            self.warnings
                .push(format!("server {id}: old_daemon is left out; nothing depends on it here"));
        }
        let host = if mirror.host.contains(':') {
            format!("[{}]", mirror.host)
        } else {
            mirror.host.clone()
        };
        let port = mirror.port.map(|port| format!(":{port}")).unwrap_or_default();
        let comment = known.map_or("", |known| known.name.as_str());
        let table = Table::new("upstream", comment)
            .text("name", &name)
            .text("kind", "rsyncd")
            .text("url", &format!("rsync://{host}{port}/"));
        (name, Some(table))
    }

    /// The source, and where the tree lies below it.
    fn source(
        &mut self,
        mirror: &Derived,
        upstream: &str,
    ) -> (String, Option<String>, Option<Table>) {
        let whole = mirror.remote_path.trim_matches('/');
        let known = mirror
            .of
            .as_ref()
            .and_then(|of| self.document.sources.iter().find(|source| source.id == of.source));
        let path = known.map_or(whole, |source| source.remote_path.trim_matches('/'));
        let (id, path) = match (known, path) {
            // The first component is the module: without one here, it is the tree's.
            (Some(source), "") => {
                let module = whole.split('/').next().unwrap_or_default();
                (format!("{}-{module}", source.id), module)
            }
            (Some(source), path) => (source.id.clone(), path),
            (None, path) => (mirror.repo_id.clone(), path),
        };
        if path.is_empty() {
            self.problems.push(format!("{}: its remote path names no module", mirror.display_id));
        }
        let below = whole.strip_prefix(path).unwrap_or_default().trim_matches('/');
        let below = (!below.is_empty()).then(|| below.to_owned());
        let name = self.names.of("source", &id, self.problems);
        if !self.is_new("source", &name) {
            return (name, below, None);
        }
        let comment = known.map_or("", |source| source.name.as_str());
        let table = Table::new("source", comment)
            .text("name", &name)
            .text("upstream", upstream)
            .text("path", path);
        (name, below, Some(table))
    }

    fn tree(
        &mut self,
        mirror: &Derived,
        source: &str,
        below: Option<&str>,
    ) -> (String, Option<Table>) {
        let id = self.tree_id(mirror);
        let name = self.names.of("tree", &id, self.problems);
        if !self.is_new("tree", &name) {
            return (name, None);
        }
        let in_versions = mirror.kind != SyncType::Simple;
        let filter: Vec<String> =
            mirror.filters.1.iter().map(|text| rule(text, in_versions)).collect();
        let mut comment = mirror.display_name.clone();
        if !mirror.description.is_empty() {
            comment = format!("{comment}\n{}", mirror.description);
        }
        let layout = match mirror.kind {
            SyncType::Simple => None,
            SyncType::Versioned => Some("versioned"),
            SyncType::Snapshot => Some("sealed"),
        };
        let mut exclude = Vec::new();
        if mirror.kind == SyncType::Snapshot {
            // At any depth, as PulpDist did.
            exclude.extend(["STATUS".to_owned(), ".STATUS".to_owned()]);
        }
        let table = Table::new("tree", &comment)
            .text("name", &name)
            .text("source", source)
            .maybe("path", below)
            .maybe("layout", layout)
            .list("filter", &filter)
            .list("exclude", &exclude)
            .maybe("listing-pattern", mirror.listing_pattern.as_deref())
            .maybe("latest-link", mirror.latest_link.as_deref())
            .plain("sync-hours", mirror.sync_hours.unwrap_or(0));
        (name, Some(table))
    }

    /// The mirror's id, where it stands for one remote tree at all sites.
    fn tree_id(&self, mirror: &Derived) -> String {
        let Some(of) = &mirror.of else { return mirror.repo_id.clone() };
        let mut same = self.document.mirrors.iter().filter(|other| other.id == of.mirror);
        if same.all(|other| other.tree == of.tree) {
            of.mirror.clone()
        } else {
            format!("{}-{}", of.mirror, of.tree)
        }
    }

    fn site(&mut self, mirror: &Derived) -> (String, Option<Table>) {
        let id = mirror.of.as_ref().map_or(RAW_SITE, |of| of.site.as_str()).to_owned();
        let name = self.names.of("site", &id, self.problems);
        if !self.is_new("site", &name) {
            return (name, None);
        }
        let known = self.document.sites.iter().find(|site| site.id == id);
        let comment = known.map_or("", |site| site.name.as_str());
        (name.clone(), Some(Table::new("site", comment).text("name", &name)))
    }

    fn assignment(&mut self, mirror: &Derived, site: &str, tree: &str) -> Table {
        let in_versions = mirror.kind != SyncType::Simple;
        let mut filter: Vec<String> =
            in_versions.then(|| KEEP_VERSIONS.to_owned()).into_iter().collect();
        filter.extend(mirror.filters.0.iter().map(|text| rule(text, in_versions)));
        let exclude: Vec<String> =
            mirror.excludes.iter().map(|text| pattern(text, in_versions)).collect();
        let path = self.path_of(mirror);
        let table = Table::new("assignment", &format!("PulpDist: {}", mirror.display_id))
            .text("site", site)
            .text("tree", tree)
            .text("path", &path)
            .text("chmod", AS_UPSTREAM)
            .list("filter", &filter)
            .list("exclude", &exclude)
            .list("listing-filter", &rules(&mirror.listing_filters))
            .list("listing-exclude", &mirror.listing_excludes);
        let table =
            if mirror.delete_old_dirs { table.plain("delete-old-versions", true) } else { table };
        let table =
            if mirror.sync_latest_only { table.plain("sync-latest-only", true) } else { table };
        let table = if mirror.dry_run_only { table.plain("dry-run-only", true) } else { table };
        if mirror.enabled { table } else { table.plain("enabled", false) }
    }

    /// Where it lies below what the site's agents publish.
    fn path_of(&mut self, mirror: &Derived) -> String {
        let site = mirror.of.as_ref().map_or(RAW_SITE, |of| of.site.as_str());
        let prefix_of = |id: &str| {
            let site = self.document.sites.iter().find(|site| site.id == id)?;
            Some(site.storage_prefix.as_deref()?.trim_matches('/').to_owned())
        };
        let local = mirror.local_path.trim_matches('/');
        let prefix = prefix_of(site).or_else(|| prefix_of("default")).unwrap_or_default();
        let below = match local.strip_prefix(&prefix) {
            Some(below) if prefix.is_empty() || below.is_empty() || below.starts_with('/') => {
                below.trim_matches('/')
            }
            _ => {
                self.warnings.push(format!(
                    "{}: its local_path /{local} does not lie below /{prefix}, where the agents of site {site} publish; it is written as if they published below /",
                    mirror.display_id
                ));
                local
            }
        };
        if below.is_empty() {
            self.problems.push(format!(
                "{}: it lies at the storage_prefix /{prefix} itself; give it a path below",
                mirror.display_id
            ));
        }
        below.to_owned()
    }
}

/// Rules for names of versions: these are relative to the tree already.
fn rules(list: &[String]) -> Vec<String> {
    list.iter().map(|text| rule(text, false)).collect()
}
