//! A difference, as an admin reads it.

use std::fmt::Write as _;

use protocol::v1::definitions::{Action, ApplyResult, Change, FieldChange};
use serde_json::Value;

/// Every change with its fields, then the warnings, then one line that sums up.
pub(in crate::ctl) fn shown(result: &ApplyResult) -> String {
    let mut text = String::new();
    for change in &result.changes {
        write_change(&mut text, change).unwrap_or_default();
    }
    for warning in &result.warnings {
        writeln!(text, "warning: {warning}").unwrap_or_default();
    }
    let count = result.changes.len();
    let changes = if count == 1 { "change" } else { "changes" };
    text += &match (count, result.dry_run) {
        (0, true) => "nothing would change".to_owned(),
        (0, false) => format!("nothing changed; the wanted state is revision {}", result.revision),
        (_, true) => format!("{count} {changes}, not stored (dry run)"),
        (_, false) => format!("{count} {changes} stored as revision {}", result.revision),
    };
    text
}

fn write_change(text: &mut String, change: &Change) -> std::fmt::Result {
    let sign = match change.action {
        Action::Add => '+',
        Action::Change => '~',
        Action::Remove => '-',
    };
    writeln!(text, "{sign} {} {}", change.kind.as_str(), change.name)?;
    for FieldChange { field, from, to } in &change.fields {
        match (change.action, from, to) {
            (Action::Add, _, Some(to)) => writeln!(text, "    {field} = {}", value(to))?,
            (_, from, to) => {
                let side = |side: &Option<Value>| side.as_ref().map_or("(not set)".into(), value);
                writeln!(text, "    {field}: {} -> {}", side(from), side(to))?;
            }
        }
    }
    Ok(())
}

/// As it would be written in a definition file.
fn value(value: &Value) -> String {
    match value {
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(self::value).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(fields) => {
            let fields: Vec<_> = fields
                .iter()
                .map(|(key, field)| format!("{key} = {}", self::value(field)))
                .collect();
            format!("{{ {} }}", fields.join(", "))
        }
        plain => plain.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use protocol::{generation::Revision, v1::definitions::Kind};
    use serde_json::json;

    use super::*;

    #[test]
    fn a_difference_names_what_is_added_changed_and_removed() {
        let field = |field: &str, from: Option<Value>, to: Option<Value>| FieldChange {
            field: field.into(),
            from,
            to,
        };
        let change =
            |kind, name: &str, action, fields| Change { kind, name: name.into(), action, fields };
        let result = ApplyResult {
            revision: Revision(7),
            dry_run: false,
            changes: vec![
                change(
                    Kind::Tree,
                    "fedora",
                    Action::Add,
                    vec![
                        field("filter", None, Some(json!(["- *.iso"]))),
                        field("guard", None, Some(json!({ "max-delete-files": "5%" }))),
                    ],
                ),
                change(
                    Kind::Site,
                    "lisbon",
                    Action::Change,
                    vec![field("prefix", None, Some(json!("pub")))],
                ),
                change(Kind::Assignment, "fedora@porto", Action::Remove, vec![]),
            ],
            warnings: vec!["mind".into()],
        };
        let expected = "+ tree fedora\n    filter = [\"- *.iso\"]\n    guard = { max-delete-files = \"5%\" }\n~ site lisbon\n    prefix: (not set) -> \"pub\"\n- assignment fedora@porto\nwarning: mind\n3 changes stored as revision 7";
        assert_eq!(shown(&result), expected);
    }
}
