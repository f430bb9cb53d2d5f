//! The agent on this host, whose published trees this publisher publishes further.
//!
//! A tree of a stock rsync server reaches further sites by pack when a publisher stands beside the
//! agent of one site. Such a tree needs no second look and no interval: the agent tells when a
//! generation has been switched to, and what it has digested. All of that is a shortcut: an agent
//! that does not answer costs a wait and a read, and never a generation.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use protocol::{
    hub::{MAX_ANSWER, MAX_WAIT_SECONDS, NotVouched, Published, PublishedTree, Question, Vouched},
    manifest::Manifest,
};
use serde::{Deserialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream,
    sync::watch,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::state::error_chain;

/// How long an answer may take that needs no wait.
const DEADLINE: Duration = Duration::from_secs(60);
/// How soon an agent that did not answer is asked again.
const RETRY: Duration = Duration::from_secs(10);

/// Why the agent told nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the agent cannot be asked at {}; does it run, and is this user in the group of its socket?", path.display())]
    Ask { path: PathBuf, source: io::Error },
    #[error("the agent's answer is not understood")]
    Answer(#[from] serde_json::Error),
    #[error("the agent refuses: {0}")]
    Refused(String),
    #[error("the agent's manifest is not one")]
    Manifest(#[from] NotVouched),
}

/// One line of an answer.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Line {
    Answer(serde_json::Value),
    Error(String),
    Progress(serde::de::IgnoredAny),
}

/// The agent on this host, where there is one.
pub(crate) struct Hub {
    socket: Option<PathBuf>,
    seen: watch::Sender<Option<Published>>,
}

/// A tree that the agent publishes, with the manifest of what lies there.
pub(crate) struct Neighbor {
    pub(crate) tree: PublishedTree,
    pub(crate) manifest: Manifest,
}

impl Hub {
    /// Of the agent with this data directory.
    pub(crate) fn new(agent: Option<&Path>) -> Self {
        Self { socket: agent.map(|data| data.join("control.sock")), seen: watch::Sender::new(None) }
    }

    /// Changes whenever what the agent has published may have changed.
    pub(crate) fn watch(&self) -> watch::Receiver<Option<Published>> {
        self.seen.subscribe()
    }

    /// Waits for news of the agent, again and again.
    pub(crate) async fn follow(self: Arc<Self>, shutdown: CancellationToken) {
        if self.socket.is_none() {
            return;
        }
        let mut told = false;
        loop {
            let known = self.seen.borrow().as_ref().map(|published| published.state);
            let question = Question::Published { known, wait: MAX_WAIT_SECONDS };
            let asked = tokio::select! {
                () = shutdown.cancelled() => return,
                asked = self.ask::<Published>(&question) => asked,
            };
            match asked {
                Ok(published) => {
                    told = false;
                    self.seen.send_if_modified(|seen| {
                        let is_news = seen.as_ref() != Some(&published);
                        *seen = Some(published);
                        is_news
                    });
                }
                Err(error) => {
                    if !std::mem::replace(&mut told, true) {
                        let error = error_chain(&error);
                        tracing::warn!(
                            error,
                            "trees of the agent on this host are looked at by their interval alone"
                        );
                    }
                    tokio::select! {
                        () = shutdown.cancelled() => return,
                        () = tokio::time::sleep(RETRY) => {}
                    }
                }
            }
        }
    }

    /// What the agent has at `root`, where it publishes a tree there.
    pub(crate) async fn neighbor(&self, root: &Path) -> Option<Neighbor> {
        let found = async {
            let Some(tree) = self.tree_at(root).await? else { return Ok(None) };
            let question = Question::Vouched { assignment: tree.assignment.clone() };
            let manifest = self.ask::<Vouched>(&question).await?.manifest()?;
            // Another generation may have come in between.
            let is_same = manifest.digest() == tree.manifest;
            Ok(is_same.then_some(Neighbor { tree, manifest }))
        };
        found.await.unwrap_or_else(|error: Error| {
            let error = error_chain(&error);
            tracing::warn!(root = %root.display(), error, "read as if nobody had digested it");
            None
        })
    }

    /// Whether what lies at `root` still is that, and is not about to change.
    pub(crate) async fn still_has(&self, root: &Path, tree: &PublishedTree) -> bool {
        let now = self.tree_at(root).await.ok().flatten();
        now.is_some_and(|now| now.manifest == tree.manifest && !now.busy)
    }

    async fn tree_at(&self, root: &Path) -> Result<Option<PublishedTree>, Error> {
        if self.socket.is_none() {
            return Ok(None);
        }
        let published: Published = self.ask(&Question::Published { known: None, wait: 0 }).await?;
        Ok(find(&published, root).cloned())
    }

    async fn ask<T: DeserializeOwned>(&self, question: &Question) -> Result<T, Error> {
        let path = self.socket.clone().unwrap_or_default();
        let line =
            timeout(DEADLINE + Duration::from_secs(MAX_WAIT_SECONDS), converse(&path, question));
        let late = |_| Err(io::Error::from(io::ErrorKind::TimedOut));
        let line = line.await.unwrap_or_else(late).map_err(|source| Error::Ask { path, source })?;
        match serde_json::from_slice(&line)? {
            Line::Answer(value) => Ok(serde_json::from_value(value)?),
            Line::Error(text) => Err(Error::Refused(text)),
            Line::Progress(_) => Err(Error::Refused("it tells progress instead".into())),
        }
    }
}

/// The tree at a directory, whichever way the two paths are written.
pub(crate) fn find<'a>(published: &'a Published, root: &Path) -> Option<&'a PublishedTree> {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let wanted = real(root);
    published.trees.iter().find(|tree| real(Path::new(&tree.root)) == wanted)
}

async fn converse(path: &Path, question: &Question) -> io::Result<Vec<u8>> {
    let (from, mut to) = UnixStream::connect(path).await?.into_split();
    let mut text = serde_json::to_vec(question)?;
    text.push(b'\n');
    to.write_all(&text).await?;
    let mut line = Vec::new();
    BufReader::new(from).take(MAX_ANSWER).read_until(b'\n', &mut line).await?;
    Ok(line)
}
