//! A stock rsync daemon behind ssh: `rsync --server --daemon` at the far end, over our own dialer.
//!
//! ssh encrypts and proves who is there, nothing else: its TCP connection is ours (through the
//! proxy, from the configured address), made by the same helper that rsync has; the host key is
//! the one that the definitions pin, and no file of the user's says otherwise.

use std::{
    ffi::{OsStr, OsString},
    io,
    os::{
        fd::OwnedFd,
        unix::{
            ffi::{OsStrExt, OsStringExt},
            fs::PermissionsExt,
            net::UnixStream as StdUnixStream,
        },
    },
    path::{Path, PathBuf},
    pin::Pin,
    process::Stdio,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use certs::dial::Dialer;
use protocol::v1::agent::{RsyncdOrigin, SshAccess};
use rustix::net::RecvFlags;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    net::UnixStream,
    process::{Child, ChildStderr, Command},
    time::timeout,
};

use super::{
    pipe::{Pipe, TOKEN_ENV, new_token},
    source::fresh_dir,
};

/// The name under which the pinned key is looked up, whatever the host is called.
const ALIAS: &str = "upstream";
/// What ssh said last is kept to this length, in bytes.
const MAX_SAID: u64 = 4 << 10;

/// Why there is no connection through ssh.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such program.
    #[error("transport = \"ssh\" needs the program ssh: install the ssh client of this system")]
    Missing,
    /// The key is open to others; ssh would refuse it with a page of text.
    #[error("the key {path:?} can be read by others: run 'chmod 600 {}'", path.display())]
    LooseKey {
        /// Where it is.
        path: PathBuf,
    },
    /// The key cannot be read.
    #[error("the key {path:?} cannot be read; `key-file` of the upstream names it, on this host")]
    Key {
        /// Where it should be.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It ended before the daemon spoke.
    #[error("ssh ended before the rsync daemon answered: {said}")]
    Ended {
        /// The last line that it printed.
        said: String,
    },
    /// Nothing came.
    #[error("nothing came through ssh within {seconds} s")]
    Silent {
        /// For how long.
        seconds: u64,
    },
    /// A directory, socket or process of ours.
    #[error("ssh could not be run")]
    Io(#[from] io::Error),
    /// The private directory could not be made.
    #[error("ssh could not be prepared")]
    Prepare(#[from] super::child::Error),
}

/// Opens a stream to the daemon, within `deadline`. `work` is a private directory; `helper` is
/// this program.
pub async fn connect(
    dialer: &Dialer,
    origin: &RsyncdOrigin,
    access: &SshAccess,
    work: &Path,
    helper: &Path,
    deadline: Duration,
) -> Result<Tunnel, Error> {
    let key = PathBuf::from(&access.key_file);
    check_key(&key)?;
    let dir = fresh_dir(work, "ssh")?;
    let known = dir.join("known-hosts");
    std::fs::write(&known, format!("{ALIAS} {}\n", access.host_key))?;
    let (dialer, host, port) = (dialer.clone(), origin.host.clone(), origin.port);
    let dial = async move {
        let stream = dialer.connect(&host, port, deadline).await.map_err(io::Error::other)?;
        Ok(Box::new(stream) as Box<dyn super::pipe::Duplex>)
    };
    // What comes is counted, and slowed down, where rsync takes it.
    let pipe = Pipe::open(&dir, new_token(), dial, Arc::default())?;
    let (ours, theirs) = StdUnixStream::pair()?;
    let mut child = command(origin, &key, &known, &pipe, helper)
        .stdin(Stdio::from(OwnedFd::from(theirs.try_clone()?)))
        .stdout(Stdio::from(OwnedFd::from(theirs)))
        .spawn()
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Error::Missing,
            _ => Error::Io(error),
        })?;
    ours.set_nonblocking(true)?;
    let stream = UnixStream::from_std(ours)?;
    let said = child.stderr.take();
    let silent = || Error::Silent { seconds: deadline.as_secs() };
    if timeout(deadline, has_spoken(&stream)).await.map_err(|_| silent())?? {
        return Ok(Tunnel { stream, _child: child, _pipe: pipe });
    }
    // The dialer knows better than ssh, which only sees its helper end.
    let said = last_words(said).await;
    pipe.finish().await?;
    Err(Error::Ended { said })
}

