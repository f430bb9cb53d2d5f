//! The command line.

mod args;
mod commands;
mod drop_in;
mod logs;
mod print;
#[cfg(test)]
mod reference;
mod show;

use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use self::args::{Cli, Command, LogFormat};
use crate::rsync::child::CAGED;

/// Everything that `main` does.
pub fn main() -> ExitCode {
    // A process on its way to becoming rsync: its arguments are for nobody's eyes but its own.
    let mut words = std::env::args_os().skip(1);
    if words.next().is_some_and(|word| word == CAGED) {
        return print::failure(&filetree::confine::enter(words).into());
    }
    let cli = Cli::parse();
    // The pipe's helper is started by rsync and shares its standard streams: nothing may be said.
    if let Command::RsyncPipe { socket, .. } = &cli.command {
        return match crate::rsync::pipe::run_helper(socket) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => print::failure(&error.into()),
        };
    }
    log_to_stderr(&cli);
    certs::tls::install_provider();
    // Before there are threads, which would stay outside of the fence.
    let fenced = cli.command.agent_settings().map_or(Ok(()), commands::close_fence);
    let runtime = || tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let result = fenced
        .and_then(|()| Ok(runtime()?))
        .and_then(|runtime| runtime.block_on(commands::run(cli.command)));
    match result {
        Ok(code) => code,
        Err(error) => print::failure(&error),
    }
}

/// Logs for programs and journals; a person at a terminal sees progress instead.
fn log_to_stderr(cli: &Cli) {
    let level = match &cli.command {
        Command::Run { once: false, .. } => "info",
        Command::Run { .. } if !show::is_terminal() => "info",
        _ => "warn",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match cli.log_format {
        LogFormat::Json => builder.json().init(),
        LogFormat::Text => builder.with_ansi(show::is_terminal()).with_target(false).init(),
    }
}
