//! A PostgreSQL cluster of the tests' own, and both databases for the contract suite.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use super::Database;

/// A database that ends with the test.
pub(crate) struct TestDatabase {
    pub(crate) database: Database,
    /// Opens the same database again, as another replica does.
    pub(crate) url: Option<String>,
    pub(crate) dir: TempDir,
}

impl TestDatabase {
    /// SQLite in a directory of its own.
    pub(crate) async fn sqlite() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let database = Database::open_sqlite(dir.path()).await.unwrap();
        Self { database, url: None, dir }
    }

    /// A new database in a cluster.
    pub(crate) async fn postgres(cluster: &Cluster, name: &str) -> Self {
        let url = cluster.create_database(name);
        let database = Database::connect_postgres(&url).await.unwrap();
        Self { database, url: Some(url), dir: tempfile::tempdir().unwrap() }
    }

    /// The same database as another process sees it.
    pub(crate) async fn again(&self) -> Database {
        match &self.url {
            Some(url) => Database::connect_postgres(url).await.unwrap(),
            None => Database::open_sqlite(self.dir.path()).await.unwrap(),
        }
    }
}

/// A running PostgreSQL, reached by a socket in its own directory.
pub(crate) struct Cluster {
    dir: TempDir,
    programs: PathBuf,
}

impl Cluster {
    /// Starts one; `None`, said aloud, where PostgreSQL is not installed.
    pub(crate) fn start() -> Option<Self> {
        static SAID: OnceLock<()> = OnceLock::new();
        let Some(programs) = programs() else {
            SAID.get_or_init(|| {
                eprintln!(
                    "\n*** SKIPPED: no PostgreSQL programs (initdb, pg_ctl) were found; the contract was NOT tested on PostgreSQL. Install the package postgresql. ***\n"
                );
            });
            return None;
        };
        let dir = tempfile::Builder::new().prefix("pg").tempdir_in("/tmp").unwrap();
        let cluster = Self { dir, programs };
        cluster.give_away(cluster.dir.path());
        let data = cluster.data();
        cluster.run("initdb", &["-D", &data, "-A", "trust", "-U", "mirrornet", "-N"]);
        let socket = cluster.dir.path().display().to_string();
        // No TCP at all: tests side by side cannot meet each other.
        let settings = format!(
            "listen_addresses=''\nunix_socket_directories='{socket}'\nfsync=off\nmax_connections=40\n"
        );
        let path = cluster.dir.path().join("data/postgresql.auto.conf");
        fs::write(&path, settings).unwrap();
        cluster.give_away(&path);
        let log = format!("{socket}/log");
        cluster.run("pg_ctl", &["-D", &data, "-l", &log, "-w", "-t", "60", "start"]);
        Some(cluster)
    }

    fn data(&self) -> String {
        self.dir.path().join("data").display().to_string()
    }

    /// Makes an empty database and gives its address.
    pub(crate) fn create_database(&self, name: &str) -> String {
        // PostgreSQL cuts longer names off.
        let name: String = name.chars().take(60).collect();
        let socket = self.dir.path().display().to_string();
        self.run("createdb", &["-h", &socket, "-U", "mirrornet", &name]);
        format!("postgres://mirrornet@{}/{name}", socket.replace('/', "%2F"))
    }

    /// PostgreSQL refuses to run as root.
    fn give_away(&self, path: &Path) {
        if is_root() {
            let status = Command::new("chown").arg("-R").arg("postgres").arg(path).status();
            assert!(status.unwrap().success());
        }
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let began = Instant::now();
        let output = self.command(program, arguments).output().unwrap();
        assert!(output.status.success(), "{program}: {output:?}");
        assert!(began.elapsed() < Duration::from_secs(120), "{program} took too long");
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let program = self.programs.join(program);
        let mut command = if is_root() {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        command.args(arguments).current_dir("/tmp").stdin(Stdio::null());
        command.env("LC_ALL", "C");
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let data = self.data();
        let stopped = self
            .command("pg_ctl", &["-D", &data, "-m", "immediate", "-w", "stop"])
            .stdout(Stdio::null())
            .status();
        if !stopped.is_ok_and(|status| status.success()) {
            eprintln!("the PostgreSQL in {data} could not be stopped");
        }
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The newest PostgreSQL that is installed.
fn programs() -> Option<PathBuf> {
    let mut found: Vec<PathBuf> = ["/usr/lib/postgresql", "/usr/pgsql"]
        .iter()
        .filter_map(|dir| fs::read_dir(dir).ok())
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .collect();
    found.push("/usr/bin".into());
    found.retain(|dir| dir.join("initdb").exists() && dir.join("pg_ctl").exists());
    found.sort();
    found.pop()
}
