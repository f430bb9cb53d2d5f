//! The control socket: how the command line asks a running agent.
//!
//! One request per connection, one line of JSON each way, with lines of progress in between.
//! Whoever may open the socket may ask for anything: it is 0660, of the agent's user and group.

use std::{
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use protocol::{hub::Question, v1::agent::UndeleteRequest};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    time::{interval, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    Failure,
    agent::{Agent, Forced},
    hub,
    report::Progress,
    run_log::Kept,
    status,
};

/// Longest request, in bytes.
const MAX_REQUEST: u64 = 16 << 10;
/// Longest line of an answer, in bytes.
const MAX_LINE: u64 = 64 << 20;
const REQUEST_DEADLINE: Duration = Duration::from_secs(5);
/// How often a run tells how far it is.
const TICK: Duration = Duration::from_millis(250);

/// What can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "do")]
pub enum Request {
    /// How everything stands.
    Status,
    /// Bring a tree, or all, to its target now.
    #[serde(rename_all = "kebab-case")]
    Sync {
        /// `TREE` or `TREE@SITE`; all without it.
        tree: Option<String>,
        /// Change nothing.
        dry_run: bool,
    },
    /// Compare what is published with its manifest, and repair it.
    #[serde(rename_all = "kebab-case")]
    Verify {
        /// `TREE` or `TREE@SITE`; all without it.
        tree: Option<String>,
        /// Change nothing.
        dry_run: bool,
    },
    /// Let published files be read again by themselves, or not.
    Scrub {
        /// Whether not.
        paused: bool,
    },
    /// What the last runs did, with the logs of those whose logs are kept.
    Log {
        /// `TREE` or `TREE@SITE`; all without it.
        tree: Option<String>,
    },
    /// What can be brought back.
    Trash {
        /// `TREE` or `TREE@SITE`; all without it.
        tree: Option<String>,
    },
    /// Bring something back from the trash.
    Undelete {
        /// `TREE` or `TREE@SITE`.
        tree: String,
        /// What, and where from.
        what: UndeleteRequest,
    },
    /// The texts of logs.
    Text {
        /// `TREE` or `TREE@SITE`; all without it.
        tree: Option<String>,
        /// Which of each assignment's logs.
        kept: Kept,
    },
    /// The latest log of one assignment, and what is added to it for as long as the asker listens.
    Follow {
        /// `TREE` or `TREE@SITE`.
        tree: String,
    },
    /// Remove the files of an assignment that ended.
    Purge {
        /// `TREE` or `TREE@SITE`.
        tree: String,
    },
    /// What a publisher on this host asks.
    #[serde(untagged)]
    Hub(Question),
}

/// One line of an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Line {
    /// How far it is.
    #[serde(rename_all = "kebab-case")]
    Progress {
        /// What is done now.
        phase: String,
        /// What is counted.
        unit: String,
        /// So much is done.
        done: u64,
        /// Of so much; 0 where it is not known.
        total: u64,
    },
    /// Lines of a log.
    Text(String),
    /// The answer.
    Answer(serde_json::Value),
    /// It was not done.
    Error(String),
}

/// Why a running agent could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket cannot be made.
    #[error("the control socket {path} cannot be made", path = path.display())]
    Listen {
        /// The socket.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The agent runs and cannot be talked to.
    #[error("the running agent cannot be asked at {path}; are you in the group of its socket?", path = path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It went away in the middle.
    #[error("the running agent ended before it answered")]
    Ended,
    /// It refused, or failed.
    #[error("{0}")]
    Told(String),
}

/// Where the socket of a data directory is.
pub fn socket(data: &Path) -> PathBuf {
    data.join("control.sock")
}

/// Makes the socket. The data directory is locked by the caller, so what lies there is a left-over.
pub fn listen(data: &Path) -> Result<UnixListener, Error> {
    let path = socket(data);
    let failed = |source| Error::Listen { path: path.clone(), source };
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = UnixListener::bind(&path).map_err(failed)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o660)).map_err(failed)?;
    Ok(listener)
}

