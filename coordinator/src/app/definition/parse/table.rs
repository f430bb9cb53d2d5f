//! One table of a definition file.

use std::{collections::BTreeMap, ops::Range};

use protocol::{
    spec::{AssignmentSpec, GrantSpec, NetworkSpec, SiteSpec, SourceSpec, TreeSpec, UpstreamSpec},
    v1::definitions::{DefinitionFile, Kind},
};
use serde::de::DeserializeOwned;
use toml::{
    Spanned,
    de::{DeArray, DeTable, DeValue, ValueDeserializer},
};

use super::{Located, Place, lines::Lines, rule_file};
use crate::app::definition::{
    findings::{Findings, MAX_FINDINGS, Spot},
    spec::Spec,
    suggest::did_you_mean,
};

/// Reads one table.
pub(super) struct Reader<'a> {
    pub(super) kind: Kind,
    pub(super) head: Spot,
    pub(super) lines: &'a Lines,
    pub(super) rule_files: &'a [DefinitionFile],
}

/// A key or value that was refused, taken out of its table.
struct TakenOut {
    /// The key, dotted where it is in a table inside.
    key: String,
    /// The key itself is unknown.
    unknown: bool,
}

impl Reader<'_> {
    /// The definition, if all of it is right.
    pub(super) fn read(
        &self,
        table: Spanned<DeTable<'_>>,
        findings: &mut Findings,
    ) -> Option<Located> {
        let span = table.span();
        let mut table = table.into_inner();
        write_as_text(&mut table);
        let mut place = Place { head: self.head.clone(), keys: BTreeMap::new() };
        self.note_keys("", &table, &mut place.keys);
        let extra = self.take_rule_files(&mut table, &mut place, findings);
        let whole = self.missing_keys(&table, findings).is_empty();
        let spec = match self.kind {
            Kind::Network => self.typed::<NetworkSpec>(table, span, findings).map(Spec::Network),
            Kind::Upstream => self.typed::<UpstreamSpec>(table, span, findings).map(Spec::Upstream),
            Kind::Source => self.typed::<SourceSpec>(table, span, findings).map(Spec::Source),
            Kind::Tree => {
                self.typed::<TreeSpec>(table, span, findings).zip(extra).map(|(mut spec, extra)| {
                    spec.filter.extend(extra.filter);
                    spec.limit.extend(extra.limit);
                    Spec::Tree(Box::new(spec))
                })
            }
            Kind::Site => self.typed::<SiteSpec>(table, span, findings).map(Spec::Site),
            Kind::Grant => self.typed::<GrantSpec>(table, span, findings).map(Spec::Grant),
            Kind::Assignment => self.typed::<AssignmentSpec>(table, span, findings).zip(extra).map(
                |(mut spec, extra)| {
                    spec.filter.extend(extra.filter);
                    Spec::Assignment(Box::new(spec))
                },
            ),
        };
        spec.filter(|_| whole).map(|spec| Located { spec, place })
    }

    /// Asks for the type again and again, each time without the value that was refused.
    fn typed<T: DeserializeOwned>(
        &self,
        mut table: DeTable<'_>,
        span: Range<usize>,
        findings: &mut Findings,
    ) -> Option<T> {
        let mut clean = true;
        for _ in 0..MAX_FINDINGS {
            let value = Spanned::new(span.clone(), DeValue::Table(table.clone()));
            let error = match T::deserialize(ValueDeserializer::from(value)) {
                Ok(spec) => return clean.then_some(spec),
                Err(error) => error,
            };
            clean = false;
            // Without a place inside of the table it is about a missing key, which is known.
            let at = error.span()?;
            let taken = take_out(&mut table, &at, "")?;
            let spot = self.lines.spot(at.start);
            findings.push(Some(&spot), self.refusal(&taken, error.message()));
        }
        None
    }

    fn refusal(&self, taken: &TakenOut, message: &str) -> String {
        let kind = self.kind.as_str();
        let key = &taken.key;
        if taken.unknown {
            // The message ends with the list of known keys, each in back quotes.
            let mut known: Vec<&str> = message.split('`').skip(3).step_by(2).collect();
            if matches!(self.kind, Kind::Tree | Kind::Assignment) && !key.contains('.') {
                known.extend(rule_file_keys(self.kind));
            }
            let last = key.rsplit('.').next().unwrap_or(key);
            let near = did_you_mean(last, &known);
            return format!(
                "unknown key `{key}` in [[{kind}]]{near}; known are {}",
                known.join(", ")
            );
        }
        match message.strip_prefix("invalid type: ") {
            Some(rest) => match rest.split_once(", expected ") {
                Some((found, "a string")) => {
                    format!("`{key}` is {found}; write it as text in quotes, with its unit")
                }
                Some((found, "a sequence")) => {
                    format!("`{key}` is {found}; write it as a list, [\"…\"]")
                }
                _ => format!("`{key}`: {message}"),
            },
            None => format!("`{key}`: {message}"),
        }
    }

    /// Says which keys the kind cannot do without.
    fn missing_keys(&self, table: &DeTable<'_>, findings: &mut Findings) -> Vec<&'static str> {
        let needed: &[&str] = match self.kind {
            Kind::Upstream => &["name", "kind"],
            Kind::Source => &["name", "upstream", "path"],
            Kind::Tree => &["name", "source"],
            Kind::Network | Kind::Site => &["name"],
            Kind::Grant | Kind::Assignment => &["site", "tree"],
        };
        let missing: Vec<_> =
            needed.iter().copied().filter(|key| !table.contains_key(*key)).collect();
        for key in &missing {
            let kind = self.kind.as_str();
            findings.push(Some(&self.head), format!("this [[{kind}]] has no `{key}`; add it"));
        }
        missing
    }

    fn note_keys(&self, above: &str, table: &DeTable<'_>, keys: &mut BTreeMap<String, Spot>) {
        for (key, value) in table {
            let name = dotted(above, key.get_ref());
            keys.insert(name.clone(), self.lines.spot(key.span().start));
            self.note_values(&name, value.get_ref(), keys);
        }
    }

    fn note_values(&self, name: &str, value: &DeValue<'_>, keys: &mut BTreeMap<String, Spot>) {
        match value {
            DeValue::Table(inner) => self.note_keys(name, inner, keys),
            DeValue::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    let name = dotted(name, &index.to_string());
                    keys.insert(name.clone(), self.lines.spot(item.span().start));
                    self.note_values(&name, item.get_ref(), keys);
                }
            }
            _ => {}
        }
    }

    /// Replaces the keys that name rule files by the files' rules; none when one is not there.
    fn take_rule_files(
        &self,
        table: &mut DeTable<'_>,
        place: &mut Place,
        findings: &mut Findings,
    ) -> Option<RuleLists> {
        let mut lists = Some(RuleLists::default());
        for key in rule_file_keys(self.kind) {
            let Some(value) = table.remove(*key) else { continue };
            let spot = place.of(key).clone();
            let Some(path) = value.get_ref().as_str() else {
                findings.push(Some(&spot), format!("`{key}` is the path of a file, in quotes"));
                lists = None;
                continue;
            };
            let name = rule_file::sent_name(self.lines.file(), path);
            let Some(file) = self.rule_files.iter().find(|file| file.name == name) else {
                let message = format!("`{key}`: the file {name:?} was not sent along");
                findings.push(Some(&spot), message);
                lists = None;
                continue;
            };
            let target = key.strip_suffix("-file").unwrap_or(key);
            let inline = match table.get(target).map(Spanned::get_ref) {
                Some(DeValue::Array(items)) => items.len(),
                _ => 0,
            };
            for (offset, (rule, spot)) in rule_file::rules(file).enumerate() {
                place.keys.insert(format!("{target}.{}", inline + offset), spot);
                if let Some(lists) = &mut lists {
                    lists.of(target).push(rule);
                }
            }
        }
        lists
    }
}

