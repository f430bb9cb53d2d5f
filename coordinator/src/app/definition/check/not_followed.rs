//! Settings that are stored and shown, but that the daemons of this version do not follow.
//!
//! Refusing them would make files useless that are written for the whole format; taking them in
//! silence would make an admin rely on them.

use protocol::{
    spec::{AssignmentSpec, Switch},
    v1::definitions::Kind,
};

use super::Subject;

/// Warns of such settings in the files.
pub(super) fn warn(subject: &Subject<'_>, warnings: &mut Vec<String>) {
    let mut say = |kind: Kind, name: &str, keys: &[(&str, bool)], instead: &str| {
        let set: Vec<_> =
            keys.iter().filter(|(_, is_set)| *is_set).map(|(key, _)| format!("`{key}`")).collect();
        if subject.place(kind, name).is_some() && !set.is_empty() {
            warnings.push(format!(
                "{} {name}: {} {} stored, but not followed by this version: {instead}",
                kind.as_str(),
                set.join(", "),
                if set.len() == 1 { "is" } else { "are" }
            ));
        }
    };
    for (name, assignment) in &subject.next.assignments {
        let AssignmentSpec { switch, .. } = assignment;
        let name = name.to_string();
        let each = [(
            "switch = \"symlink\"",
            *switch == Switch::Symlink,
            "the agent chooses, as with auto",
        )];
        for (key, is_set, instead) in each {
            say(Kind::Assignment, &name, &[(key, is_set)], instead);
        }
    }
}
