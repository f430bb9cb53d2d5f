//! The difference between two wanted states, as an admin reads it.

use std::collections::BTreeSet;

use protocol::v1::definitions::{Action, Change, FieldChange, Kind};
use serde_json::{Map, Value};

use super::{set::Definitions, spec::Spec};

/// Every definition that differs, in the order of kinds and names.
pub(super) fn diff(before: &Definitions, after: &Definitions) -> Vec<Change> {
    let mut changes = Vec::new();
    for kind in Kind::ALL {
        let names: BTreeSet<String> =
            before.names(kind).into_iter().chain(after.names(kind)).collect();
        for name in names {
            let (old, new) = (before.get(kind, &name), after.get(kind, &name));
            if old == new {
                continue;
            }
            let action = match (&old, &new) {
                (None, _) => Action::Add,
                (_, None) => Action::Remove,
                _ => Action::Change,
            };
            let fields = match action {
                Action::Remove => Vec::new(),
                _ => fields(&settings(old.as_ref()), &settings(new.as_ref())),
            };
            changes.push(Change { kind, name, action, fields });
        }
    }
    changes
}

/// What is set, without what is in the name already.
fn settings(spec: Option<&Spec>) -> Map<String, Value> {
    let Some(spec) = spec else { return Map::new() };
    let named: &[&str] = match spec.kind() {
        Kind::Grant | Kind::Assignment => &["site", "tree"],
        _ => &["name"],
    };
    match spec.to_value() {
        Value::Object(fields) => {
            fields.into_iter().filter(|(key, _)| !named.contains(&key.as_str())).collect()
        }
        _ => Map::new(),
    }
}

fn fields(before: &Map<String, Value>, after: &Map<String, Value>) -> Vec<FieldChange> {
    let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    keys.into_iter()
        .filter(|key| before.get(*key) != after.get(*key))
        .map(|key| FieldChange {
            field: key.clone(),
            from: before.get(key).cloned(),
            to: after.get(key).cloned(),
        })
        .collect()
}
