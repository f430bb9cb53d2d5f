//! The pipe between rsync and the network: rsync talks to us, we talk to the server.
//!
//! rsync knows neither TLS nor client certificates, its own proxy support goes through a shell,
//! and it counts no bytes that we could trust. So it is started with `-e 'mirror-agent rsync-pipe
//! --socket PATH'`: that helper connects back to the agent over a unix socket, which lies in a
//! directory of the agent's user alone, shows the run's token, and copies bytes. The agent makes
//! the real connection, counts both directions and sees when the peer falls silent.

use std::{
    io::{self, Read, Write},
    net::Shutdown,
    os::fd::AsFd,
    os::unix::{fs::PermissionsExt, net::UnixStream as StdUnixStream},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::fs::OFlags;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    task::JoinHandle,
    time::timeout,
};

use crate::line::Line;

/// Environment variable in which rsync hands the token to the helper: an argument could be read
/// by every user of the host.
pub const TOKEN_ENV: &str = "MIRRORNET_PIPE_TOKEN";
const TOKEN_LEN: usize = 32;
const HELLO_DEADLINE: Duration = Duration::from_secs(10);
const BUFFER: usize = 64 << 10;

/// A connection that bytes are copied to.
pub trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

/// What the helper process does: connects to the agent and copies until either side ends.
pub fn run_helper(socket: &Path) -> io::Result<()> {
    let token = std::env::var(TOKEN_ENV).map_err(|_| {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            "called without a token: only mirror-agent starts it",
        )
    })?;
    // rsync hands over both ends of its socket pair in non-blocking mode.
    block(io::stdin())?;
    block(io::stdout())?;
    let mut stream = StdUnixStream::connect(socket)?;
    stream.write_all(token.as_bytes())?;
    let mut outgoing = stream.try_clone()?;
    // The thread may hang in a read of stdin after the server has gone; the process ends anyway.
    thread::spawn(move || {
        copy(&mut io::stdin().lock(), &mut outgoing);
        outgoing.shutdown(Shutdown::Write).ok();
    });
    copy(&mut stream, &mut io::stdout().lock());
    Ok(())
}

/// Copies and passes on at once: rsync's protocol is a dialog. An error is an end like any other.
fn copy(from: &mut impl Read, to: &mut impl Write) {
    let mut buffer = vec![0; BUFFER];
    loop {
        match from.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(len @ 1..) if to.write_all(&buffer[..len]).and_then(|()| to.flush()).is_ok() => {}
            _ => return,
        }
    }
}

/// Makes reads and writes wait, as [`copy`] expects.
fn block(stream: impl AsFd) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(&stream)?;
    Ok(rustix::fs::fcntl_setfl(&stream, flags - OFlags::NONBLOCK)?)
}

/// Bytes that passed, and when the last did.
#[derive(Debug)]
pub struct Meter {
    received: AtomicU64,
    sent: AtomicU64,
    last: Mutex<Instant>,
}

impl Meter {
    fn new() -> Arc<Self> {
        let zero = AtomicU64::default;
        Arc::new(Self { received: zero(), sent: zero(), last: Mutex::new(Instant::now()) })
    }

    /// Bytes that came from the server.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Bytes that went to the server.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// How long no byte has come from the server.
    pub fn silent_for(&self) -> Duration {
        self.last.lock().map_or(Duration::ZERO, |last| last.elapsed())
    }

    fn add(&self, counter: &AtomicU64, bytes: usize) {
        counter.fetch_add(bytes as u64, Ordering::Relaxed);
        if let Ok(mut last) = self.last.lock() {
            *last = Instant::now();
        }
    }
}

/// The agent's end of one rsync run's pipe. Dropping it ends the connection.
#[derive(Debug)]
pub struct Pipe {
    socket: PathBuf,
    token: String,
    meter: Arc<Meter>,
    task: JoinHandle<io::Result<()>>,
}

