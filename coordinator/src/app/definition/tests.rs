//! Whole files in, findings with their lines or a plan out.

mod files;
mod parts;
mod places;
mod plan;

use protocol::{
    error::Finding,
    v1::definitions::{Action, ApplyRequest, DefinitionFile, Kind},
};

use super::*;

/// What every case below adds to; 38 lines.
const BASE: &str = r#"[[upstream]]
name = "build"
kind = "publisher"

[[upstream]]
name = "other"
kind = "rsyncd"
url = "rsync://mirror.example.org/"

[[source]]
name = "releases"
upstream = "build"
path = "/srv/releases"

[[source]]
name = "debian"
upstream = "other"
path = "debian"

[[tree]]
name = "fedora"
source = "releases"
path = "fedora"

[[site]]
name = "lisbon"

[[grant]]
site = "lisbon"
tree = "fedora"

[[assignment]]
site = "lisbon"
tree = "fedora"
"#;

fn context(agents: &[(&str, &str)]) -> Context {
    let agents = agents.iter().map(|(name, site)| (name.parse().unwrap(), site.parse().unwrap()));
    Context { agents: agents.collect(), now: "2026-06-01T00:00:00Z".parse().unwrap() }
}

fn request(files: &[(&str, &str)]) -> ApplyRequest {
    let files = files
        .iter()
        .map(|(name, text)| DefinitionFile { name: (*name).into(), text: (*text).into() })
        .collect();
    ApplyRequest {
        files,
        rule_files: vec![],
        dry_run: false,
        prune: false,
        if_revision: None,
        imported: None,
    }
}

fn apply(stored: &Definitions, text: &str) -> Result<PlannedApply, Vec<Finding>> {
    plan_apply(stored, &request(&[("a.toml", text)]), &context(&[]))
}

fn base() -> Definitions {
    let planned = apply(&Definitions::default(), BASE).unwrap();
    assert_eq!(planned.warnings, [] as [&str; 0]);
    planned.next
}

/// Findings as `LINE: MESSAGE`.
fn findings(result: Result<PlannedApply, Vec<Finding>>) -> Vec<String> {
    let line = |finding: Finding| {
        let line = finding.line.map(|line| line.to_string()).unwrap_or_default();
        format!("{line}: {}", finding.message)
    };
    result.map_err(|list| list.into_iter().map(line).collect()).unwrap_err()
}

/// Each case adds text to the base; its only finding stands at that line and says all these words.
fn refused(cases: &[(&str, u32, &[&str])]) {
    let base = base();
    for (text, line, words) in cases {
        let found = findings(apply(&base, text));
        let [only] = &found[..] else { panic!("{text}: {found:#?}") };
        assert!(only.starts_with(&format!("{line}: ")), "{text}: {only}");
        for word in *words {
            assert!(only.contains(word), "{text}: {word:?} is not in: {only}");
        }
    }
}

/// Each case adds text to the base; its only warning says all these words.
fn warned(cases: &[(&str, &[&str])]) {
    let base = base();
    for (text, words) in cases {
        let warnings =
            apply(&base, text).unwrap_or_else(|found| panic!("{text}: {found:#?}")).warnings;
        let [only] = &warnings[..] else { panic!("{text}: {warnings:#?}") };
        for word in *words {
            assert!(only.contains(word), "{text}: {word:?} is not in: {only}");
        }
    }
}
