//! Direct rsync: the real daemon on the view, for one connection, on the peer's own terms.
//!
//! A connection that chose rsync by ALPN gets a daemon of its own, whose configuration was written
//! for just this peer: one read-only module `TREE@N` for each generation that it may read, on the
//! private tree of that generation, never on the live source. So access is settled before rsync
//! reads its first byte, and rsync's own authentication is not needed.
//!
//! The daemon is relayed through a socket and a standard error that are only its own, has an empty
//! environment, its own process group, and a clock: whatever is left of the group when the session
//! ends is killed. It runs in a cage ([`filetree::confine`]): the kernel lets it read the trees of
//! its peer, and write nothing at all.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    io,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use certs::{
    identity::PeerIdentity,
    tls::{PeerAddr, RawHandler, ServerStream},
};
use filetree::{
    confine::{Bounds, Cage, find_program},
    fs::Dir,
};
use protocol::{
    error::Problem,
    filter::{Filter, Level, Origin},
    name::TreeName,
    origin,
};
use rustix::process::{Pid, Signal};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream,
    process::{Child, Command},
    sync::Semaphore,
};
use tracing::{debug, info, warn};

use crate::{
    catalog::{Served, ServedTree},
    durable, error_chain,
    state::{Rsync, State},
};

/// Options that would make the daemon read outside of the module, change it, or tell more than
/// the tree has.
const REFUSED: &str = "copy-links copy-unsafe-links copy-dirlinks keep-dirlinks copy-devices \
                       write-devices acls xattrs log-file* delete* remove-* backup*";
/// Seconds after which rsync gives up on a silent peer.
const SILENCE: u32 = 300;
/// Most of rsync's messages that one session may put into the log.
const MAX_LINES: usize = 50;
const MAX_LINE: u64 = 2000;

/// Directory of the configurations of running sessions, in the data directory.
const RUN: &[u8] = b"run";

/// The word by which this program, as its first argument, is asked to become a caged rsync.
pub(crate) const CAGED: &str = "rsync-caged";
/// Address space of one rsync process: 20 million names need 2 GiB of it.
const MEMORY_BYTES: u64 = 4 << 30;
/// Directories that a cage names one by one: a program can be told only so much.
const MAX_RULES: usize = 2_000;
/// Files that one rsync process may have open.
const OPEN_FILES: u64 = 256;

