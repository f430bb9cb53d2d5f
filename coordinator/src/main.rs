//! The coordinator: configuration, start, drain.

use std::process::ExitCode;

use clap::Parser as _;
use coordinator::cli::Cli;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let done = match runtime {
        Ok(runtime) => runtime.block_on(cli.run()),
        Err(error) => Err(error.into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "the last words of the program")]
fn report(error: &anyhow::Error) {
    eprintln!("coordinator: {error:#}");
}
