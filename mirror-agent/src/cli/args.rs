//! What may be typed.

use std::{net::IpAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use protocol::path::TreePath;

const EXAMPLES: &str = "Examples:
  mirror-agent enroll --data /var/lib/mirrornet/agent --invite INVITE
  mirror-agent run --config /etc/mirrornet/mirror-agent.toml
  mirror-agent status
  mirror-agent sync fedora --dry-run";

/// The daemon of a mirror site: it holds exactly the trees that the site was assigned.
#[derive(Debug, Parser)]
#[command(name = "mirror-agent", version, after_help = EXAMPLES, max_term_width = 100)]
pub(super) struct Cli {
    /// How logs are written to the standard error.
    #[arg(long, global = true, value_enum, default_value = "text")]
    pub(super) log_format: LogFormat,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Default)]
pub(super) enum Output {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Join a network with the invite that 'mirrorctl invite' printed.
    #[command(
        after_help = "Example:\n  mirror-agent enroll --data /var/lib/mirrornet/agent --invite INVITE"
    )]
    Enroll {
        /// The invite.
        #[arg(long)]
        invite: String,
        #[command(flatten)]
        settings: Settings,
        #[command(flatten)]
        format: Format,
    },
    /// Follow the network's orders until told to end (SIGTERM).
    #[command(
        after_help = "Examples:\n  mirror-agent run --config /etc/mirrornet/mirror-agent.toml\n  mirror-agent run --once"
    )]
    Run {
        /// Bring everything up to date once and end; exits with 1 when something failed.
        #[arg(long)]
        once: bool,
        #[command(flatten)]
        settings: Settings,
        #[command(flatten)]
        format: Format,
    },
    /// Bring a tree, or all, up to date now.
    #[command(after_help = "Examples:\n  mirror-agent sync\n  mirror-agent sync fedora --dry-run")]
    Sync {
        /// TREE or TREE@SITE; all without it.
        tree: Option<String>,
        /// Tell what would be done, and change nothing.
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        settings: Settings,
        #[command(flatten)]
        format: Format,
    },
    /// Tell what is held, what should be, and what went wrong.
    #[command(after_help = "Example:\n  mirror-agent status --output json")]
    Status {
        #[command(flatten)]
        settings: Settings,
        #[command(flatten)]
        format: Format,
    },
    /// Read everything that is published, compare it with the signed manifest, and repair what is
    /// wrong: from the mirror itself, or from wherever the generation can be had.
    #[command(
        after_help = "Examples:\n  mirror-agent verify fedora\n  mirror-agent verify --dry-run"
    )]
    Verify {
        /// TREE or TREE@SITE; all without it.
        tree: Option<String>,
        /// Tell what is wrong, and change nothing.
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        settings: Settings,
        #[command(flatten)]
        format: Format,
    },
    /// Pause or resume the reading of published files that goes on by itself.
    ///
    /// How far it is, 'mirror-agent status' tells; how often and how fast, scrub.every and scrub.rate
    /// in the configuration.
    #[command(after_help = "Examples:\n  mirror-agent scrub pause\n  mirror-agent scrub resume")]
    Scrub {
        /// Which of the two.
        #[arg(value_enum)]
        what: Scrubbing,
        #[command(flatten)]
        settings: Settings,
        #[command(flatten)]
        format: Format,
    },
    /// List the last runs: what came by which way, and why not by another.
    #[command(after_help = "Example:\n  mirror-agent history fedora")]
    History {
        /// TREE or TREE@SITE; all without it.
        tree: Option<String>,
        /// At most so many, the newest.
        #[arg(short = 'n', long, default_value = "20")]
        number: usize,
        #[command(flatten)]
        settings: Settings,
        #[command(flatten)]
        format: Format,
    },
    /// Print the log of the latest run: step by step, with what rsync and the site's commands said.
    ///
    /// With --output json: the last runs, each with its log where that is kept.
    #[command(
        after_help = "Examples:\n  mirror-agent log fedora\n  mirror-agent log fedora -f\n  mirror-agent log fedora --changed"
    )]
    Log {
        /// TREE or TREE@SITE; all without it.
        tree: Option<String>,
        /// Go on with what is added, and with the next runs, until interrupted.
        #[arg(short, long, requires = "tree")]
        follow: bool,
        /// That of the run before the latest.
        #[arg(long, conflicts_with = "follow")]
        previous: bool,
        /// That of the last run which changed the tree.
        #[arg(long, conflicts_with_all = ["follow", "previous"])]
        changed: bool,
        #[command(flatten)]
        settings: Settings,
        #[command(flatten)]
        format: Format,
    },
    /// Remove the files of an assignment that has ended.
    #[command(after_help = "Example:\n  mirror-agent purge fedora")]
    Purge {
        /// TREE or TREE@SITE.
        tree: String,
        #[command(flatten)]
        settings: Settings,
        #[command(flatten)]
        format: Format,
    },
    /// List what left the published trees and can be brought back.
    #[command(after_help = "Example:\n  mirror-agent trash fedora")]
    Trash {
        /// TREE or TREE@SITE; all without it.
        tree: Option<String>,
        #[command(flatten)]
        settings: Settings,
        #[command(flatten)]
        format: Format,
    },
    /// Bring something back from the trash, to where it was. Nothing is overwritten.
    #[command(
        after_help = "Examples:\n  mirror-agent undelete fedora releases/39\n  mirror-agent undelete fedora --from 1764316800-ended"
    )]
    Undelete {
        /// TREE or TREE@SITE.
        tree: String,
        /// A file or directory, by its path in the tree; everything without it.
        #[arg(value_parser = TreePath::parse_text)]
        path: Option<TreePath>,
        /// Only from this batch, as 'mirror-agent trash' names it.
        #[arg(long, value_name = "BATCH")]
        from: Option<String>,
        #[command(flatten)]
        settings: Settings,
        #[command(flatten)]
        format: Format,
    },
    /// Take over the storage of another agent that is gone for good.
    ///
    /// An agent refuses a storage that belongs to another one. This hands it over, on purpose: what
    /// is published stays, and whatever of it is assigned to this agent goes on as it is.
    #[command(
        after_help = "Example:\n  mirror-agent claim --config /etc/mirrornet/mirror-agent.toml"
    )]
    Claim {
        #[command(flatten)]
        settings: Settings,
        #[command(flatten)]
        format: Format,
    },
    /// Apply a pack to a plain directory, without any daemon: for sites that are fed by disk.
    #[command(
        after_help = "Example:\n  mirror-agent unpack --pack update.pack --base old --out new"
    )]
    Unpack {
        /// The pack.
        #[arg(long)]
        pack: PathBuf,
        /// The directory that the pack leads from, which stays as it is; 'none' for a pack from
        /// nothing.
        #[arg(long)]
        base: PathBuf,
        /// The directory to make; absent or empty.
        #[arg(long)]
        out: PathBuf,
        /// A file of filter rules, one per line: what is kept.
        #[arg(long)]
        filter: Option<PathBuf>,
        /// Tell what the pack would do, and change nothing.
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        format: Format,
    },
    /// Check the configuration and tell where each value comes from.
    #[command(
        after_help = "Example:\n  mirror-agent check-config --config /etc/mirrornet/mirror-agent.toml"
    )]
    CheckConfig {
        #[command(flatten)]
        settings: Settings,
        #[command(flatten)]
        format: Format,
    },
    /// Write what the systemd unit has to know of the configuration: the directories that the agent
    /// writes to. The generator that 'make install' places calls this at each daemon-reload.
    #[command(
        after_help = "Example:\n  mirror-agent unit-drop-in --out /run/systemd/system/mirrornet-mirror-agent.service.d"
    )]
    UnitDropIn {
        /// The unit's directory of drop-ins; storage.conf is written there.
        #[arg(long)]
        out: PathBuf,
        #[command(flatten)]
        settings: Settings,
    },
    /// Print completions for a shell.
    Completions {
        /// Which shell.
        shell: Shell,
    },
    /// Write the manual pages into a directory.
    Man {
        /// The directory.
        dir: PathBuf,
    },
    /// The transport of a running agent's rsync; never called by people.
    #[command(hide = true)]
    RsyncPipe {
        /// The agent's socket.
        #[arg(long)]
        socket: PathBuf,
        /// What rsync says about the other end.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        _rest: Vec<String>,
    },
}

