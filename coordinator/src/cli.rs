//! The command line of `coordinator`.
#![expect(clippy::print_stdout, reason = "the addresses and the next command are the output")]

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, CommandFactory as _, Parser, Subcommand};
use jiff::Timestamp;
use protocol::name::{IdentityName, NetworkName};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::{
    backup,
    config::{self, Config, LogFormat},
    init::{InitOptions, init},
    journal, server,
};

/// The central coordinator of a mirroring network.
#[derive(Debug, Parser)]
#[command(name = "coordinator", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a network: keys, certificate authority, database and the first admin.
    #[command(
        after_help = "Example:\n  coordinator init --data /var/lib/mirrornet/coordinator \\\n    --network example --hostname coordinator.example.org"
    )]
    Init(Init),
    /// Run the coordinator.
    #[command(after_help = "Example:\n  coordinator serve --data /var/lib/mirrornet/coordinator")]
    Serve(Settings),
    /// Check a configuration without running anything.
    #[command(
        after_help = "Example:\n  coordinator check-config --config /etc/mirrornet/coordinator.toml"
    )]
    CheckConfig(Settings),
    /// Save keys and database to one sealed file, also while the coordinator runs.
    #[command(
        after_help = "Example:\n  coordinator backup --out /var/backups/mirrornet-2026-11-20 \\\n    --key-file /root/mirrornet-backup.key"
    )]
    Backup(Backup),
    /// Make a coordinator from a backup, in an empty data directory.
    #[command(
        after_help = "Example:\n  coordinator restore /var/backups/mirrornet-2026-11-20 \\\n    --key-file /root/mirrornet-backup.key --revocations /mnt/other-disk/revocations \\\n    --data /var/lib/mirrornet/coordinator\n  coordinator restore /var/backups/mirrornet-2026-11-20 --verify"
    )]
    Restore(Restore),
    /// Print a script that completes the arguments of coordinator in a shell.
    #[command(
        after_help = "Example:\n  coordinator completions bash > /etc/bash_completion.d/coordinator"
    )]
    Completions(Completions),
    /// Write the manual pages of coordinator and of each of its verbs into a directory.
    #[command(after_help = "Example:\n  coordinator man /usr/local/share/man/man1")]
    Man(Man),
}