impl Pipe {
    /// Listens on a socket in `dir` (a private directory) for one helper, and joins it to what
    /// `connect` connects to; what comes from there comes over `line`.
    pub fn open<F>(dir: &Path, token: String, connect: F, line: Arc<Line>) -> io::Result<Self>
    where
        F: Future<Output = io::Result<Box<dyn Duplex>>> + Send + 'static,
    {
        let socket = dir.join("pipe");
        match std::fs::remove_file(&socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&socket)?;
        std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o600))?;
        let meter = Meter::new();
        let task = tokio::spawn(join(listener, token.clone(), connect, Arc::clone(&meter), line));
        Ok(Self { socket, token, meter, task })
    }

    /// Where the helper connects.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// What the helper must show.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// What passed.
    pub fn meter(&self) -> &Meter {
        &self.meter
    }

    /// Why the pipe ended, if it ended with an error of the connection.
    pub async fn finish(mut self) -> io::Result<()> {
        // rsync has ended: whatever the pipe still waits for will not come.
        match timeout(Duration::from_secs(1), &mut self.task).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) | Err(_) => Ok(()),
        }
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.task.abort();
        std::fs::remove_file(&self.socket).ok();
    }
}

async fn join<F>(
    listener: UnixListener,
    token: String,
    connect: F,
    meter: Arc<Meter>,
    line: Arc<Line>,
) -> io::Result<()>
where
    F: Future<Output = io::Result<Box<dyn Duplex>>> + Send + 'static,
{
    let helper = accept(&listener, &token).await?;
    line.check().map_err(io::Error::other)?;
    let server = connect.await?;
    let (mut from_helper, mut to_helper) = helper.into_split();
    let (mut from_server, mut to_server) = tokio::io::split(server);
    let up = async {
        pump(&mut from_helper, &mut to_server, |bytes| meter.add(&meter.sent, bytes)).await?;
        to_server.shutdown().await
    };
    let down = async {
        receive(&mut from_server, &mut to_helper, &meter, &line).await?;
        to_helper.shutdown().await
    };
    // The server's end is the end; ours is not: it may still have much to say.
    let ended = async { tokio::try_join!(up, down).map(|_| ()) };
    ended.await
}

/// Waits for the helper that knows the token; whoever does not is turned away.
async fn accept(listener: &UnixListener, token: &str) -> io::Result<UnixStream> {
    loop {
        let (mut stream, _) = listener.accept().await?;
        let mut shown = vec![0; token.len()];
        match timeout(HELLO_DEADLINE, stream.read_exact(&mut shown)).await {
            Ok(Ok(_)) if shown == token.as_bytes() => return Ok(stream),
            _ => {}
        }
    }
}

async fn pump(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    count: impl Fn(usize),
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let len = from.read(&mut buffer).await?;
        if len == 0 {
            return Ok(());
        }
        count(len);
        to.write_all(&buffer[..len]).await?;
        to.flush().await?;
    }
}

/// Like [`pump`], as fast as the line allows. A wait of ours is no silence of the server's.
async fn receive(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    meter: &Meter,
    line: &Line,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let piece = line.piece().min(BUFFER);
        let len = from.read(&mut buffer[..piece]).await?;
        if len == 0 {
            return Ok(());
        }
        meter.add(&meter.received, len);
        to.write_all(&buffer[..len]).await?;
        to.flush().await?;
        line.took(len).await.map_err(io::Error::other)?;
        meter.add(&meter.received, 0);
    }
}

/// A new token for one run.
pub fn new_token() -> String {
    let (one, two) = (uuid::Uuid::now_v7(), uuid::Uuid::now_v7());
    let mut bytes = [0; TOKEN_LEN];
    bytes[..16].copy_from_slice(one.as_bytes());
    bytes[16..].copy_from_slice(two.as_bytes());
    data_encoding::HEXLOWER.encode(&bytes)
}
