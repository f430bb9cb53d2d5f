//! From the text of definition files to definitions, each of which knows where it stands.
//!
//! A parser that stops at its first error makes an admin run it as often as there are errors. Here
//! each value that is refused is noted and taken out, and the rest is asked again, until only what
//! is right is left.

mod lines;
pub(super) mod rule_file;
mod table;

use std::{collections::BTreeMap, collections::BTreeSet, sync::Arc};

use protocol::v1::definitions::{ApplyRequest, DefinitionFile, Kind};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    findings::{Findings, Spot},
    spec::Spec,
    suggest::did_you_mean,
};
use lines::Lines;

/// What stands in the files.
#[derive(Debug, Default)]
pub(super) struct Parsed {
    /// Definitions that are right in themselves.
    pub(super) definitions: Vec<Located>,
    /// Kind and name of all that was named, also where the rest of it is wrong.
    pub(super) mentioned: BTreeSet<(Kind, String)>,
}

/// A definition and where it stands.
#[derive(Debug)]
pub(super) struct Located {
    pub(super) spec: Spec,
    pub(super) place: Place,
}

/// Where a definition and each of its values stand.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// Its `[[kind]]` line.
    pub(super) head: Spot,
    /// By key, dotted and with indexes: `filter.2`, `guard.must-contain.0`.
    keys: BTreeMap<String, Spot>,
}

impl Place {
    /// The line of that key, or of the closest thing around it.
    pub(super) fn of(&self, key: &str) -> &Spot {
        let mut key = key;
        loop {
            if let Some(spot) = self.keys.get(key) {
                return spot;
            }
            match key.rfind('.') {
                Some(dot) => key = &key[..dot],
                None => return &self.head,
            }
        }
    }
}

/// Reads all files; what is wrong in them is added to the findings.
pub(super) fn parse(request: &ApplyRequest, findings: &mut Findings) -> Parsed {
    let mut parsed = Parsed::default();
    for file in &request.files {
        parse_file(file, &request.rule_files, findings, &mut parsed);
    }
    parsed
}

fn parse_file(
    file: &DefinitionFile,
    rule_files: &[DefinitionFile],
    findings: &mut Findings,
    parsed: &mut Parsed,
) {
    let lines = Lines::new(Arc::from(file.name.as_str()), &file.text);
    let (root, errors) = DeTable::parse_recoverable(&file.text);
    for error in &errors {
        let spot = lines.spot(error.span().map_or(0, |span| span.start));
        findings.push(Some(&spot), format!("this is not TOML: {}", error.message()));
    }
    for (key, value) in root.into_inner() {
        let spot = lines.spot(key.span().start);
        let key = key.into_inner();
        let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.as_str() == key) else {
            if errors.is_empty() {
                findings.push(Some(&spot), unknown_kind(&key));
            }
            continue;
        };
        for (head, table) in tables(kind, value, &lines, &spot, findings) {
            parsed.mentioned.extend(name_of(kind, &table));
            // What is left of a file that is not TOML would only repeat what is known already.
            if errors.is_empty() {
                let reader = table::Reader { kind, head, lines: &lines, rule_files };
                parsed.definitions.extend(reader.read(table, findings));
            }
        }
    }
}

/// The tables of one kind, each with its first line.
fn tables<'i>(
    kind: Kind,
    value: Spanned<DeValue<'i>>,
    lines: &Lines,
    spot: &Spot,
    findings: &mut Findings,
) -> Vec<(Spot, Spanned<DeTable<'i>>)> {
    let mut tables = Vec::new();
    match value.into_inner() {
        DeValue::Array(items) => {
            for item in items {
                let span = item.span();
                let head = lines.spot(span.start);
                match item.into_inner() {
                    DeValue::Table(table) => tables.push((head, Spanned::new(span, table))),
                    _ => findings.push(Some(&head), wants_tables(kind)),
                }
            }
        }
        _ => findings.push(Some(spot), wants_tables(kind)),
    }
    tables
}

fn wants_tables(kind: Kind) -> String {
    let kind = kind.as_str();
    format!("write [[{kind}]] with two brackets: a file may define several")
}

fn unknown_kind(key: &str) -> String {
    let kinds = Kind::ALL.map(Kind::as_str);
    let list = kinds.map(|kind| format!("[[{kind}]]")).join(", ");
    format!("unknown key `{key}`{}; a definition file holds {list}", did_you_mean(key, kinds))
}

/// Kind and name of a table that says both, whatever else is wrong with it.
fn name_of(kind: Kind, table: &Spanned<DeTable<'_>>) -> Option<(Kind, String)> {
    let text = |key: &str| table.get_ref().get(key)?.get_ref().as_str().map(str::to_owned);
    let name = match kind {
        Kind::Grant | Kind::Assignment => format!("{}@{}", text("tree")?, text("site")?),
        _ => text("name")?,
    };
    Some((kind, name))
}
