//! Becoming a publisher, and its configuration.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use certs::{
    dial::{Dialer, ProxySettings},
    enrollment::{EnrollOptions, Invite},
    guard::Scope,
    identity::{Role, directory::Identity},
};
use protocol::{
    config::{Loaded, Sources, load},
    path::TreePath,
};
use toml::Value;

use super::{ConfigArgs, EnrollArgs, RunningArgs, SignArgs, print};
use crate::{config::Config, running};

/// Largest configuration file, in bytes.
const MAX_FILE: u64 = 1 << 20;
/// The configuration that `enroll` leaves in the data directory.
const WRITTEN: &str = "publisher.toml";

pub(super) async fn enroll(args: EnrollArgs) -> anyhow::Result<ExitCode> {
    let invite: Invite = args.invite.trim().parse()?;
    let host = match &args.advertise {
        Some(advertise) => {
            Config { advertise: Some(advertise.clone()), ..Config::default() }.check()?;
            let host = advertise.rsplit_once(':').map_or(advertise.as_str(), |(host, _)| host);
            host.trim_matches(['[', ']']).to_owned()
        }
        None => running::host_name(),
    };
    let data = &std::path::absolute(&args.data)?;
    let fs = filetree::fs::Fs::disk();
    let dir = fs.create_root(data)?;
    dir.set_mode(0o700)?;
    let options = EnrollOptions {
        dialer: Dialer { proxy: ProxySettings::from_env()?, ..Dialer::default() },
        server_names: vec![host],
        role: Some(Role::Publisher),
        waiting: |keys| print::note(certs::enrollment::waiting_for_approval(keys)),
        ..EnrollOptions::default()
    };
    let works = |identity: std::sync::Arc<Identity>| async move { running::works(&identity).await };
    let identity = certs::enrollment::enroll(&invite, data, &options, works).await?;
    write_config(data, args.advertise.as_deref())?;
    let member = &identity.membership;
    print::line(format!(
        "enrolled as the publisher {} of the network {}; start it with: publisher run --data {}",
        member.name,
        member.network,
        data.display()
    ));
    Ok(ExitCode::SUCCESS)
}

/// Leaves a configuration for `run --data`; one that is there stays.
fn write_config(data: &Path, advertise: Option<&str>) -> anyhow::Result<()> {
    let path = data.join(WRITTEN);
    let mut table = toml::Table::new();
    table.insert("data".into(), Value::String(data.display().to_string()));
    if let Some(advertise) = advertise {
        table.insert("advertise".into(), Value::String(advertise.into()));
    }
    let file = std::fs::File::options().write(true).create_new(true).open(&path);
    match file {
        Ok(mut file) => {
            std::io::Write::write_all(&mut file, toml::to_string(&table)?.as_bytes())?;
            file.sync_all()?;
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error).context(format!("cannot write {}", path.display())),
    }
    Ok(())
}

/// Lays the layers of the configuration over each other.
pub(super) fn configuration(args: &ConfigArgs) -> anyhow::Result<Loaded<Config>> {
    let data = args.data.clone().unwrap_or_else(|| Config::default().data);
    let (path, must_exist) = match &args.config {
        Some(path) => (path.clone(), true),
        None => (data.join(WRITTEN), false),
    };
    let mut flags: Vec<(&'static str, Value)> = Vec::new();
    let mut text = |key, value: Option<String>| {
        flags.extend(value.map(|value| (key, Value::String(value))));
    };
    let shown = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
    // Relative to where the command was given, not to where the daemon runs.
    let absolute = args.data.as_deref().map(std::path::absolute).transpose()?;
    text("data", shown(&absolute));
    text("listen", args.listen.clone());
    text("advertise", args.advertise.clone());
    text("view", shown(&args.view));
    text("memory", args.memory.clone());
    if let Some(mode) = args.retain_mode {
        flags.push(("retain.mode", Value::try_from(mode)?));
    }
    if let Some(generations) = args.retain_generations {
        flags.push(("retain.generations", Value::Integer(generations.into())));
    }
    let sources = Sources {
        file: read(&path, must_exist)?,
        environment: std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect(),
        flags,
    };
    let loaded = load::<Config>(sources)?;
    loaded.config.check()?;
    Ok(loaded)
}

/// The data directory of a publisher that is asked something.
pub(super) fn data(args: &RunningArgs) -> anyhow::Result<PathBuf> {
    if let (Some(data), None) = (&args.data, &args.config) {
        return Ok(data.clone());
    }
    Ok(configuration_of(args)?.data)
}

fn configuration_of(args: &RunningArgs) -> anyhow::Result<Config> {
    let (config, data) = (args.config.clone(), args.data.clone());
    Ok(configuration(&ConfigArgs { config, data, ..ConfigArgs::default() })?.config)
}

pub(super) fn sign_url(args: &SignArgs) -> anyhow::Result<ExitCode> {
    let config = configuration_of(&args.running)?;
    let consumers = config.consumers.context(
        "the configuration has no [consumers], whose URLs could be signed; name its file with --config",
    )?;
    let path = TreePath::parse(args.path.trim_matches('/').as_bytes())?;
    let scope = if args.below { Scope::Below(path) } else { Scope::File(path) };
    let valid = args.valid.duration();
    print::line(crate::consumers::links::sign(&consumers, scope, valid, certs::clock::now())?);
    Ok(ExitCode::SUCCESS)
}

pub(super) fn print_config(args: &ConfigArgs) -> anyhow::Result<ExitCode> {
    for setting in configuration(args)?.values {
        print::line(setting);
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn check_config(args: &ConfigArgs) -> anyhow::Result<ExitCode> {
    let config = configuration(args)?.config;
    if let Some(consumers) = &config.consumers {
        crate::consumers::check(consumers)?;
    }
    match running::is_enrolled(&config.data) {
        Ok(()) => print::line("the configuration is good"),
        Err(error) => {
            print::line(format!("the configuration is good; but: {}", crate::error_chain(&error)))
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn read(path: &Path, must_exist: bool) -> anyhow::Result<Option<(String, String)>> {
    use std::io::Read as _;

    let file = match std::fs::File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !must_exist => {
            return Ok(None);
        }
        other => other.with_context(|| format!("cannot read {}", path.display()))?,
    };
    let mut text = String::new();
    file.take(MAX_FILE)
        .read_to_string(&mut text)
        .with_context(|| format!("cannot read {}", path.display()))?;
    Ok(Some((path.display().to_string(), text)))
}
