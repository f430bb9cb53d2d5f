//! The network's root is replaced again and again, under agents and a publisher that go on working, with
//! two replicas of the coordinator behind one address.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tests::{
    Balancer, Daemon, Testbed,
    cluster::Cluster,
    compare,
    fixture::{prose, write},
    network::Agent,
    programs::{program, succeed},
    rsyncd::free_port,
    wait_until,
};

use crate::postgres::start_on;

/// How often the root is replaced.
const ROTATIONS: usize = 3;
const SITES: [&str; 3] = ["lisbon", "oslo", "porto"];
/// Within this, all of it has to be over; about a minute and a half is usual.
const MOST: Duration = Duration::from_secs(8 * 60);

/// The second replica, which has the keys of the first.
struct Replica {
    config: PathBuf,
    data: PathBuf,
    log: PathBuf,
    running: Option<Daemon>,
}

impl Replica {
    fn start(&mut self) {
        let _ = fs::remove_file(self.data.join("listen"));
        let mut serve = program("coordinator");
        serve.args(["serve", "--config"]).arg(&self.config);
        let mut daemon = Daemon::start("second coordinator", &mut serve, &self.log);
        daemon.address_in(&self.data.join("listen"));
        self.running = Some(daemon);
    }

    fn stop(&mut self) {
        assert!(self.running.take().unwrap().stop().success());
    }
}

/// Two replicas behind one address.
struct Pair {
    net: Testbed,
    second: Replica,
    balancer: Balancer,
    began: Instant,
}

impl Pair {
    fn start(cluster: &Cluster) -> Self {
        let [api, enroll, second_api, second_enroll] = [(); 4].map(|()| free_port());
        let settings = format!(
            "certificate-life = \"16s\"\napi-url = \"https://127.0.0.1:{api}\"\n\
             enroll-url = \"https://127.0.0.1:{enroll}\"\n"
        );
        let net = start_on(cluster, &settings);
        let data = net.path("second");
        succeed(Command::new("cp").arg("-a").args([&net.coordinator_data(), &data]));
        let config = net.path("second.toml");
        let text = fs::read_to_string(net.path("coordinator.toml")).unwrap();
        let text = [
            (format!("{:?}", net.coordinator_data()), format!("{data:?}")),
            (net.api().to_string(), format!("127.0.0.1:{second_api}")),
            (net.enroll().to_string(), format!("127.0.0.1:{second_enroll}")),
        ]
        .into_iter()
        .fold(text, |text, (from, to)| text.replace(&from, &to));
        fs::write(&config, text).unwrap();
        let log = net.path("second.log");
        let mut second = Replica { config, data, log, running: None };
        second.start();
        let at = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let balancer = Balancer::start(api, vec![net.api(), at(second_api)]);
        Balancer::start(enroll, vec![net.enroll(), at(second_enroll)]);
        Self { net, second, balancer, began: Instant::now() }
    }

    /// Replaces the first admin, whose certificate lives for a week, by one of the network's pace.
    fn change_admin(&self) {
        let invite = self.net.invite(&["--role", "admin", "--name", "ann"]);
        let mut login = program("mirrorctl");
        succeed(login.args(["login", &invite, "--identity"]).arg(self.net.path("ann")));
        self.ctl(&["revoke", "admin/admin", "--reason", "replaced"]);
    }

    /// `mirrorctl` by way of the balancer, which also renews the admin's certificate in time.
    fn ctl(&self, args: &[&str]) -> String {
        let mut command = program("mirrorctl");
        command.env("MIRRORNET_IDENTITY", self.net.path("ann"));
        succeed(command.env("MIRRORNET_COORDINATOR", self.balancer.url()).args(args))
    }

    /// One step of a rotation, as soon as it may be taken, and the restart of one replica after the
    /// other.
    fn step(&mut self, step: &str) {
        let config = self.net.path("coordinator.toml");
        let mut last = String::new();
        let deadline = Instant::now() + tests::PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "{step} is not possible: {last}");
            assert!(self.began.elapsed() < MOST, "it takes longer than {MOST:?}");
            self.ctl(&["status"]);
            let mut ca = program("coordinator");
            let output = ca.args(["ca", step, "--config"]).arg(&config).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success() || said.contains("would be cut off"), "{said}");
            if output.status.success() {
                break;
            }
            last = said;
            thread::sleep(Duration::from_millis(300));
        }
        for name in ["ca", "ca-next", "ca-previous"] {
            let (from, to) = (self.net.coordinator_data().join(name), self.second.data.join(name));
            let _ = fs::remove_dir_all(&to);
            if from.exists() {
                succeed(Command::new("cp").arg("-a").args([&from, &to]));
            }
        }
        self.net.stop_coordinator();
        self.net.start_coordinator();
        self.second.stop();
        self.second.start();
    }

    /// What each site holds, by its last receipt.
    fn held(&self) -> Vec<u64> {
        let status: Value =
            serde_json::from_str(&self.ctl(&["status", "--output", "json"])).unwrap();
        let assignments = status["assignments"].as_array().unwrap();
        let number = |of: &Value| of["holds"]["generation"].as_u64().unwrap_or(0);
        assignments.iter().map(number).collect()
    }
}

