//! `filter`: tries rules on this machine, without a coordinator and without an identity.

mod preview;
mod test;

use std::{fs, path::Path};

use clap::{Args, Subcommand};
use protocol::filter::Filter as Rules;

use super::{error::Error, print::Print};

/// Try filter rules on this machine; needs no coordinator and no identity.
#[derive(Debug, Args)]
#[command(
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "Example:\n  mirrorctl filter preview --rules site.rules /srv/releases/fedora"
)]
pub(super) struct Filter {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Preview(preview::Preview),
    Test(test::Test),
}

impl Filter {
    pub(super) fn run(self, print: &mut Print) -> Result<(), Error> {
        match self.verb {
            Verb::Preview(verb) => verb.run(print),
            Verb::Test(verb) => verb.run(print),
        }
    }
}

/// Reads a file of rules, one on each line, as after rsync's `--filter`.
fn read_rules(path: &Path) -> Result<Rules, Error> {
    let bytes =
        fs::read(path).map_err(|source| Error::File { verb: "read", path: path.into(), source })?;
    Rules::parse_file(&bytes).map_err(|errors| {
        let line = |error: &protocol::filter::RuleError| {
            let (line, column) = (error.index + 1, error.column);
            format!("\n{}:{line}:{column}: '{}': {}", path.display(), error.text, error.problem)
        };
        let lines: String = errors.0.iter().map(line).collect();
        Error::Other(anyhow::anyhow!("the rules cannot be used:{lines}"))
    })
}
