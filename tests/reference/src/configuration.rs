//! The page of the configuration: rows of keys, checked against what a daemon really reads.

use std::collections::BTreeMap;

use clap::Command;
use serde_json::Value;

use crate::page;

/// Checks the section `## PROGRAM` of `docs/reference/configuration.md`.
///
/// It has one row for each key of the defaults, `| key | default | variable | flag | meaning |`,
/// and no others. `defaults` is the default configuration; `command` is the program, whose flags
/// are named like the keys they set.
///
/// # Panics
/// At the first key that is missing or described wrongly.
#[track_caller]
pub fn configuration(command: &Command, defaults: &Value) {
    let program = command.get_name();
    let text = page::read("configuration");
    let mut rows: BTreeMap<&str, Vec<&str>> = page::section(&text, program)
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .filter_map(|line| line.split_once("` | "))
        .map(|(key, rest)| (key, rest.trim_end_matches(" |").split(" | ").collect()))
        .collect();
    let mut keys = Vec::new();
    flatten("", defaults, &mut keys);
    for (key, default) in keys {
        let cells = rows.remove(key.as_str()).unwrap_or_default();
        assert_eq!(cells.len(), 4, "{program}: configuration.md needs a row of 5 cells for {key}");
        if let Some(default) = default {
            assert_eq!(cells[0], format!("`{default}`"), "{program}: the default of {key}");
        }
        let variable = key.replace('.', "__").replace('-', "_").to_uppercase();
        assert_eq!(cells[1], format!("`MIRRORNET_{variable}`"), "{program}: {key}");
        let flag = flags(command).find(|flag| names(flag, &key));
        let flag = flag.map_or("none".into(), |flag| format!("`--{flag}`"));
        assert_eq!(cells[2], flag, "{program}: the flag of {key}");
    }
    let left: Vec<_> = rows.keys().collect();
    assert!(left.is_empty(), "{program}: configuration.md has rows of no key: {left:?}");
}

/// Whether a flag sets a key: a list's flag is given once for each of its entries.
fn names(flag: &str, key: &str) -> bool {
    let key = key.replace('.', "-");
    flag == key || key.strip_suffix('s') == Some(flag)
}

/// Flags of the commands that read the configuration: those that can print it.
fn flags(command: &Command) -> impl Iterator<Item = String> {
    let reads = |command: &&Command| {
        command.get_arguments().any(|arg| arg.get_long() == Some("print-config"))
    };
    let commands = command.get_subcommands().filter(reads).flat_map(Command::get_arguments);
    let shown = commands.filter(|arg| !arg.is_hide_set());
    shown.filter_map(|arg| arg.get_long()).map(str::to_owned)
}

/// Dotted keys with their defaults, where they have one that is a single value.
fn flatten(prefix: &str, value: &Value, keys: &mut Vec<(String, Option<String>)>) {
    let Value::Object(table) = value else {
        let default = match value {
            Value::Null | Value::Array(_) => None,
            Value::String(text) => Some(text.clone()),
            value => Some(value.to_string()),
        };
        keys.push((prefix.to_owned(), default));
        return;
    };
    for (key, value) in table {
        let key = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        flatten(&key, value, keys);
    }
}
