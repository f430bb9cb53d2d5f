//! Who may name whom: the crates' layering, as docs/explanation/architecture.md argues for it.

use std::collections::BTreeMap;

use cargo_metadata::{DependencyKind, MetadataCommand};

/// Every edge between our crates that may exist. `tests` may name everything and nobody names it;
/// `reference` names nobody, and only tests name it.
const ALLOWED: &[(&str, &[&str])] = &[
    ("protocol", &[]),
    ("certs", &["protocol"]),
    ("filetree", &["protocol"]),
    ("coordinator", &["protocol", "certs"]),
    ("publisher", &["protocol", "certs", "filetree"]),
    ("mirror-agent", &["protocol", "certs", "filetree"]),
];

/// Crates that only `certs` names: whoever needs TLS or a certificate asks `certs`.
const CERTS_ONLY: &[&str] = &["rustls", "tokio-rustls", "rcgen", "x509-parser", "aws-lc-rs"];

/// Crates without which `filetree` stays blocking, local and free of state.
const NEVER_IN_FILETREE: &[&str] = &["tokio", "reqwest", "hyper", "sqlx"];

fn dependencies() -> BTreeMap<String, Vec<String>> {
    let metadata = MetadataCommand::new()
        .manifest_path(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"))
        .no_deps()
        .other_options(["--offline".to_owned()])
        .exec()
        .expect("cargo tells its own workspace");
    let named = |package: &cargo_metadata::Package| {
        let used = package.dependencies.iter().filter(|d| d.kind != DependencyKind::Development);
        used.map(|dependency| dependency.name.clone()).collect()
    };
    metadata.packages.iter().map(|package| (package.name.to_string(), named(package))).collect()
}

#[test]
fn crates_name_only_those_below_them() {
    let dependencies = dependencies();
    let ours: Vec<&str> = ALLOWED.iter().map(|(name, _)| *name).collect();
    for (name, allowed) in ALLOWED {
        for used in &dependencies[*name] {
            assert_ne!(used, "tests", "{name} must not depend on the tests");
            assert_ne!(used, "reference", "{name} must not ship what only its tests need");
            let is_ours = ours.contains(&used.as_str());
            assert!(!is_ours || allowed.contains(&used.as_str()), "{name} must not name {used}");
        }
    }
}

#[test]
fn every_crate_has_a_place_in_the_layering() {
    let mut known: Vec<&str> =
        ALLOWED.iter().map(|(name, _)| *name).chain(["reference", "tests"]).collect();
    known.sort_unstable();
    assert_eq!(dependencies().keys().map(String::as_str).collect::<Vec<_>>(), known);
}

#[test]
fn only_certs_names_tls_and_certificates() {
    for (name, used) in dependencies() {
        for banned in CERTS_ONLY {
            assert!(name == "certs" || !used.iter().any(|u| u == banned), "{name} names {banned}");
        }
    }
}

#[test]
fn filetree_stays_blocking_and_local() {
    let used = &dependencies()["filetree"];
    for banned in NEVER_IN_FILETREE {
        assert!(!used.iter().any(|u| u == banned), "filetree names {banned}");
    }
}

#[test]
fn every_test_that_the_table_of_threats_names_is_there() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let page = std::fs::read_to_string(format!("{root}/docs/explanation/threats.md"))
        .expect("the page is there");
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| A")).collect();
    assert_eq!(rows.len(), 28, "the threat model has 28 rows");
    assert_all_named_tests_exist(&rows, &page);
}

#[test]
fn every_test_that_the_table_of_guards_names_is_there() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference/guards.md");
    let page = std::fs::read_to_string(page).expect("the page is there");
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| D")).collect();
    for number in 70..80 {
        assert!(rows.iter().any(|row| row.starts_with(&format!("| D{number} "))), "D{number}");
    }
    assert_all_named_tests_exist(&rows, &page);
}

