//! `import`: takes over what another mirroring system was told.

mod pulpdist;

use std::{fs, io::Read as _, path::PathBuf};

use clap::{Args, Subcommand};
use protocol::v1::definitions::{ApplyRequest, DefinitionFile, Imported, System};
use serde::Serialize;

use super::{apply, error::Error, print::Print, session::Session};

/// Largest document that is read, in bytes.
const MAX_LEN: u64 = 16 << 20;

/// Take over the configuration of another mirroring system.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  mirrorctl import pulpdist site.json --out mirrors.toml\n  mirrorctl apply -f mirrors.toml --dry-run"
)]
pub(super) struct Import {
    #[command(subcommand)]
    from: From,
}

#[derive(Debug, Subcommand)]
enum From {
    Pulpdist(Pulpdist),
}

/// Turn a PulpDist site configuration into definitions.
///
/// Prints a definition file; what cannot be said in exactly the same way is reported, and all
/// errors at once with their places in the document. Every local mirror becomes an assignment, a
/// tree of its name and a grant. With --apply the document itself is kept beside what came of it, for
/// `mirrorctl export pulpdist`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  mirrorctl import pulpdist site.json --out mirrors.toml\n  mirrorctl import pulpdist site.json --apply"
)]
struct Pulpdist {
    /// The site configuration (JSON); `-` is standard input.
    file: PathBuf,
    /// Write the definitions to this file.
    #[arg(long, value_name = "FILE", conflicts_with = "apply")]
    out: Option<PathBuf>,
    /// Make them the wanted state at once; nothing that is there is removed.
    #[arg(long)]
    apply: bool,
}

/// Check a file and change nothing.
///
/// A PulpDist site configuration (*.json) is checked here; anything else is taken for a definition
/// file, which the coordinator checks beside what is defined already.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  mirrorctl validate network.toml\n  mirrorctl validate site.json"
)]
pub(super) struct Validate {
    /// The file.
    file: PathBuf,
}

/// What a checked file is.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Valid {
    /// What it defines: assignments, or changes.
    valid: Vec<String>,
    /// What an admin should know.
    warnings: Vec<String>,
}

impl Import {
    pub(super) async fn run(self, session: &Session, print: &mut Print) -> Result<(), Error> {
        let From::Pulpdist(Pulpdist { file, out, apply }) = self.from;
        let (document, imported) = read_pulpdist(&file)?;
        for warning in &imported.warnings {
            print.note(&format!("warning: {warning}"));
        }
        if apply {
            let files = vec![DefinitionFile { name: shown(&file), text: imported.text }];
            let request = ApplyRequest {
                files,
                rule_files: vec![],
                dry_run: false,
                prune: false,
                if_revision: None,
                imported: Some(Imported { system: System::Pulpdist, document }),
            };
            let result = session.api(print).await?.apply(&request).await?;
            return print.result(&result, apply::shown);
        }
        match out {
            Some(path) => fs::write(&path, &imported.text).map_err(|source| Error::File {
                verb: "write",
                path,
                source,
            }),
            None => print.result(&imported.text, Clone::clone),
        }
    }
}

impl Validate {
    pub(super) async fn run(self, session: &Session, print: &mut Print) -> Result<(), Error> {
        let is_json = self.file.extension().is_some_and(|end| end.eq_ignore_ascii_case("json"));
        let valid = if is_json {
            let (_, imported) = read_pulpdist(&self.file)?;
            Valid { valid: imported.mirrors, warnings: imported.warnings }
        } else {
            let (files, rule_files) = apply::read(std::slice::from_ref(&self.file))?;
            let request = ApplyRequest {
                files,
                rule_files,
                dry_run: true,
                prune: false,
                if_revision: None,
                imported: None,
            };
            let result = session.api(print).await?.apply(&request).await?;
            Valid { valid: vec![shown(&self.file)], warnings: result.warnings }
        };
        print.result(&valid, |valid| {
            let mut lines: Vec<String> =
                valid.valid.iter().map(|name| format!("Config for {name} is valid")).collect();
            lines.extend(valid.warnings.iter().map(|warning| format!("warning: {warning}")));
            lines.join("\n")
        })
    }
}

/// The definition file that follows from a document of PulpDist, or all that is wrong with it.
pub(super) fn from_pulpdist(document: &str) -> Result<String, Vec<String>> {
    pulpdist::import(document).map(|imported| imported.text)
}

fn shown(path: &std::path::Path) -> String {
    path.display().to_string()
}

fn read_pulpdist(path: &std::path::Path) -> Result<(String, pulpdist::Imported), Error> {
    let failed = |source| Error::File { verb: "read", path: path.to_owned(), source };
    let mut text = String::new();
    if path.as_os_str() == "-" {
        std::io::stdin().take(MAX_LEN).read_to_string(&mut text).map_err(failed)?;
    } else {
        let file = fs::File::open(path).map_err(failed)?;
        file.take(MAX_LEN).read_to_string(&mut text).map_err(failed)?;
    }
    let imported = pulpdist::import(&text).map_err(|problems| {
        let list: Vec<String> = problems.iter().map(|problem| format!("  {problem}")).collect();
        let count = match list.len() {
            1 => "one error".to_owned(),
            count => format!("{count} errors"),
        };
        let (path, list) = (path.display(), list.join("\n"));
        Error::Other(anyhow::anyhow!("{path} has {count}; nothing was changed\n{list}"))
    })?;
    Ok((text, imported))
}
