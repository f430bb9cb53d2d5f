//! Packs of plain directories, without any daemon: for sites that are fed by disk.

use std::{
    io::{IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::atomic::AtomicBool,
};

use anyhow::Context as _;
use clap::Args;
use comfy_table::{Table, presets::NOTHING};
use filetree::{
    delta::choose::EncoderChoice,
    fs::Fs,
    pack::{
        BaseSource, DirSource, NoBase,
        inspect::{extract_delta, inspect},
        write::{PackOptions, PackSummary, Phase, write_pack},
    },
    scan::{self, ScanOptions, ScanRecord, scan},
};
use indicatif::{ProgressBar, ProgressStyle};
use jiff::Timestamp;
use protocol::{
    filter::{Filter, Side, Walk},
    manifest::Manifest,
    path::TreePath,
    units::ByteSize,
};

use super::{Output, print};

#[derive(Debug, Args)]
pub(super) struct PackArgs {
    /// The old directory, or `none` for a pack from nothing
    #[arg(long, value_name = "DIR|none")]
    from: PathBuf,
    /// The new directory
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// The file to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// A file of rsync filter rules: what both directories are taken as
    #[arg(long, value_name = "FILE")]
    filter: Option<PathBuf>,
    /// Which encoder: auto, rsync, patch, group or whole; only auto looks inside archives
    #[arg(long, default_value = "auto")]
    encoder: EncoderChoice,
    /// zstd level, 1 to 22; by default it follows from what is packed
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..=22))]
    level: Option<i32>,
    /// Memory that encoders may use, roughly
    #[arg(long, value_name = "SIZE", default_value = "512MiB")]
    memory: ByteSize,
    /// How to print the summary
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Debug, Args)]
pub(super) struct InspectArgs {
    /// The pack
    pack: PathBuf,
    /// Write the librsync delta of this path to standard output (or --out), as rdiff takes it
    #[arg(long, value_name = "PATH")]
    extract: Option<String>,
    /// Where the extracted delta goes
    #[arg(long, value_name = "FILE", requires = "extract")]
    out: Option<PathBuf>,
    /// How to print what the pack consists of
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

pub(super) fn pack(args: &PackArgs) -> anyhow::Result<ExitCode> {
    let filter = match &args.filter {
        Some(path) => read_filter(path)?,
        None => Filter::all(),
    };
    let fs = Fs::disk();
    let (old, base): (Option<Manifest>, Box<dyn BaseSource>) = match args.from.to_str() {
        Some("none") => (None, Box::new(NoBase)),
        _ => {
            let manifest = manifest(&fs, &args.from, &filter)?;
            (Some(manifest), Box::new(DirSource::new(fs.open_root(&args.from)?)))
        }
    };
    let new = manifest(&fs, &args.to, &filter)?;
    let content = DirSource::new(fs.open_root(&args.to)?);
    let bar = bytes_bar();
    let progress = |progress: filetree::pack::write::Progress| {
        bar.set_message(match progress.phase {
            Phase::Encode => "pack",
            Phase::Write => "write",
        });
        bar.set_length(progress.total_bytes);
        bar.set_position(progress.done_bytes);
    };
    let options = PackOptions {
        encoders: args.encoder,
        level: args.level,
        memory: args.memory.0,
        progress: &progress,
        ..PackOptions::new()
    };
    let written = write_pack(old.as_ref(), &*base, &new, &content, &args.out, &options);
    bar.finish_and_clear();
    let summary = written?;
    match args.output {
        Output::Json => print::json(&summary)?,
        Output::Text => print_summary(&args.out, &summary),
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn inspect_pack(args: &InspectArgs) -> anyhow::Result<ExitCode> {
    if let Some(path) = &args.extract {
        let path = TreePath::parse_text(path).with_context(|| format!("{path:?} is no path"))?;
        let (delta, _base_entry) = extract_delta(&args.pack, &path)?;
        match &args.out {
            Some(out) => {
                std::fs::write(out, delta)
                    .with_context(|| format!("cannot write {}", out.display()))?;
            }
            None if std::io::stdout().is_terminal() => {
                anyhow::bail!("a delta is no text: give --out FILE, or send the output to a file");
            }
            None => std::io::stdout().write_all(&delta)?,
        }
        return Ok(ExitCode::SUCCESS);
    }
    let inspection = inspect(&args.pack)?;
    if args.output == Output::Json {
        print::json(&inspection)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut facts = Table::new();
    facts.load_style(NOTHING);
    let from = inspection.from.map_or("nothing".into(), |from| from.to_string());
    facts.add_row(["from".to_owned(), from]);
    facts.add_row(["to".to_owned(), inspection.to.to_string()]);
    let number = |n: u64| n.to_string();
    facts.add_row(["length".to_owned(), number(inspection.length)]);
    let index = format!("{} in {} blocks", inspection.index_length, inspection.index_blocks);
    facts.add_row(["of that index".to_owned(), index]);
    facts.add_row(["frames".to_owned(), number(inspection.frames)]);
    facts.add_row(["frames on old content".to_owned(), number(inspection.frames_with_base)]);
    facts.add_row(["entries put".to_owned(), number(inspection.put)]);
    facts.add_row(["attributes changed".to_owned(), number(inspection.attributes)]);
    facts.add_row(["deleted".to_owned(), number(inspection.deleted)]);
    let share = |of: u64| match of {
        0 => "nothing".to_owned(),
        of => format!("{of} ({:.1} % saved)", (1.0 - inspection.length as f64 / of as f64) * 100.0),
    };
    facts.add_row(["whole files".to_owned(), share(inspection.content_bytes)]);
    facts.add_row(["rsync (estimate)".to_owned(), share(inspection.rsync_estimate_bytes)]);
    print::line(facts);
    let rows = inspection.encoders.iter().map(|share| {
        (share.encoder.to_string(), share.files, share.content_bytes, share.stored_bytes)
    });
    print_encoders(rows);
    Ok(ExitCode::SUCCESS)
}

fn read_filter(path: &Path) -> anyhow::Result<Filter> {
    let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Filter::parse_file(&text).with_context(|| format!("{} is not a filter", path.display()))
}

fn manifest(fs: &Fs, path: &Path, filter: &Filter) -> anyhow::Result<Manifest> {
    static NEVER: AtomicBool = AtomicBool::new(false);
    let root = fs.open_root(path)?;
    let bar = bytes_bar().with_message(format!("scan {}", path.display()));
    let keep = |path: &TreePath, is_dir: bool| filter.decide(path, is_dir).kept;
    let progress = |progress: scan::Progress| {
        bar.set_length(progress.total_bytes);
        bar.set_position(progress.bytes);
    };
    let now = i64::try_from(Timestamp::now().as_nanosecond())?;
    let rule_files = filter.asks_for_rule_files().then(|| Walk::new(filter, Side::Sender));
    let options = ScanOptions {
        keep: &keep,
        rule_files: rule_files.as_ref(),
        progress: &progress,
        cancel: &NEVER,
        ..ScanOptions::new(now)
    };
    let scanned = scan(&root, &ScanRecord::empty(), &options);
    bar.finish_and_clear();
    let scanned = scanned.with_context(|| format!("{} cannot be taken", path.display()))?;
    for left_out in &scanned.left_out {
        tracing::warn!(path = %left_out.path, why = left_out.why, "left out");
    }
    Ok(scanned.manifest)
}

/// Bytes, rate and time left, on a terminal; nothing elsewhere.
fn bytes_bar() -> ProgressBar {
    let template = "{msg:12} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
    let style = ProgressStyle::with_template(template);
    ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn print_summary(out: &Path, summary: &PackSummary) {
    print::line(format!(
        "{}: {} bytes for {} bytes of content, {} operations",
        out.display(),
        summary.length,
        summary.content_bytes,
        summary.operations
    ));
    print_encoders(summary.encoders.iter().filter(|share| share.files > 0).map(|share| {
        (share.encoder.to_string(), share.files, share.content_bytes, share.stored_bytes)
    }));
    for (reason, files) in &summary.without_delta {
        print::line(format!("{files} files without a delta: {reason}"));
    }
}

fn print_encoders(rows: impl Iterator<Item = (String, u64, u64, u64)>) {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(["ENCODER", "FILES", "CONTENT", "STORED"]);
    for (encoder, files, content, stored) in rows {
        table.add_row([encoder, files.to_string(), content.to_string(), stored.to_string()]);
    }
    print::line(table);
}
