//! The rsync process: how it is started, watched and ended.
//!
//! A hostile server has written files outside of the destination, read the client's files, made
//! clients delete, and switched off their time limits. So rsync is a process of its own group
//! with an empty environment, works in an empty private directory, is told exactly which files to
//! bring, is never asked to delete, and is ended by *our* clocks: one for the whole run and one
//! for silence. It runs in a cage ([`filetree::confine`]): the kernel lets it write its stage, read
//! the tree that it compares with, and take so much memory, time and room and no more.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use filetree::confine::{Bounds, Cage, Confine, find_program};
use rustix::process::Signal;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader},
    process::Command,
    time::interval,
};

use super::{
    exit::{Exit, Failure, classify},
    figures::Figures,
    listing::MAX_LINE,
    pipe::{Pipe, TOKEN_ENV},
};
use crate::{
    process::{Group, lines},
    run_log::RunLog,
};

/// The word by which this program, as its first argument, is asked to become a caged rsync.
pub const CAGED: &str = "rsync-caged";

/// Address space of one rsync process: 20 million names need 2 GiB of it.
const MEMORY_BYTES: u64 = 4 << 30;
/// Files that one rsync process may have open.
const OPEN_FILES: u64 = 256;
/// Computing time of a run that brings nothing.
const CPU_SECONDS: u64 = 3600;
/// How fast the slowest machine digests and decompresses what comes.
const CPU_BYTES_A_SECOND: u64 = 4 << 20;

/// Messages that are kept of an rsync run, in bytes.
const MAX_STDERR: usize = 64 << 10;

/// Time limits of a run.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// For the whole run.
    pub total: Duration,
    /// Without a byte from the server.
    pub silence: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { total: Duration::from_secs(24 * 3600), silence: Duration::from_secs(300) }
    }
}

/// The programs that a run needs.
#[derive(Debug, Clone)]
pub struct Programs {
    /// rsync itself: a name that is looked up in PATH, or a path.
    pub rsync: PathBuf,
    /// This program, by absolute path: rsync calls it back for its connection.
    pub helper: PathBuf,
    /// Whether rsync is confined.
    pub confine: Confine,
    /// Whether this rsync is safer when a server has to send its whole list first.
    pub list_first: bool,
}

/// What one run of rsync needs.
#[derive(Debug, Clone, Default)]
pub struct Needs {
    /// Files, and directories with everything below, that it reads.
    pub read: Vec<PathBuf>,
    /// Directories that it writes.
    pub write: Vec<PathBuf>,
    /// Bytes of the largest file that it brings.
    pub file_bytes: u64,
    /// Bytes of all files that it brings.
    pub total_bytes: u64,
    /// Most bytes that an honest server sends for it.
    pub received_bytes: u64,
}

impl Needs {
    fn cage(&self, programs: &Programs, rsync: &Path) -> Cage {
        Cage {
            confine: programs.confine,
            read: self.read.clone(),
            write: self.write.clone(),
            programs: vec![rsync.to_owned(), programs.helper.clone()],
            bounds: Bounds {
                memory_bytes: MEMORY_BYTES,
                file_bytes: self.file_bytes,
                cpu_seconds: CPU_SECONDS + self.total_bytes / CPU_BYTES_A_SECOND,
                open_files: OPEN_FILES,
            },
        }
    }
}

