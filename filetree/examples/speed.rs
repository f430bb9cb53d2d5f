//! Measures a scan of an unchanged tree beside `find`, and a switch with few changes.
//!
//! `cargo run --release -p filetree --example speed -- DIR FILES`: DIR is made and removed.

#![expect(clippy::print_stdout, reason = "a measurement prints its figures")]

use std::{
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::Instant,
};

use filetree::{
    area::{Area, Place, Target},
    fs::{Fs, Op},
    plan::View,
    scan::{ScanOptions, ScanRecord, scan},
    switch::SwitchOptions,
};
use protocol::{
    digest::Digest,
    generation::{Epoch, Generation, Version},
    manifest::{Entry, EntryKind, Manifest},
    path::TreePath,
};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

const ROUNDS: usize = 7;
const CHANGES: usize = 1_000;

fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let dir = arguments.next().ok_or("which directory?")?;
    let files: usize = arguments.next().ok_or("how many files?")?.parse()?;
    let dir = Path::new(&dir);
    std::fs::create_dir(dir)?;
    let outcome = scans(dir, files).and_then(|()| switches(dir, files));
    std::fs::remove_dir_all(dir)?;
    outcome
}

fn name(number: usize) -> String {
    format!("d{:03}/e{:02}/file-{number}.txt", number / 1000, number / 100 % 10)
}

fn scans(dir: &Path, files: usize) -> Outcome<()> {
    let tree = dir.join("tree");
    for number in 0..files {
        let path = tree.join(name(number));
        if number % 100 == 0 {
            std::fs::create_dir_all(path.parent().ok_or("no parent")?)?;
        }
        std::fs::write(path, number.to_string())?;
    }
    let root = Fs::disk().open_root(&tree)?;
    let options = ScanOptions::new(i64::MAX);
    let first = Instant::now();
    let mut record = scan(&root, &ScanRecord::empty(), &options)?.record;
    println!("first scan of {files} files: {:.2} s", first.elapsed().as_secs_f64());
    let (mut ours, mut finds) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let before = root.fs().counters().snapshot();
        let start = Instant::now();
        let bytes = record.encode();
        record = ScanRecord::decode(&bytes)?;
        let again = scan(&root, &record, &options)?;
        ours.push(start.elapsed().as_secs_f64());
        let opened = root.fs().counters().snapshot().since(&before).count(Op::OpenFile);
        assert_eq!((opened, again.stats.read_files), (0, 0));
        let start = Instant::now();
        let found = Command::new("find")
            .arg(&tree)
            .args(["-printf", "%p %s %T@ %C@ %i %m %y\n"])
            .stdout(Stdio::null())
            .status()?;
        assert!(found.success());
        finds.push(start.elapsed().as_secs_f64());
    }
    let (ours, find) = (median(ours), median(finds));
    println!(
        "unchanged scan, its record read and written: {ours:.3} s; find -printf: {find:.3} s; \
         ratio {:.2}",
        ours / find
    );
    std::fs::remove_dir_all(&tree)?;
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn manifest(files: usize, round: usize) -> Outcome<Arc<Manifest>> {
    let entry = |path: &str, kind| -> Outcome<Entry> {
        let path = TreePath::parse(path.as_bytes())?;
        let mode = if kind == EntryKind::Dir { 0o755 } else { 0o644 };
        Ok(Entry { path, mode, mtime: 1_600_000_000_000_000_000, kind })
    };
    let mut entries = Vec::new();
    for number in 0..files {
        let file = name(number);
        if number % 1000 == 0 {
            entries.push(entry(&file[..4], EntryKind::Dir)?);
        }
        if number % 100 == 0 {
            entries.push(entry(&file[..8], EntryKind::Dir)?);
        }
        let content = content(files, round, number);
        let digest = Digest::of(content.as_bytes());
        let size = content.len() as u64;
        entries.push(entry(&file, EntryKind::File { size, digest, link_group: None })?);
    }
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(Arc::new(Manifest::new(entries)?))
}

/// Every round changes other files, all over the tree.
fn content(files: usize, round: usize, number: usize) -> String {
    let stride = (files / CHANGES).max(1);
    let last = (1..=round).rev().find(|round| number % stride == round % stride).unwrap_or(0);
    format!("{number} in {last}")
}

fn switches(dir: &Path, files: usize) -> Outcome<()> {
    let place = Place {
        publish: dir.join("pub"),
        work: dir.join("work"),
        name: "speed".into(),
        path: TreePath::parse(b"tree")?,
    };
    let fs = Fs::disk();
    let mut have = Arc::new(Manifest::empty());
    for round in 0..4 {
        let want = manifest(files, round)?;
        let mut area = Area::open(&fs, place.clone())?;
        let start = Instant::now();
        let plan = area.plan(&have, View::AS_IS, &want, View::AS_IS)?;
        let planned = start.elapsed().as_secs_f64();
        for need in plan.needs() {
            let need = need?;
            let number = number_of(&need.path);
            let mut writer = area.staging().writer(&need)?;
            writer.push(content(files, round, number).as_bytes())?;
            writer.finish()?;
        }
        area.staging().seal()?;
        let version = Version { epoch: Epoch(1), generation: Generation(round as u64 + 1) };
        let target = Target { version, manifest: want.digest(), note: String::new() };
        let before = fs.counters().snapshot();
        let start = Instant::now();
        // An hour later each time, so that a retired tree may be used again.
        let report = area.switch(&plan, &target, &SwitchOptions::new(3600 * round as i64))?;
        let done = fs.counters().snapshot().since(&before);
        println!(
            "generation {round}: plan {planned:.3} s; switch {:.3} s; {} changed of {files}; \
             {} links, {} changes to the disk, {} looks at names; fresh twin: {}",
            start.elapsed().as_secs_f64(),
            report.changed_entries,
            done.count(Op::Link),
            done.mutations(),
            done.count(Op::Stat),
            report.fresh_twin,
        );
        have = want;
    }
    Ok(())
}

fn number_of(path: &TreePath) -> usize {
    let name = String::from_utf8_lossy(path.name()).into_owned();
    let digits: String = name.chars().filter(char::is_ascii_digit).collect();
    digits.parse().unwrap_or(0)
}