/// Names of tests stand in the last column, or anywhere on the page in their form.
fn assert_all_named_tests_exist(rows: &[&str], page: &str) {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let named = rows.iter().flat_map(|row| row.rsplit('|').nth(1).unwrap_or("").split(','));
    let named = named.map(|name| name.trim().trim_matches('`').to_owned());
    let mut named: Vec<String> = named.filter(|name| name != "—" && !name.is_empty()).collect();
    // And whatever else on the page has the form of a test's name.
    let is_name = |text: &&str| {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        text.bytes().all(plain) && text.matches('_').count() > 2
    };
    named.extend(page.split('`').skip(1).step_by(2).filter(is_name).map(str::to_owned));
    let mut sources = String::new();
    for member in
        ["certs", "coordinator", "filetree", "mirror-agent", "protocol", "publisher", "tests"]
    {
        read_sources(std::path::Path::new(&format!("{root}/{member}")), &mut sources);
    }
    let missing: Vec<_> =
        named.iter().filter(|name| !sources.contains(&format!("fn {name}("))).collect();
    assert!(missing.is_empty(), "no such tests: {missing:#?}");
}

fn read_sources(dir: &std::path::Path, sources: &mut String) {
    for entry in std::fs::read_dir(dir).expect("sources are readable") {
        let path = entry.expect("sources are readable").path();
        if path.is_dir() {
            read_sources(&path, sources);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            sources.push_str(&std::fs::read_to_string(&path).expect("sources are readable"));
        }
    }
}

/// One entry of tests/mutations/list.
#[derive(Debug, Default)]
struct Mutation {
    rows: Vec<String>,
    /// File, the line as it stands there, and the one that takes its place.
    changes: Vec<(String, String, String)>,
    test: Option<String>,
    is_none: bool,
}

fn mutations(text: &str) -> Vec<Mutation> {
    let mut all: Vec<Mutation> = Vec::new();
    let mut file = String::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (word, rest) = line.split_once(' ').expect("a word and what it says");
        if word == "row" {
            all.push(Mutation::default());
        }
        let last = all.last_mut().expect("an entry begins with its rows");
        match word {
            "row" => last.rows = rest.split(' ').map(str::to_owned).collect(),
            "what" => {}
            "file" => file = rest.to_owned(),
            "-" => last.changes.push((file.clone(), rest.to_owned(), String::new())),
            "+" => rest.clone_into(&mut last.changes.last_mut().expect("after its line").2),
            "test" => last.test = rest.rsplit(' ').next().map(str::to_owned),
            "none" => last.is_none = true,
            _ => assert_eq!(word, "row", "what is this: {line}"),
        }
    }
    all
}

/// The rows that the page marks as different, and all of its text after each.
fn different_rows(page: &str) -> Vec<(String, String)> {
    let mut rows = Vec::new();
    for line in page.lines().filter(|line| line.starts_with("| R")) {
        let first = line.split('|').nth(1).unwrap_or_default();
        for part in first.split(',').filter_map(|part| part.trim().strip_suffix('≠')) {
            let (from, to) = part.trim().split_once('-').unwrap_or((part.trim(), part.trim()));
            let number = |row: &str| u8::from_str_radix(&row[1..], 16).expect("R and two digits");
            let numbers = number(from)..=number(to);
            rows.extend(numbers.map(|number| (format!("R{number:02x}"), line.to_owned())));
        }
    }
    rows
}

#[test]
fn each_rule_that_differs_from_pulpdists_can_be_switched_off_and_its_test_is_named() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let read = |path: &str| {
        std::fs::read_to_string(format!("{root}/{path}")).unwrap_or_else(|e| panic!("{path}: {e}"))
    };
    let all = mutations(&read("tests/mutations/list"));
    let mut missing = Vec::new();
    for (row, line) in different_rows(&read("docs/reference/pulpdist.md")) {
        let of_row = all.iter().find(|mutation| mutation.rows.contains(&row));
        match of_row {
            Some(Mutation { test: Some(test), .. }) if line.contains(&format!("`{test}`")) => {}
            Some(Mutation { is_none: true, .. }) => {}
            _ => missing.push(row),
        }
    }
    assert!(missing.is_empty(), "no line of tests/mutations/list for {missing:?}, or another test");
    for mutation in &all {
        for (file, old, new) in &mutation.changes {
            let found = read(file).lines().filter(|line| line.trim_start() == old).count();
            assert_eq!(found, 1, "{file} has this line {found} times: {old}");
            assert_ne!(old, new);
        }
        assert!(mutation.is_none || !mutation.changes.is_empty(), "{:?}", mutation.rows);
    }
}