/// Why an rsync run failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such program.
    #[error(
        "there is no rsync program at {program:?}: install rsync, or set 'rsync' in mirror-agent.toml"
    )]
    Missing {
        /// What was looked for.
        program: PathBuf,
    },
    /// It could not be started or talked to.
    #[error("rsync could not be run")]
    Io(#[from] std::io::Error),
    /// It ended with an error.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// The connection that we made for it failed.
    #[error("no connection to the rsync server")]
    Connection(#[source] std::io::Error),
    /// No byte came for too long.
    #[error("the rsync server sent nothing for {seconds} s; the run was ended")]
    Silent {
        /// For how long.
        seconds: u64,
    },
    /// The run took too long.
    #[error("the rsync run was ended after {seconds} s")]
    TooLong {
        /// For how long it ran.
        seconds: u64,
    },
    /// More came than there is.
    #[error(
        "the rsync server sent {bytes} bytes, far more than it has announced; the run was ended"
    )]
    TooMuch {
        /// How much came.
        bytes: u64,
    },
    /// What it printed is not what we can read.
    #[error(transparent)]
    Listing(#[from] super::listing::Error),
    /// A directory of ours could not be prepared.
    #[error("cannot prepare {path:?} for rsync")]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl Error {
    /// Whether the same run may succeed a little later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Failed(failure) => failure.is_transient(),
            Self::Connection(_) | Self::Silent { .. } => true,
            _ => false,
        }
    }
}

/// One call of rsync.
#[derive(Debug)]
pub struct Call<'a> {
    /// What to run.
    pub programs: &'a Programs,
    /// Arguments, the source and the destination included, the transport not.
    pub args: Vec<OsString>,
    /// What it reads on its standard input.
    pub input: Vec<u8>,
    /// Its limits.
    pub limits: Limits,
    /// Where it is started: an empty private directory.
    pub dir: &'a Path,
    /// What it needs, and is given.
    pub needs: Needs,
    /// Where the call and its messages are written.
    pub log: &'a RunLog,
}

/// Runs rsync through `pipe`; every line that it prints goes to `line`. The bytes that passed are
/// told in any case.
pub async fn run(
    call: Call<'_>,
    pipe: Pipe,
    line: impl FnMut(&[u8]) -> Result<(), super::listing::Error> + Send,
) -> (Passed, Result<(), Error>) {
    let ended = run_through(&call, &pipe, line).await;
    let passed = Passed {
        received: pipe.meter().received(),
        sent: pipe.meter().sent(),
        figures: Figures::default(),
    };
    let connection = pipe.finish().await;
    let result = ended.and_then(|(exit, messages)| match (classify(exit, &messages), connection) {
        (Ok(()), _) => Ok(()),
        // rsync only knows that its pipe broke; we know why.
        (Err(Failure::Connection { .. } | Failure::Other { .. }), Err(error))
            if passed.received == 0 =>
        {
            Err(Error::Connection(error))
        }
        (Err(failure), _) => Err(failure.into()),
    });
    (passed, result)
}

async fn run_through(
    call: &Call<'_>,
    pipe: &Pipe,
    line: impl FnMut(&[u8]) -> Result<(), super::listing::Error> + Send,
) -> Result<(Exit, String), Error> {
    let missing = || Error::Missing { program: call.programs.rsync.clone() };
    let rsync = find_program(&call.programs.rsync).ok_or_else(missing)?;
    let mut command = Command::new(&call.programs.helper);
    command
        .arg(CAGED)
        .args(call.needs.cage(call.programs, &rsync).arguments(&rsync))
        .arg("-e")
        .arg(transport(&call.programs.helper, pipe.socket()))
        .args(&call.args)
        .current_dir(call.dir)
        .env_clear()
        .env("TZ", "UTC")
        .env("LC_ALL", "C")
        .env(TOKEN_ENV, pipe.token())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    call.log.line(&told(call));
    let mut child = command.spawn()?;
    let group = Group::of(&child);
    let mut stdin = child.stdin.take();
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let feed = async {
        if let Some(mut stdin) = stdin.take() {
            // It may end before it has read everything; its exit says why.
            stdin.write_all(&call.input).await.ok();
        }
    };
    let work = async {
        let ((), lines, messages) =
            tokio::join!(feed, read_lines(stdout, line), read_text(stderr, call.log));
        if lines.is_err() {
            group.signal(Signal::TERM);
        }
        let status = child.wait().await?;
        Ok::<_, Error>((lines, messages, status))
    };
    let started = Instant::now();
    let ended = tokio::select! {
        done = work => done,
        error = watch(pipe, started, call) => Err(error),
    };
    drop(group);
    let (lines, messages, status) = ended?;
    lines?;
    Ok((exit_of(status), messages))
}

