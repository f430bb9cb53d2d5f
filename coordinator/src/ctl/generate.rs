//! `completions` and `man`, and the reference in the documentation: all made from the same
//! definition of the command line that reads the arguments, so that they cannot differ from it.

#[cfg(test)]
mod reference;

use std::{fs, io::Write as _, path::PathBuf};

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, error::Error, print::Print};

/// Print a script that completes the arguments of mirrorctl in a shell.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  mirrorctl completions bash > /etc/bash_completion.d/mirrorctl")]
pub(super) struct Completions {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

/// Write the manual pages of mirrorctl and of each of its verbs into a directory.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  mirrorctl man /usr/share/man/man1")]
pub(super) struct Man {
    /// The directory; it is made where it does not exist.
    dir: PathBuf,
}

impl Completions {
    pub(super) fn run(self, print: &mut Print) -> Result<(), Error> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "mirrorctl", &mut script);
        let mut out = print.raw();
        out.write_all(&script)?;
        Ok(out.flush()?)
    }
}

impl Man {
    pub(super) fn run(self, print: &mut Print) -> Result<(), Error> {
        let failed = |source| Error::File { verb: "write", path: self.dir.clone(), source };
        fs::create_dir_all(&self.dir).map_err(failed)?;
        clap_mangen::generate_to(Cli::command(), &self.dir).map_err(failed)?;
        print.note(&format!("The manual pages are in {}.", self.dir.display()));
        Ok(())
    }
}