/// Why there was no session.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(
        "there is no rsync program on this host ({}); direct rsync is refused until it is installed",
        .0.display()
    )]
    NoRsync(PathBuf),
    #[error("there are as many rsync sessions as rsync-max-sessions allows")]
    Busy,
    #[error("{0}")]
    Refused(String),
    #[error("the daemon's configuration cannot be written")]
    Configuration(#[source] io::Error),
    #[error("rsync cannot be started")]
    Start(#[source] io::Error),
    #[error("the session took longer than rsync-max-time allows")]
    TooLong,
    #[error("the connection failed")]
    Relay(#[source] io::Error),
}

/// What speaks rsync on the publisher's port.
pub(super) fn handler(state: Arc<State>) -> RawHandler {
    let places = Arc::new(Semaphore::new(state.config.rsync_max_sessions as usize));
    Arc::new(move |stream, peer, address| {
        let (state, places) = (Arc::clone(&state), Arc::clone(&places));
        Box::pin(async move {
            let PeerAddr(from) = address;
            match session(&state, &places, stream, &peer).await {
                Ok(Traffic { sent, received }) => {
                    info!(%peer, %from, sent, received, "rsync session ended");
                }
                Err(error) => {
                    let error = error_chain(&error);
                    warn!(%peer, %from, error, "rsync session refused or broken");
                }
            }
        })
    })
}

/// Bytes of a session, inside TLS.
struct Traffic {
    sent: u64,
    received: u64,
}

async fn session(
    state: &State,
    places: &Semaphore,
    mut stream: ServerStream,
    peer: &PeerIdentity,
) -> Result<Traffic, Error> {
    let trees = state.readable_now(peer).await;
    let prepared = prepare(state, places, trees);
    let (_place, Session { config, trees }, rsync) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => {
            // In rsync's own words, so that the other end says it to its admin.
            drop(stream.write_all(format!("@ERROR: {error}\n").as_bytes()).await);
            drop(stream.shutdown().await);
            return Err(error);
        }
    };
    let file = ConfigurationFile::write(state, &config).map_err(Error::Configuration)?;
    let cage = Cage {
        confine: state.config.confine,
        read: trees.into_iter().chain([file.path.clone()]).collect(),
        write: Vec::new(),
        programs: vec![rsync.program.clone()],
        bounds: Bounds {
            memory_bytes: MEMORY_BYTES,
            file_bytes: 0,
            cpu_seconds: state.config.rsync_max_time.duration().as_secs(),
            open_files: OPEN_FILES,
        },
    };
    let mut daemon = Daemon::start(&cage, &rsync.program, &file.path).map_err(Error::Start)?;
    let limit = state.config.rsync_max_time.duration();
    match tokio::time::timeout(limit, daemon.relay(stream)).await {
        Ok(traffic) => traffic.map_err(Error::Relay),
        Err(_) => Err(Error::TooLong),
    }
}

/// What a session's daemon serves.
struct Session {
    /// The daemon's configuration.
    config: String,
    /// The directories of its modules.
    trees: Vec<PathBuf>,
}

fn prepare<'a>(
    state: &'a State,
    places: &'a Semaphore,
    trees: Result<BTreeSet<TreeName>, Problem>,
) -> Result<(tokio::sync::SemaphorePermit<'a>, Session, Rsync), Error> {
    let place = places.try_acquire().map_err(|_| Error::Busy)?;
    let rsync = state.rsync.clone().ok_or_else(|| Error::NoRsync(state.config.rsync.clone()))?;
    let trees = trees.map_err(|problem| Error::Refused(problem.to_string()))?;
    let modules: Vec<(TreeName, Arc<ServedTree>)> = trees
        .into_iter()
        .filter_map(|tree| state.catalog.tree(&tree).map(|served| (tree, served)))
        .collect();
    let views = state.config.view_dir();
    let config = configuration(&views, &modules, running_as());
    let trees = modules.iter().flat_map(|(tree, served)| {
        served.generations.iter().map(|served| view_of(&views, tree, served))
    });
    let mut trees: Vec<PathBuf> = trees.collect();
    if trees.len() > MAX_RULES {
        trees = vec![views];
    }
    Ok((place, Session { config, trees }, rsync))
}

/// Where the private tree of a generation lies.
fn view_of(views: &Path, tree: &TreeName, served: &Served) -> PathBuf {
    views.join(tree.as_str()).join(served.generation.to_string())
}

/// Our own user and group, if rsync would otherwise take others: it does when it runs as root.
fn running_as() -> Option<(u32, u32)> {
    let user = rustix::process::geteuid();
    user.is_root().then(|| (user.as_raw(), rustix::process::getegid().as_raw()))
}

/// The daemon's configuration for one peer.
fn configuration(
    views: &Path,
    modules: &[(TreeName, Arc<ServedTree>)],
    running_as: Option<(u32, u32)>,
) -> String {
    let mut text = format!(
        "use chroot = no\nread only = yes\nlist = no\nnumeric ids = yes\nmunge symlinks = no\n\
         timeout = {SILENCE}\nlog file = /dev/stderr\nmax verbosity = 1\nignore nonreadable = no\n\
         reverse lookup = no\nforward lookup = no\nrefuse options = {REFUSED}\n"
    );
    if let Some((user, group)) = running_as {
        text.push_str(&format!("uid = {user}\ngid = {group}\n"));
    }
    for (tree, served) in modules {
        for generation in &served.generations {
            let module = origin::rsync_module(tree, generation.generation);
            let path = view_of(views, tree, generation);
            // A String takes every write.
            let _ = writeln!(text, "[{module}]\npath = {}", path.display());
            if let Some(rules) = wall(tree, served) {
                let _ = writeln!(text, "filter = {rules}");
            }
        }
    }
    text
}

