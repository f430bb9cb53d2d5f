//! A PulpDist site configuration as definitions.
//!
//! In three steps, as PulpDist took them: the document in itself ([`document`]), what it refers to
//! ([`check`]), and what follows for each mirror ([`derive`]); [`write`] says it in our words. All
//! errors of a step are told at once. Where PulpDist did something else than it promised, what it
//! promised is done; docs/reference/pulpdist.md lists every such place.

mod check;
mod derive;
mod document;
mod reader;
mod rules;
mod write;

#[cfg(test)]
mod tests;

/// Definitions, and what came up while they were made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Imported {
    /// A definition file.
    pub(super) text: String,
    /// Each mirror, as PulpDist showed it: `MIRROR(SITE)`, or the id of a raw repository.
    pub(super) mirrors: Vec<String>,
    /// What is not said in exactly the same way.
    pub(super) warnings: Vec<String>,
}

/// Reads a document; the errors name their places in it.
pub(super) fn import(text: &str) -> Result<Imported, Vec<String>> {
    let value: serde_json::Value =
        serde_json::from_str(text).map_err(|error| vec![format!("this is not JSON: {error}")])?;
    let mut problems = Vec::new();
    let document = document::Document::read(&value, &mut problems);
    if !problems.is_empty() {
        return Err(problems);
    }
    let mut warnings = Vec::new();
    check::check(&document, &mut problems, &mut warnings);
    if !problems.is_empty() {
        return Err(problems);
    }
    let mirrors = derive::derive(&document, &mut problems, &mut warnings);
    if !problems.is_empty() {
        return Err(problems);
    }
    let names = mirrors.iter().map(|mirror| mirror.display_id.clone()).collect();
    let text = write::write(&document, &mirrors, &mut problems, &mut warnings);
    if problems.is_empty() {
        Ok(Imported { text, mirrors: names, warnings })
    } else {
        Err(problems)
    }
}
