//! One page: read it, compare it, write it anew.

use std::{env, fs, path::PathBuf};

/// Set to write the pages anew instead of comparing them.
const BLESS: &str = "MIRRORNET_BLESS";

/// The text of `docs/reference/NAME.md`.
///
/// # Panics
/// Where there is no such page.
#[track_caller]
pub fn read(name: &str) -> String {
    let path = path(name);
    let text = fs::read_to_string(&path);
    assert!(text.is_ok(), "{} cannot be read", path.display());
    text.unwrap_or_default()
}

/// Compares `docs/reference/NAME.md` with the text that it should have, or writes it where the
/// environment has `MIRRORNET_BLESS`.
///
/// # Panics
/// Where they differ.
#[track_caller]
pub fn check(name: &str, wanted: &str) {
    let path = path(name);
    if env::var_os(BLESS).is_some() {
        let written = fs::write(&path, wanted);
        assert!(written.is_ok(), "{} cannot be written: {written:?}", path.display());
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(found == wanted, "{} is out of date: run this test with {BLESS}=1", path.display());
}

/// Checks that the section `## HEADING` of `docs/reference/NAME.md` has one table row that begins
/// with each of `terms`.
///
/// # Panics
/// Where one has none, or more than one.
#[track_caller]
pub fn mentions<'a>(name: &str, heading: &str, terms: impl IntoIterator<Item = &'a str>) {
    let text = read(name);
    let section = section(&text, heading);
    for term in terms {
        let start = format!("| `{term}` |");
        let rows = section.lines().filter(|line| line.starts_with(&start)).count();
        assert_eq!(rows, 1, "{heading} in docs/reference/{name}.md needs one row {start} …");
    }
}

/// The text below `## HEADING`; empty where there is no such heading.
pub(crate) fn section<'a>(text: &'a str, heading: &str) -> &'a str {
    let rest = text.split_once(&format!("\n## {heading}\n")).map_or("", |(_, rest)| rest);
    rest.split("\n## ").next().unwrap_or_default()
}

fn path(name: &str) -> PathBuf {
    let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference");
    PathBuf::from(docs).join(format!("{name}.md"))
}
