//! `export`: everything that is defined, as one definition file.

use std::{fmt::Write as _, fs, path::PathBuf};

use clap::Args;
use protocol::v1::definitions::Kind;

use super::{error::Error, get::as_file, print::Print, session::Session};

/// Write everything that is defined as one definition file, which `apply` takes.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  mirrorctl export --out network.toml\n  mirrorctl apply -f network.toml --dry-run"
)]
pub(super) struct Export {
    /// Write to this file.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

impl Export {
    pub(super) async fn run(self, session: &Session, print: &mut Print) -> Result<(), Error> {
        let api = session.api(print).await?;
        let mut text = String::new();
        for kind in Kind::ALL {
            for definition in api.definitions(kind).await? {
                if !text.is_empty() {
                    writeln!(text).unwrap_or_default();
                }
                text.push_str(&as_file(&definition)?);
            }
        }
        match self.out {
            Some(path) => fs::write(&path, &text).map_err(|source| Error::File {
                verb: "write",
                path,
                source,
            }),
            None => print.result(&text, Clone::clone),
        }
    }
}
