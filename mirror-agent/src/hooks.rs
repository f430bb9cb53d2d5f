//! Commands of a site: what its own admin has run around the runs.
//!
//! A cache wants to be purged, a tracker to be told, a file system to be mounted first. Such a
//! command is named in this agent's own `mirror-agent.toml` and nowhere else: whoever takes over a
//! coordinator can make an agent mirror what it was granted, and cannot make it run anything.
//!
//! A command is a program and its arguments, without a shell, so nothing in a name of a tree or a
//! message of a server is ever taken for syntax; what there is to know comes in variables. It has no
//! input, a time limit, and a process group of its own that ends with it. What it prints goes into
//! the run's log.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    pin::pin,
    process::{ExitStatus, Stdio},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use protocol::units::Span;
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use tokio::{
    io::AsyncRead,
    process::{Child, Command},
    time::{sleep, timeout},
};

use crate::{
    process::{Group, lines},
    run_log::RunLog,
};

/// How long a command may take where nothing is said, and the shortest and longest that may be said.
const LIMIT: Span = Span::from_secs(300);
const SHORTEST: Span = Span::from_secs(1);
const LONGEST: Span = Span::from_secs(24 * 3600);
/// How long a command has to end after it was told to.
const GRACE: Duration = Duration::from_secs(5);
/// How long what a command left running may still print.
const DRAIN: Duration = Duration::from_secs(1);
/// What one command may add to a log, in bytes.
const MAX_OUTPUT: usize = 64 << 10;
/// What is told of its last line, in characters.
const MAX_LAST: usize = 200;
/// Where programs are looked for that a command starts, if this program was not told either.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// `[hooks]` of `mirror-agent.toml`: each a program by absolute path, and its arguments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct HooksConfig {
    /// Before each run; where it fails, the run is not begun and counts as failed.
    pub before: Vec<String>,
    /// After each run that changed the published tree.
    pub after_change: Vec<String>,
    /// When an assignment begins to fail.
    pub on_failure: Vec<String>,
    /// When it succeeds again.
    pub on_recovery: Vec<String>,
    /// How long each may take.
    pub time_limit: Span,
}

impl Default for HooksConfig {
    fn default() -> Self {
        Self {
            before: Vec::new(),
            after_change: Vec::new(),
            on_failure: Vec::new(),
            on_recovery: Vec::new(),
            time_limit: LIMIT,
        }
    }
}

/// When a command is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hook {
    /// Before a run.
    Before,
    /// After a change of the published tree.
    AfterChange,
    /// When an assignment begins to fail.
    OnFailure,
    /// When it succeeds again.
    OnRecovery,
}

/// A `[hooks]` table that cannot be followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// A program that would have to be looked for.
    #[error("hooks.{hook} = [{program:?}, …] does not begin with the absolute path of a program")]
    Relative {
        /// Which command.
        hook: Hook,
        /// What it begins with.
        program: String,
    },
    /// A limit that cannot be kept.
    #[error("hooks.time-limit = \"{limit}\" is not between {SHORTEST} and {LONGEST}")]
    Limit {
        /// What was asked for.
        limit: Span,
    },
}

/// Why a command did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It could not be started.
    #[error("the command {program} of hooks.{hook} (mirror-agent.toml) cannot be started", program = program.display())]
    Start {
        /// Which command.
        hook: Hook,
        /// Its program.
        program: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It said that it failed.
    #[error("the command {program} of hooks.{hook} (mirror-agent.toml) {how}{last}", program = program.display())]
    Failed {
        /// Which command.
        hook: Hook,
        /// Its program.
        program: PathBuf,
        /// How it ended.
        how: String,
        /// The last line that it printed, with a colon before it.
        last: String,
    },
    /// It took too long.
    #[error("the command {program} of hooks.{hook} (mirror-agent.toml) was ended after {limit}, its time-limit", program = program.display())]
    TooLong {
        /// Which command.
        hook: Hook,
        /// Its program.
        program: PathBuf,
        /// What it was given.
        limit: Span,
    },
}

impl HooksConfig {
    /// The command of a hook; empty where there is none.
    pub fn command(&self, hook: Hook) -> &[String] {
        match hook {
            Hook::Before => &self.before,
            Hook::AfterChange => &self.after_change,
            Hook::OnFailure => &self.on_failure,
            Hook::OnRecovery => &self.on_recovery,
        }
    }

    /// Whether a hook has a command.
    pub fn has(&self, hook: Hook) -> bool {
        !self.command(hook).is_empty()
    }

