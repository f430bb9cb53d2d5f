//! The command line.
//!
//! The only place that prints: answers for people by default, JSON with `--output json`. Logs go to
//! standard error.

mod daemon;
mod pack;
mod print;
#[cfg(test)]
mod reference;
mod setup;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};
use protocol::{name::TreeName, units::Span};

use crate::{config::RetainMode, serve};

/// Exit status of a command that failed; wrong usage exits with 2.
const FAILED: u8 = 1;

#[derive(Debug, Parser)]
#[command(
    name = "publisher",
    version,
    about = "Makes generations and packs of directory trees, and serves them to a network of mirrors",
    after_help = "Example:\n  publisher enroll --data /var/lib/mirrornet/publisher --invite INVITE \
                  --advertise build.example.org:8445\n  publisher run --config \
                  /etc/mirrornet/publisher.toml"
)]
struct Cli {
    /// How logs are written, to standard error
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Use an invite to become a publisher of a network
    #[command(after_help = "Example:\n  publisher enroll --data /var/lib/mirrornet/publisher \
                            --invite INVITE --advertise build.example.org:8445")]
    Enroll(EnrollArgs),
    /// Publish and serve until stopped
    #[command(after_help = "Example:\n  publisher run --config /etc/mirrornet/publisher.toml")]
    Run(ConfigArgs),
    /// Have the running publisher take a tree now
    #[command(after_help = "Example:\n  publisher publish fedora --wait")]
    Publish(PublishArgs),
    /// Write the pack that leads from one directory to another, without any daemon
    #[command(after_help = "Example:\n  publisher pack --from old --to new --out update.pack")]
    Pack(pack::PackArgs),
    /// Show what a pack consists of, or take a delta out of it
    #[command(after_help = "Example:\n  publisher inspect update.pack --extract dists/Release \
                            --out delta\n  rdiff patch old/dists/Release delta Release")]
    Inspect(pack::InspectArgs),
    /// Show how the running publisher and its trees stand
    #[command(after_help = "Example:\n  publisher status --output json")]
    Status(StatusArgs),
    /// Sign a URL that opens a path of the consumers' trees for a while
    #[command(after_help = "Example:\n  publisher sign-url content/dist/project/disc.iso --valid \
                            1d\n  publisher sign-url content/dist/project --below --valid 15m")]
    SignUrl(SignArgs),
    /// Check the configuration, and that this host can run with it
    #[command(after_help = "Example:\n  publisher check-config --config \
                            /etc/mirrornet/publisher.toml")]
    CheckConfig(ConfigArgs),
    /// Print completions for a shell
    #[command(after_help = "Example:\n  publisher completions bash > \
                            /usr/share/bash-completion/completions/publisher")]
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages into a directory
    #[command(after_help = "Example:\n  publisher man /usr/share/man/man1")]
    Man {
        /// Which directory
        dir: PathBuf,
    },
}

#[derive(Debug, Args)]
struct EnrollArgs {
    /// The data directory; made where it is missing
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The invite, as `mirrorctl invite` printed it
    #[arg(long)]
    invite: String,
    /// Where agents reach this publisher
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Option<String>,
}

/// Where the configuration comes from. Each flag is stronger than the environment and the file.
#[derive(Debug, Default, Args)]
struct ConfigArgs {
    /// The configuration file; `DATA/publisher.toml` by default
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The data directory
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// Where agents reach this publisher
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Option<String>,
    /// Directory of the private trees
    #[arg(long, value_name = "DIR")]
    view: Option<PathBuf>,
    /// Memory that encoders may use, such as 512MiB
    #[arg(long, value_name = "SIZE")]
    memory: Option<String>,
    /// How content is kept
    #[arg(long, value_enum)]
    retain_mode: Option<RetainMode>,
    /// How many generations of each tree are kept
    #[arg(long, value_name = "N")]
    retain_generations: Option<u32>,
    /// Print every value and where it comes from, and do nothing else
    #[arg(long)]
    print_config: bool,
}

/// Which running publisher is asked.
#[derive(Debug, Args)]
struct RunningArgs {
    /// The configuration file of the publisher
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The data directory of the publisher
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct PublishArgs {
    /// Which tree
    tree: TreeName,
    /// Wait until it is announced, held or found unchanged
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    running: RunningArgs,
    /// How to print the answer
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Debug, Args)]
struct StatusArgs {
    #[command(flatten)]
    running: RunningArgs,
    /// How to print the answer
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Debug, Args)]
struct SignArgs {
    /// Path of a file as consumers ask for it, or of a directory with --below
    path: String,
    /// Open everything below it, too
    #[arg(long)]
    below: bool,
    /// For how long
    #[arg(long, value_name = "TIME", default_value = "1h")]
    valid: Span,
    #[command(flatten)]
    running: RunningArgs,
}

/// How answers are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// How logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Runs the program with the process's arguments.
pub fn main() -> ExitCode {
    // A process on its way to becoming a session's rsync: its arguments are no command.
    let mut words = std::env::args_os().skip(1);
    if words.next().is_some_and(|word| word == serve::CAGED) {
        print::failure(&filetree::confine::enter(words).into());
        return ExitCode::from(FAILED);
    }
    let cli = Cli::parse();
    log_to_stderr(cli.log_format);
    certs::install_provider();
    match run(cli.command) {
        Ok(code) => code,
        Err(error) => {
            print::failure(&error);
            ExitCode::from(FAILED)
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Enroll(args) => daemon::block_on(setup::enroll(args)),
        Command::Run(args) if args.print_config => setup::print_config(&args),
        Command::Run(args) => daemon::block_on(daemon::run(args)),
        Command::SignUrl(args) => setup::sign_url(&args),
        Command::Publish(args) => daemon::block_on(daemon::publish(args)),
        Command::Status(args) => daemon::block_on(daemon::status(args)),
        Command::Pack(args) => pack::pack(&args),
        Command::Inspect(args) => pack::inspect_pack(&args),
        Command::CheckConfig(args) if args.print_config => setup::print_config(&args),
        Command::CheckConfig(args) => setup::check_config(&args),
        Command::Completions { shell } => {
            clap_complete::generate(
                shell,
                &mut Cli::command(),
                "publisher",
                &mut std::io::stdout(),
            );
            Ok(ExitCode::SUCCESS)
        }
        Command::Man { dir } => {
            std::fs::create_dir_all(&dir)?;
            clap_mangen::generate_to(Cli::command(), &dir)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn log_to_stderr(format: LogFormat) {
    use std::io::IsTerminal as _;

    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => {
            logs.with_ansi(std::io::stderr().is_terminal()).with_target(false).init();
        }
        LogFormat::Json => logs.json().init(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_fits_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_shows_an_example() {
        for command in Cli::command().get_subcommands().chain([&Cli::command()]) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Example:\n  publisher "), "{}", command.get_name());
        }
    }
}
