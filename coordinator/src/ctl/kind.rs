//! What `get`, `describe` and `delete` are about.

use std::str::FromStr;

use protocol::{role::Role, v1::definitions::Kind};

/// A kind of thing, in the singular or the plural.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subject {
    /// Something that admins define.
    Definition(Kind),
    /// Whoever takes part, by role.
    Identity(Role),
    /// Contents of trees.
    Generation,
    /// What agents did.
    Run,
}

/// As they are written, in the order of the help.
const NAMES: [(&str, Subject); 14] = [
    ("network", Subject::Definition(Kind::Network)),
    ("upstream", Subject::Definition(Kind::Upstream)),
    ("source", Subject::Definition(Kind::Source)),
    ("tree", Subject::Definition(Kind::Tree)),
    ("site", Subject::Definition(Kind::Site)),
    ("agent", Subject::Identity(Role::Agent)),
    ("publisher", Subject::Identity(Role::Publisher)),
    ("admin", Subject::Identity(Role::Admin)),
    ("viewer", Subject::Identity(Role::Viewer)),
    ("operator", Subject::Identity(Role::Operator)),
    ("grant", Subject::Definition(Kind::Grant)),
    ("assignment", Subject::Definition(Kind::Assignment)),
    ("generation", Subject::Generation),
    ("run", Subject::Run),
];

/// For people.
pub(super) const HELP: &str = "One of network, upstream, source, tree, site, agent, publisher, admin, \
                               viewer, operator, grant, assignment, generation and run, or its \
                               plural";

impl FromStr for Subject {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let singular = text.strip_suffix('s').unwrap_or(text);
        let found = NAMES.iter().find(|(name, _)| *name == text || *name == singular);
        found.map(|(_, subject)| *subject).ok_or_else(|| {
            let names: Vec<_> = NAMES.iter().map(|(name, _)| *name).collect();
            format!("the kinds are {}", names.join(", "))
        })
    }
}

impl Subject {
    /// In the singular.
    pub(super) fn as_str(self) -> &'static str {
        NAMES.iter().find(|(_, subject)| *subject == self).map_or("", |(name, _)| name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_known_in_the_singular_and_the_plural() {
        for (name, subject) in NAMES {
            assert_eq!(name.parse(), Ok(subject));
            assert_eq!(format!("{name}s").parse(), Ok(subject));
            assert_eq!(subject.as_str(), name);
        }
        assert!("trees2".parse::<Subject>().unwrap_err().contains("network, upstream, source"));
    }
}
