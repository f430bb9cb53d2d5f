//! An upstream that is empty, missing, unmounted, unreadable, half there or denied never deletes
//! anything at a mirror: nine cases for a publisher, the same nine for a stock rsync daemon.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use tests::{
    Daemon, Rsyncd, Testbed, compare,
    fixture::{one_tree, prose, write},
    network::{Agent, Publisher, inodes},
    programs::{program, told},
    valve::Valve,
};

const FILES: u64 = 40;

/// What the upstream is made to be.
const CASES: [&str; 9] = [
    "empty",
    "missing",
    "unreadable directory",
    "unmounted",
    "denied",
    "half a list",
    "truncated list",
    "wrong filter",
    "symlinked away",
];

/// A mirror that holds a whole tree, and what is known of it.
struct Mirror<'a> {
    agent: &'a Agent,
    before: BTreeMap<PathBuf, u64>,
    sums: String,
}

impl<'a> Mirror<'a> {
    fn look(agent: &'a Agent) -> Self {
        let published = agent.published("tree");
        let before = inodes(&published);
        assert!(before.len() as u64 > FILES, "the mirror holds the tree");
        Self { agent, before, sums: compare::sha256sums(&published) }
    }

    /// The agent tries, and nothing at all is different.
    fn keeps_everything(&self, case: &str) -> String {
        let output = self.agent.run_once();
        let published = self.agent.published("tree");
        assert_eq!(inodes(&published), self.before, "{case}: {}", told(&output));
        assert_eq!(compare::sha256sums(&published), self.sums, "{case}");
        told(&output)
    }
}

fn fill(tree: &Path) {
    for n in 0..FILES {
        write(&tree.join(format!("d{}/f{n}", n % 4)), prose(n, 2_000));
    }
}

/// Does `harm` to a tree, and puts it back afterwards.
fn harmed(case: &str, tree: &Path, during: impl FnOnce()) {
    let away = tree.with_extension("away");
    let half: Vec<PathBuf> =
        (0..FILES).step_by(2).map(|n| format!("d{}/f{n}", n % 4).into()).collect();
    let mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    match case {
        "empty" => {
            fs::rename(tree, &away).unwrap();
            fs::create_dir(tree).unwrap();
            during();
            fs::remove_dir(tree).unwrap();
            fs::rename(&away, tree).unwrap();
        }
        "missing" => {
            fs::rename(tree, &away).unwrap();
            during();
            fs::rename(&away, tree).unwrap();
        }
        "unreadable directory" => {
            mode(&tree.join("d1"), 0);
            during();
            mode(&tree.join("d1"), 0o755);
        }
        "denied" => {
            mode(tree, 0);
            during();
            mode(tree, 0o755);
        }
        "half a list" => {
            let dirs: Vec<PathBuf> = (0..4).map(|n| tree.join(format!("d{n}"))).collect();
            let time = |dir: &PathBuf| fs::metadata(dir).unwrap().modified().unwrap();
            let times: Vec<_> = dirs.iter().map(time).collect();
            fs::create_dir(&away).unwrap();
            let name = |path: &Path| away.join(path.file_name().unwrap());
            half.iter().for_each(|path| fs::rename(tree.join(path), name(path)).unwrap());
            during();
            half.iter().for_each(|path| fs::rename(name(path), tree.join(path)).unwrap());
            fs::remove_dir(&away).unwrap();
            for (dir, time) in dirs.iter().zip(times) {
                fs::File::open(dir).unwrap().set_modified(time).unwrap();
            }
        }
        "symlinked away" => {
            let other = tree.with_extension("other");
            fs::create_dir_all(&other).unwrap();
            fs::rename(tree, &away).unwrap();
            symlink(&other, tree).unwrap();
            during();
            fs::remove_file(tree).unwrap();
            fs::rename(&away, tree).unwrap();
            fs::remove_dir(&other).unwrap();
        }
        other => panic!("no such harm: {other}"),
    }
}

/// Has the tree lie on a mount for a while, and takes that away. `None` where that is forbidden.
fn unmounted(tree: &Path, mounted: impl FnOnce(), during: impl FnOnce()) -> Option<()> {
    let store = tree.with_extension("store");
    fs::rename(tree, &store).unwrap();
    fs::create_dir(tree).unwrap();
    let mount = |args: &[&str]| {
        let status = Command::new(args[0]).args(&args[1..]).status();
        status.is_ok_and(|status| status.success())
    };
    let (from, at) = (store.to_str().unwrap(), tree.to_str().unwrap());
    let worked = mount(&["mount", "--bind", from, at]);
    if worked {
        // A failed assertion must not leave a mount behind: the directory could not be removed.
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(mounted));
        assert!(mount(&["umount", at]), "{at} stays mounted");
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        during();
    }
    fs::remove_dir(tree).unwrap();
    fs::rename(&store, tree).unwrap();
    worked.then_some(())
}

