//! One definition of any kind.

use protocol::{
    spec::{
        AssignmentName, AssignmentSpec, GrantSpec, NetworkSpec, SiteSpec, SourceSpec, TreeSpec,
        UpstreamSpec,
    },
    v1::definitions::Kind,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// One definition of any kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spec {
    /// The network itself.
    Network(NetworkSpec),
    /// A server that trees come from.
    Upstream(UpstreamSpec),
    /// A group of trees.
    Source(SourceSpec),
    /// A tree.
    Tree(Box<TreeSpec>),
    /// A place that hosts mirrors.
    Site(SiteSpec),
    /// A permission.
    Grant(GrantSpec),
    /// An order.
    Assignment(Box<AssignmentSpec>),
}

impl Spec {
    /// Reads the stored form.
    ///
    /// # Errors
    /// When the value is not a definition of that kind, for example because another version of
    /// the program wrote it.
    pub fn from_value(kind: Kind, value: Value) -> Result<Self, serde_json::Error> {
        fn read<T: DeserializeOwned>(value: Value) -> Result<T, serde_json::Error> {
            serde_json::from_value(value)
        }
        Ok(match kind {
            Kind::Network => Self::Network(read(value)?),
            Kind::Upstream => Self::Upstream(read(value)?),
            Kind::Source => Self::Source(read(value)?),
            Kind::Tree => Self::Tree(read(value)?),
            Kind::Site => Self::Site(read(value)?),
            Kind::Grant => Self::Grant(read(value)?),
            Kind::Assignment => Self::Assignment(read(value)?),
        })
    }

    /// The form in which it is stored and sent.
    pub fn to_value(&self) -> Value {
        let value = match self {
            Self::Network(spec) => serde_json::to_value(spec),
            Self::Upstream(spec) => serde_json::to_value(spec),
            Self::Source(spec) => serde_json::to_value(spec),
            Self::Tree(spec) => serde_json::to_value(spec),
            Self::Site(spec) => serde_json::to_value(spec),
            Self::Grant(spec) => serde_json::to_value(spec),
            Self::Assignment(spec) => serde_json::to_value(spec),
        };
        // Specs are structs with text keys, for which the conversion has no way to fail.
        value.unwrap_or_default()
    }

    /// Its kind.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Network(_) => Kind::Network,
            Self::Upstream(_) => Kind::Upstream,
            Self::Source(_) => Kind::Source,
            Self::Tree(_) => Kind::Tree,
            Self::Site(_) => Kind::Site,
            Self::Grant(_) => Kind::Grant,
            Self::Assignment(_) => Kind::Assignment,
        }
    }

    /// Its name; `TREE@SITE` for grants and assignments.
    pub fn name(&self) -> String {
        match self {
            Self::Network(spec) => spec.name.to_string(),
            Self::Upstream(spec) => spec.name.to_string(),
            Self::Source(spec) => spec.name.to_string(),
            Self::Tree(spec) => spec.name.to_string(),
            Self::Site(spec) => spec.name.to_string(),
            Self::Grant(spec) => grant_name(spec).to_string(),
            Self::Assignment(spec) => spec.name().to_string(),
        }
    }
}

/// The name by which a grant is known.
pub(super) fn grant_name(spec: &GrantSpec) -> AssignmentName {
    AssignmentName { tree: spec.tree.clone(), site: spec.site.clone() }
}
