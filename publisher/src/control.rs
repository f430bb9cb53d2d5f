//! The control socket: what an admin on the publisher's host may ask of it.
//!
//! `DATA/control.sock` (mode 0660) takes one JSON object per line and answers each with one line.
//! File permissions are the whole access control: whoever may write to the socket may publish.

use std::{
    collections::BTreeMap,
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use protocol::{generation::Revision, name::TreeName, units::Span};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    sync::Semaphore,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::{
    config::control_socket,
    error_chain,
    publish::{Outcome, Publishing, TreeStatus},
    state::State,
};

/// Longest request or answer, in bytes.
const MAX_LINE: u64 = 16 << 20;
/// Connections at a time.
const MAX_CONNECTIONS: usize = 32;
/// How long a connection may be silent.
const SILENCE: Duration = Duration::from_secs(60);

/// Why there is no control socket, or no answer on it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be made.
    #[error("the control socket {} cannot be made", .path.display())]
    Listen {
        /// Where.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Nobody listens.
    #[error(
        "no publisher answers at {}; is it running, and may this user write to the socket?",
        .path.display()
    )]
    Connect {
        /// Where.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The conversation broke.
    #[error("the publisher ended the conversation")]
    Broken(#[source] io::Error),
    /// The publisher refused.
    #[error("{0}")]
    Refused(String),
}

/// What may be asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "ask", deny_unknown_fields)]
pub enum Request {
    /// Take a tree now.
    Publish {
        /// Which tree.
        tree: TreeName,
        /// Answer only when it is done.
        wait: bool,
    },
    /// How everything stands.
    Status,
}

/// What is answered.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "answer")]
pub enum Answer {
    /// It was begun.
    Begun,
    /// It is done.
    Done {
        /// What it came to.
        result: Outcome,
    },
    /// How everything stands.
    Status(Status),
    /// It was refused.
    Refused {
        /// Why.
        reason: String,
    },
}

/// How a publisher stands.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Status {
    /// Its certificate's serial number.
    pub serial: String,
    /// When its certificate ends.
    pub certificate_until: Timestamp,
    /// The orders that it follows.
    pub revision: Option<Revision>,
    /// When the coordinator last stood by them.
    pub coordinator_heard: Option<Timestamp>,
    /// Since when it was asked in vain, where it was.
    #[serde(default)]
    pub coordinator_silent_since: Option<Timestamp>,
    /// From when on autonomous trees go on without it.
    #[serde(default)]
    pub alone_from: Option<Timestamp>,
    /// Until when they do.
    #[serde(default)]
    pub alone_until: Option<Timestamp>,
    /// Until when readers are served without the coordinator.
    pub readers_until: Option<Timestamp>,
    /// Version of its rsync program, if there is one.
    pub rsync: Option<String>,
    /// Its trees.
    pub trees: BTreeMap<TreeName, TreeStatus>,
}

/// Listens until `shutdown`.
pub(crate) fn listen(
    state: Arc<State>,
    publishing: Arc<Publishing>,
    shutdown: CancellationToken,
) -> Result<JoinHandle<()>, Error> {
    let path = state.config.control_socket();
    let failed = |source| Error::Listen { path: path.clone(), source };
    // The data directory is locked, so whatever is there is left over.
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = UnixListener::bind(&path).map_err(failed)?;
    let mode = std::fs::Permissions::from_mode(0o660);
    std::fs::set_permissions(&path, mode).map_err(failed)?;
    Ok(tokio::spawn(async move {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            let Ok((stream, _)) = accepted else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
            let (state, publishing) = (Arc::clone(&state), Arc::clone(&publishing));
            let shutdown = shutdown.clone();
            tokio::spawn(async move {
                tokio::select! {
                    () = shutdown.cancelled() => {}
                    ended = converse(stream, &state, &publishing) => if let Err(error) = ended {
                        debug!(%error, "control connection ended early");
                    },
                }
                drop(place);
            });
        }
        if let Err(error) = std::fs::remove_file(&path) {
            warn!(%error, "the control socket is left behind");
        }
    }))
}

