//! The log of a run: a text that an admin reads while it grows.
//!
//! A report says what a run came to; a log says how, in the order in which it happened, with what
//! rsync and the site's own commands printed. Three are kept of each assignment: that of the
//! latest run, that of the run before it, and that of the last run which changed the tree, because
//! the run that explains what lies there is often not the latest.
//!
//! ```text
//! DATA/logs/TREE@SITE/current.log     the latest run, or the one under way
//! DATA/logs/TREE@SITE/previous.log    the run before it
//! DATA/logs/TREE@SITE/changed.log     the last run that changed the tree (the same file as one of
//!                                     the others, by hard link, while that is kept)
//! ```
//!
//! A log never stops a run: where it cannot be written the run goes on without one. It is not synced
//! either; after a loss of power its end may be missing. What is logged comes from rsync servers and
//! from programs, so control characters are written as they would be in a source text.

mod shelf;

use std::{
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;

pub use self::shelf::{Follower, Kept, Shelf};

/// Longest log on the disk, in bytes, its last lines not counted.
const MAX_LEN: u64 = 1 << 20;
/// Longest line, in bytes.
const MAX_LINE: usize = 4 << 10;
/// With this a log says that its run is over.
const ENDED: &str = "run ended:";

/// The log of one run, or of none. Clones write to the same.
#[derive(Debug, Clone, Default)]
pub struct RunLog(Option<Arc<Mutex<Open>>>);

#[derive(Debug)]
struct Open {
    file: File,
    path: PathBuf,
    written: u64,
    left_out: u64,
}

impl RunLog {
    /// A log that nobody reads.
    pub fn none() -> Self {
        Self(None)
    }

    fn over(file: File, path: PathBuf) -> Self {
        let written = file.metadata().map_or(0, |metadata| metadata.len());
        Self(Some(Arc::new(Mutex::new(Open { file, path, written, left_out: 0 }))))
    }

    /// Writes each line of a text, with the time before it.
    pub fn line(&self, text: &str) {
        let Some(mut open) = self.lock() else { return };
        for line in text.lines() {
            if open.written >= MAX_LEN {
                open.left_out += 1;
            } else {
                open.write(line);
            }
        }
    }

    /// Says how the run ended. What comes later belongs to it all the same.
    pub fn end(&self, text: &str) {
        let Some(mut open) = self.lock() else { return };
        if open.left_out > 0 {
            let left_out = std::mem::take(&mut open.left_out);
            open.write(&format!("{left_out} lines were left out: this log is full"));
        }
        open.write(&format!("{ENDED} {text}"));
        // What follows is short: the site's commands have a limit of their own.
        open.written = open.written.min(MAX_LEN / 2);
    }

    /// Keeps it as that of the last run which changed the tree.
    pub fn keep_as_changed(&self) {
        let Some(open) = self.lock() else { return };
        let changed = open.path.with_file_name(shelf::CHANGED);
        let kept = std::fs::remove_file(&changed)
            .or_else(|error| match error.kind() {
                std::io::ErrorKind::NotFound => Ok(()),
                _ => Err(error),
            })
            .and_then(|()| std::fs::hard_link(&open.path, &changed));
        if let Err(error) = kept {
            tracing::warn!(path = %changed.display(), %error, "the log is not kept");
        }
    }

    fn lock(&self) -> Option<MutexGuard<'_, Open>> {
        Some(self.0.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Open {
    fn write(&mut self, line: &str) {
        let mut text = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ ").to_string();
        for c in line.chars() {
            if text.len() > MAX_LINE {
                text.push('…');
                break;
            }
            if c.is_control() && c != '\t' { text.extend(c.escape_unicode()) } else { text.push(c) }
        }
        text.push('\n');
        // Appended: whatever was read in between, it goes to the end.
        match self.file.write_all(text.as_bytes()) {
            Ok(()) => self.written += text.len() as u64,
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "the log cannot be written");
                // Once is enough to know it.
                self.written = u64::MAX / 2;
            }
        }
    }
}

/// At most about `most` bytes of whole lines: as many of the first as of the last.
fn shortened(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let half = most.saturating_sub(64) / 2;
    let begin = text[..text.floor_char_boundary(half)].rfind('\n').map_or(0, |at| at + 1);
    let from = text.ceil_char_boundary(text.len() - half);
    let end = text[from..].find('\n').map_or(text.len(), |at| from + at + 1);
    let out = end - begin;
    format!("{}… {out} bytes are left out here …\n{}", &text[..begin], &text[end..])
}

/// Whether a log says that its run is over.
fn has_ended(path: &Path) -> bool {
    let Ok(text) = std::fs::read(path) else { return true };
    let mark = format!("Z {ENDED}");
    text.windows(mark.len()).any(|window| window == mark.as_bytes())
}

#[cfg(test)]
mod tests;
