//! The network itself: a coordinator, publishers, agents and an admin.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;

use crate::{
    Daemon, Host, encoders,
    programs::{program, succeed, told},
    rsyncd::free_port,
    valve::Valve,
    wait_for,
};

/// A network in a directory of its own, which goes away with it.
pub struct Testbed {
    coordinator: Option<Daemon>,
    api: SocketAddr,
    enroll: SocketAddr,
    origin: Host,
    site: Host,
    // Last, because what runs in it has to end first.
    dir: tempfile::TempDir,
}

/// An enrolled agent: where it keeps its state and what it publishes.
pub struct Agent {
    /// Its name.
    pub name: String,
    /// Its `data` directory.
    pub data: PathBuf,
    /// Its `storage` directory.
    pub storage: PathBuf,
    /// Its configuration file.
    pub config: PathBuf,
    /// Where it runs.
    pub host: Host,
}

/// An enrolled publisher.
pub struct Publisher {
    /// Its name, which is also its upstream's.
    pub name: String,
    /// Its `data` directory.
    pub data: PathBuf,
    /// Its configuration file.
    pub config: PathBuf,
}

impl Testbed {
    /// Makes a network called `test` and starts its coordinator.
    pub fn start() -> Self {
        Self::start_on(Host::LOOPBACK, Host::LOOPBACK)
    }

    /// [`Testbed::start`], with further lines for the coordinator's configuration.
    pub fn start_with(coordinator: &str) -> Self {
        Self::start_as(Host::LOOPBACK, Host::LOOPBACK, coordinator)
    }

    /// [`Testbed::start`] with the coordinator, publishers and the admin on one host, and the
    /// agents on another.
    pub fn start_on(origin: Host, site: Host) -> Self {
        Self::start_as(origin, site, "")
    }

    fn start_as(origin: Host, site: Host, coordinator: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("mirrornet-").tempdir().unwrap();
        let address = |port| SocketAddr::from((origin.address(), port));
        let (api, enroll) = (address(free_port()), address(free_port()));
        let hostname = origin.address().to_string();
        let mut testbed = Self { dir, coordinator: None, api, enroll, origin, site };
        let data = testbed.coordinator_data();
        fs::write(
            testbed.path("coordinator.toml"),
            format!(
                "data = {data:?}\nlisten = \"{api}\"\nenroll-listen = \"{enroll}\"\n{coordinator}\n"
            ),
        )
        .unwrap();
        let mut init = program("coordinator");
        init.args(["init", "--network", "test", "--hostname", &hostname, "--data"]).arg(&data);
        init.args(["--listen", &api.to_string(), "--enroll-listen", &enroll.to_string()]);
        succeed(&mut init);
        testbed.start_coordinator();
        testbed
    }