/// Rules that come from files.
#[derive(Default)]
struct RuleLists {
    filter: Vec<String>,
    limit: Vec<String>,
}

impl RuleLists {
    fn of(&mut self, key: &str) -> &mut Vec<String> {
        if key == "limit" { &mut self.limit } else { &mut self.filter }
    }
}

fn rule_file_keys(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Tree => &["filter-file", "limit-file"],
        Kind::Assignment => &["filter-file"],
        _ => &[],
    }
}

fn dotted(above: &str, key: &str) -> String {
    if above.is_empty() { key.to_owned() } else { format!("{above}.{key}") }
}

/// Dates and counts may be written as TOML's own; the types read text.
fn write_as_text(table: &mut DeTable<'_>) {
    let texts = |table: &mut DeTable<'_>, keys: &[&str]| {
        for key in keys {
            let Some(value) = table.get_mut(*key) else { continue };
            let text = match value.get_ref() {
                DeValue::Datetime(date) => date.to_string(),
                DeValue::Integer(number) => number.to_string(),
                _ => continue,
            };
            *value.get_mut() = DeValue::String(text.into());
        }
    };
    texts(table, &["until", "max-delete-versions"]);
    if let Some(DeValue::Table(guard)) = table.get_mut("guard").map(Spanned::get_mut) {
        texts(guard, &["max-delete-files", "max-delete-bytes"]);
    }
}

/// Takes out the innermost key or value that stands there.
fn take_out(table: &mut DeTable<'_>, at: &Range<usize>, above: &str) -> Option<TakenOut> {
    let mut found = None;
    for (key, value) in table.iter_mut() {
        let name = dotted(above, key.get_ref());
        if key.span() == *at {
            found = Some((key.get_ref().to_string(), TakenOut { key: name, unknown: true }));
            break;
        }
        if let Some(inner) = take_out_inside(value.get_mut(), at, &name) {
            return Some(inner);
        }
        if value.span().contains(&at.start) {
            found = Some((key.get_ref().to_string(), TakenOut { key: name, unknown: false }));
            break;
        }
    }
    let (key, taken) = found?;
    table.remove(key.as_str());
    Some(taken)
}

fn take_out_inside(value: &mut DeValue<'_>, at: &Range<usize>, name: &str) -> Option<TakenOut> {
    match value {
        DeValue::Table(inner) => take_out(inner, at, name),
        DeValue::Array(items) => {
            for item in items.iter_mut() {
                if let Some(inner) = take_out_inside(item.get_mut(), at, name) {
                    return Some(inner);
                }
            }
            let index = items.iter().position(|item| item.span().contains(&at.start))?;
            let rest = std::mem::replace(items, DeArray::new()).into_iter().enumerate();
            rest.filter(|(at, _)| *at != index).for_each(|(_, item)| items.push(item));
            Some(TakenOut { key: name.to_owned(), unknown: false })
        }
        _ => None,
    }
}
