//! The only module that prints.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "this is where output belongs")]

use std::{io::Write, path::Path, process::ExitCode};

use certs::identity::directory::Membership;
use comfy_table::{Table, presets::NOTHING};
use filetree::pack::{
    inspect::{Does, Line},
    unpack::Unpacked,
};
use jiff::{Timestamp, tz::TimeZone};
use protocol::{generation::Version, v1::agent::RunReport};

use super::args::Output;
use crate::{
    agent::{TrashStatus, result_name},
    claim::Claim,
    config::Config,
    status::{LogText, Status},
};

/// An error with its causes, and the exit code.
pub(super) fn failure(error: &anyhow::Error) -> ExitCode {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        // Transparent wrappers would say it twice.
        if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    match certs::tls::refusal(error.as_ref()) {
        Some(refusal) => problem(&format!("{refusal}: {text}")),
        None => problem(&text),
    }
    ExitCode::FAILURE
}

/// One line of trouble.
pub(super) fn problem(text: &str) {
    eprintln!("mirror-agent: {text}");
}

/// One line.
pub(super) fn line(text: &str) {
    println!("{text}");
}

/// Bytes as they are.
pub(super) fn raw(bytes: &[u8]) -> std::io::Result<()> {
    std::io::stdout().write_all(bytes)
}

/// For programs.
pub(super) fn json(value: &serde_json::Value) {
    println!("{value:#}");
}

/// Whose the storage was that is ours now.
pub(super) fn claimed(config: &Config, before: Option<&Claim>, output: Output) {
    if output == Output::Json {
        return json(&serde_json::json!({ "work": config.work(), "before": before }));
    }
    let work = config.work().display().to_string();
    match before {
        Some(before) => println!(
            "{work} belonged to agent {} of network {} (data directory {}) and is this agent's now",
            before.agent,
            before.network,
            before.data.display()
        ),
        None => println!("{work} belonged to nobody and is this agent's now"),
    }
}

/// What an enrollment made of us, and what comes next.
pub(super) fn enrolled(membership: &Membership, config: &Config, output: Output) {
    if output == Output::Json {
        let value = serde_json::json!({
            "network": membership.network, "role": membership.role, "name": membership.name,
            "data": config.data,
        });
        return json(&value);
    }
    println!(
        "enrolled as {} {} of network {}",
        membership.role, membership.name, membership.network
    );
    println!("next: mirror-agent run --data {} --storage DIR", config.data.display());
}

/// How everything stands.
pub(super) fn status(status: &Status) {
    println!("agent {} of network {}", status.agent, status.network);
    match (&status.trouble, status.head_until) {
        (Some(trouble), _) => println!("coordinator: {trouble}"),
        (None, Some(until)) if status.stale => println!("orders: STALE since {}", time(until)),
        (None, Some(until)) => println!("orders: good until {}", time(until)),
        (None, None) => println!("orders: none yet"),
    }
    println!("certificate: good until {}", time(status.certificate_until));
    if let Some(mandates) = status.mandates() {
        println!("mandates: {mandates}");
    }
    if status.rsync.is_none() {
        println!("rsync: not installed; trees of stock servers need it");
    }
    if let Some(warning) = &status.rsync_warning {
        println!("rsync: {warning}");
    }
    if let Some(confined) = &status.confined {
        println!("confined: {confined}");
    }
    if status.scrub_paused {
        println!("scrubbing: paused; 'mirror-agent scrub resume' lets it go on");
    }
    if status.unsent_reports > 0 {
        println!("reports that wait for the coordinator: {}", status.unsent_reports);
    }
    println!();
    let mut table =
        plain(&["ASSIGNMENT", "STATE", "HOLDS", "TARGET", "FILES", "BYTES", "LAST RUN"]);
    for item in &status.assignments {
        let state = serde_json::to_value(item.state).unwrap_or_default();
        table.add_row([
            item.name.to_string(),
            state.as_str().unwrap_or_default().to_owned(),
            version(item.held),
            version(item.target),
            item.files.to_string(),
            size(item.bytes),
            item.last_run.map_or_else(|| "-".into(), time),
        ]);
    }
    println!("{table}");
    for item in &status.assignments {
        if let Some(withdrawn) = &item.withdrawn {
            let (name, next) = (&item.name, time(withdrawn.next));
            println!(
                "{name}: {} removed paths stay readable, the first until {next}",
                withdrawn.paths
            );
        }
        if let Some(scrub) = item.scrub.as_ref().filter(|scrub| !scrub.damaged.is_empty()) {
            let (count, first) = (scrub.damaged.len(), scrub.damaged.first());
            let first = first.map(ToString::to_string).unwrap_or_default();
            println!("{}: {count} published files are damaged, the first is {first}", item.name);
        }
        if let Some(begun) = item.scrub.as_ref().and_then(|scrub| scrub.begun) {
            let read = item.scrub.as_ref().map_or(0, |scrub| scrub.checked.bytes);
            println!("{}: scrubbed since {}, {} so far", item.name, time(begun), size(read));
        }
        if let Some(error) = &item.error {
            println!("{}: {error}", item.name);
        }
    }
}

