//! The whole wanted state.

use std::collections::BTreeMap;

use protocol::{
    name::{NetworkName, SiteName, SourceName, TreeName, UpstreamName},
    spec::{
        AssignmentName, AssignmentSpec, GrantSpec, NetworkSpec, SiteSpec, SourceSpec, TreeSpec,
        UpstreamSpec,
    },
    v1::definitions::Kind,
};

use super::spec::{Spec, grant_name};

/// Every definition of a network, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Definitions {
    /// The network itself: at most one.
    pub networks: BTreeMap<NetworkName, NetworkSpec>,
    /// Servers that trees come from.
    pub upstreams: BTreeMap<UpstreamName, UpstreamSpec>,
    /// Groups of trees.
    pub sources: BTreeMap<SourceName, SourceSpec>,
    /// Trees.
    pub trees: BTreeMap<TreeName, TreeSpec>,
    /// Places that host mirrors.
    pub sites: BTreeMap<SiteName, SiteSpec>,
    /// Permissions.
    pub grants: BTreeMap<AssignmentName, GrantSpec>,
    /// Orders.
    pub assignments: BTreeMap<AssignmentName, AssignmentSpec>,
}

impl Definitions {
    /// Adds a definition, in place of one with the same kind and name.
    pub fn insert(&mut self, spec: Spec) {
        match spec {
            Spec::Network(spec) => drop(self.networks.insert(spec.name.clone(), spec)),
            Spec::Upstream(spec) => drop(self.upstreams.insert(spec.name.clone(), spec)),
            Spec::Source(spec) => drop(self.sources.insert(spec.name.clone(), spec)),
            Spec::Tree(spec) => drop(self.trees.insert(spec.name.clone(), *spec)),
            Spec::Site(spec) => drop(self.sites.insert(spec.name.clone(), spec)),
            Spec::Grant(spec) => drop(self.grants.insert(grant_name(&spec), spec)),
            Spec::Assignment(spec) => drop(self.assignments.insert(spec.name(), *spec)),
        }
    }

    /// The definition of that kind and name.
    pub fn get(&self, kind: Kind, name: &str) -> Option<Spec> {
        match kind {
            Kind::Network => self.networks.get(&name.parse().ok()?).cloned().map(Spec::Network),
            Kind::Upstream => self.upstreams.get(&name.parse().ok()?).cloned().map(Spec::Upstream),
            Kind::Source => self.sources.get(&name.parse().ok()?).cloned().map(Spec::Source),
            Kind::Tree => {
                self.trees.get(&name.parse().ok()?).cloned().map(|spec| Spec::Tree(Box::new(spec)))
            }
            Kind::Site => self.sites.get(&name.parse().ok()?).cloned().map(Spec::Site),
            Kind::Grant => self.grants.get(&name.parse().ok()?).cloned().map(Spec::Grant),
            Kind::Assignment => self
                .assignments
                .get(&name.parse().ok()?)
                .cloned()
                .map(|spec| Spec::Assignment(Box::new(spec))),
        }
    }

    /// Takes a definition out; whether it was there.
    pub fn remove(&mut self, kind: Kind, name: &str) -> bool {
        fn take<K: Ord + std::str::FromStr, V>(map: &mut BTreeMap<K, V>, name: &str) -> bool {
            name.parse().is_ok_and(|name| map.remove(&name).is_some())
        }
        match kind {
            Kind::Network => take(&mut self.networks, name),
            Kind::Upstream => take(&mut self.upstreams, name),
            Kind::Source => take(&mut self.sources, name),
            Kind::Tree => take(&mut self.trees, name),
            Kind::Site => take(&mut self.sites, name),
            Kind::Grant => take(&mut self.grants, name),
            Kind::Assignment => take(&mut self.assignments, name),
        }
    }

    /// The names of one kind, in order.
    pub fn names(&self, kind: Kind) -> Vec<String> {
        fn texts<K: ToString, V>(map: &BTreeMap<K, V>) -> Vec<String> {
            map.keys().map(ToString::to_string).collect()
        }
        match kind {
            Kind::Network => texts(&self.networks),
            Kind::Upstream => texts(&self.upstreams),
            Kind::Source => texts(&self.sources),
            Kind::Tree => texts(&self.trees),
            Kind::Site => texts(&self.sites),
            Kind::Grant => texts(&self.grants),
            Kind::Assignment => texts(&self.assignments),
        }
    }
}

impl FromIterator<Spec> for Definitions {
    fn from_iter<I: IntoIterator<Item = Spec>>(specs: I) -> Self {
        let mut set = Self::default();
        specs.into_iter().for_each(|spec| set.insert(spec));
        set
    }
}