/// Bytes that a run moved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Passed {
    /// From the server.
    pub received: u64,
    /// To the server.
    pub sent: u64,
    /// What rsync says of it.
    pub figures: Figures,
}

impl std::ops::AddAssign for Passed {
    fn add_assign(&mut self, other: Self) {
        self.received += other.received;
        self.sent += other.sent;
        self.figures += other.figures;
    }
}

/// The value of `-e`. rsync splits it at spaces, and understands quotes.
fn transport(helper: &Path, socket: &Path) -> OsString {
    let mut text = quoted(helper.as_os_str());
    text.push(" rsync-pipe --socket ");
    text.push(quoted(socket.as_os_str()));
    text
}

/// Within single quotes rsync doubles a quote to mean one.
fn quoted(text: &OsStr) -> OsString {
    let mut out = vec![b'\''];
    for &b in text.as_bytes() {
        out.extend(if b == b'\'' { &b"''"[..] } else { std::slice::from_ref(&b) });
    }
    out.push(b'\'');
    OsStr::from_bytes(&out).to_owned()
}

/// Ends when a limit is passed.
async fn watch(pipe: &Pipe, started: Instant, call: &Call<'_>) -> Error {
    let limits = call.limits;
    let mut tick =
        interval(Duration::from_millis(200).min(limits.silence / 2).max(Duration::from_millis(10)));
    loop {
        tick.tick().await;
        if pipe.meter().silent_for() > limits.silence {
            return Error::Silent { seconds: limits.silence.as_secs() };
        }
        if started.elapsed() > limits.total {
            return Error::TooLong { seconds: limits.total.as_secs() };
        }
        let bytes = pipe.meter().received();
        if bytes > call.needs.received_bytes {
            return Error::TooMuch { bytes };
        }
    }
}

async fn read_lines(
    from: Option<impl AsyncRead + Unpin>,
    mut line: impl FnMut(&[u8]) -> Result<(), super::listing::Error>,
) -> Result<(), Error> {
    let Some(from) = from else { return Ok(()) };
    let mut reader = BufReader::with_capacity(64 << 10, from);
    let mut buffer = Vec::new();
    loop {
        buffer.clear();
        let limit = MAX_LINE as u64 + 2;
        let len = (&mut reader).take(limit).read_until(b'\n', &mut buffer).await?;
        if len == 0 {
            return Ok(());
        }
        if buffer.last() == Some(&b'\n') {
            buffer.pop();
        } else if len as u64 >= limit {
            return Err(super::listing::Error::LineTooLong.into());
        }
        line(&buffer)?;
    }
}

/// Logs what comes, line by line, keeps the first [`MAX_STDERR`] bytes and drains the rest.
async fn read_text(from: Option<impl AsyncRead + Unpin>, log: &RunLog) -> String {
    let Some(from) = from else { return String::new() };
    let mut kept = Vec::new();
    lines::read(from, |line| {
        log.line(&format!("rsync: {}", String::from_utf8_lossy(line)));
        let room = MAX_STDERR.saturating_sub(kept.len());
        kept.extend_from_slice(&line[..line.len().min(room)]);
        if room > line.len() {
            kept.push(b'\n');
        }
    })
    .await;
    String::from_utf8_lossy(&kept).into_owned()
}

/// A call as a log tells it: without the rules and names that it is given otherwise.
fn told(call: &Call<'_>) -> String {
    let args: Vec<_> = call.args.iter().map(|arg| arg.to_string_lossy()).collect();
    format!("{} {}", call.programs.rsync.display(), args.join(" "))
}

fn exit_of(status: std::process::ExitStatus) -> Exit {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, signal) => Exit::Signal(signal.unwrap_or(0)),
    }
}
