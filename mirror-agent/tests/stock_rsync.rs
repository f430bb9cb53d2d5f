//! Direct rsync against a real stock daemon, through our own pipe.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    fs,
    net::{TcpListener, TcpStream},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use certs::dial::Dialer;
use filetree::confine::Confine;
use mirror_agent::rsync::{
    child::{Error, Limits, Programs},
    connect::to_stock,
    exit::Failure,
    listing::{ListedKind, Listing},
    source::{Asked, Source},
};
use mirror_agent::run_log::RunLog;
use protocol::{filter::Filter, path::TreePath, spec::Transport, v1::agent::RsyncdOrigin};

struct Daemon {
    child: Child,
    port: u16,
    dir: tempfile::TempDir,
}

impl Daemon {
    /// Serves DIR/tree as the module `pub`; `settings` are further lines for it.
    fn start(settings: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("tree")).unwrap();
        fs::create_dir(dir.path().join("work")).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let owner = if rustix::process::geteuid().is_root() { "uid = 0\ngid = 0\n" } else { "" };
        let config = dir.path().join("rsyncd.conf");
        fs::write(
            &config,
            format!(
                "port = {port}\naddress = 127.0.0.1\nuse chroot = no\nread only = yes\n{owner}\
                 [pub]\npath = {}\n{settings}\n",
                dir.path().join("tree").display()
            ),
        )
        .unwrap();
        let child = Command::new("rsync")
            .args(["--daemon", "--no-detach", "--config"])
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let until = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < until, "rsyncd does not listen");
            std::thread::yield_now();
        }
        Self { child, port, dir }
    }

    fn tree(&self) -> PathBuf {
        self.dir.path().join("tree")
    }

    fn work(&self) -> PathBuf {
        self.dir.path().join("work")
    }

    fn source(&self, module: &str) -> Source {
        source(self.port, module)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn source(port: u16, module: &str) -> Source {
    let origin = RsyncdOrigin {
        host: "127.0.0.1".into(),
        port,
        path: module.into(),
        user: None,
        password_file: None,
        transport: Transport::Plain,
        ssh: None,
        max_connections: None,
    };
    Source {
        connect: to_stock(Dialer::default(), &origin, Path::new("/nonexistent"), Path::new("")),
        line: Arc::default(),
        host: origin.host,
        path: origin.path,
        user: None,
        password_file: None,
        compress: true,
        programs: Programs {
            rsync: "rsync".into(),
            helper: env!("CARGO_BIN_EXE_mirror-agent").into(),
            confine: Confine::Auto,
            list_first: false,
        },
        limits: Limits::default(),
        log: RunLog::none(),
    }
}

fn path(text: &str) -> TreePath {
    TreePath::parse(text.as_bytes()).unwrap()
}

fn listed_names(listing: &Listing) -> Vec<String> {
    listing.each().map(|listed| listed.unwrap().path.to_string()).collect()
}

/// A file that is asked for, of at most 1 MiB.
fn asked(text: &str) -> Asked {
    Asked { path: path(text), size: 1 << 20 }
}

fn stage(daemon: &Daemon) -> PathBuf {
    let stage = daemon.work().join("stage");
    fs::create_dir(&stage).unwrap();
    stage
}

fn failure(error: Error) -> Failure {
    match error {
        Error::Failed(failure) => failure,
        other => panic!("{other:?}"),
    }
}

fn noise(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut state = 7u64;
    for byte in &mut bytes {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        *byte = (state >> 33) as u8;
    }
    bytes
}

#[tokio::test]
async fn a_listing_shows_what_the_filter_keeps_and_odd_names_as_they_are() {
    let daemon = Daemon::start("");
    let tree = daemon.tree();
    fs::create_dir(tree.join("d")).unwrap();
    for name in ["d/f", "left.tmp", "new\nline", "back\\slash", " lead", "pipe|name"] {
        fs::write(tree.join(name), name).unwrap();
    }
    symlink("d/f", tree.join("link")).unwrap();
    symlink("x -> y", tree.join("odd -> link")).unwrap();
    let filter = Filter::parse(&["- *.tmp"]).unwrap();
    let (passed, listing) = daemon.source("pub").list(&filter, &daemon.work()).await;
    let listing = listing.unwrap();
    assert_eq!(
        listed_names(&listing),
        [" lead", "back\\slash", "d", "d/f", "link", "new%0Aline", "odd -> link", "pipe|name"]
    );
    let odd = listing.get(&path("odd -> link")).unwrap().unwrap();
    assert_eq!(odd.kind, ListedKind::Symlink { target: (*b"x -> y").into() });
    assert!(passed.received > 0 && passed.sent > 0);
}

/// Runs the real rsync, and writes down its arguments and what it printed.
fn recording_rsync(dir: &Path) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let script = dir.join("rsync");
    let text = format!(
        "#!/bin/sh\nat={0}\nprintf '%s\\0' \"$@\" >$at/args\n\
         rsync \"$@\" >$at/out\ncode=$?\ncat $at/out\nexit $code\n",
        dir.display()
    );
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    script
}

