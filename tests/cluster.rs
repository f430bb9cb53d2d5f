//! A PostgreSQL of one test.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::programs::{isolate, succeed};

/// A running PostgreSQL, reached only by a socket in its own directory; it ends with the value.
#[derive(Debug)]
pub struct Cluster {
    dir: tempfile::TempDir,
    programs: PathBuf,
}

impl Cluster {
    /// Starts one; `None`, said aloud, where PostgreSQL is not installed.
    pub fn start() -> Option<Self> {
        let Some(programs) = installed() else {
            eprintln!("*** SKIPPED: PostgreSQL is not installed; install the package postgresql");
            return None;
        };
        let dir = tempfile::Builder::new().prefix("mirrornet-pg").tempdir().unwrap();
        let cluster = Self { dir, programs };
        cluster.give_away(cluster.dir.path());
        let data = cluster.data();
        succeed(
            cluster
                .command("initdb")
                .args(["-A", "trust", "-U", "mirrornet", "-N", "-D"])
                .arg(&data),
        );
        let settings = data.join("postgresql.auto.conf");
        let socket = cluster.dir.path().display();
        // No TCP at all: tests side by side cannot meet each other.
        let lines = format!("listen_addresses=''\nunix_socket_directories='{socket}'\nfsync=off\n");
        fs::write(&settings, lines).unwrap();
        cluster.give_away(&settings);
        let mut start = cluster.command("pg_ctl");
        start.args(["-w", "-t", "60", "start", "-D"]).arg(&data);
        start.arg("-l").arg(cluster.dir.path().join("log"));
        // The server inherits what is not closed, and would hold a pipe open for ever.
        let status = start.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        assert!(status.success(), "PostgreSQL did not start in {}", data.display());
        succeed(cluster.command("createdb").arg("-h").arg(cluster.dir.path()).args([
            "-U",
            "mirrornet",
            "net",
        ]));
        Some(cluster)
    }

    /// Address of its one database.
    pub fn url(&self) -> String {
        let socket = self.dir.path().display().to_string().replace('/', "%2F");
        format!("postgres://mirrornet@{socket}/net")
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// PostgreSQL refuses to run as root.
    fn give_away(&self, path: &Path) {
        if rustix::process::geteuid().is_root() {
            succeed(Command::new("chown").args(["-R", "postgres"]).arg(path));
        }
    }

    fn command(&self, program: &str) -> Command {
        let program = self.programs.join(program);
        let mut command = if rustix::process::geteuid().is_root() {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        isolate(&mut command);
        command.current_dir("/");
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let mut stop = self.command("pg_ctl");
        stop.args(["-m", "immediate", "-w", "stop", "-D"]).arg(self.data());
        let stopped = stop.stdout(Stdio::null()).status();
        if !stopped.is_ok_and(|status| status.success()) {
            eprintln!("the PostgreSQL in {} could not be stopped", self.data().display());
        }
    }
}

/// The newest PostgreSQL that is installed.
fn installed() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = versions.map(|version| version.path().join("bin")).collect();
    found.push("/usr/bin".into());
    found.retain(|dir| dir.join("initdb").exists() && dir.join("pg_ctl").exists());
    found.sort();
    found.pop()
}
