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

/// Every row of what PulpDist did and meant to do: features, then rules.
const ROWS: &str = "
    F01 F02 F03 F04 F05 F06 F07 F08 F09 F10 F11 F12 F13 F14 F15 F16 F17 F18
    F20 F21 F22 F23 F24 F25 F26 F27 F28 F29 F30 F31 F32 F33 F34 F35 F36 F37 F38 F39
    F40 F41 F42 F43 F44 F45
    F50 F51 F52 F53 F54 F55 F56 F57 F58
    F60 F61 F62 F63 F64 F65 F66 F67 F68 F69 F70 F71 F72 F73
    F75 F76 F77 F78 F79
    R01 R02 R03 R04 R05 R06 R07 R08 R09 R0a R0b R0c R0d R0e
    R10 R11 R12 R13 R14 R15 R16 R17 R18 R19 R1a R1b R1c R1d R1e R1f
    R20 R21 R22 R23 R24 R25 R26 R27 R28
    R30 R31 R32 R33 R34 R35 R36
    R40 R41 R42 R43 R44 R45 R46 R47
    R50 R51 R52 R53 R54 R55 R56 R57
    R60 R61 R62 R63 R64 R65 R66 R67 R68 R69
    R70 R71 R72 R73 R74
    R80 R81 R82 R83 R84 R85 R86 R87 R88
    R90 R91 R92 R93 R94 R95
    RA1 RA2 RA3";

/// Rows that are later work, of which the page says so and names no test.
const LATER: [&str; 2] = ["F10", "F12"];

/// One row of docs/reference/pulpdist.md.
struct Row {
    id: String,
    /// Whether copying PulpDist would be wrong.
    differs: bool,
    line: String,
}

impl Row {
    /// The tests that it names.
    fn tests(&self) -> Vec<&str> {
        let named = self.line.rsplit('|').nth(1).unwrap_or_default();
        named.split('`').skip(1).step_by(2).collect()
    }
}

fn rows(page: &str) -> Vec<Row> {
    let is_row = |line: &&str| line.starts_with("| F") || line.starts_with("| R");
    let lines = page.lines().filter(is_row).filter(|line| !line.starts_with("| Row |"));
    let of_line = |line: &str| {
        let ids = line.split('|').nth(1).unwrap_or_default().split(',').map(str::trim);
        let row = |id: &str| Row {
            id: id.trim_end_matches('≠').trim().to_owned(),
            differs: id.ends_with('≠'),
            line: line.to_owned(),
        };
        ids.map(row).collect::<Vec<_>>()
    };
    lines.flat_map(of_line).collect()
}

#[test]
fn every_row_of_pulpdists_has_its_line_and_every_test_that_it_names_is_there() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let page = std::fs::read_to_string(format!("{root}/docs/reference/pulpdist.md"))
        .expect("the page is there");
    let rows = rows(&page);
    let mut listed: Vec<&str> = rows.iter().map(|row| row.id.as_str()).collect();
    listed.sort_unstable();
    let mut wanted: Vec<&str> = ROWS.split_whitespace().collect();
    wanted.sort_unstable();
    assert_eq!(listed, wanted, "each row once");
    let mut sources = String::new();
    for member in
        ["certs", "coordinator", "filetree", "mirror-agent", "protocol", "publisher", "tests"]
    {
        read_sources(std::path::Path::new(&format!("{root}/{member}")), &mut sources);
    }
    for row in &rows {
        let tests = row.tests();
        let is_later = LATER.contains(&row.id.as_str());
        assert_eq!(row.line.contains("later work"), is_later, "{}", row.line);
        assert!(is_later || !tests.is_empty(), "no test: {}", row.line);
        for test in tests {
            assert!(sources.contains(&format!("fn {test}(")), "there is no {test}: {}", row.id);
        }
    }
}

#[test]
fn each_rule_that_differs_from_pulpdists_can_be_switched_off_and_its_test_is_named() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let read = |path: &str| {
        std::fs::read_to_string(format!("{root}/{path}")).unwrap_or_else(|e| panic!("{path}: {e}"))
    };
    let all = mutations(&read("tests/mutations/list"));
    let mut missing = Vec::new();
    let page = read("docs/reference/pulpdist.md");
    for row in rows(&page).into_iter().filter(|row| row.differs) {
        let of_row = all.iter().find(|mutation| mutation.rows.contains(&row.id));
        match of_row {
            Some(Mutation { test: Some(test), .. }) if row.tests().contains(&test.as_str()) => {}
            Some(Mutation { is_none: true, .. }) => {}
            _ => missing.push(row.id),
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
