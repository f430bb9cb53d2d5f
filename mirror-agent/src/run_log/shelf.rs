//! The logs of every assignment, on the disk.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, Read as _, Seek as _, SeekFrom},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use protocol::{spec::AssignmentName, v1::agent::MAX_LOG};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{MAX_LEN, RunLog, has_ended, shortened};

const CURRENT: &str = "current.log";
const PREVIOUS: &str = "previous.log";
pub(super) const CHANGED: &str = "changed.log";
/// How often one looks whether a log has grown.
const TICK: Duration = Duration::from_millis(200);

/// Which of an assignment's logs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kept {
    /// Of the latest run, or of the one under way.
    #[default]
    Current,
    /// Of the run before it.
    Previous,
    /// Of the last run that changed the tree.
    Changed,
}

impl Kept {
    const ALL: [Self; 3] = [Self::Current, Self::Previous, Self::Changed];

    fn file(self) -> &'static str {
        match self {
            Self::Current => CURRENT,
            Self::Previous => PREVIOUS,
            Self::Changed => CHANGED,
        }
    }
}

/// The directory of all logs.
#[derive(Debug)]
pub struct Shelf(PathBuf);

impl Shelf {
    /// That of a data directory.
    pub fn of(data: &Path) -> Self {
        Self(data.join("logs"))
    }

    /// Begins the log of a run; what was the current one becomes the previous.
    pub fn begin(&self, name: &AssignmentName, id: Uuid) -> RunLog {
        let begun = self.rotate(name).and_then(|path| Ok((create(&path)?, path)));
        match begun {
            Ok((file, path)) => {
                let log = RunLog::over(file, path);
                let version = env!("CARGO_PKG_VERSION");
                log.line(&format!("run {id} of {name} begins (mirror-agent {version})"));
                log
            }
            Err(error) => {
                tracing::warn!(assignment = %name, %error, "the run has no log");
                RunLog::none()
            }
        }
    }

    /// Goes on with the log of the latest run.
    pub fn resume(&self, name: &AssignmentName) -> RunLog {
        let path = self.path(name, Kept::Current);
        match append(&path) {
            Ok(file) => RunLog::over(file, path),
            Err(_) => RunLog::none(),
        }
    }

    /// One of the logs; nothing where it is not kept.
    pub fn read(&self, name: &AssignmentName, kept: Kept) -> io::Result<Option<String>> {
        let file = match File::open(self.path(name, kept)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut text = Vec::new();
        file.take(MAX_LEN * 2).read_to_end(&mut text)?;
        Ok(Some(String::from_utf8_lossy(&text).into_owned()))
    }

    /// The log of that run, if it is one of those that are kept.
    pub fn of_run(&self, name: &AssignmentName, id: Uuid) -> Option<String> {
        let mark = format!("run {id} of ");
        let mut texts = Kept::ALL.into_iter().filter_map(|kept| self.read(name, kept).ok()?);
        texts.find(|text| text.lines().next().is_some_and(|first| first.contains(&mark)))
    }

    /// As much of a run's log as goes with its report: at most [`MAX_LOG`] bytes, its beginning and
    /// its end; nothing where it is not kept.
    pub fn excerpt(&self, name: &AssignmentName, id: Uuid) -> String {
        self.of_run(name, id).map_or_else(String::new, |text| shortened(&text, MAX_LOG))
    }

    /// Every assignment that has logs, by name.
    pub fn names(&self) -> Vec<AssignmentName> {
        let entries = fs::read_dir(&self.0).into_iter().flatten().filter_map(Result::ok);
        let mut names: Vec<AssignmentName> =
            entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        names.sort();
        names
    }

    /// Forgets an assignment's logs.
    pub fn remove(&self, name: &AssignmentName) {
        match fs::remove_dir_all(self.dir(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(assignment = %name, %error, "its logs stay");
            }
            _ => {}
        }
    }

    /// Begins to follow an assignment's latest log.
    pub fn follow(&self, name: &AssignmentName) -> Follower {
        Follower { path: self.path(name, Kept::Current), open: None }
    }

    fn dir(&self, name: &AssignmentName) -> PathBuf {
        self.0.join(name.to_string())
    }

    fn path(&self, name: &AssignmentName, kept: Kept) -> PathBuf {
        self.dir(name).join(kept.file())
    }

    /// Makes room for a new log, and gives its place.
    fn rotate(&self, name: &AssignmentName) -> io::Result<PathBuf> {
        DirBuilder::new().recursive(true).mode(0o750).create(self.dir(name))?;
        let current = self.path(name, Kept::Current);
        if !has_ended(&current) {
            self.resume(name).end("not at all: the program ended before it did");
        }
        match fs::rename(&current, self.path(name, Kept::Previous)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(current),
        }
    }
}

/// Reads an assignment's latest log while it grows, then the next one, and so on.
pub struct Follower {
    path: PathBuf,
    open: Option<Tail>,
}

impl Follower {
    /// The next whole lines, as soon as there are some.
    pub async fn next(&mut self) -> String {
        loop {
            if let Some(text) = self.look() {
                return text;
            }
            tokio::time::sleep(TICK).await;
        }
    }

    /// The next whole lines; nothing once the run is over.
    pub async fn next_of_run(&mut self) -> Option<String> {
        loop {
            let is_over = has_ended(&self.path);
            match self.look() {
                Some(text) => return Some(text),
                None if is_over => return None,
                None => tokio::time::sleep(TICK).await,
            }
        }
    }

    fn look(&mut self) -> Option<String> {
        let newest = File::open(&self.path).ok().and_then(|file| Tail::new(file).ok());
        // What is left of an older log comes before the newer one.
        let rest = self.open.as_mut().map(Tail::rest).unwrap_or_default();
        if !rest.is_empty() {
            return Some(rest);
        }
        let newest = newest?;
        if self.open.as_ref().is_none_or(|open| open.inode != newest.inode) {
            let text = self.open.insert(newest).rest();
            return Some(text).filter(|text| !text.is_empty());
        }
        None
    }
}

/// A log that is being read while it grows.
struct Tail {
    file: File,
    inode: u64,
}

impl Tail {
    fn new(file: File) -> io::Result<Self> {
        Ok(Self { inode: file.metadata()?.ino(), file })
    }

    /// The whole lines that were added since the last call; nothing where it cannot be read.
    fn rest(&mut self) -> String {
        let mut text = Vec::new();
        if (&self.file).take(64 << 10).read_to_end(&mut text).is_err() {
            return String::new();
        }
        let whole = text.iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1);
        let back = i64::try_from(text.len() - whole).unwrap_or(0);
        if back > 0 && self.file.seek(SeekFrom::Current(-back)).is_err() {
            return String::new();
        }
        String::from_utf8_lossy(&text[..whole]).into_owned()
    }
}

fn create(path: &Path) -> io::Result<File> {
    File::options().read(true).append(true).create_new(true).mode(0o640).open(path)
}

fn append(path: &Path) -> io::Result<File> {
    File::options().read(true).append(true).open(path)
}
