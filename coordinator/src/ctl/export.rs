//! `export`: everything that is defined, as one definition file; or the document that it was made of.

use std::{fmt::Write as _, fs, path::PathBuf};

use clap::{Args, Subcommand};
use protocol::{
    client::Client,
    v1::definitions::{ApplyRequest, DefinitionFile, Kind, System},
};

use super::{error::Error, get::as_file, import::from_pulpdist, print::Print, session::Session};

/// Write everything that is defined as one definition file, which `apply` takes.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Example:\n  mirrorctl export --out network.toml\n  mirrorctl apply -f network.toml --dry-run"
)]
pub(super) struct Export {
    /// Write to this file.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(subcommand)]
    of: Option<Of>,
}

#[derive(Debug, Subcommand)]
enum Of {
    Pulpdist(Pulpdist),
}

/// Write the PulpDist site configuration that was imported last, as it was.
///
/// What is defined holds, and not this document: where the two differ, that is said.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  mirrorctl export pulpdist --out site.json\n  mirrorctl validate site.json"
)]
struct Pulpdist {
    /// Write to this file.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

impl Export {
    pub(super) async fn run(self, session: &Session, print: &mut Print) -> Result<(), Error> {
        let api = session.api(print).await?;
        let (text, out) = match self.of {
            Some(Of::Pulpdist(Pulpdist { out })) => (document(&api, print).await?, out),
            None => (definitions(&api).await?, self.out),
        };
        match out {
            Some(path) => fs::write(&path, &text).map_err(|source| Error::File {
                verb: "write",
                path,
                source,
            }),
            None => print.result(&text, Clone::clone),
        }
    }
}

async fn definitions(api: &Client) -> Result<String, Error> {
    let mut text = String::new();
    for kind in Kind::ALL {
        for definition in api.definitions(kind).await? {
            if !text.is_empty() {
                writeln!(text).unwrap_or_default();
            }
            text.push_str(&as_file(&definition)?);
        }
    }
    Ok(text)
}

/// The document; what is defined otherwise than would follow from it today is told.
async fn document(api: &Client, print: &mut Print) -> Result<String, Error> {
    let imported = api.imported(System::Pulpdist).await?;
    let differ = match from_pulpdist(&imported.document) {
        Ok(text) => {
            let file = DefinitionFile { name: "the document".into(), text };
            let request = ApplyRequest {
                files: vec![file],
                rule_files: vec![],
                dry_run: true,
                prune: false,
                if_revision: None,
                imported: None,
            };
            let changes = api.apply(&request).await.map(|result| result.changes);
            changes.map(|changes| {
                let names = changes.iter().map(|c| format!("{} {}", c.kind.as_str(), c.name));
                names.collect::<Vec<_>>()
            })
        }
        // It was checked when it was imported, by a program that was less strict.
        Err(problems) => Ok(problems),
    };
    match differ {
        Ok(differ) if differ.is_empty() => {}
        Ok(differ) => print.note(&format!(
            "what is defined holds, and is no longer what the document says: {}",
            differ.join(", ")
        )),
        // Viewers may read it, and not try what would come of it.
        Err(error) => print.note(&format!("what is defined holds; it was not compared: {error}")),
    }
    Ok(imported.document)
}
