//! `filter preview`: what rules keep of a directory.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, Read as _, Write},
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::{Path, PathBuf},
};

use clap::Args;
use protocol::{
    filter::{
        MAX_RULE_FILE,
        preview::{Explanation, Preview as Engine, Tally},
    },
    path::TreePath,
};
use serde::Serialize;
use walkdir::{DirEntry, WalkDir};

use super::{Error, Print, read_rules};

/// Print what rules keep of a directory: one path on each line, directories with a `/` behind.
///
/// What is printed is what rsync would transfer with the same rules.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  mirrorctl filter preview --rules site.rules /srv/releases/fedora\n  mirrorctl filter preview --rules site.rules --explain /srv/releases/fedora"
)]
pub(in crate::ctl) struct Preview {
    /// File of rules, one on each line, as after rsync's `--filter`.
    #[arg(long, value_name = "FILE")]
    rules: PathBuf,
    /// End each path with a NUL byte instead of a line feed.
    #[arg(short = '0', long)]
    null: bool,
    /// Also print what is left out, with the rule that decided, and the sums of each rule. What
    /// lies in a directory that is left out is counted, not printed.
    #[arg(long, conflicts_with = "null")]
    explain: bool,
    /// The directory.
    dir: PathBuf,
}

/// One entry with what becomes of it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Entry {
    path: TreePath,
    directory: bool,
    bytes: u64,
    #[serde(flatten)]
    explanation: Explanation,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Explained {
    entries: Vec<Entry>,
    sums: Tally,
}

impl Preview {
    pub(in crate::ctl) fn run(self, print: &mut Print) -> Result<(), Error> {
        let filter = read_rules(&self.rules)?;
        if !self.dir.is_dir() {
            let source = io::ErrorKind::NotADirectory.into();
            return Err(Error::File { verb: "walk", path: self.dir, source });
        }
        let mut out = print.raw();
        let mut entries = Vec::new();
        let end = if self.null { b'\0' } else { b'\n' };
        let (explain, json) = (self.explain, print.is_json());
        let (sums, unreadable) = walk(&self.dir, &filter, explain, |entry| {
            if entry.explanation.through.is_some() {
                Ok(())
            } else if json {
                entries.extend((explain || entry.explanation.kept).then_some(entry));
                Ok(())
            } else if explain {
                let slash = if entry.directory { "/" } else { "" };
                writeln!(out, "{}{slash}: {}", entry.path, entry.explanation)
            } else if entry.explanation.kept {
                out.write_all(entry.path.as_bytes())?;
                out.write_all(if entry.directory { b"/" } else { b"" })?;
                out.write_all(&[end])
            } else {
                Ok(())
            }
        })?;
        if explain && !json {
            writeln!(out, "\n{sums}")?;
        }
        out.flush()?;
        drop(out);
        if json {
            print.result(&Explained { entries, sums }, |_| String::new())?;
        }
        if unreadable.is_empty() {
            return Ok(());
        }
        unreadable.iter().for_each(|error| print.note(&format!("mirrorctl: {error}")));
        let message = format!("{} directories could not be read", unreadable.len());
        Err(Error::Incomplete(message))
    }
}

/// Visits every entry that a walk comes to, in path order. Directories that are left out are
/// entered only to be counted, if `count_left_out`; others that cannot be read are returned.
fn walk(
    dir: &Path,
    filter: &protocol::filter::Filter,
    count_left_out: bool,
    mut each: impl FnMut(Entry) -> io::Result<()>,
) -> Result<(Tally, Vec<walkdir::Error>), Error> {
    let read = |at: Option<&TreePath>, name: &[u8]| read_rule_file(dir, at, name);
    let mut engine = Engine::new(filter, read).map_err(anyhow::Error::from)?;
    let mut unreadable = Vec::new();
    let mut left_out: Option<PathBuf> = None;
    let mut walk = WalkDir::new(dir).min_depth(1).sort_by_file_name().into_iter();
    while let Some(found) = walk.next() {
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                let at = error.path();
                if !left_out.as_ref().is_some_and(|out| at.is_some_and(|at| at.starts_with(out))) {
                    unreadable.push(error);
                }
                continue;
            }
        };
        left_out.take_if(|out| !found.path().starts_with(out));
        let path = match tree_path(dir, &found) {
            Err(_) if left_out.is_some() => continue,
            path => path?,
        };
        let directory = found.file_type().is_dir();
        let bytes = match directory {
            true => 0,
            // What went away meanwhile has no size; the sums are of what is there.
            false => found.metadata().map_or(0, |metadata| metadata.len()),
        };
        let explanation = engine.visit(&path, directory, bytes).map_err(anyhow::Error::from)?;
        if directory && !explanation.kept {
            if !count_left_out {
                walk.skip_current_dir();
            } else if left_out.is_none() {
                left_out = Some(found.into_path());
            }
        }
        each(Entry { path, directory, bytes, explanation })?;
    }
    Ok((engine.finish(), unreadable))
}

fn tree_path(dir: &Path, found: &DirEntry) -> Result<TreePath, Error> {
    let relative = found.path().strip_prefix(dir).unwrap_or(found.path());
    TreePath::parse(relative.as_os_str().as_bytes()).map_err(|error| {
        Error::Other(anyhow::anyhow!("{} cannot be mirrored: {error}", found.path().display()))
    })
}

/// A rule file inside the directory, if there is a regular file of that name.
fn read_rule_file(dir: &Path, at: Option<&TreePath>, name: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let mut path = dir.to_path_buf();
    if let Some(at) = at {
        path.push(OsStr::from_bytes(at.as_bytes()));
    }
    path.push(std::ffi::OsString::from_vec(name.to_vec()));
    match fs::symlink_metadata(&path) {
        Ok(metadata) if metadata.is_file() => {}
        Ok(_) => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    }
    let mut bytes = Vec::new();
    let limit = u64::try_from(MAX_RULE_FILE + 1).unwrap_or(u64::MAX);
    File::open(&path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}
