//! Directories of versions at a stock rsync daemon: one test for each rule of what PulpDist did, or
//! should have done. The numbers are those of docs/reference/pulpdist.md.
//!
//! Every version has content of its own and times that are set, so that nothing passes by chance.

mod consolidation;
mod imported;
mod latest;
mod links;
mod listing;
mod protected;
mod published;
mod rehearsal;
mod removal;
mod status;
mod upstream;

pub(crate) use upstream::Versions;

/// Every test that docs/reference/pulpdist.md names is there.
#[test]
fn the_table_of_pulpdists_rules_names_tests_that_there_are() {
    use std::{collections::BTreeSet, fs, path::Path};

    fn tests_in(dir: &Path, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(dir).unwrap().flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                tests_in(&path, found);
            } else if name.ends_with(".rs") {
                let text = fs::read_to_string(&path).unwrap();
                let names = text.split("fn ").skip(1).filter_map(|rest| rest.split('(').next());
                found.extend(names.map(str::to_owned));
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut there = BTreeSet::new();
    tests_in(&root, &mut there);
    let page = fs::read_to_string(root.join("docs/reference/pulpdist.md")).unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| R") || line.starts_with("| F"));
    let mut named = 0;
    for row in rows {
        let cell = row.trim_end_matches(" |").rsplit(" | ").next().unwrap_or_default();
        let name = cell.trim_matches(['`', '|', ' ']);
        if !name.is_empty() {
            named += 1;
            assert!(there.contains(name), "no test {name:?}, named in {row}");
        }
    }
    assert!(named > 40, "{named}");
}
