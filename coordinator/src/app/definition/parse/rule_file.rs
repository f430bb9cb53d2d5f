//! `filter-file` and `limit-file`: rules that stand in a file of their own, one on each line.
//!
//! The files come with the request, named as `mirrorctl` found them beside the definition file.
//! From here on they are the same as rules in the definition, except that a finding names the line
//! of the rule file.

use std::sync::Arc;

use protocol::v1::definitions::DefinitionFile;

use crate::app::definition::findings::Spot;

/// The rules of a file, each with its line. Empty lines and those that begin with `#` or `;` say
/// nothing, as for rsync.
pub(super) fn rules(file: &DefinitionFile) -> impl Iterator<Item = (String, Spot)> + '_ {
    let name: Arc<str> = Arc::from(file.name.as_str());
    let lines = file.text.lines().zip(1..);
    lines
        .filter(|(text, _)| !text.is_empty() && !text.starts_with(['#', ';']))
        .map(move |(text, line)| (text.to_owned(), Spot { file: Arc::clone(&name), line }))
}

/// The name under which a file that `definition_file` refers to as `path` is sent: relative to
/// that file's directory.
pub(crate) fn sent_name(definition_file: &str, path: &str) -> String {
    match definition_file.rfind('/') {
        Some(slash) if !path.starts_with('/') => format!("{}/{path}", &definition_file[..slash]),
        _ => path.to_owned(),
    }
}