async fn converse(
    stream: UnixStream,
    state: &State,
    publishing: &Arc<Publishing>,
) -> io::Result<()> {
    let (from, mut to) = stream.into_split();
    let mut lines = BufReader::new(from.take(MAX_LINE));
    loop {
        let mut line = Vec::new();
        let read = tokio::time::timeout(SILENCE, lines.read_until(b'\n', &mut line)).await;
        if read.map_err(|_| io::ErrorKind::TimedOut)?? == 0 {
            return Ok(());
        }
        let answer = match serde_json::from_slice(&line) {
            Ok(request) => answer(request, state, publishing).await,
            Err(error) => Answer::Refused { reason: format!("not a request: {error}") },
        };
        let mut json = serde_json::to_vec(&answer).map_err(io::Error::other)?;
        json.push(b'\n');
        tokio::time::timeout(SILENCE, to.write_all(&json))
            .await
            .map_err(|_| io::ErrorKind::TimedOut)??;
    }
}

async fn answer(request: Request, state: &State, publishing: &Arc<Publishing>) -> Answer {
    match request {
        Request::Status => Answer::Status(status(state, publishing)),
        Request::Publish { tree, wait: true } => match publishing.take(&tree).await {
            Ok(result) => Answer::Done { result },
            Err(error) => Answer::Refused { reason: error_chain(&error) },
        },
        Request::Publish { tree, wait: false } => {
            if !publishing.knows(&tree) {
                publishing.ask_for(&tree).await;
            }
            if !publishing.knows(&tree) {
                let error = crate::publish::Error::NotOrdered(tree);
                return Answer::Refused { reason: error.to_string() };
            }
            let publishing = Arc::clone(publishing);
            tokio::spawn(async move {
                if let Err(error) = publishing.take(&tree).await {
                    warn!(%tree, error = error_chain(&error), "not published");
                }
            });
            Answer::Begun
        }
    }
}

fn status(state: &State, publishing: &Publishing) -> Status {
    let identity = state.identity.current();
    let orders = state.orders.follow().borrow().clone();
    let (config, silence) = (&state.config, state.orders.silence());
    let later = |from: Timestamp, span: Span| {
        from.checked_add(jiff::SignedDuration::try_from(span.duration()).ok()?).ok()
    };
    Status {
        serial: identity.serial.to_string(),
        certificate_until: identity.not_after,
        revision: orders.as_ref().map(|orders| orders.orders.revision),
        coordinator_heard: orders.as_ref().map(|orders| orders.confirmed),
        coordinator_silent_since: silence.map(|silence| silence.since),
        alone_from: silence.and_then(|silence| later(silence.since, config.autonomous_after)),
        alone_until: orders
            .as_ref()
            .filter(|_| silence.is_some())
            .and_then(|orders| later(orders.confirmed, config.autonomous_for)),
        readers_until: orders
            .as_ref()
            .and_then(|orders| later(orders.confirmed, config.readers_max_age)),
        rsync: state.rsync.as_ref().map(|rsync| rsync.version.clone()),
        trees: publishing.statuses(),
    }
}

/// Asks the publisher that runs on a data directory.
pub async fn ask(data: &Path, request: &Request) -> Result<Answer, Error> {
    let path = control_socket(data);
    let stream = UnixStream::connect(&path).await;
    let mut stream = stream.map_err(|source| Error::Connect { path, source })?;
    let mut json = serde_json::to_vec(request).map_err(|e| Error::Broken(io::Error::other(e)))?;
    json.push(b'\n');
    stream.write_all(&json).await.map_err(Error::Broken)?;
    let mut line = Vec::new();
    let mut answers = BufReader::new(stream.take(MAX_LINE));
    answers.read_until(b'\n', &mut line).await.map_err(Error::Broken)?;
    match serde_json::from_slice(&line).map_err(|e| Error::Broken(io::Error::other(e)))? {
        Answer::Refused { reason } => Err(Error::Refused(reason)),
        answer => Ok(answer),
    }
}
