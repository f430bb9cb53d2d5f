//! A stock rsync daemon.

use std::{
    fmt::Write,
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU16, Ordering},
};

use crate::{Daemon, Host, programs, wait_until};

/// A running stock rsync daemon on a loopback port.
pub struct Rsyncd {
    daemon: Daemon,
    host: Host,
    port: u16,
    log: PathBuf,
}

impl Rsyncd {
    /// Serves each `(module, directory)` read-only; `settings` are further lines for every module.
    pub fn start(dir: &Path, modules: &[(&str, &Path)], settings: &str) -> Self {
        Self::start_on(free_port(), dir, modules, settings)
    }

    /// [`Rsyncd::start`] on a port that is known already.
    pub fn start_on(port: u16, dir: &Path, modules: &[(&str, &Path)], settings: &str) -> Self {
        Self::start_at(&Host::LOOPBACK, port, dir, modules, settings)
    }

    /// [`Rsyncd::start`] on a host of its own.
    pub fn start_at(
        host: &Host,
        port: u16,
        dir: &Path,
        modules: &[(&str, &Path)],
        settings: &str,
    ) -> Self {
        fs::create_dir_all(dir).unwrap();
        let log = dir.join("rsyncd.log");
        let owner = rustix::process::geteuid();
        let address = host.address();
        let mut config = format!(
            "port = {port}\naddress = {address}\nuse chroot = no\nread only = yes\n\
             log file = {}\npid file = {}\n",
            log.display(),
            dir.join("rsyncd.pid").display(),
        );
        if owner.is_root() {
            config.push_str("uid = 0\ngid = 0\n");
        }
        for (module, path) in modules {
            writeln!(config, "[{module}]\npath = {}\n{settings}", path.display()).unwrap();
        }
        let file = dir.join("rsyncd.conf");
        fs::write(&file, config).unwrap();
        let mut command = Command::new("rsync");
        programs::isolate(&mut command);
        command.args(["--daemon", "--no-detach", "--config"]).arg(&file);
        let daemon = Daemon::start("rsyncd", &mut host.run(&command), &dir.join("rsyncd.out"));
        let rsyncd = Self { daemon, host: host.clone(), port, log };
        let mut ask = Command::new("rsync");
        programs::isolate(&mut ask);
        ask.arg(rsyncd.url());
        wait_until("rsyncd to listen", || host.run(&ask).output().unwrap().status.success());
        rsyncd
    }

    /// `rsync://ADDRESS:PORT/`
    pub fn url(&self) -> String {
        format!("rsync://{}:{}/", self.host.address(), self.port)
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its own log of connections and transfers.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Ends it, as an upstream that is gone.
    pub fn stop(self) {
        self.daemon.kill();
    }
}

/// A port that was free a moment ago, for programs that cannot be given port 0. It lies below the
/// range from which the system takes the ports of outgoing connections, so that it stays free while
/// the program that has it is started again.
pub fn free_port() -> u16 {
    const PORTS: std::ops::Range<u16> = 10_240..32_000;
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    // Tests are processes of their own: each begins elsewhere.
    let begin = std::process::id().wrapping_mul(101) as u16;
    let spread =
        |n: u16| PORTS.start + begin.wrapping_add(n.wrapping_mul(7)) % (PORTS.end - PORTS.start);
    std::iter::repeat_with(|| spread(TAKEN.fetch_add(1, Ordering::Relaxed)))
        .take(2_000)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("some port is free")
}