/// Root reads everything; without these capabilities it is a user like any other.
fn without_override(command: Command) -> Command {
    if !rustix::process::geteuid().is_root() {
        return command;
    }
    let mut bound = Command::new("setpriv");
    let drop = "-dac_override,-dac_read_search";
    bound.args(["--bounding-set", drop, "--inh-caps", drop]).arg(command.get_program());
    bound.args(command.get_args());
    tests::programs::isolate(&mut bound);
    bound
}

fn definitions(upstream: &str, path: &str, limit: &str, filter: &str) -> String {
    let tree = format!("interval = \"1h\"\nlimit = [{limit}]");
    let assignment = format!("filter = [{filter}]\non-exclude = \"remove\"");
    one_tree("build", upstream, path, &tree, &assignment)
}

/// Has the publisher take the tree, which must not become a generation.
fn is_not_published(publisher: &Publisher, case: &str) {
    let mut command = program("publisher");
    command.args(["publish", "tree", "--wait", "--data"]).arg(&publisher.data);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!output.status.success() && said.contains("held"), "{case}: {}", told(&output));
}

#[test]
fn nothing_that_happens_to_a_publishers_tree_deletes_at_a_mirror() {
    let testbed = Testbed::start();
    let tree = testbed.make_dir("upstream/tree");
    fill(&tree);
    let source = testbed.path("upstream");
    let define = |limit: &str, filter: &str| {
        let text = definitions("kind = \"publisher\"", source.to_str().unwrap(), limit, filter);
        testbed.apply(&text);
    };
    define("", "");
    let publisher = testbed.enroll_publisher("build");
    let settings = fs::read_to_string(&publisher.config).unwrap();
    fs::write(&publisher.config, format!("settle = \"0s\"\n{settings}")).unwrap();
    let mut command = program("publisher");
    command.args(["run", "--config"]).arg(&publisher.config);
    let mut command = without_override(command);
    let mut publishing = Daemon::start("publisher", &mut command, &testbed.path("publisher.log"));
    publishing.address_in(&publisher.data.join("listen"));
    let agent = testbed.enroll_agent("agent", "site");
    let publish = || testbed.publish(&publisher, "tree");
    publish();
    agent.sync();
    let mirror = Mirror::look(&agent);
    let mut done = Vec::new();
    for case in CASES {
        let held = || {
            is_not_published(&publisher, case);
            mirror.keeps_everything(case);
        };
        match case {
            "unmounted" => {
                let same = || assert!(publish().contains("unchanged"));
                if unmounted(&tree, same, held).is_none() {
                    eprintln!("skipped: {case}: this machine does not let a test mount");
                    continue;
                }
            }
            "truncated list" => truncated_manifests(&testbed, &publisher, &tree, &mirror),
            "wrong filter" => {
                define("\"- *\"", "");
                tests::wait_until("the publisher to hear of it", || {
                    let mut command = program("publisher");
                    command.args(["publish", "tree", "--wait", "--data"]).arg(&publisher.data);
                    told(&command.output().unwrap()).contains("held")
                });
                mirror.keeps_everything(case);
                // The same slip at the site: the agent's own guard.
                define("", "\"- *\"");
                tests::wait_until("the publisher to hear of it", || {
                    let mut command = program("publisher");
                    command.args(["publish", "tree", "--wait", "--data"]).arg(&publisher.data);
                    told(&command.output().unwrap()).contains("unchanged")
                });
                let said = mirror.keeps_everything(case);
                assert!(said.contains("held: "), "{said}");
                define("", "");
            }
            case => harmed(case, &tree, held),
        }
        // Once the tree is itself again, nothing is held, and nothing was lost.
        assert!(publish().contains("unchanged"), "{case}");
        mirror.keeps_everything(case);
        let status = testbed.ctl(&["status"]);
        assert!(!status.contains("is held"), "{case}: {status}");
        done.push(case);
    }
    println!("{} cases, 0 deletions: {}", done.len(), done.join(", "));
    drop(publishing);
}