/// What runs did.
pub(super) fn runs(runs: &[RunReport]) {
    for run in runs {
        let changes = &run.changes;
        println!(
            "{}  {}  {}  {} -> {}  +{} ~{} -{}",
            time(run.started),
            run.assignment,
            result_name(run.result),
            version(run.from),
            version(run.to),
            changes.added,
            changes.changed + changes.attributes,
            changes.deleted,
        );
        for way in &run.ways {
            println!(
                "    {:<8} {} files, {} of content, {} received, {} sent, from {}",
                way.way,
                way.files,
                size(way.content_bytes),
                size(way.received_bytes),
                size(way.sent_bytes),
                way.point
            );
        }
        for encoder in &run.encoders {
            println!(
                "    encoder {:<6} {} files, {} from {}",
                encoder.encoder,
                encoder.files,
                size(encoder.content_bytes),
                size(encoder.payload_bytes)
            );
        }
        for reason in &run.not_taken {
            let detail = if reason.detail.is_empty() {
                String::new()
            } else {
                format!(": {}", reason.detail)
            };
            println!(
                "    not by {}, {} files: {}{detail}",
                reason.way, reason.files, reason.reason
            );
        }
        if let Some(checked) = &run.checked {
            println!(
                "    read {} files, {}: {} wrong, {} repaired, {} moved to the trash",
                checked.files,
                size(checked.bytes),
                checked.wrong(),
                checked.repaired,
                checked.trashed
            );
        }
        if let Some(switch) = &run.switch {
            println!("    switch {switch}");
        }
        if let Some(foreseen) = &run.foreseen {
            let tell = |paths: &[String], what: &str| {
                paths.iter().for_each(|path| println!("    {what} {path}"));
            };
            tell(&foreseen.would_transfer, "would transfer");
            tell(&foreseen.would_delete, "would delete");
            tell(&foreseen.would_link, "would link");
            if foreseen.unnamed > 0 {
                println!("    and {} more", foreseen.unnamed);
            }
        }
        run.notices.iter().for_each(|notice| println!("    note: {notice}"));
        if !run.error.is_empty() {
            println!("    {}", run.error);
        }
    }
}

/// What can be brought back.
pub(super) fn trash(trash: &[TrashStatus]) {
    let mut table = plain(&["ASSIGNMENT", "BATCH", "SINCE", "CAUSE", "FILES", "BYTES", "FIRST"]);
    for batch in trash {
        let cause = serde_json::to_value(batch.cause).unwrap_or_default();
        table.add_row([
            batch.assignment.to_string(),
            batch.batch.clone(),
            time(batch.since),
            cause.as_str().unwrap_or_default().to_owned(),
            batch.files.to_string(),
            size(batch.bytes),
            batch.paths.first().map_or_else(|| "-".into(), ToString::to_string),
        ]);
    }
    println!("{table}");
}

/// Logs, under their assignments' names where there are several.
pub(super) fn logs(logs: &[LogText]) {
    for log in logs {
        if logs.len() > 1 {
            println!("== {}", log.assignment);
        }
        match &log.text {
            // Whatever could harm a terminal was made harmless when it was written.
            Some(text) => print!("{text}"),
            None => println!("no such log of {} yet", log.assignment),
        }
    }
}

/// What a pack would do.
pub(super) fn listed(lines: &[Line]) {
    let mut bytes = 0;
    for line in lines {
        let does = match (line.does, line.encoder) {
            (Does::Put, Some(encoder)) => encoder.as_str(),
            (Does::Put, None) => "put",
            (Does::Attributes, _) => "attributes",
            (Does::Delete, _) => "delete",
        };
        let size = line.size.map_or_else(String::new, |size| size.to_string());
        bytes += line.size.unwrap_or(0);
        println!("{does:10} {size:>14} {}", line.path);
    }
    println!("{} entries, {} of content; nothing was unpacked", lines.len(), size(bytes));
}

/// What an unpacking made.
pub(super) fn unpacked(unpacked: &Unpacked, out: &Path) {
    println!("{} is {}", out.display(), unpacked.manifest);
    println!("{} files unchanged", unpacked.unchanged_files);
    for (encoder, files, bytes) in &unpacked.made_files {
        println!("{files} files of {} by {encoder}", size(*bytes));
    }
    println!("{} of frames", size(unpacked.frame_bytes));
}

fn plain(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(header.to_vec());
    table
}

fn version(version: Option<Version>) -> String {
    version.map_or_else(|| "-".into(), |version| version.to_string())
}

/// Local time with its zone.
fn time(at: Timestamp) -> String {
    at.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S %Z").to_string()
}

fn size(bytes: u64) -> String {
    indicatif::HumanBytes(bytes).to_string()
}
