//! The publisher's program.

use std::process::ExitCode;

fn main() -> ExitCode {
    publisher::cli::main()
}
