//! What admins want: definitions, and what they asked for.

use std::collections::HashMap;

use protocol::{
    dsse::Envelope,
    generation::Revision,
    name::{SiteName, TreeName},
    spec::AssignmentName,
    v1::{
        agent::UndeleteOrder,
        definitions::{Definition, Kind},
    },
};

use crate::{
    app::definition::{Definitions, Spec},
    db::{self, StoredDefinition},
};

/// Kind of request: a run of an assignment.
pub const SYNC: &str = "sync";
/// Kind of request: a scan of a tree.
pub const PUBLISH: &str = "publish";
/// Kind of request: another secret of a private tree, which it was given.
pub const SECRET: &str = "secret";

/// Definitions and requests.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// The definitions.
    pub definitions: Definitions,
    changed: HashMap<(Kind, String), Revision>,
    requests: HashMap<(String, String), u64>,
    undeletes: HashMap<AssignmentName, Vec<UndeleteOrder>>,
    mandates: Vec<(AssignmentName, Envelope)>,
}

impl Wanted {
    /// From what is stored.
    pub fn new(
        definitions: Vec<StoredDefinition>,
        requests: Vec<(String, String, u64)>,
        undeletes: Vec<(AssignmentName, UndeleteOrder)>,
        mandates: Vec<(AssignmentName, Envelope)>,
    ) -> Result<Self, db::Error> {
        let mut wanted = Self::default();
        for Definition { kind, name, revision, spec } in definitions {
            let spec = Spec::from_value(kind, spec).map_err(|error| db::Error::Corrupt {
                what: "definition",
                reason: format!("{} {name}: {error}", kind.as_str()),
            })?;
            wanted.definitions.insert(spec);
            wanted.changed.insert((kind, name), revision);
        }
        wanted.requests =
            requests.into_iter().map(|(kind, name, count)| ((kind, name), count)).collect();
        for (name, order) in undeletes {
            wanted.undeletes.entry(name).or_default().push(order);
        }
        wanted.mandates = mandates;
        Ok(wanted)
    }

    /// The same requests with other definitions.
    pub fn with_definitions(&self, definitions: Definitions) -> Self {
        Self { definitions, ..self.clone() }
    }

    /// The definition as it is shown.
    pub fn definition(&self, kind: Kind, name: &str) -> Option<Definition> {
        let spec = self.definitions.get(kind, name)?;
        let revision = self.changed.get(&(kind, name.to_owned())).copied().unwrap_or_default();
        Some(Definition { kind, name: name.to_owned(), revision, spec: spec.to_value() })
    }

    /// How often a run of the assignment was asked for.
    pub fn sync_requests(&self, name: &AssignmentName) -> u64 {
        self.requests.get(&(SYNC.to_owned(), name.to_string())).copied().unwrap_or(0)
    }

    /// What admins want back from the trash of the assignment.
    pub fn undeletes(&self, name: &AssignmentName) -> &[UndeleteOrder] {
        self.undeletes.get(name).map_or(&[], Vec::as_slice)
    }

    /// The signed mandates of a site's assignments.
    pub fn mandates_of(&self, site: &SiteName) -> impl Iterator<Item = &Envelope> {
        self.mandates.iter().filter(move |(name, _)| name.site == *site).map(|(_, mandate)| mandate)
    }

    /// The signed mandate of an assignment.
    pub fn mandate(&self, name: &AssignmentName) -> Option<&Envelope> {
        self.mandates.iter().find(|(of, _)| of == name).map(|(_, mandate)| mandate)
    }

    /// How often the tree's secret was exchanged.
    pub fn secrets(&self, name: &TreeName) -> u64 {
        self.requests.get(&(SECRET.to_owned(), name.to_string())).copied().unwrap_or(0)
    }

    /// How often a scan of the tree was asked for.
    pub fn publish_requests(&self, name: &TreeName) -> u64 {
        self.requests.get(&(PUBLISH.to_owned(), name.to_string())).copied().unwrap_or(0)
    }
}