#[tokio::test]
async fn short_and_long_lists_of_rules_mean_the_same_to_rsync_for_any_name() {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

    let daemon = Daemon::start("");
    let names: [&[u8]; 14] = [
        b"keep me",
        b"drop me",
        b"new\nkeep",
        b"new\ndrop",
        b"\xff\xfekeep",
        b"\xff\xfedrop",
        b"[x]*?keep",
        b"[x]*?drop",
        b"xyzdrop",
        b" lead keep",
        b" lead drop",
        b"#keep",
        b"; drop",
        b"-keep",
    ];
    for name in names {
        fs::write(daemon.tree().join(OsStr::from_bytes(name)), name).unwrap();
    }
    let mut rules: Vec<Vec<u8>> = [
        &b"- /drop me"[..],
        b"- /new\ndrop",
        b"- /\xff\xfedrop",
        b"- /\\[x\\]\\*\\?drop",
        b"-  lead drop",
        b"- ; drop",
    ]
    .map(<[u8]>::to_vec)
    .to_vec();
    let dir = tempfile::tempdir().unwrap();
    // The directory that holds the file of rules has an odd name itself.
    let work = daemon.dir.path().join("wo rk [x]*");
    fs::create_dir(&work).unwrap();
    let mut source = daemon.source("pub");
    source.programs.rsync = recording_rsync(dir.path());
    // What it writes down lies where rsync has no business.
    source.programs.confine = Confine::Off;
    let mut listings = Vec::new();
    for is_long in [false, true] {
        if is_long {
            rules.extend((0..5_000).map(|n| format!("- /filler {n}\n*").into_bytes()));
            rules.rotate_right(5_000);
        }
        let filter = Filter::parse(&rules).unwrap();
        let listing = source.list(&filter, &work).await.1.unwrap();
        let args = fs::read(dir.path().join("args")).unwrap();
        let has = |part: &[u8]| args.windows(part.len()).any(|window| window == part);
        assert_eq!(has(b"--from0\0--filter=merge /"), is_long);
        assert_eq!(has(b"--filter=- /drop me\0"), !is_long);
        // What we would leave out ourselves, rsync did not print in the first place.
        let printed = fs::read(dir.path().join("out")).unwrap();
        let lines = printed.split(|byte| *byte == b'\n').filter(|line| line.contains(&b'|'));
        let listed = listed_names(&listing);
        assert_eq!(lines.count(), listed.len() + 1, "and the root");
        listings.push(listed);
    }
    assert_eq!(
        listings[0],
        [
            " lead keep",
            "#keep",
            "-keep",
            "[x]*?keep",
            "keep me",
            "new%0Akeep",
            "xyzdrop",
            "%FF%FEkeep"
        ]
    );
    assert_eq!(listings[0], listings[1]);
}

#[tokio::test]
async fn exactly_the_named_files_come_and_old_versions_save_bytes() {
    let daemon = Daemon::start("");
    let (old, stage) = (daemon.dir.path().join("old"), stage(&daemon));
    fs::create_dir(&old).unwrap();
    let content = noise(300_000);
    let mut changed = content.clone();
    changed[1_000..1_010].copy_from_slice(b"0123456789");
    fs::create_dir(daemon.tree().join("d")).unwrap();
    fs::create_dir(old.join("d")).unwrap();
    fs::write(daemon.tree().join("d/big"), &changed).unwrap();
    fs::write(daemon.tree().join("other"), &content).unwrap();
    fs::write(old.join("d/big"), &content).unwrap();
    let files = [asked("d/big")];
    let source = daemon.source("pub");
    let (passed, result) =
        source.fetch(&files, std::slice::from_ref(&old), &stage, &daemon.work()).await;
    result.unwrap();
    assert_eq!(fs::read(stage.join("d/big")).unwrap(), changed);
    assert!(!stage.join("other").exists());
    assert_eq!(fs::read(old.join("d/big")).unwrap(), content, "the base was changed");
    assert!(passed.received < 20_000, "{passed:?}");
}

#[tokio::test]
async fn a_tree_below_a_module_is_listed_and_fetched_at_its_own_paths() {
    let daemon = Daemon::start("");
    let (old, stage) = (daemon.dir.path().join("old"), stage(&daemon));
    fs::create_dir_all(daemon.tree().join("linux/fedora/d")).unwrap();
    fs::create_dir_all(old.join("d")).unwrap();
    let content = noise(200_000);
    fs::write(daemon.tree().join("linux/fedora/d/big"), &content).unwrap();
    fs::write(old.join("d/big"), &content[..199_000]).unwrap();
    let source = daemon.source("pub/linux/fedora");
    let (_, listing) = source.list(&Filter::all(), &daemon.work()).await;
    assert!(listing.unwrap().get(&path("d/big")).unwrap().is_some());
    let files = [asked("d/big")];
    let (passed, result) =
        source.fetch(&files, std::slice::from_ref(&old), &stage, &daemon.work()).await;
    result.unwrap();
    assert_eq!(fs::read(stage.join("d/big")).unwrap(), content);
    assert!(passed.received < 20_000, "the old version was not used: {passed:?}");
}