/// Answers until `shutdown`.
pub async fn serve(listener: UnixListener, agent: Arc<Agent>, shutdown: CancellationToken) {
    let mut answering = tokio::task::JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => return,
            accepted = listener.accept() => accepted,
            Some(_) = answering.join_next() => continue,
        };
        match accepted {
            Ok((stream, _)) => {
                let agent = Arc::clone(&agent);
                answering.spawn(async move {
                    if let Err(error) = answer(stream, &agent).await {
                        tracing::debug!(%error, "a control connection ended");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the control socket does not answer");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn answer(stream: UnixStream, agent: &Arc<Agent>) -> io::Result<()> {
    let (from, mut to) = stream.into_split();
    let mut line = Vec::new();
    let mut from = BufReader::new(from.take(MAX_REQUEST));
    timeout(REQUEST_DEADLINE, from.read_until(b'\n', &mut line)).await??;
    let request: Request = match serde_json::from_slice(&line) {
        Ok(request) => request,
        Err(error) => return send(&mut to, &Line::Error(error.to_string())).await,
    };
    if let Request::Follow { tree } = &request {
        return match agent.name_of(tree) {
            Err(error) => send(&mut to, &Line::Error(crate::chain(&error))).await,
            Ok(name) => {
                let mut follower = agent.logs.follow(&name);
                let mut gone = [0];
                loop {
                    tokio::select! {
                        text = follower.next() => send(&mut to, &Line::Text(text)).await?,
                        // Nothing more is asked on this connection: it was closed.
                        _ = from.read(&mut gone) => return Ok(()),
                    }
                }
            }
        };
    }
    if let Request::Hub(Question::Vouched { assignment }) = &request {
        return match hub::vouched(agent, assignment) {
            Err(error) => send(&mut to, &Line::Error(crate::chain(&error))).await,
            Ok(manifest) => hub::tell_vouched(&mut to, &manifest).await,
        };
    }
    let progress = Arc::new(Progress::default());
    let work = perform(agent, &request);
    tokio::pin!(work);
    let mut tick = interval(TICK);
    let result = loop {
        tokio::select! {
            result = &mut work => break result,
            _ = tick.tick() => {
                let moment = moment_of(agent, &request, &progress);
                let (phase, unit) = (moment.phase.to_owned(), moment.unit.to_owned());
                if !phase.is_empty() {
                    let (done, total) = (moment.done, moment.total);
                    send(&mut to, &Line::Progress { phase, unit, done, total }).await?;
                }
            }
        }
    };
    let line = match result {
        Ok(value) => Line::Answer(value),
        Err(error) => Line::Error(crate::chain(&error)),
    };
    send(&mut to, &line).await
}

pub(crate) fn moment_of(
    agent: &Agent,
    request: &Request,
    idle: &Progress,
) -> crate::report::Moment {
    let tree = match request {
        Request::Sync { tree, .. } | Request::Verify { tree, .. } => tree.as_deref(),
        _ => return idle.moment(),
    };
    let names = agent.names_of(tree).unwrap_or_default();
    let busy = names.iter().find(|name| agent.is_busy(name));
    busy.map_or_else(|| idle.moment(), |name| agent.progress(name).moment())
}

/// Does what was asked, in the daemon or, where none runs, in the command line's own process.
pub async fn perform(agent: &Arc<Agent>, request: &Request) -> Result<serde_json::Value, Failure> {
    let value = |value: Result<serde_json::Value, serde_json::Error>| value.unwrap_or_default();
    match request {
        Request::Status => Ok(value(serde_json::to_value(status::status(agent)?))),
        Request::Log { tree } => {
            Ok(value(serde_json::to_value(status::log(agent, tree.as_deref())?)))
        }
        Request::Text { tree, kept } => {
            let names = agent.names_of(tree.as_deref())?;
            Ok(value(serde_json::to_value(status::texts(&agent.logs, &names, *kept))))
        }
        Request::Follow { tree } => Ok(value(serde_json::to_value(agent.name_of(tree)?))),
        Request::Sync { tree, dry_run } => {
            let forced = tree.clone().map_or(Forced::All, Forced::Tree);
            let reports = crate::activate_once(agent, &forced, *dry_run).await?;
            agent.names_of(tree.as_deref())?;
            Ok(value(serde_json::to_value(reports)))
        }
        Request::Scrub { paused } => {
            agent.pause_scrub(*paused)?;
            Ok(serde_json::json!({ "paused": paused }))
        }
        Request::Verify { tree, dry_run } => {
            let mut reports = Vec::new();
            for name in agent.names_of(tree.as_deref())? {
                reports.push(agent.verify(&name, !dry_run).await);
            }
            Ok(value(serde_json::to_value(reports)))
        }
        Request::Hub(Question::Published { known, wait }) => {
            Ok(value(serde_json::to_value(hub::published(agent, *known, *wait).await?)))
        }
        // The manifest itself goes over the socket alone.
        Request::Hub(Question::Vouched { assignment }) => {
            Ok(value(serde_json::to_value(hub::vouched(agent, assignment)?.digest())))
        }
        Request::Trash { tree } => Ok(value(serde_json::to_value(agent.trash(tree.as_deref())?))),
        Request::Undelete { tree, what } => {
            let mut reports = Vec::new();
            for name in agent.names_of(Some(tree))? {
                reports.push(agent.undelete(&name, what).await?);
            }
            Ok(value(serde_json::to_value(reports)))
        }
        Request::Purge { tree } => {
            let names = agent.names_of(Some(tree))?;
            for name in &names {
                agent.purge(name)?;
            }
            Ok(value(serde_json::to_value(names)))
        }
    }
}

async fn send(to: &mut (impl AsyncWriteExt + Unpin), line: &Line) -> io::Result<()> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    to.write_all(&text).await
}

/// What is heard before the answer.
#[derive(Debug, Clone, Copy)]
pub enum Heard<'a> {
    /// How far it is.
    Progress {
        /// What is done now.
        phase: &'a str,
        /// What is counted.
        unit: &'a str,
        /// So much is done.
        done: u64,
        /// Of so much; 0 where it is not known.
        total: u64,
    },
    /// Lines of a log.
    Text(&'a str),
}

/// Asks the agent that runs with `data`; `Ok(None)` where none runs.
pub async fn ask(
    data: &Path,
    request: &Request,
    mut heard: impl FnMut(Heard<'_>),
) -> Result<Option<serde_json::Value>, Error> {
    let path = socket(data);
    let stream = match UnixStream::connect(&path).await {
        Ok(stream) => stream,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            return Ok(None);
        }
        Err(source) => return Err(Error::Connect { path, source }),
    };
    let (from, mut to) = stream.into_split();
    let failed = |source| Error::Connect { path: path.clone(), source };
    let mut text = serde_json::to_vec(request).map_err(|error| failed(error.into()))?;
    text.push(b'\n');
    to.write_all(&text).await.map_err(failed)?;
    let mut from = BufReader::new(from);
    loop {
        let mut line = Vec::new();
        (&mut from).take(MAX_LINE).read_until(b'\n', &mut line).await.map_err(failed)?;
        if line.is_empty() {
            return Err(Error::Ended);
        }
        match serde_json::from_slice(&line) {
            Ok(Line::Progress { phase, unit, done, total }) => {
                heard(Heard::Progress { phase: &phase, unit: &unit, done, total });
            }
            Ok(Line::Text(text)) => heard(Heard::Text(&text)),
            Ok(Line::Answer(value)) => return Ok(Some(value)),
            Ok(Line::Error(error)) => return Err(Error::Told(error)),
            Err(_) => return Err(Error::Ended),
        }
    }
}
