//! Running the daemon, and asking the one that runs.

use std::process::ExitCode;

use comfy_table::{Table, presets::NOTHING};
use protocol::units::ByteSize;
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;

use super::{ConfigArgs, FAILED, Output, PublishArgs, StatusArgs, print, setup};
use crate::{
    control::{self, Answer, Request, Status},
    publish::{Outcome, TreeStatus},
};

/// Runs a command that waits.
pub(super) fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(work)
}

pub(super) async fn run(args: ConfigArgs) -> anyhow::Result<ExitCode> {
    let config = setup::configuration(&args)?.config;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let running = crate::start(config).await?;
    print::line(format!("listening on {}", running.addr()));
    notify(&[sd_notify::NotifyState::Ready]);
    let code = tokio::select! {
        _ = terminate.recv() => ExitCode::SUCCESS,
        _ = interrupt.recv() => ExitCode::SUCCESS,
        () = running.stopped() => ExitCode::from(FAILED),
    };
    info!("stopping: what is open may finish");
    notify(&[sd_notify::NotifyState::Stopping]);
    running.stop().await;
    Ok(code)
}

/// Tells systemd, where there is one.
fn notify(state: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "systemd was not told");
    }
}

pub(super) async fn publish(args: PublishArgs) -> anyhow::Result<ExitCode> {
    let data = setup::data(&args.running)?;
    let tree = args.tree.clone();
    let request = Request::Publish { tree: args.tree, wait: args.wait };
    let spinner = args.wait.then(|| waiting(&format!("{tree}: scan, generation, packs")));
    let answer = control::ask(&data, &request).await;
    if let Some(spinner) = spinner {
        spinner.finish_and_clear();
    }
    let answer = answer?;
    let failed =
        matches!(&answer, Answer::Done { result: Outcome::Failed { .. } | Outcome::Held { .. } });
    match args.output {
        Output::Json => print::json(&answer)?,
        Output::Text => match &answer {
            Answer::Done { result } => print::line(format!("{tree}: {}", outcome(result))),
            _ => print::line(format!("{tree}: begun; `publisher status` shows what comes of it")),
        },
    }
    Ok(if failed { ExitCode::from(FAILED) } else { ExitCode::SUCCESS })
}

/// Something that moves, on a terminal; nothing elsewhere.
fn waiting(text: &str) -> indicatif::ProgressBar {
    let spinner = indicatif::ProgressBar::new_spinner().with_message(text.to_owned());
    spinner.enable_steady_tick(std::time::Duration::from_millis(120));
    spinner
}

pub(super) async fn status(args: StatusArgs) -> anyhow::Result<ExitCode> {
    let data = setup::data(&args.running)?;
    let Answer::Status(status) = control::ask(&data, &Request::Status).await? else {
        anyhow::bail!("the publisher answers something else; is it of another version?");
    };
    match args.output {
        Output::Json => print::json(&status)?,
        Output::Text => print_status(&status),
    }
    Ok(ExitCode::SUCCESS)
}

fn print_status(status: &Status) {
    let mut facts = Table::new();
    facts.load_style(NOTHING);
    let or_never = |time: Option<jiff::Timestamp>| time.map_or("never".into(), local);
    facts.add_row(["certificate until".into(), local(status.certificate_until)]);
    facts.add_row(["coordinator heard".into(), or_never(status.coordinator_heard)]);
    if let Some(since) = status.coordinator_silent_since {
        facts.add_row(["coordinator silent since".into(), local(since)]);
        facts.add_row(["autonomous trees alone from".into(), or_never(status.alone_from)]);
        facts.add_row(["autonomous trees alone until".into(), or_never(status.alone_until)]);
    }
    facts.add_row(["readers served until".into(), or_never(status.readers_until)]);
    facts.add_row([
        "rsync".to_owned(),
        status.rsync.clone().unwrap_or_else(|| "missing: no direct rsync".into()),
    ]);
    print::line(facts);
    let mut trees = Table::new();
    trees.load_style(NOTHING).set_header(["TREE", "GENERATION", "LAST LOOK", "CAME TO"]);
    for (tree, status) in &status.trees {
        trees.add_row([
            tree.to_string(),
            status.generation.map_or("-".into(), |number| number.to_string()),
            or_never(status.at),
            status.last.as_ref().map_or_else(|| "-".into(), outcome) + &untold(status),
        ]);
    }
    print::line(trees);
}

/// What the coordinator does not know yet.
fn untold(status: &TreeStatus) -> String {
    let since = |since| format!(", coordinator unreachable since {}", local(since));
    let alone = status.alone.map(since).unwrap_or_default();
    match status.untold {
        0 => alone,
        1 => format!("{alone}; 1 generation to be told when it is back"),
        some => format!("{alone}; {some} generations to be told when it is back"),
    }
}

fn outcome(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Unchanged { generation } => format!("unchanged since generation {generation}"),
        Outcome::Announced { generation, entries, bytes, pack_bytes } => format!(
            "generation {generation} announced: {entries} entries, {}, packs of {}",
            ByteSize(*bytes),
            ByteSize(*pack_bytes)
        ),
        Outcome::Alone { generation, entries, bytes, pack_bytes, since } => format!(
            "went on alone as generation {generation} (coordinator unreachable since {}): {entries} entries, {}, packs of {}",
            local(*since),
            ByteSize(*bytes),
            ByteSize(*pack_bytes)
        ),
        Outcome::Held { reason, manifest } => {
            format!("held: {reason} (mirrorctl approve or reject; manifest {manifest})")
        }
        Outcome::Failed { reason } => format!("failed: {reason}"),
    }
}

/// Local time with its zone.
fn local(time: jiff::Timestamp) -> String {
    time.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S %Z").to_string()
}