#[tokio::test]
async fn an_unknown_module_is_named() {
    let daemon = Daemon::start("");
    let (_, listing) = daemon.source("nothing-here").list(&Filter::all(), &daemon.work()).await;
    let failure = failure(listing.unwrap_err());
    assert_eq!(failure, Failure::UnknownModule { module: "nothing-here".into() });
}

#[tokio::test]
async fn a_path_that_is_not_in_the_module_is_no_empty_tree() {
    let daemon = Daemon::start("");
    let (_, listing) = daemon.source("pub/nowhere").list(&Filter::all(), &daemon.work()).await;
    assert!(listing.is_err(), "{listing:?}");
}

#[tokio::test]
async fn a_file_that_vanished_is_never_a_success() {
    let daemon = Daemon::start("");
    fs::write(daemon.tree().join("there"), "x").unwrap();
    let stage = stage(&daemon);
    let files = [asked("gone"), asked("there")];
    let source = daemon.source("pub");
    let (_, result) = source.fetch(&files, &[], &stage, &daemon.work()).await;
    assert!(!failure(result.unwrap_err()).to_string().is_empty());
}

#[tokio::test]
async fn a_server_that_refuses_compression_is_asked_without() {
    let daemon = Daemon::start("refuse options = compress checksum");
    fs::write(daemon.tree().join("f"), "content").unwrap();
    let stage = stage(&daemon);
    let files = [asked("f")];
    let source = daemon.source("pub");
    let (_, result) = source.fetch(&files, &[], &stage, &daemon.work()).await;
    result.unwrap();
    assert_eq!(fs::read(stage.join("f")).unwrap(), b"content");
}

#[tokio::test]
async fn a_server_that_is_gone_is_named_with_its_port() {
    let daemon = Daemon::start("");
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (_, listing) = source(port, "pub").list(&Filter::all(), &daemon.work()).await;
    let error = listing.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains(&port.to_string()), "{error}: {cause}");
}

#[tokio::test]
async fn a_silent_server_is_left_after_its_time() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let silent = tokio::spawn(async move {
        let (_stream, _) = listener.accept().await.unwrap();
        std::future::pending::<()>().await
    });
    let work = tempfile::tempdir().unwrap();
    let limits = Limits { silence: Duration::from_millis(500), ..Limits::default() };
    let source = Source { limits, ..source(port, "pub") };
    let (_, listing) = source.list(&Filter::all(), work.path()).await;
    assert!(matches!(listing, Err(Error::Silent { .. })), "{listing:?}");
    silent.abort();
}

#[tokio::test]
async fn a_host_without_rsync_says_what_to_install() {
    let work = tempfile::tempdir().unwrap();
    let mut source = source(1, "pub");
    source.programs.rsync = work.path().join("no-rsync");
    let (_, listing) = source.list(&Filter::all(), work.path()).await;
    let error = listing.unwrap_err();
    assert!(matches!(error, Error::Missing { .. }) && error.to_string().contains("install"));
}

#[tokio::test]
async fn nobody_without_the_token_gets_into_the_pipe() {
    use mirror_agent::rsync::pipe::{Pipe, new_token};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let work = tempfile::tempdir().unwrap();
    let (near, mut far) = tokio::io::duplex(64);
    let token = new_token();
    let near = Arc::new(std::sync::Mutex::new(Some(near)));
    let connect = async move {
        let stream = near.lock().unwrap().take().unwrap();
        Ok(Box::new(stream) as Box<dyn mirror_agent::rsync::pipe::Duplex>)
    };
    let pipe = Pipe::open(work.path(), token.clone(), connect, Arc::default()).unwrap();
    let connect_to = |socket: &Path| tokio::net::UnixStream::connect(socket.to_owned());
    let mut stranger = connect_to(pipe.socket()).await.unwrap();
    stranger.write_all("x".repeat(token.len()).as_bytes()).await.unwrap();
    let mut end = Vec::new();
    stranger.read_to_end(&mut end).await.unwrap();
    assert!(end.is_empty());
    let mut helper = connect_to(pipe.socket()).await.unwrap();
    helper.write_all(token.as_bytes()).await.unwrap();
    helper.write_all(b"hello").await.unwrap();
    let mut heard = [0; 5];
    far.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"hello");
}
