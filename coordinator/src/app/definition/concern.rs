//! Which definitions concern a site.

use protocol::{name::SiteName, spec::AssignmentName, v1::definitions::Kind};

use super::Definitions;
use crate::app::admission::Scope;

impl Definitions {
    /// Whether the definition is within `scope`. A site is concerned by itself, its grants and
    /// assignments, the trees that it was granted, and where those come from.
    pub fn concerns(&self, kind: Kind, name: &str, scope: &Scope) -> bool {
        let Scope::Site(site) = scope else { return true };
        let of_site =
            |name: &str| name.parse::<AssignmentName>().is_ok_and(|name| name.site == *site);
        match kind {
            Kind::Network => false,
            Kind::Site => name == site.as_str(),
            Kind::Grant | Kind::Assignment => of_site(name),
            Kind::Tree => self.granted(site).any(|grant| grant.tree.as_str() == name),
            Kind::Source => self.sources_of(site).any(|source| source.name.as_str() == name),
            Kind::Upstream => self.sources_of(site).any(|source| source.upstream.as_str() == name),
        }
    }

    fn granted<'a>(&'a self, site: &'a SiteName) -> impl Iterator<Item = &'a AssignmentName> {
        self.grants.keys().filter(move |name| name.site == *site)
    }

    fn sources_of<'a>(
        &'a self,
        site: &'a SiteName,
    ) -> impl Iterator<Item = &'a protocol::spec::SourceSpec> {
        let trees = self.granted(site).filter_map(|grant| self.trees.get(&grant.tree));
        trees.filter_map(|tree| self.sources.get(&tree.source))
    }
}