    /// A path in the network's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Makes a directory in the network's directory, with everything above it.
    pub fn make_dir(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    /// The coordinator's data directory.
    pub fn coordinator_data(&self) -> PathBuf {
        self.path("coordinator")
    }

    /// Address of the API.
    pub fn api(&self) -> SocketAddr {
        self.api
    }

    /// Address of the enroll port.
    pub fn enroll(&self) -> SocketAddr {
        self.enroll
    }

    /// Starts the coordinator, for the first time or again.
    pub fn start_coordinator(&mut self) {
        assert!(self.coordinator.is_none(), "the coordinator runs already");
        let _ = fs::remove_file(self.coordinator_data().join("listen"));
        let mut serve = program("coordinator");
        serve.args(["serve", "--config"]).arg(self.path("coordinator.toml"));
        let mut daemon = Daemon::start(
            "coordinator",
            &mut self.origin.run(&serve),
            &self.path("coordinator.log"),
        );
        daemon.address_in(&self.coordinator_data().join("listen"));
        self.coordinator = Some(daemon);
    }

    /// Ends the coordinator as a crash would.
    pub fn kill_coordinator(&mut self) {
        self.coordinator.take().unwrap().kill();
    }

    /// Ends the coordinator as a system does that goes down.
    pub fn stop_coordinator(&mut self) {
        assert!(self.coordinator.take().unwrap().stop().success());
    }

    /// The running coordinator.
    pub fn coordinator(&mut self) -> &mut Daemon {
        self.coordinator.as_mut().unwrap()
    }

    /// `mirrorctl` as the network's first admin.
    pub fn mirrorctl(&self) -> Command {
        let mut command = program("mirrorctl");
        command.env("MIRRORNET_IDENTITY", self.coordinator_data().join("admin"));
        self.origin.run(&command)
    }

    /// Runs `mirrorctl` with these arguments.
    ///
    /// # Panics
    /// When it fails.
    pub fn ctl(&self, args: &[&str]) -> String {
        succeed(self.mirrorctl().args(args))
    }

    /// Runs `mirrorctl … --output json` and reads what it prints.
    pub fn ctl_json(&self, args: &[&str]) -> Value {
        let text = self.ctl(&[args, &["--output", "json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"))
    }

    /// Runs `mirrorctl`, which has to fail, and takes what it says.
    pub fn ctl_fails(&self, args: &[&str]) -> String {
        let output = self.mirrorctl().args(args).output().unwrap();
        assert!(!output.status.success(), "mirrorctl {args:?} succeeded\n{}", told(&output));
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// Applies definitions, with the [encoders](crate::encoders) that are forced.
    pub fn apply(&self, definitions: &str) -> String {
        let file = self.path("network.toml");
        let definitions = match encoders::forced() {
            Some(choice) => encoders::force(definitions, &choice),
            None => definitions.to_owned(),
        };
        fs::write(&file, definitions).unwrap();
        self.ctl(&["apply", "-f", file.to_str().unwrap()])
    }

    /// A new invite.
    pub fn invite(&self, args: &[&str]) -> String {
        self.ctl(&[&["invite"], args].concat()).trim().to_owned()
    }

    /// Invites and enrolls a publisher, and writes its configuration.
    pub fn enroll_publisher(&self, name: &str) -> Publisher {
        let data = self.path(&format!("publisher-{name}"));
        let invite = self.invite(&["--role", "publisher", "--name", name]);
        let port = free_port();
        let address = format!("{}:{port}", self.origin.address());
        let config = self.path(&format!("publisher-{name}.toml"));
        fs::write(
            &config,
            format!("data = {data:?}\nlisten = \"{address}\"\nadvertise = \"{address}\"\n"),
        )
        .unwrap();
        let mut command = program("publisher");
        command.args(["enroll", "--invite", &invite, "--data"]).arg(&data);
        command.args(["--advertise", &address]);
        succeed(&mut self.origin.run(&command));
        Publisher { name: name.to_owned(), data, config }
    }

    /// Invites and enrolls an agent of `site`, and writes its configuration.
    pub fn enroll_agent(&self, name: &str, site: &str) -> Agent {
        let data = self.path(&format!("agent-{name}"));
        let storage = self.make_dir(&format!("storage-{name}"));
        let invite = self.invite(&["--role", "agent", "--name", name, "--site", site]);
        let config = self.path(&format!("agent-{name}.toml"));
        fs::write(&config, format!("data = {data:?}\nstorage = {storage:?}\n")).unwrap();
        let mut command = program("mirror-agent");
        command.args(["enroll", "--invite", &invite, "--data"]).arg(&data);
        succeed(&mut self.site.run(&command));
        Agent { name: name.to_owned(), data, storage, config, host: self.site.clone() }
    }

    /// Starts an enrolled publisher and waits until it listens.
    pub fn run_publisher(&self, publisher: &Publisher) -> Daemon {
        self.run_publisher_by(program("publisher"), publisher)
    }

    /// The same of one that reaches others through a valve alone.
    pub fn run_publisher_behind(&self, publisher: &Publisher, valve: &Valve) -> Daemon {
        let mut command = program("publisher");
        command.env("HTTPS_PROXY", valve.url());
        self.run_publisher_by(command, publisher)
    }

    fn run_publisher_by(&self, mut command: Command, publisher: &Publisher) -> Daemon {
        let _ = fs::remove_file(publisher.data.join("listen"));
        command.args(["run", "--config"]).arg(&publisher.config);
        let log = self.path(&format!("publisher-{}.log", publisher.name));
        let mut daemon = Daemon::start("publisher", &mut self.origin.run(&command), &log);
        daemon.address_in(&publisher.data.join("listen"));
        daemon
    }

    /// Starts an enrolled agent.
    pub fn run_agent(&self, agent: &Agent) -> Daemon {
        let mut command = agent.command(&["run"]);
        let log = self.path(&format!("agent-{}.log", agent.name));
        Daemon::start("mirror-agent", &mut command, &log)
    }

    /// Has a running publisher take a tree now, and waits for the generation.
    pub fn publish(&self, publisher: &Publisher, tree: &str) -> String {
        let mut command = program("publisher");
        command.args(["publish", tree, "--wait", "--data"]).arg(&publisher.data);
        succeed(&mut command)
    }

    /// Waits until the site holds the tree's generation `number`, and takes the run that brought it.
    pub fn wait_for_generation(&self, assignment: &str, number: u64) -> Value {
        wait_for(&format!("{assignment} to hold generation {number}"), || {
            let runs = self.runs(assignment);
            runs.into_iter().find(|run| {
                run["to"]["generation"] == number
                    && matches!(run["result"].as_str(), Some("SYNC_COMPLETED"))
            })
        })
    }

    /// The runs of an assignment, newest first, as the coordinator tells them.
    pub fn runs(&self, assignment: &str) -> Vec<Value> {
        let runs = self.ctl_json(&["history", assignment]);
        runs.as_array().or_else(|| runs["items"].as_array()).cloned().unwrap_or_default()
    }
}

impl Agent {
    /// The directory below which its trees are published.
    pub fn published(&self, path: &str) -> PathBuf {
        self.storage.join("pub").join(path)
    }

    /// `mirror-agent ARGS --config FILE`, not started yet.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = program("mirror-agent");
        command.args(args).arg("--config").arg(&self.config);
        self.host.run(&command)
    }

    /// One activation without a daemon: fetches orders, brings every assignment up to date, ends.
    pub fn run_once(&self) -> Output {
        self.command(&["run", "--once"]).output().unwrap()
    }

    /// [`Agent::run_once`] that has to succeed.
    ///
    /// # Panics
    /// With everything that it printed, when it fails.
    pub fn sync(&self) -> String {
        succeed(&mut self.command(&["run", "--once"]))
    }
}

/// Bytes that arrived by one way in a run, of [`Testbed::wait_for_generation`].
pub fn bytes_by(run: &Value, way: &str) -> u64 {
    let ways = run["ways"].as_array().into_iter().flatten();
    ways.filter(|w| w["way"] == way).filter_map(|w| w["received-bytes"].as_u64()).sum()
}

/// Everything below a directory with its inode, for tests that prove nothing was touched.
pub fn inodes(dir: &Path) -> std::collections::BTreeMap<PathBuf, u64> {
    use std::os::unix::fs::MetadataExt;

    walkdir::WalkDir::new(dir)
        .into_iter()
        .filter_map(Result::ok)
        .filter_map(|entry| {
            let inode = entry.metadata().ok()?.ino();
            Some((entry.path().strip_prefix(dir).ok()?.to_owned(), inode))
        })
        .collect()
}
