//! Which assignments a verb is about.
//!
//! Selectors of one kind widen (`--site lisbon --site porto` is both), several kinds narrow
//! (`--site lisbon --tree fedora` is one assignment); without any, all are meant.

use std::collections::{BTreeMap, BTreeSet};

use clap::Args;
use protocol::{
    client::Client,
    name::{SiteName, SourceName, TreeName, UpstreamName},
    spec::{AssignmentName, SourceSpec, TreeSpec},
    v1::definitions::Kind,
};
use serde::de::DeserializeOwned;

use super::{error::Error, kind::Subject};

/// Selectors, each of which may be given several times.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct Selectors {
    /// Only of this tree; several times for several.
    #[arg(long)]
    tree: Vec<TreeName>,
    /// Only at this site; several times for several.
    #[arg(long)]
    site: Vec<SiteName>,
    /// Only of trees of this source; several times for several.
    #[arg(long)]
    source: Vec<SourceName>,
    /// Only of trees from this upstream; several times for several.
    #[arg(long)]
    upstream: Vec<UpstreamName>,
    /// Only this assignment; several times for several.
    #[arg(long, value_name = "TREE@SITE")]
    assignment: Vec<AssignmentName>,
}

/// Where each tree comes from.
#[derive(Debug, Default)]
pub(super) struct Origins(BTreeMap<TreeName, (SourceName, Option<UpstreamName>)>);

impl Selectors {
    /// Whether all are meant.
    pub(super) fn is_empty(&self) -> bool {
        let Self { tree, site, source, upstream, assignment } = self;
        tree.is_empty()
            && site.is_empty()
            && source.is_empty()
            && upstream.is_empty()
            && assignment.is_empty()
    }

    /// Whether they choose among things of a kind.
    ///
    /// # Errors
    /// Where they cannot, or one is named besides.
    pub(super) fn choose(&self, kind: Subject, named: Option<&str>) -> Result<bool, Error> {
        use Subject::Definition;
        match (kind, named) {
            _ if self.is_empty() => Ok(false),
            (Definition(Kind::Assignment | Kind::Grant), None) => Ok(true),
            (Definition(Kind::Assignment | Kind::Grant), Some(_)) => {
                Err(Error::Usage("give a name or selectors, not both".into()))
            }
            _ => Err(Error::Usage("selectors choose assignments and grants".into())),
        }
    }

    /// The same, with these assignments too.
    pub(super) fn and(mut self, names: &[AssignmentName]) -> Self {
        self.assignment.extend(names.iter().cloned());
        self
    }

    /// The defined assignments that are meant, by name.
    pub(super) async fn select(&self, api: &Client) -> Result<Vec<AssignmentName>, Error> {
        let origins = self.origins(api).await?;
        let defined = api.definitions(Kind::Assignment).await?;
        let names: BTreeSet<AssignmentName> =
            defined.iter().filter_map(|definition| definition.name.parse().ok()).collect();
        if let Some(unknown) = self.assignment.iter().find(|name| !names.contains(name)) {
            let message =
                format!("there is no assignment {unknown}; `mirrorctl get assignments` lists them");
            return Err(Error::Other(anyhow::anyhow!(message)));
        }
        Ok(names.into_iter().filter(|name| self.means(name, &origins)).collect())
    }

    /// What has to be known to answer [`Selectors::means`].
    pub(super) async fn origins(&self, api: &Client) -> Result<Origins, Error> {
        let mut origins = Origins::default();
        if self.source.is_empty() && self.upstream.is_empty() {
            return Ok(origins);
        }
        let sources: Vec<SourceSpec> = specs(api, Kind::Source).await?;
        let upstreams: BTreeMap<_, _> =
            sources.into_iter().map(|source| (source.name, source.upstream)).collect();
        for tree in specs::<TreeSpec>(api, Kind::Tree).await? {
            let upstream = upstreams.get(&tree.source).cloned();
            origins.0.insert(tree.name, (tree.source, upstream));
        }
        Ok(origins)
    }

    /// Whether an assignment is meant.
    pub(super) fn means(&self, name: &AssignmentName, origins: &Origins) -> bool {
        fn allows<T: PartialEq>(values: &[T], value: Option<&T>) -> bool {
            values.is_empty() || value.is_some_and(|value| values.contains(value))
        }
        let origin = origins.0.get(&name.tree);
        allows(&self.tree, Some(&name.tree))
            && allows(&self.site, Some(&name.site))
            && allows(&self.source, origin.map(|(source, _)| source))
            && allows(&self.upstream, origin.and_then(|(_, upstream)| upstream.as_ref()))
            && allows(&self.assignment, Some(name))
    }
}

async fn specs<T: DeserializeOwned>(api: &Client, kind: Kind) -> Result<Vec<T>, Error> {
    let definitions = api.definitions(kind).await?;
    let read = |definition: protocol::v1::definitions::Definition| {
        serde_json::from_value(definition.spec).map_err(|error| Error::Other(error.into()))
    };
    definitions.into_iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selected(selectors: &Selectors) -> Vec<&'static str> {
        let mut origins = Origins::default();
        for (tree, source, upstream) in
            [("fedora", "linux", "build"), ("debian", "linux", "build"), ("papers", "docs", "far")]
        {
            let origin = (source.parse().unwrap(), Some(upstream.parse().unwrap()));
            origins.0.insert(tree.parse().unwrap(), origin);
        }
        let all =
            ["fedora@lisbon", "debian@lisbon", "papers@lisbon", "fedora@porto", "papers@faro"];
        all.into_iter().filter(|name| selectors.means(&name.parse().unwrap(), &origins)).collect()
    }

    fn list<T: std::str::FromStr<Err: std::fmt::Debug>>(names: &[&str]) -> Vec<T> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    #[test]
    fn values_of_a_kind_widen_and_kinds_narrow() {
        let all = Selectors::default();
        assert!(all.is_empty());
        assert_eq!(selected(&all).len(), 5);
        let sites = Selectors { site: list(&["porto", "faro"]), ..all.clone() };
        assert_eq!(selected(&sites), ["fedora@porto", "papers@faro"]);
        let both = Selectors { tree: list(&["fedora"]), ..sites.clone() };
        assert_eq!(selected(&both), ["fedora@porto"]);
        let source = Selectors { source: list(&["linux"]), ..all.clone() };
        assert_eq!(selected(&source), ["fedora@lisbon", "debian@lisbon", "fedora@porto"]);
        let upstream =
            Selectors { upstream: list(&["far"]), site: list(&["lisbon"]), ..all.clone() };
        assert_eq!(selected(&upstream), ["papers@lisbon"]);
        let named = Selectors { assignment: list(&["papers@faro", "fedora@porto"]), ..sites };
        assert_eq!(selected(&named), ["fedora@porto", "papers@faro"]);
        let none = Selectors { source: list(&["docs"]), tree: list(&["fedora"]), ..all };
        assert!(selected(&none).is_empty());
    }
}