/// The next generation's manifest arrives cut short.
fn truncated_manifests(testbed: &Testbed, publisher: &Publisher, tree: &Path, mirror: &Mirror<'_>) {
    let (dir, late) = (tree.join("d0"), tree.join("d0/late"));
    let time = fs::metadata(&dir).unwrap().modified().unwrap();
    fs::write(&late, "late").unwrap();
    testbed.publish(publisher, "tree");
    let stored = |kind: &str| {
        let dir = publisher.data.join("trees/tree").join(kind);
        let files = walkdir::WalkDir::new(dir).into_iter().filter_map(Result::ok);
        let files = files.filter(|entry| entry.file_type().is_file());
        files.map(|entry| (entry.path().to_owned(), fs::read(entry.path()).unwrap())).collect()
    };
    let objects: Vec<(PathBuf, Vec<u8>)> =
        ["manifests", "blocks", "packs"].map(stored).into_iter().flat_map(|v: Vec<_>| v).collect();
    assert!(!objects.is_empty());
    let put = |path: &Path, bytes: &[u8]| {
        fs::remove_file(path).unwrap();
        fs::write(path, bytes).unwrap();
    };
    for keep in [0, 1, 2] {
        objects.iter().for_each(|(path, bytes)| put(path, &bytes[..bytes.len() * keep / 3]));
        let said = mirror.keeps_everything("truncated list");
        assert!(!said.contains("exit status: 0"), "{said}");
    }
    objects.iter().for_each(|(path, bytes)| put(path, bytes));
    fs::remove_file(&late).unwrap();
    fs::File::open(&dir).unwrap().set_modified(time).unwrap();
    testbed.publish(publisher, "tree");
}

struct Stock<'a> {
    testbed: &'a Testbed,
    port: u16,
    running: Option<Rsyncd>,
}

impl Stock<'_> {
    /// Serves the tree as a user who may not read everything, with further settings.
    fn serve(&mut self, settings: &str) {
        if let Some(running) = self.running.take() {
            running.stop();
        }
        let upstream = self.testbed.path("upstream");
        let nobody = match rustix::process::geteuid().is_root() {
            true => "uid = 65534\ngid = 65534\n",
            false => "",
        };
        let settings = format!("{nobody}{settings}");
        let dir = self.testbed.path("rsyncd");
        let modules = [("pub", upstream.as_path())];
        self.running = Some(Rsyncd::start_on(self.port, &dir, &modules, &settings));
    }
}

#[test]
fn nothing_that_happens_to_a_stock_daemons_tree_deletes_at_a_mirror() {
    let testbed = Testbed::start();
    let tree = testbed.make_dir("upstream/tree");
    fill(&tree);
    let upstream = testbed.path("upstream");
    for dir in upstream.ancestors().take(2) {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let port = tests::rsyncd::free_port();
    let mut stock = Stock { testbed: &testbed, port, running: None };
    stock.serve("");
    let kind = format!("kind = \"rsyncd\"\nurl = \"rsync://127.0.0.1:{port}/\"");
    let define = |filter: &str| testbed.apply(&definitions(&kind, "pub", "", filter));
    define("");
    let agent = testbed.enroll_agent("agent", "site");
    agent.sync();
    let mirror = Mirror::look(&agent);
    let settings = fs::read_to_string(&agent.config).unwrap();
    let mut done = Vec::new();
    for case in CASES {
        let refused = || {
            let said = mirror.keeps_everything(case);
            assert!(!said.contains("exit status: 0"), "{case}: {said}");
        };
        match case {
            "unmounted" => {
                let same = || drop(mirror.keeps_everything(case));
                if unmounted(&tree, same, refused).is_none() {
                    eprintln!("skipped: {case}: this machine does not let a test mount");
                    continue;
                }
            }
            "denied" => {
                harmed(case, &tree, refused);
                let secrets = testbed.path("secrets");
                fs::write(&secrets, "someone:secret\n").unwrap();
                fs::set_permissions(&secrets, fs::Permissions::from_mode(0o600)).unwrap();
                let secrets = secrets.display();
                for denial in [
                    format!("auth users = someone\nsecrets file = {secrets}\n"),
                    "hosts deny = *\n".to_owned(),
                ] {
                    stock.serve(&denial);
                    refused();
                }
                stock.serve("");
            }
            "truncated list" => {
                for cut in [1, 100, 300, 500, 700] {
                    let valve = Valve::start(([127, 0, 0, 1], port).into(), cut);
                    valve.cut_at_limit();
                    fs::write(&agent.config, format!("{settings}{}", valve.setting())).unwrap();
                    refused();
                }
                fs::write(&agent.config, &settings).unwrap();
            }
            "wrong filter" => {
                stock.serve("filter = - *\n");
                refused();
                stock.serve("");
                define("\"- *\"");
                refused();
                define("");
            }
            case => harmed(case, &tree, refused),
        }
        mirror.keeps_everything(case);
        assert!(agent.sync().contains("SYNC_UP_TO_DATE") || agent.run_once().status.success());
        done.push(case);
    }
    println!("{} cases, 0 deletions: {}", done.len(), done.join(", "));
}