impl Command {
    /// The settings of a command that works with an agent's directories.
    pub(super) fn agent_settings(&self) -> Option<&Settings> {
        match self {
            Self::Run { settings, .. }
            | Self::Sync { settings, .. }
            | Self::Status { settings, .. }
            | Self::Verify { settings, .. }
            | Self::Log { settings, .. }
            | Self::Purge { settings, .. }
            | Self::Claim { settings, .. } => Some(settings),
            _ => None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Scrubbing {
    /// From now on nothing is read by itself, also after a restart.
    Pause,
    /// It goes on where it ended.
    Resume,
}

#[derive(Debug, Clone, Copy, Args)]
pub(super) struct Format {
    /// How the answer is printed.
    #[arg(long, value_enum, default_value = "text")]
    pub(super) output: Output,
}

/// The configuration's keys as flags.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct Settings {
    /// The configuration file; DATA/mirror-agent.toml where there is one.
    #[arg(long)]
    pub(super) config: Option<PathBuf>,
    /// Print the configuration with the origin of each value, and end.
    #[arg(long)]
    pub(super) print_config: bool,
    /// Identity, ledger and control socket.
    #[arg(long)]
    data: Option<PathBuf>,
    /// The one directory below which the agent writes.
    #[arg(long)]
    storage: Option<PathBuf>,
    /// Where trees are published; STORAGE/pub without it.
    #[arg(long)]
    publish: Option<PathBuf>,
    /// Where all work is done; STORAGE/work without it.
    #[arg(long)]
    work: Option<PathBuf>,
    /// http://HOST:PORT of a proxy that knows CONNECT.
    #[arg(long)]
    proxy: Option<String>,
    /// The local address that connections come from.
    #[arg(long)]
    bind: Option<IpAddr>,
    /// any, inet or inet6.
    #[arg(long)]
    address_family: Option<String>,
    /// ADDRESS:PORT for the status page and monitoring, by plain HTTP; nowhere without it.
    #[arg(long)]
    monitor: Option<String>,
    /// How long what left a published tree can be brought back (7d).
    #[arg(long)]
    trash_keep: Option<String>,
    /// Most bytes that the trash of one assignment keeps of what its upstream removed (20GiB).
    #[arg(long)]
    trash_max: Option<String>,
    /// Runs at a time.
    #[arg(long)]
    parallel: Option<u32>,
    /// The rsync program.
    #[arg(long)]
    rsync: Option<PathBuf>,
    /// auto, required or off: whether the kernel keeps the agent and its rsync to their directories.
    #[arg(long)]
    confine: Option<String>,
    /// The mirror-agent program that rsync calls back.
    #[arg(long, hide = true)]
    program: Option<PathBuf>,
}

impl Settings {
    /// The flags that were given, as the configuration's layers take them.
    pub(super) fn flags(&self) -> Vec<(&'static str, toml::Value)> {
        let path = |path: &Option<PathBuf>| path.as_ref().map(|p| p.display().to_string());
        let values = [
            ("data", path(&self.data)),
            ("storage", path(&self.storage)),
            ("publish", path(&self.publish)),
            ("work", path(&self.work)),
            ("proxy", self.proxy.clone()),
            ("bind", self.bind.map(|bind| bind.to_string())),
            ("address-family", self.address_family.clone()),
            ("monitor", self.monitor.clone()),
            ("trash-keep", self.trash_keep.clone()),
            ("trash-max", self.trash_max.clone()),
            ("rsync", path(&self.rsync)),
            ("confine", self.confine.clone()),
            ("program", path(&self.program)),
        ];
        let given = values.into_iter().filter_map(|(key, value)| Some((key, value?)));
        let given = given.map(|(key, value)| (key, toml::Value::String(value)));
        let parallel = self.parallel.map(|runs| ("parallel", toml::Value::Integer(runs.into())));
        given.chain(parallel).collect()
    }
}