/// ssh with nothing of the user's own: no configuration, no agent, no other key, no other host.
fn command(origin: &RsyncdOrigin, key: &Path, known: &Path, pipe: &Pipe, helper: &Path) -> Command {
    let option = |name: &str, value: &dyn AsRef<OsStr>| {
        let mut text = OsString::from(format!("-o{name}="));
        text.push(value);
        text
    };
    let mut proxy = shell_quoted(helper.as_os_str());
    proxy.push(" rsync-pipe --socket ");
    proxy.push(shell_quoted(pipe.socket().as_os_str()));
    let mut command = Command::new("ssh");
    command.args(["-F", "none", "-T", "-x", "-a"]);
    for (name, value) in [
        ("BatchMode", "yes"),
        ("StrictHostKeyChecking", "yes"),
        ("GlobalKnownHostsFile", "none"),
        ("HostKeyAlias", ALIAS),
        ("CheckHostIP", "no"),
        ("UpdateHostKeys", "no"),
        ("IdentitiesOnly", "yes"),
        ("IdentityAgent", "none"),
        ("PreferredAuthentications", "publickey"),
        ("ClearAllForwardings", "yes"),
        ("PermitLocalCommand", "no"),
        ("LogLevel", "ERROR"),
    ] {
        command.arg(option(name, &value));
    }
    command
        .arg(option("UserKnownHostsFile", &ssh_quoted(known)))
        .arg(option("IdentityFile", &ssh_quoted(key)))
        .arg(option("ProxyCommand", &percent_escaped(&proxy)));
    if let Some(user) = &origin.user {
        command.arg("-l").arg(user);
    }
    command.arg("-p").arg(origin.port.to_string()).arg("--").arg(&origin.host);
    command.args(["rsync", "--server", "--daemon", "."]);
    command
        .env_clear()
        .env("LC_ALL", "C")
        // It runs the helper by this shell, whatever the account's is.
        .env("SHELL", "/bin/sh")
        .env(TOKEN_ENV, pipe.token())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    command
}

fn check_key(path: &Path) -> Result<(), Error> {
    let found = std::fs::metadata(path);
    let mode = found.map_err(|source| Error::Key { path: path.into(), source })?;
    if mode.permissions().mode() & 0o077 == 0 {
        Ok(())
    } else {
        Err(Error::LooseKey { path: path.into() })
    }
}

/// Waits for the first byte; `false` at the end without one.
async fn has_spoken(stream: &UnixStream) -> io::Result<bool> {
    loop {
        stream.readable().await?;
        let mut byte = [0];
        let peeked = stream.try_io(tokio::io::Interest::READABLE, || {
            Ok(rustix::net::recv(stream, &mut byte[..], RecvFlags::PEEK)?)
        });
        match peeked {
            Ok((_, len)) => return Ok(len > 0),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

async fn last_words(from: Option<ChildStderr>) -> String {
    let mut text = Vec::new();
    if let Some(from) = from {
        // Whatever of it came by then.
        let mut from = from.take(MAX_SAID);
        drop(timeout(Duration::from_secs(2), from.read_to_end(&mut text)).await);
    }
    let text = String::from_utf8_lossy(&text);
    let last = text.lines().rev().find(|line| !line.trim().is_empty());
    last.map_or_else(|| "it said nothing".into(), |line| line.trim().escape_debug().to_string())
}

/// In a value of ssh's configuration `%` begins a variable.
fn percent_escaped(text: &OsStr) -> OsString {
    let mut out = Vec::with_capacity(text.len());
    for &b in text.as_bytes() {
        out.extend(if b == b'%' { &b"%%"[..] } else { std::slice::from_ref(&b) });
    }
    OsString::from_vec(out)
}

/// One word for /bin/sh.
fn shell_quoted(text: &OsStr) -> OsString {
    let mut out = vec![b'\''];
    for &b in text.as_bytes() {
        out.extend(if b == b'\'' { &b"'\\''"[..] } else { std::slice::from_ref(&b) });
    }
    out.push(b'\'');
    OsString::from_vec(out)
}

/// A path as one word of ssh's configuration.
fn ssh_quoted(path: &Path) -> OsString {
    let mut text = OsString::from("\"");
    text.push(percent_escaped(path.as_os_str()));
    text.push("\"");
    text
}

/// The stream through ssh. Dropping it ends ssh.
#[derive(Debug)]
pub struct Tunnel {
    stream: UnixStream,
    _child: Child,
    _pipe: Pipe,
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