/// The tree's limit as the daemon's filter. The private tree holds nothing outside of the limit
/// anyway; this is a second wall. Rules with spaces cannot stand in a list that spaces separate.
fn wall(tree: &TreeName, served: &ServedTree) -> Option<String> {
    let level = Level::rules(Origin::Limit, tree.as_str(), served.limit.clone());
    let filter = Filter::build(&[level]).ok()?;
    let mut words = Vec::new();
    for line in filter.rsync_rules().lines {
        let (rule, pattern) = std::str::from_utf8(&line).ok()?.split_once(' ')?;
        let splits = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '_' | '%');
        if rule.len() != 1 || pattern.contains(splits) {
            return None;
        }
        words.push(format!("{rule}_{pattern}"));
    }
    (!words.is_empty()).then(|| words.join(" "))
}

/// The configuration on disk for as long as the session lasts.
struct ConfigurationFile {
    path: PathBuf,
}

impl ConfigurationFile {
    fn write(state: &State, text: &str) -> io::Result<Self> {
        let dir = state.fs.create_root(&state.config.data.join("run")).map_err(durable::io)?;
        let name = format!("rsync-{}.conf", uuid::Uuid::now_v7());
        let file = dir.create_file(name.as_bytes()).map_err(durable::io)?;
        file.write_at(0, text.as_bytes()).map_err(durable::io)?;
        Ok(Self { path: dir.path().join(name) })
    }
}

impl Drop for ConfigurationFile {
    fn drop(&mut self) {
        // What is left of it is removed at the next start.
        drop(std::fs::remove_file(&self.path));
    }
}

/// Removes the configurations of sessions that a crash has ended.
pub(crate) fn remove_left_over(data: &Dir) -> io::Result<()> {
    let dir = data.ensure_dir(RUN, 0o700).map_err(durable::io)?;
    for entry in dir.entries().map_err(durable::io)? {
        dir.unlink(&entry.name).map_err(durable::io)?;
    }
    Ok(())
}

/// One running daemon; what is left of its process group dies with this.
struct Daemon {
    child: Child,
    group: Option<Pid>,
    socket: UnixStream,
}

impl Daemon {
    fn start(cage: &Cage, program: &Path, config: &Path) -> io::Result<Self> {
        let mut config_argument = std::ffi::OsString::from("--config=");
        config_argument.push(config);
        // A socket as standard input is how inetd starts a daemon for one connection. Started as a
        // remote shell would (`--server --daemon`), rsync ends with success after a file that is
        // not there.
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let input = std::os::fd::OwnedFd::from(theirs);
        let output = input.try_clone()?;
        let child = Command::new(std::env::current_exe()?)
            .arg(CAGED)
            .args(cage.arguments(program))
            .arg("--daemon")
            .arg(config_argument)
            .env_clear()
            .current_dir("/")
            .process_group(0)
            .stdin(input)
            .stdout(output)
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        Ok(Self { child, group, socket: UnixStream::from_std(ours)? })
    }

    /// Moves bytes both ways until the daemon ends its output or the peer is gone.
    async fn relay(&mut self, stream: ServerStream) -> io::Result<Traffic> {
        let (mut output, mut input) = self.socket.split();
        let missing = || io::Error::other("rsync has no standard error");
        let messages = self.child.stderr.take().ok_or_else(missing)?;
        let log = tokio::spawn(log(messages));
        let (mut from_peer, mut to_peer) = tokio::io::split(stream);
        let (sent, received) = (AtomicU64::new(0), AtomicU64::new(0));
        let incoming = async {
            let copied = copy(&mut from_peer, &mut input, &received).await;
            drop(input.shutdown().await);
            copied
        };
        let outgoing = async {
            let copied = copy(&mut output, &mut to_peer, &sent).await;
            // The daemon has said everything.
            drop(to_peer.shutdown().await);
            copied
        };
        tokio::pin!(incoming, outgoing);
        let ended = tokio::select! {
            ended = &mut outgoing => ended,
            incoming = &mut incoming => match incoming {
                Ok(()) => outgoing.await,
                Err(error) => Err(error),
            },
        };
        let status =
            tokio::time::timeout(std::time::Duration::from_secs(5), self.child.wait()).await;
        if let Ok(Ok(status)) = status {
            debug!(%status, "rsync ended");
        }
        drop(tokio::time::timeout(std::time::Duration::from_secs(1), log).await);
        ended?;
        let moved = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Ok(Traffic { sent: moved(&sent), received: moved(&received) })
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // The group's number stays taken until the child was waited for, and this child is waited
        // for only here or by the runtime after us; a group that is gone is no error.
        if let Some(group) = self.group
            && !matches!(self.child.try_wait(), Ok(Some(_)))
        {
            rustix::process::kill_process_group(group, Signal::KILL).ok();
        }
    }
}

