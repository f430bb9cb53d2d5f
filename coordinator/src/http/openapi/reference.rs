//! `docs/reference/api.md`, and the pages that explain the values which the API carries.

use std::fmt::Write as _;

use serde_json::Value;

use super::{Answer, document, table};

#[test]
fn the_reference_in_the_documentation_is_what_the_api_says() {
    reference::check("api", &page());
}

#[test]
fn every_value_that_an_admin_meets_is_explained() {
    let pages = [
        ("problems", "Types", "ProblemKind"),
        ("reports", "Kinds of run", "RunKind"),
        ("reports", "Results", "RunResult"),
        ("reports", "Ways", "Way"),
        ("reports", "Encoders", "Encoder"),
        ("reports", "Reasons", "NoDelta"),
    ];
    let document = document();
    for (page, heading, name) in pages {
        let values = &document["components"]["schemas"][name]["enum"];
        let values: Vec<_> = values.as_array().unwrap().iter().filter_map(Value::as_str).collect();
        assert!(!values.is_empty(), "{name}");
        reference::mentions(page, heading, values);
    }
}

fn page() -> String {
    let document = document();
    let mut text = String::from(
        "# The coordinator's API\n\nMade from the program's own description of it by its tests; `MIRRORNET_BLESS=1 cargo test -p coordinator` writes it anew.\n`GET /v1/openapi.json` is the same for programs.\n\n",
    );
    writeln!(text, "{}\n", document["info"]["description"].as_str().unwrap()).unwrap();
    text.push_str("Every refusal is a [problem](problems.md). `Page of T` has `items` and, but on the last page, `next`: ask with `?cursor=` this for\nthe next one.\n\n");
    text.push_str(
        "| Request | What it does | Who may | Query | Body | Answer |\n|---|---|---|---|---|---|\n",
    );
    for endpoint in table::endpoints() {
        let query: Vec<_> = endpoint.query.iter().map(|(name, _)| format!("`{name}`")).collect();
        let body = endpoint.request.as_deref().map_or(String::new(), link);
        let answer = match &endpoint.answer {
            Answer::Nothing => "204".to_owned(),
            Answer::Text(media_type) => format!("`{media_type}`"),
            Answer::Json(name) => match name.strip_prefix("PageOf") {
                Some(item) => format!("page of {}", link(item)),
                None => link(name),
            },
        };
        let (method, path) = (endpoint.method.to_uppercase(), endpoint.path);
        let (summary, roles, query) = (endpoint.summary, endpoint.roles, query.join(", "));
        let row =
            format!("| `{method} {path}` | {summary} | {roles} | {query} | {body} | {answer} |");
        writeln!(text, "{}", row.replace("|  |", "| |").replace("|  |", "| |")).unwrap();
    }
    text.push_str("\n## Types\n");
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        if !name.starts_with("PageOf") {
            section(&mut text, name, schema);
        }
    }
    text
}

fn section(text: &mut String, name: &str, schema: &Value) {
    writeln!(text, "\n### {name}\n").unwrap();
    let about = description(schema);
    if !about.is_empty() {
        writeln!(text, "{about}\n").unwrap();
    }
    let mut fields = Vec::new();
    rows(schema, &mut fields);
    if fields.is_empty() {
        writeln!(text, "{}", shape(schema)).unwrap();
    } else {
        writeln!(text, "| Field | Type | |\n|---|---|---|\n{}", fields.join("\n")).unwrap();
    }
}

/// The rows of an object's fields, of a flattened one's too.
fn rows(schema: &Value, found: &mut Vec<String>) {
    for part in schema["allOf"].as_array().into_iter().flatten() {
        match part["$ref"].is_string() {
            true => found.push(format!("| all fields of | {} | |", shape(part))),
            false => rows(part, found),
        }
    }
    let required = |name: &str| {
        schema["required"].as_array().is_some_and(|all| all.iter().any(|one| one == name))
    };
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let optional = if required(name) { "" } else { ", optional" };
        let about = description(field).replace('|', "\\|");
        found.push(
            format!("| `{name}` | {}{optional} | {about} |", shape(field)).replace("|  |", "| |"),
        );
    }
}

/// What a value looks like, in words.
fn shape(schema: &Value) -> String {
    if let Some(reference) = schema["$ref"].as_str() {
        return link(reference.rsplit('/').next().unwrap());
    }
    if let Some(values) = schema["enum"].as_array() {
        return values
            .iter()
            .map(|value| format!("`{value}`").replace('"', ""))
            .collect::<Vec<_>>()
            .join(", ");
    }
    for choice in ["oneOf", "anyOf", "allOf"] {
        if let Some(choices) = schema[choice].as_array() {
            let choices = choices.iter().filter(|choice| choice["type"] != "null").map(shape);
            return choices.collect::<Vec<_>>().join(if choice == "allOf" {
                " and "
            } else {
                " or "
            });
        }
    }
    if schema["items"].is_object() {
        return format!("list of {}", shape(&schema["items"]));
    }
    if let Some(fields) = schema["properties"].as_object() {
        let fields = fields.iter().map(|(name, field)| format!("`{name}`: {}", shape(field)));
        return format!("{{ {} }}", fields.collect::<Vec<_>>().join(", "));
    }
    match &schema["type"] {
        Value::String(name) => name.clone(),
        Value::Array(names) => {
            let names = names.iter().filter_map(Value::as_str).filter(|name| *name != "null");
            names.collect::<Vec<_>>().join(" or ")
        }
        _ => "any".to_owned(),
    }
}

fn description(schema: &Value) -> String {
    let of_choice = || {
        let mut choices = schema["oneOf"].as_array().into_iter().flatten();
        choices.find_map(|choice| choice["description"].as_str())
    };
    let text = schema["description"].as_str().or_else(of_choice).unwrap_or_default();
    // Links to items of the code lead nowhere in a document.
    let text = text.replace('\n', " ").replace("[`", "`").replace("`]", "`");
    match text.split_once("`(crate::") {
        Some((before, rest)) => {
            let after = rest.split_once(')').map_or("", |(_, after)| after);
            format!("{before}`{after}")
        }
        None => text,
    }
}

fn link(name: &str) -> String {
    format!("[{name}](#{})", name.to_lowercase())
}