#[derive(Debug, Args)]
struct Backup {
    /// The new file; it holds the network's keys, sealed with the secret in the key file.
    #[arg(long)]
    out: PathBuf,
    /// The file whose first line is the secret, 0600: a passphrase of at least 16 characters; made with a
    /// random one if it is not there [default: OUT.key]. Keep it elsewhere than the backups.
    #[arg(long)]
    key_file: Option<PathBuf>,
    /// Open the finished backup once more from its file and check all of it.
    #[arg(long)]
    verify: bool,
    /// Configuration file; the one that `init` left in the data directory by default.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Data directory [default: /var/lib/mirrornet/coordinator].
    #[arg(long)]
    data: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Restore {
    /// The backup.
    file: PathBuf,
    /// The file whose first line is the secret that it was made with [default: FILE.key].
    #[arg(long)]
    key_file: Option<PathBuf>,
    /// What was revoked since: `revocations` of the data directory that is replaced, or of its copy; may
    /// be given several times, as with several replicas.
    #[arg(long, value_name = "FILE")]
    revocations: Vec<PathBuf>,
    /// Only read and check the backup.
    #[arg(long)]
    verify: bool,
    /// Data directory, which must be empty or not be there.
    #[arg(long, default_value = "/var/lib/mirrornet/coordinator")]
    data: PathBuf,
}

#[derive(Debug, Args)]
struct Init {
    /// Name of the network: the trust domain of its certificates.
    #[arg(long)]
    network: NetworkName,
    /// Name or address under which agents reach the coordinator; may be given several times.
    #[arg(long = "hostname", required = true)]
    hostnames: Vec<String>,
    /// Name of the first admin.
    #[arg(long, default_value = "admin")]
    admin: IdentityName,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
struct Settings {
    /// Configuration file; the one that `init` left in the data directory by default.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Print every value with where it came from, and end.
    #[arg(long)]
    print_config: bool,
    /// Name or address under which agents reach the coordinator; may be given several times.
    #[arg(long = "hostname")]
    hostnames: Vec<String>,
    #[command(flatten)]
    common: Common,
}

/// The configuration's keys as flags.
#[derive(Debug, Args)]
struct Common {
    /// Data directory [default: /var/lib/mirrornet/coordinator].
    #[arg(long)]
    data: Option<PathBuf>,
    /// ADDRESS:PORT of the API; port 0 takes a free one [default: 0.0.0.0:8443].
    #[arg(long)]
    listen: Option<String>,
    /// ADDRESS:PORT of the enroll port [default: 0.0.0.0:8444].
    #[arg(long)]
    enroll_listen: Option<String>,
    /// The API's address as others see it, where a proxy changes it: https://HOST:PORT.
    #[arg(long)]
    api_url: Option<String>,
    /// The enroll port's address as others see it.
    #[arg(long)]
    enroll_url: Option<String>,
    /// How long certificates live, from 5s to 90d [default: 7d].
    #[arg(long)]
    certificate_life: Option<String>,
    /// How long after its end a certificate may still be renewed by its holder, at most 90d; 0s for
    /// never [default: 30d].
    #[arg(long)]
    renew_after_expiry: Option<String>,
    /// Where revocations are kept beside the database, for a restore [default: revocations in the data
    /// directory].
    #[arg(long)]
    revocations: Option<PathBuf>,
    /// PostgreSQL instead of SQLite in the data directory: postgres://USER@HOST/NAME.
    #[arg(long)]
    database_url: Option<String>,
    /// text or json [default: text].
    #[arg(long)]
    log_format: Option<String>,
    /// What is logged, for example info or info,sqlx=debug [default: info].
    #[arg(long)]
    log: Option<String>,
}

/// For a shell.
#[derive(Debug, Args)]
struct Completions {
    /// Which shell.
    shell: clap_complete::Shell,
}

/// For `man`.
#[derive(Debug, Args)]
struct Man {
    /// An existing directory.
    dir: PathBuf,
}

impl Cli {
    /// Does what was asked.
    pub async fn run(self) -> anyhow::Result<()> {
        match self.command {
            Command::Init(arguments) => arguments.run().await,
            Command::Serve(settings) => settings.serve().await,
            Command::CheckConfig(settings) => settings.check(),
            Command::Backup(arguments) => arguments.run().await,
            Command::Restore(arguments) => arguments.run().await,
            Command::Completions(arguments) => arguments.run(),
            Command::Man(arguments) => arguments.run(),
        }
    }
}

impl Completions {
    fn run(&self) -> anyhow::Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "coordinator", &mut script);
        print!("{}", String::from_utf8(script)?);
        Ok(())
    }
}

impl Man {
    fn run(&self) -> anyhow::Result<()> {
        clap_mangen::generate_to(Cli::command(), &self.dir)
            .with_context(|| format!("cannot write manual pages into {}", self.dir.display()))
    }
}

impl Init {
    async fn run(self) -> anyhow::Result<()> {
        let flags = self.common.flags(&self.hostnames);
        let loaded = config::load_without_file(environment(), flags)?;
        let options =
            InitOptions { config: loaded.config, network: self.network, admin: self.admin };
        init(&options, Timestamp::now()).await?;
        let data = options.config.data.display();
        println!("The network {} is made in {data}.", options.network);
        println!("Its first admin {} has the identity {data}/admin.", options.admin);
        println!("Next: coordinator serve --data {data}");
        Ok(())
    }
}

impl Backup {
    async fn run(self) -> anyhow::Result<()> {
        let data = self.data.map(|data| ("data", data.display().to_string().into()));
        let flags = data.into_iter().collect();
        let loaded = config::load(self.config.as_deref(), environment(), flags)?;
        let key_file = self.key_file.unwrap_or_else(|| backup::key_file_of(&self.out));
        backup::back_up(&loaded.config, &self.out, &key_file).await?;
        if self.verify {
            backup::verify(&self.out, &key_file, &loaded.config.data).await?;
        }
        let (out, key_file) = (self.out.display(), key_file.display());
        println!("Saved and checked: {out}.");
        println!(
            "Only with the secret in {key_file} can it be opened; keep that elsewhere, and safe."
        );
        Ok(())
    }
}

