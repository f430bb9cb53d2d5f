//! Definition files, and the rule files that they refer to.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use protocol::v1::definitions::DefinitionFile;

use crate::{app::definition::sent_name, ctl::error::Error};

/// Reads the files, and whatever their `filter-file` and `limit-file` keys name.
pub(in crate::ctl) fn read(
    paths: &[PathBuf],
) -> Result<(Vec<DefinitionFile>, Vec<DefinitionFile>), Error> {
    let mut files = Vec::new();
    let mut rule_files: Vec<DefinitionFile> = Vec::new();
    for path in paths {
        let file = DefinitionFile { name: path.display().to_string(), text: read_text(path)? };
        for named in rule_files_of(&file.text) {
            let name = sent_name(&file.name, &named);
            if rule_files.iter().all(|known| known.name != name) {
                let text = read_text(Path::new(&name))?;
                rule_files.push(DefinitionFile { name, text });
            }
        }
        files.push(file);
    }
    Ok((files, rule_files))
}

fn read_text(path: &Path) -> Result<String, Error> {
    let text = match path.to_str() {
        Some("-") => io::read_to_string(io::stdin()),
        _ => fs::read_to_string(path),
    };
    text.map_err(|source| Error::File { verb: "read", path: path.into(), source })
}

/// What the trees and assignments of a file name as rule files. A file that is not TOML names
/// none: the coordinator says what is wrong with it.
fn rule_files_of(text: &str) -> Vec<String> {
    let Ok(root) = text.parse::<toml::Table>() else { return Vec::new() };
    let tables = ["tree", "assignment"].into_iter().filter_map(|kind| root.get(kind)?.as_array());
    let keys = |table: &toml::Value| {
        let text = |key: &str| Some(table.get(key)?.as_str()?.to_owned());
        [text("filter-file"), text("limit-file")].into_iter().flatten().collect::<Vec<_>>()
    };
    tables.flatten().flat_map(keys).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_files_are_read_from_beside_the_file_that_names_them() {
        let dir = tempfile::tempdir().unwrap();
        let rules = dir.path().join("rules");
        fs::create_dir(&rules).unwrap();
        fs::write(rules.join("a"), "- a\n").unwrap();
        let file = dir.path().join("net.toml");
        let text =
            "[[tree]]\nfilter-file = \"rules/a\"\n[[assignment]]\nfilter-file = \"rules/a\"\n";
        fs::write(&file, text).unwrap();
        let (files, rule_files) = read(std::slice::from_ref(&file)).unwrap();
        assert_eq!(files[0].name, file.display().to_string());
        let [only] = &rule_files[..] else { panic!("{rule_files:?}") };
        assert_eq!(
            (only.name.as_str(), only.text.as_str()),
            (rules.join("a").to_str().unwrap(), "- a\n")
        );

        fs::remove_file(rules.join("a")).unwrap();
        let error = read(&[file]).unwrap_err().story();
        assert!(error.contains("cannot read") && error.contains("rules/a"), "{error}");
    }
}
