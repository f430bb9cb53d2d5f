//! `mirrorctl`: every admin action, over the same API that everyone uses.
//!
//! One file for each group of verbs; each holds its arguments, what it asks the coordinator, and
//! how the answer looks. What all share is little: [`session`] finds the identity and opens the
//! API, [`print`] is the only way out to the terminal, [`error`] says what went wrong and what to
//! do. A verb exits with 0, with 1 when it failed, and with 2 when it was called wrongly.

mod apply;
mod assignment;
mod audit;
mod delete;
mod describe;
mod enrollment;
mod error;
mod events;
mod export;
mod filter;
mod generate;
mod get;
mod history;
mod hold;
mod import;
mod invite;
mod kind;
mod log;
mod login;
mod mandate;
mod print;
mod revoke;
mod root;
mod rotate_secret;
mod schedule;
mod select;
mod session;
mod stats;
mod status;
mod text;
mod undelete;
mod whoami;

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

use error::Error;
use print::{Format, Print};
use session::Session;

/// Runs a network of mirrors: defines what is kept where, and shows how it is.
#[derive(Debug, Parser)]
#[command(
    name = "mirrorctl",
    version,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "Example:\n  mirrorctl apply -f network.toml --dry-run\n  mirrorctl status"
)]
struct Cli {
    /// Directory of the identity to act under (default: $XDG_CONFIG_HOME/mirrornet, else
    /// ~/.config/mirrornet).
    #[arg(long, global = true, env = "MIRRORNET_IDENTITY", value_name = "DIR")]
    identity: Option<PathBuf>,
    /// Address of the API, where it is no longer the one that the identity was made with.
    #[arg(
        long,
        global = true,
        env = "MIRRORNET_COORDINATOR",
        value_name = "https://HOST:PORT",
        value_parser = session::parse_url
    )]
    coordinator: Option<String>,
    /// How results are printed.
    #[arg(long, global = true, value_enum, default_value_t = Format::Text)]
    output: Format,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Login(login::Login),
    Whoami(whoami::Whoami),
    Invite(invite::Invite),
    Enrollments(enrollment::Enrollments),
    ApproveEnrollment(enrollment::ApproveEnrollment),
    RejectEnrollment(enrollment::RejectEnrollment),
    Revoke(revoke::Revoke),
    Root(root::RootVerbs),
    Mandate(mandate::MandateVerbs),
    Audit(audit::Audit),
    Apply(apply::Apply),
    Validate(import::Validate),
    Import(import::Import),
    Export(export::Export),
    Get(get::Get),
    Describe(describe::Describe),
    Delete(delete::Delete),
    Status(status::Status),
    History(history::History),
    Log(log::Log),
    Events(events::Events),
    Schedule(schedule::Schedule),
    Stats(stats::Stats),
    Sync(assignment::Sync),
    Enable(assignment::Enable),
    Disable(assignment::Disable),
    Approve(hold::Approve),
    Reject(hold::Reject),
    Undelete(undelete::Undelete),
    RotateSecret(rotate_secret::RotateSecret),
    Filter(filter::Filter),
    Completions(generate::Completions),
    Man(generate::Man),
}

/// The program: reads the arguments, does what they say, and gives the exit code.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => return Print::new(Format::Text).usage(&error),
    };
    let mut print = Print::new(cli.output);
    let result = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(run(cli, &mut print)),
        Err(error) => Err(Error::Other(error.into())),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => print.failure(&error),
    }
}

async fn run(cli: Cli, print: &mut Print) -> Result<(), Error> {
    let session = Session::new(cli.identity, cli.coordinator);
    match cli.verb {
        Verb::Login(verb) => verb.run(&session, print).await,
        Verb::Whoami(verb) => verb.run(&session, print).await,
        Verb::Invite(verb) => verb.run(&session, print).await,
        Verb::Enrollments(verb) => verb.run(&session, print).await,
        Verb::ApproveEnrollment(verb) => verb.run(&session, print).await,
        Verb::RejectEnrollment(verb) => verb.run(&session, print).await,
        Verb::Revoke(verb) => verb.run(&session, print).await,
        Verb::Root(verb) => verb.run(&session, print).await,
        Verb::Mandate(verb) => verb.run(&session, print).await,
        Verb::Audit(verb) => verb.run(&session, print).await,
        Verb::Apply(verb) => verb.run(&session, print).await,
        Verb::Validate(verb) => verb.run(&session, print).await,
        Verb::Import(verb) => verb.run(&session, print).await,
        Verb::Export(verb) => verb.run(&session, print).await,
        Verb::Get(verb) => verb.run(&session, print).await,
        Verb::Describe(verb) => verb.run(&session, print).await,
        Verb::Delete(verb) => verb.run(&session, print).await,
        Verb::Status(verb) => verb.run(&session, print).await,
        Verb::History(verb) => verb.run(&session, print).await,
        Verb::Log(verb) => verb.run(&session, print).await,
        Verb::Events(verb) => verb.run(&session, print).await,
        Verb::Schedule(verb) => verb.run(&session, print).await,
        Verb::Stats(verb) => verb.run(&session, print).await,
        Verb::Sync(verb) => verb.run(&session, print).await,
        Verb::Enable(verb) => verb.run(&session, print).await,
        Verb::Disable(verb) => verb.run(&session, print).await,
        Verb::Approve(verb) => verb.run(&session, print).await,
        Verb::Reject(verb) => verb.run(&session, print).await,
        Verb::Undelete(verb) => verb.run(&session, print).await,
        Verb::RotateSecret(verb) => verb.run(&session, print).await,
        Verb::Filter(verb) => verb.run(print),
        Verb::Completions(verb) => verb.run(print),
        Verb::Man(verb) => verb.run(print),
    }
}

#[cfg(test)]
mod tests;
