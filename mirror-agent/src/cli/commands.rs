//! What each command does.

use std::{path::Path, process::ExitCode, sync::Arc};

use anyhow::{Context, anyhow};
use clap::CommandFactory;
use filetree::{
    confine::Confinement,
    fs::Fs,
    pack::{inspect, unpack::unpack},
};
use jiff::Timestamp;
use protocol::{
    filter::Filter,
    path::TreePath,
    v1::agent::{RunReport, RunResult, UndeleteRequest},
};

use super::{
    args::{Cli, Command, Format, Output, Scrubbing, Settings},
    drop_in, logs, print,
    show::Show,
};
use crate::{
    agent::{Agent, TrashStatus},
    config::{self, Config},
    control::{self, Heard, Request},
    enroll, fence,
    report::Progress,
    run_log::Kept,
    status::Status,
};

pub(super) async fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Enroll { invite, settings, format } => {
            let Some(config) = load(&settings)? else { return Ok(ExitCode::SUCCESS) };
            let waiting = |keys: &_| print::problem(&certs::enrollment::waiting_for_approval(keys));
            let identity =
                enroll::enroll(&config.data, &invite, &config.dialer()?, waiting).await?;
            print::enrolled(&identity.membership, &config, format.output);
            Ok(ExitCode::SUCCESS)
        }
        Command::Run { once, settings, format } => {
            let Some(config) = load(&settings)? else { return Ok(ExitCode::SUCCESS) };
            if once { run_once(config, format).await } else { daemon(config).await }
        }
        Command::Sync { tree, dry_run, settings, format } => {
            let asked_for = tree.is_some();
            let Some(value) = ask(&settings, Request::Sync { tree, dry_run }).await? else {
                return Ok(ExitCode::SUCCESS);
            };
            print_reports(value, format, asked_for)
        }
        Command::Scrub { what, settings, format } => {
            let paused = what == Scrubbing::Pause;
            if let Some(value) = ask(&settings, Request::Scrub { paused }).await? {
                match format.output {
                    Output::Json => print::json(&value),
                    Output::Text if paused => print::line("scrubbing is paused"),
                    Output::Text => print::line("scrubbing goes on"),
                }
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Verify { tree, dry_run, settings, format } => {
            let Some(value) = ask(&settings, Request::Verify { tree, dry_run }).await? else {
                return Ok(ExitCode::SUCCESS);
            };
            print_reports(value, format, true)
        }
        Command::Status { settings, format } => {
            if let Some(value) = ask(&settings, Request::Status).await? {
                match format.output {
                    Output::Json => print::json(&value),
                    Output::Text => print::status(&serde_json::from_value::<Status>(value)?),
                }
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::History { tree, number, settings, format } => {
            if let Some(value) = ask(&settings, Request::Log { tree }).await? {
                let mut runs: Vec<RunReport> = serde_json::from_value(value)?;
                runs.truncate(number);
                runs.iter_mut().for_each(|run| run.log.clear());
                match format.output {
                    Output::Json => print::json(&serde_json::to_value(runs)?),
                    Output::Text => print::runs(&runs),
                }
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Log { tree, follow, previous, changed, settings, format } => {
            let kept = match (previous, changed) {
                (true, _) => Kept::Previous,
                (_, true) => Kept::Changed,
                _ => Kept::Current,
            };
            match (format.output, tree) {
                (_, Some(tree)) if follow => logs::follow(&settings, tree).await?,
                (Output::Json, tree) => {
                    if let Some(value) = ask(&settings, Request::Log { tree }).await? {
                        print::json(&value);
                    }
                }
                (Output::Text, tree) => logs::show(&settings, tree, kept).await?,
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Purge { tree, settings, format } => {
            if let Some(value) = ask(&settings, Request::Purge { tree: tree.clone() }).await? {
                match format.output {
                    Output::Json => print::json(&value),
                    Output::Text => print::line(&format!("removed the files of {tree}")),
                }
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Trash { tree, settings, format } => {
            if let Some(value) = ask(&settings, Request::Trash { tree }).await? {
                match format.output {
                    Output::Json => print::json(&value),
                    Output::Text => {
                        print::trash(&serde_json::from_value::<Vec<TrashStatus>>(value)?)
                    }
                }
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Undelete { tree, path, from, settings, format } => {
            if path.is_none() && from.is_none() {
                return Err(anyhow!("name a path, or with --from a batch of the trash"));
            }
            let what = UndeleteRequest { path, from };
            let Some(value) = ask(&settings, Request::Undelete { tree, what }).await? else {
                return Ok(ExitCode::SUCCESS);
            };
            print_reports(value, format, true)
        }
        Command::Claim { settings, format } => {
            let Some(config) = load(&settings)? else { return Ok(ExitCode::SUCCESS) };
            let before = Agent::claim_storage(&config).await?;
            print::claimed(&config, before.as_ref(), format.output);
            Ok(ExitCode::SUCCESS)
        }
        Command::Unpack { pack, base, out, filter, dry_run, format } => {
            unpack_pack(&pack, &base, &out, filter.as_deref(), dry_run, format)
        }
        Command::CheckConfig { settings, format } => check_config(&settings, format),
        Command::UnitDropIn { out, settings } => {
            let Some(config) = load(&settings)? else { return Ok(ExitCode::SUCCESS) };
            let file = out.join("storage.conf");
            std::fs::create_dir_all(&out)
                .and_then(|()| std::fs::write(&file, drop_in::text(&config)))
                .with_context(|| format!("{} cannot be written", file.display()))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "mirror-agent", &mut script);
            print::raw(&script)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Man { dir } => {
            std::fs::create_dir_all(&dir)?;
            clap_mangen::generate_to(Cli::command(), &dir)
                .with_context(|| format!("manual pages cannot be written to {}", dir.display()))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::RsyncPipe { .. } => Err(anyhow!("only rsync calls this")),
    }
}

/// Closes the fence around this process.
pub(super) fn close_fence(settings: &Settings) -> anyhow::Result<()> {
    if settings.print_config {
        return Ok(());
    }
    let config = config::load(settings.config.as_deref(), environment(), settings.flags())?.config;
    fence::prepare(&config);
    fence::close(&config)?;
    Ok(())
}

/// The configuration; `None` when it was only to be printed.
pub(super) fn load(settings: &Settings) -> anyhow::Result<Option<Config>> {
    let loaded = config::load(settings.config.as_deref(), environment(), settings.flags())?;
    if settings.print_config {
        loaded.values.iter().for_each(|value| print::line(&value.to_string()));
        return Ok(None);
    }
    Ok(Some(loaded.config))
}

fn environment() -> Vec<(String, String)> {
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    std::env::vars_os().filter_map(text).collect()
}

async fn daemon(config: Config) -> anyhow::Result<ExitCode> {
    use tokio::signal::unix::{SignalKind, signal};

    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let running = crate::start(config).await?;
    if let Some(address) = running.monitor() {
        print::line(&format!("listening on {address}"));
        std::fs::write(running.agent().config.data.join("listen"), format!("{address}\n"))?;
    }
    match fence::closed() {
        Some(Confinement::Full) | None => tracing::info!("running"),
        Some(less) => tracing::warn!(confined = %less, "running"),
    }
    // Without a service manager there is nobody to tell.
    sd_notify::notify(&[sd_notify::NotifyState::Ready]).ok();
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    tracing::info!("ending");
    sd_notify::notify(&[sd_notify::NotifyState::Stopping]).ok();
    running.stop().await;
    Ok(ExitCode::SUCCESS)
}

async fn run_once(config: Config, format: Format) -> anyhow::Result<ExitCode> {
    let agent = Agent::open(config).await?;
    let request = Request::Sync { tree: None, dry_run: false };
    let value = locally(&agent, &request).await?;
    print_reports(value, format, false)
}

/// Asks the running daemon, or does it here where none runs; `None` when only the configuration
/// was to be printed.
async fn ask(settings: &Settings, request: Request) -> anyhow::Result<Option<serde_json::Value>> {
    let Some(config) = load(settings)? else { return Ok(None) };
    let show = Show::new();
    let heard = |heard: Heard<'_>| {
        if let Heard::Progress { phase, unit, done, total } = heard {
            show.set(phase, unit, done, total);
        }
    };
    if let Some(value) = control::ask(&config.data, &request, heard).await? {
        return Ok(Some(value));
    }
    let agent = Agent::open(config).await?;
    locally(&agent, &request).await.map(Some)
}

async fn locally(agent: &Arc<Agent>, request: &Request) -> anyhow::Result<serde_json::Value> {
    let show = Show::new();
    let work = control::perform(agent, request);
    tokio::pin!(work);
    let mut tick = tokio::time::interval(std::time::Duration::from_millis(200));
    let idle = Progress::default();
    loop {
        tokio::select! {
            result = &mut work => return Ok(result?),
            _ = tick.tick() => {
                let moment = control::moment_of(agent, request, &idle);
                show.set(moment.phase, moment.unit, moment.done, moment.total);
            }
        }
    }
}

/// Of all assignments, those that an admin disabled are no failure; one that was asked for is.
fn print_reports(
    value: serde_json::Value,
    format: Format,
    asked_for: bool,
) -> anyhow::Result<ExitCode> {
    let reports: Vec<RunReport> = serde_json::from_value(value.clone())?;
    match format.output {
        Output::Json => print::json(&value),
        Output::Text => print::runs(&reports),
    }
    let has_failed = |report: &&RunReport| {
        !report.error.is_empty() && (asked_for || report.result != RunResult::Disabled)
    };
    let failed: Vec<_> = reports.iter().filter(has_failed).collect();
    for report in &failed {
        print::problem(&format!("{}: {}", report.assignment, report.error));
    }
    Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn check_config(settings: &Settings, format: Format) -> anyhow::Result<ExitCode> {
    let loaded = config::load(settings.config.as_deref(), environment(), settings.flags())?;
    match format.output {
        Output::Json => print::json(&serde_json::to_value(&loaded.config)?),
        Output::Text => {
            loaded.values.iter().for_each(|value| print::line(&value.to_string()));
            let config = &loaded.config;
            print::line(&format!(
                "# serve {} and never {}: nginx: location ^~ /work/ {{ deny all; }}, rsyncd: exclude = /work/ .mirrornet/",
                config.publish().display(),
                config.work().display()
            ));
            let dirs =
                fence::writable(config).into_iter().collect::<std::collections::BTreeSet<_>>();
            let dirs: Vec<String> = dirs.iter().map(|dir| dir.display().to_string()).collect();
            print::line(&format!(
                "# confined: {}; writes only below {}",
                fence::close(config)?,
                dirs.join(", ")
            ));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn unpack_pack(
    pack: &Path,
    base: &Path,
    out: &Path,
    filter: Option<&Path>,
    dry_run: bool,
    format: Format,
) -> anyhow::Result<ExitCode> {
    let filter = match filter {
        None => Filter::all(),
        Some(file) => {
            let text = std::fs::read(file)
                .with_context(|| format!("the filter {} cannot be read", file.display()))?;
            let filter = Filter::parse_file(&text)
                .with_context(|| format!("the filter {} is not understood", file.display()))?;
            anyhow::ensure!(
                !filter.asks_for_rule_files(),
                "the filter {} asks for rule files in the tree (':'), which only a scan can read; \
                 write their rules into it",
                file.display()
            );
            filter
        }
    };
    let keep = |path: &TreePath, is_dir: bool| filter.decide(path, is_dir).kept;
    if dry_run {
        let lines = inspect::list(pack, &|path, is_dir| filter.keeps(path, is_dir))
            .with_context(|| format!("{} cannot be read", pack.display()))?;
        match format.output {
            Output::Json => print::json(&serde_json::to_value(&lines)?),
            Output::Text => print::listed(&lines),
        }
        return Ok(ExitCode::SUCCESS);
    }
    let on = if base.as_os_str() == "none" { None } else { Some(base) };
    let now = i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX);
    let unpacked = unpack(&Fs::disk(), pack, on, out, &keep, now).with_context(|| {
        let (pack, base, out) = (pack.display(), base.display(), out.display());
        format!("{pack} cannot be unpacked on the base {base} into {out}")
    })?;
    match format.output {
        Output::Json => print::json(&serde_json::to_value(&unpacked)?),
        Output::Text => print::unpacked(&unpacked, out),
    }
    Ok(ExitCode::SUCCESS)
}