async fn copy(
    from: &mut (impl tokio::io::AsyncRead + Unpin),
    to: &mut (impl tokio::io::AsyncWrite + Unpin),
    moved: &AtomicU64,
) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..read]).await?;
        to.flush().await?;
        moved.fetch_add(read as u64, Ordering::Relaxed);
    }
}

/// The daemon's messages belong into our log, a bounded number of them.
async fn log(messages: tokio::process::ChildStderr) {
    let mut messages = BufReader::new(messages);
    for _ in 0..MAX_LINES {
        let mut line = Vec::new();
        match (&mut messages).take(MAX_LINE).read_until(b'\n', &mut line).await {
            Ok(1..) => debug!(message = %protocol::path::escape(line.trim_ascii_end()), "rsync"),
            _ => return,
        }
    }
    drop(tokio::io::copy(&mut messages, &mut tokio::io::sink()).await);
}

/// Looks for the rsync program, and asks for its version.
pub(crate) async fn find(program: &Path) -> Option<Rsync> {
    let program = find_program(program)?;
    let asked = Command::new(&program)
        .arg("--version")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output =
        tokio::time::timeout(std::time::Duration::from_secs(10), asked).await.ok()?.ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    // `rsync  version 3.5.0  protocol version 32`
    let version = text.split_whitespace().skip_while(|word| *word != "version").nth(1)?;
    Some(Rsync { version: version.to_owned(), program })
}

#[cfg(test)]
mod tests {
    use protocol::{digest::Digest, generation::Generation, manifest::BlockList};

    use super::*;

    fn served(limit: &[&str]) -> Arc<ServedTree> {
        let generation = |number| Served {
            generation: Generation(number),
            manifest: Digest::of(b""),
            list: Arc::new(BlockList::default()),
            shared: false,
        };
        Arc::new(ServedTree {
            generations: vec![generation(3), generation(4)],
            limit: limit.iter().map(ToString::to_string).collect(),
            ..ServedTree::default()
        })
    }

    #[test]
    fn a_peer_gets_read_only_modules_of_just_its_trees() {
        let modules = [("fedora".parse().unwrap(), served(&["- /embargo/", "- *.key"]))];
        let text = configuration(Path::new("/v"), &modules, None);
        let (settings, modules) = text.split_once("[fedora@3]").unwrap();
        for setting in ["read only = yes", "list = no", "numeric ids = yes", "copy-links"] {
            assert!(settings.contains(setting), "{setting}");
        }
        assert_eq!(
            modules,
            "\npath = /v/fedora/3\nfilter = -_/embargo/ -_*.key\n\
             [fedora@4]\npath = /v/fedora/4\nfilter = -_/embargo/ -_*.key\n"
        );
        assert_eq!(configuration(Path::new("/v"), &[], None).matches('[').count(), 0);
        assert!(configuration(Path::new("/v"), &[], Some((0, 0))).contains("uid = 0\ngid = 0\n"));
    }

    #[tokio::test]
    async fn a_missing_rsync_is_found_missing() {
        assert!(find(Path::new("/nonexistent/rsync")).await.is_none());
    }
}