    /// Checks what the types cannot.
    pub fn check(&self) -> Result<(), Invalid> {
        for hook in [Hook::Before, Hook::AfterChange, Hook::OnFailure, Hook::OnRecovery] {
            if let Some(program) = self.command(hook).first()
                && !Path::new(program).is_absolute()
            {
                return Err(Invalid::Relative { hook, program: program.clone() });
            }
        }
        let limit = self.time_limit;
        if (SHORTEST..=LONGEST).contains(&limit) { Ok(()) } else { Err(Invalid::Limit { limit }) }
    }

    /// Runs the command of a hook, if there is one, with these variables and no others of ours.
    pub async fn run(
        &self,
        hook: Hook,
        variables: &[(&'static str, String)],
        log: &RunLog,
    ) -> Result<(), Error> {
        let Some((program, args)) = self.command(hook).split_first() else { return Ok(()) };
        let program = PathBuf::from(program);
        log.line(&format!("{hook}: {}", self.command(hook).join(" ")));
        let mut command = Command::new(&program);
        command
            .args(args)
            .current_dir("/")
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_else(|| PATH.into()))
            .env("LC_ALL", "C.UTF-8")
            .envs(variables.iter().map(|(name, value)| (name, without_nul(value))))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        let child = command.spawn().map_err(|source| Error::Start {
            hook,
            program: program.clone(),
            source,
        })?;
        let (ended, last) = watch(child, self.time_limit.duration(), hook, log).await;
        let last = if last.is_empty() { last } else { format!(": {last}") };
        let failed = |how| Err(Error::Failed { hook, program: program.clone(), how, last });
        match ended {
            Ended::With(status) if status.success() => Ok(()),
            Ended::With(status) => failed(how(status)),
            Ended::Lost(error) => failed(format!("cannot be waited for ({error})")),
            Ended::Late => Err(Error::TooLong { hook, program, limit: self.time_limit }),
        }
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Before => "before",
            Self::AfterChange => "after-change",
            Self::OnFailure => "on-failure",
            Self::OnRecovery => "on-recovery",
        })
    }
}

enum Ended {
    With(ExitStatus),
    Lost(io::Error),
    Late,
}

/// What a command printed.
struct Said<'a> {
    hook: Hook,
    log: &'a RunLog,
    so_far: Mutex<SoFar>,
}

#[derive(Default)]
struct SoFar {
    bytes: usize,
    /// The last lines that say something, of the standard output and of the standard error. Which
    /// of the two came later nobody knows; what went wrong stands in the latter, if anywhere.
    last: [String; 2],
}

impl Said<'_> {
    /// Reads the standard output (0) or the standard error (1).
    async fn read(&self, from: Option<impl AsyncRead + Unpin>, which: usize) {
        if let Some(from) = from {
            lines::read(from, |line| self.line(&String::from_utf8_lossy(line), which)).await;
        }
    }

    fn line(&self, text: &str, which: usize) {
        let mut so_far = self.so_far.lock().unwrap_or_else(PoisonError::into_inner);
        if so_far.bytes < MAX_OUTPUT {
            self.log.line(&format!("{}: {text}", self.hook));
        }
        so_far.bytes += text.len() + 1;
        if !text.trim().is_empty() {
            so_far.last[which] = text.trim().chars().take(MAX_LAST).collect();
        }
    }
}

/// Waits for a command and logs what it prints; gives how it ended and its last line.
async fn watch(mut child: Child, limit: Duration, hook: Hook, log: &RunLog) -> (Ended, String) {
    // Whatever it leaves behind ends when this goes.
    let group = Group::of(&child);
    let said = Said { hook, log, so_far: Mutex::default() };
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let ended = {
        let mut output = pin!(async { tokio::join!(said.read(stdout, 0), said.read(stderr, 1)) });
        let mut limit = pin!(sleep(limit));
        let mut is_read = false;
        let ended = loop {
            tokio::select! {
                status = child.wait() => break status.map_or_else(Ended::Lost, Ended::With),
                _ = &mut output, if !is_read => is_read = true,
                () = &mut limit => {
                    group.signal(Signal::TERM);
                    timeout(GRACE, child.wait()).await.ok();
                    break Ended::Late;
                }
            }
        };
        if !is_read {
            timeout(DRAIN, output).await.ok();
        }
        ended
    };
    drop(group);
    let SoFar { bytes, last: [output, error] } =
        said.so_far.into_inner().unwrap_or_else(PoisonError::into_inner);
    if bytes > MAX_OUTPUT {
        log.line(&format!("{hook}: … {bytes} bytes in all"));
    }
    (ended, if error.is_empty() { output } else { error })
}

fn how(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended strangely".into(),
    }
}

/// A variable cannot hold a NUL, and must not end where one was.
fn without_nul(value: &str) -> String {
    value.replace('\0', "\u{fffd}")
}

#[cfg(test)]
mod tests;