/// The authorities that an identity trusts.
fn trusted(data: &Path) -> Vec<String> {
    let text = fs::read_to_string(data.join("identity/ca.pem")).unwrap();
    let parts = text.split("-----END CERTIFICATE-----").map(str::trim);
    parts.filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

#[test]
fn three_rotations_of_the_root_under_load_with_two_replicas_cut_nobody_off() {
    let Some(cluster) = Cluster::start() else { return };
    let mut pair = Pair::start(&cluster);
    let upstream = pair.net.make_dir("upstream/tree");
    let mut definitions = format!(
        "[[upstream]]\nname = \"build\"\nkind = \"publisher\"\n\
         [[source]]\nname = \"source\"\nupstream = \"build\"\npath = {:?}\n\
         [[tree]]\nname = \"tree\"\nsource = \"source\"\npath = \"tree\"\ninterval = \"1h\"\n",
        pair.net.path("upstream")
    );
    for site in SITES {
        definitions.push_str(&format!(
            "[[site]]\nname = \"{site}\"\n[[grant]]\nsite = \"{site}\"\ntree = \"tree\"\n\
             [[assignment]]\nsite = \"{site}\"\ntree = \"tree\"\nkeep-withdrawn = \"0s\"\n"
        ));
    }
    pair.net.apply(&definitions);
    for n in 0..20 {
        write(&upstream.join(format!("f{n}")), prose(n, 20_000));
    }
    let publisher = pair.net.enroll_publisher("build");
    let mut publishing = pair.net.run_publisher(&publisher);
    let agents: Vec<Agent> =
        SITES.iter().map(|site| pair.net.enroll_agent(&format!("{site}-1"), site)).collect();
    pair.change_admin();
    let mut daemons: Vec<Daemon> = agents.iter().map(|agent| pair.net.run_agent(agent)).collect();
    let first = trusted(&agents[0].data);
    assert_eq!(first.len(), 1);

    // The load: a new generation as often as one can be made.
    let (ended, announced) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let load = {
        let (ended, announced) = (Arc::clone(&ended), Arc::clone(&announced));
        let (upstream, data) = (upstream.clone(), publisher.data.clone());
        thread::spawn(move || {
            let mut numbers = 0u32;
            while !ended.load(Ordering::Relaxed) {
                numbers += 1;
                write(&upstream.join(format!("f{}", numbers % 20)), prose(numbers.into(), 20_000));
                let mut publish = program("publisher");
                publish.args(["publish", "tree", "--wait", "--output", "json", "--data"]);
                // One that fails while both replicas are away is tried again by itself.
                let output = publish.arg(&data).output().unwrap();
                if output.status.success() {
                    announced.fetch_add(1, Ordering::Relaxed);
                }
                thread::sleep(Duration::from_millis(200));
            }
        })
    };
    let mut roots = first.clone();
    for rotation in 1..=ROTATIONS {
        for step in ["rotate", "switch", "finish"] {
            pair.step(step);
            let newest = announced.load(Ordering::Relaxed);
            wait_until(&format!("new content after {step} of rotation {rotation}"), || {
                publishing.must_run();
                daemons.iter_mut().for_each(Daemon::must_run);
                let held = pair.held();
                announced.load(Ordering::Relaxed) > newest
                    && held.len() == SITES.len()
                    && held.iter().all(|number| *number > newest)
            });
        }
        wait_until("everybody to trust the new root alone", || {
            pair.ctl(&["status"]);
            let now: Vec<_> = agents.iter().map(|agent| trusted(&agent.data)).collect();
            now.iter().all(|trusted| trusted.len() == 1 && !roots.contains(&trusted[0]))
        });
        roots.extend(trusted(&agents[0].data));
    }
    ended.store(true, Ordering::Relaxed);
    load.join().unwrap();
    pair.net.publish(&publisher, "tree");
    for agent in &agents {
        wait_until("the last generation to arrive", || {
            compare::rsync_differences(&upstream, &agent.published("tree"), &[]).is_empty()
        });
    }
    assert_eq!(roots.len(), ROTATIONS + 1, "each was another one");
    // Nobody was refused, and nobody was told of an authority that is not known.
    let coordinators = [pair.net.path("coordinator.log"), pair.second.log.clone()]
        .map(|log| fs::read_to_string(log).unwrap());
    for log in &coordinators {
        for refused in [" status=401 ", " status=403 "] {
            let line = log.lines().find(|line| line.contains(refused));
            assert_eq!(line, None, "somebody was refused");
        }
        assert!(log.contains("/v1/agent/orders"), "each of the two was asked");
    }
    for (who, log) in daemons.iter().chain([&publishing]).map(|daemon| daemon.log()).enumerate() {
        for text in ["UnknownIssuer", "UnknownCA", "has expired"] {
            let line = log.lines().find(|line| line.contains(text));
            assert_eq!(line, None, "daemon {who}");
        }
        // A new certificate of which the publisher hears late, because no replica took its question
        // just then, costs a run that is tried again.
        let late = log.lines().filter(|line| line.contains("run failed")).count();
        assert!(late <= ROTATIONS, "daemon {who} failed {late} times:\n{log}");
    }
    let (generations, taken) = (announced.load(Ordering::Relaxed), pair.balancer.taken());
    eprintln!(
        "{ROTATIONS} rotations in {:?} under {generations} generations; connections by replica: {taken:?}",
        pair.began.elapsed()
    );
    assert!(taken.iter().all(|count| *count > 10), "{taken:?}");
}
