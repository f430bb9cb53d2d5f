//! rsync in its cage: what a program in rsync's place tries, and what the kernel lets it do.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

use std::{
    collections::BTreeSet,
    fs,
    net::TcpListener,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::Arc,
    time::Duration,
};

use certs::dial::Dialer;
use filetree::confine::{Bounds, Cage, Confine, is_available};
use mirror_agent::rsync::{
    child::{CAGED, Limits, Programs},
    connect::to_stock,
    source::{Asked, Source},
};
use mirror_agent::run_log::RunLog;
use protocol::{path::TreePath, spec::Transport, v1::agent::RsyncdOrigin};

const HELPER: &str = env!("CARGO_BIN_EXE_mirror-agent");
const LARGEST: u64 = 1 << 20;

/// A mirror, a secret, and a program in rsync's place.
struct Site {
    dir: tempfile::TempDir,
    listener: TcpListener,
}

impl Site {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["live", "stage", "work", "private"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        fs::write(dir.path().join("live/file"), "published").unwrap();
        fs::write(dir.path().join("private/key"), "secret").unwrap();
        fs::write(dir.path().join("password"), "password").unwrap();
        Self { dir, listener: TcpListener::bind("127.0.0.1:0").unwrap() }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What of these lines of shell the program in rsync's place was able to do, by their words.
    async fn attempt(&self, lines: &[&str]) -> BTreeSet<String> {
        let mut script = String::from("#!/bin/bash\nexec 2>/dev/null\n");
        for line in lines {
            script.push_str(&format!("{{ {line}; }} && echo '{line}' >>done\n"));
        }
        script.push_str("exit 0\n");
        let program = self.at("rsync");
        fs::write(&program, script.replace('@', &format!("{}/", self.dir.path().display())))
            .unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let source = self.source(program);
        let files = [Asked { path: TreePath::parse(b"f").unwrap(), size: LARGEST }];
        let (live, stage, work) = (self.at("live"), self.at("stage"), self.at("work"));
        let (_, result) = source.fetch(&files, &[live], &stage, &work).await;
        result.unwrap();
        let done = fs::read_to_string(stage.join("done")).unwrap_or_default();
        let prefix = format!("{}/", self.dir.path().display());
        done.lines().map(|line| line.replace(&prefix, "@")).collect()
    }

    fn source(&self, rsync: PathBuf) -> Source {
        let origin = RsyncdOrigin {
            host: "127.0.0.1".into(),
            port: self.listener.local_addr().unwrap().port(),
            path: "pub".into(),
            user: None,
            password_file: None,
            transport: Transport::Plain,
            ssh: None,
            max_connections: None,
        };
        let programs = Programs {
            rsync,
            helper: HELPER.into(),
            confine: Confine::Required,
            list_first: false,
        };
        Source {
            connect: to_stock(Dialer::default(), &origin, Path::new("/"), Path::new("")),
            line: Arc::default(),
            host: origin.host,
            path: origin.path,
            user: None,
            password_file: Some(self.at("password")),
            compress: false,
            programs,
            limits: Limits { total: Duration::from_secs(60), ..Limits::default() },
            log: RunLog::none(),
        }
    }
}

fn is_skipped() -> bool {
    let skipped = !is_available();
    if skipped {
        eprintln!("skipped: this kernel has no Landlock");
    }
    skipped
}

#[tokio::test]
async fn what_rsync_needs_it_can_do() {
    if is_skipped() {
        return;
    }
    let site = Site::new();
    let lines = [
        "echo content > new",
        "mkdir dir",
        "mv new dir/moved",
        "rm dir/moved",
        "rmdir dir",
        "cat @live/file",
        "ls @live",
        "cat @password",
        "ls /usr/lib",
        "echo nothing > /dev/null",
        "head -c 1000 /dev/urandom",
        "rsync --version",
        "kill -0 $$",
    ];
    let done = site.attempt(&lines).await;
    let wanted: BTreeSet<String> = lines.iter().map(ToString::to_string).collect();
    assert_eq!(done, wanted);
}

#[tokio::test]
async fn what_rsync_has_no_business_with_the_kernel_refuses() {
    if is_skipped() {
        return;
    }
    let site = Site::new();
    let port = site.listener.local_addr().unwrap().port();
    let connect = format!("exec 3<>/dev/tcp/127.0.0.1/{port}");
    let lines = [
        "cat @private/key",
        "ls @private",
        "cat /etc/shadow",
        "cat /proc/$PPID/environ",
        "echo x > @private/key",
        "echo x > @private/new",
        "rm @private/key",
        "echo x > @live/file",
        "echo x >> @live/file",
        "rm @live/file",
        "mv @live/file @live/other",
        "mv @live/file stolen",
        "ln @live/file linked",
        "mkdir @live/dir",
        "touch @live/new",
        "echo x > @work/new",
        "ln -s @private link",
        "mknod fifo p",
        "mknod null c 1 3",
        "kill -0 $PPID",
        &connect,
    ];
    let before = fs::metadata(site.at("live/file")).unwrap();
    let done = site.attempt(&lines).await;
    assert_eq!(done, BTreeSet::new());
    let after = fs::metadata(site.at("live/file")).unwrap();
    assert_eq!((before.ino(), before.nlink()), (after.ino(), after.nlink()));
    assert_eq!(fs::read(site.at("live/file")).unwrap(), b"published");
    assert_eq!(fs::read(site.at("private/key")).unwrap(), b"secret");
    site.listener.set_nonblocking(true).unwrap();
    assert!(site.listener.accept().is_err(), "a connection was made");
}

#[tokio::test]
async fn no_file_in_the_stage_grows_beyond_what_was_asked_for() {
    let site = Site::new();
    let done = site.attempt(&["head -c 3000000 /dev/zero > big", "head -c 1000 /dev/zero > small"]);
    assert_eq!(done.await, BTreeSet::from(["head -c 1000 /dev/zero > small".to_owned()]));
    assert_eq!(fs::metadata(site.at("stage/big")).unwrap().len(), LARGEST);
}

/// A shell in a cage that is closed no further than this.
fn bounded(bounds: Bounds, line: &str) -> Output {
    let (read, write, programs) = (vec!["/".into()], Vec::new(), Vec::new());
    let cage = Cage { confine: Confine::Off, read, write, programs, bounds };
    let arguments = cage.arguments(Path::new("/bin/bash"));
    let mut command = Command::new(HELPER);
    command.arg(CAGED).args(arguments).args(["-c", line]).output().unwrap()
}

const ENOUGH: Bounds =
    Bounds { memory_bytes: 4 << 30, file_bytes: 1 << 20, cpu_seconds: 60, open_files: 64 };

#[test]
fn a_program_that_takes_too_much_memory_time_or_files_is_ended() {
    use std::os::unix::process::ExitStatusExt;

    assert!(bounded(ENOUGH, "head -c 100000000 /dev/zero | tail -c 1 | wc -c").status.success());
    let little = Bounds { memory_bytes: 64 << 20, ..ENOUGH };
    let said = bounded(little, "set -o pipefail; head -c 100000000 /dev/zero | tail -n 1 | wc -c");
    assert!(!said.status.success(), "{said:?}");
    let short = Bounds { cpu_seconds: 1, ..ENOUGH };
    let ended = bounded(short, "while :; do :; done").status.signal();
    // At once with the limit that the kernel enforces.
    assert!(matches!(ended, Some(9 | 24)), "{ended:?}");
    let few = Bounds { open_files: 8, ..ENOUGH };
    let open = "for n in {10..40}; do eval \"exec $n</dev/null\" || exit 3; done";
    assert!(!bounded(few, open).status.success());
    assert!(bounded(ENOUGH, open).status.success());
    assert_eq!(bounded(ENOUGH, "ulimit -Hc").stdout, b"0\n");
}

#[test]
fn a_cage_that_cannot_be_closed_starts_nothing() {
    let read = vec![];
    let cage = Cage {
        confine: Confine::Auto,
        read,
        write: vec!["/nowhere/stage".into()],
        programs: vec![],
        bounds: ENOUGH,
    };
    let mut command = Command::new(HELPER);
    command.arg(CAGED).args(cage.arguments(Path::new("/bin/echo"))).arg("started");
    let output = command.output().unwrap();
    if !is_skipped() {
        assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("/nowhere/stage"), "{output:?}");
    }
    let output = Command::new(HELPER).args([CAGED, "nonsense"]).output().unwrap();
    assert!(!output.status.success(), "{output:?}");
}