impl Restore {
    async fn run(self) -> anyhow::Result<()> {
        let key_file = self.key_file.unwrap_or_else(|| backup::key_file_of(&self.file));
        if self.verify {
            backup::verify(&self.file, &key_file, &self.data).await?;
            println!("{} is whole; a coordinator can be made of it.", self.file.display());
            return Ok(());
        }
        let mut revoked = Vec::new();
        for path in &self.revocations {
            revoked.extend(journal::read(path)?);
        }
        let again = backup::restore(&self.file, &key_file, &self.data, &revoked).await?;
        let data = self.data.display();
        println!("Restored to {data}, under a higher restore epoch; open invites have ended.");
        if self.revocations.is_empty() {
            println!(
                "WARNING: whoever was revoked after the backup is live again. Restore with --revocations FILE, the file `revocations` of the old data directory, or revoke them again."
            );
        } else {
            println!("Revoked again, because it was done after the backup: {again}.");
        }
        println!("Whoever enrolled or renewed after the backup has to enroll again.");
        println!("Next: coordinator serve --data {data}");
        Ok(())
    }
}

impl Settings {
    fn load(&self) -> anyhow::Result<protocol::config::Loaded<Config>> {
        let flags = self.common.flags(&self.hostnames);
        Ok(config::load(self.config.as_deref(), environment(), flags)?)
    }

    fn check(&self) -> anyhow::Result<()> {
        let loaded = self.load()?;
        if self.print_config {
            loaded.values.iter().for_each(|setting| println!("{setting}"));
        } else {
            println!("The configuration is accepted.");
        }
        Ok(())
    }

    async fn serve(self) -> anyhow::Result<()> {
        if self.print_config {
            return self.check();
        }
        let config = self.load()?.config;
        log_to_stderr(&config)?;
        let mut terminate = signal(SignalKind::terminate()).context("cannot watch signals")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot watch signals")?;
        let running = server::start(config).await?;
        println!("listening on {}", running.api_addr());
        println!("listening on {} for enrollment", running.enroll_addr());
        tracing::info!(
            api = %running.api_addr(), enroll = %running.enroll_addr(), url = running.api_url(),
            "the coordinator is ready"
        );
        notify(sd_notify::NotifyState::Ready);
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping: requests that are under way are finished first");
        notify(sd_notify::NotifyState::Stopping);
        running.stop().await;
        Ok(())
    }
}

impl Common {
    fn flags(&self, hostnames: &[String]) -> Vec<(&'static str, toml::Value)> {
        let path = |path: &PathBuf| path.display().to_string();
        let texts = [
            ("data", self.data.as_ref().map(path)),
            ("listen", self.listen.clone()),
            ("enroll-listen", self.enroll_listen.clone()),
            ("api-url", self.api_url.clone()),
            ("enroll-url", self.enroll_url.clone()),
            ("certificate-life", self.certificate_life.clone()),
            ("renew-after-expiry", self.renew_after_expiry.clone()),
            ("revocations", self.revocations.as_ref().map(path)),
            ("database.url", self.database_url.clone()),
            ("log-format", self.log_format.clone()),
            ("log", self.log.clone()),
        ];
        let mut flags: Vec<_> =
            texts.into_iter().filter_map(|(key, text)| Some((key, text?.into()))).collect();
        if !hostnames.is_empty() {
            flags.push(("hostnames", hostnames.to_vec().into()));
        }
        flags
    }
}

fn environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

fn log_to_stderr(config: &Config) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&config.log)
        .with_context(|| format!("log = {:?} is not a log filter such as info", config.log))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match config.log_format {
        LogFormat::Text => builder.with_ansi(false).init(),
        LogFormat::Json => builder.json().init(),
    }
    Ok(())
}

/// Tells systemd, where it asked to be told.
fn notify(state: sd_notify::NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "the service manager could not be told");
    }
}
