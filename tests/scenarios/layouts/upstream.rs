//! A network with one tree of versions, and hands to change its upstream.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Output,
    time::{Duration, SystemTime},
};

use serde_json::Value;
use tests::{
    Rsyncd, Testbed,
    fixture::{mirrored, write},
    network::Agent,
    programs::told,
};

/// Seconds since 1970 at which the first version was made.
const BEGIN: u64 = 1_300_000_000;

pub(crate) struct Versions {
    pub(crate) testbed: Testbed,
    pub(crate) agent: Agent,
    pub(crate) upstream: PathBuf,
    pub(crate) rsyncd: Option<Rsyncd>,
    tree: String,
    assignment: String,
}

impl Versions {
    /// Starts it; `tree` are further lines for the tree's definition, `assignment` for the
    /// assignment's.
    pub(crate) fn start(tree: &str, assignment: &str) -> Self {
        let testbed = Testbed::start();
        let upstream = testbed.make_dir("upstream/tree");
        let modules = [("pub", testbed.path("upstream"))];
        let modules = modules.each_ref().map(|(name, path)| (*name, path.as_path()));
        let rsyncd = Some(Rsyncd::start(&testbed.path("rsyncd"), &modules, ""));
        define(&testbed, rsyncd.as_ref().unwrap(), tree, assignment);
        let agent = testbed.enroll_agent("agent", "site");
        let (tree, assignment) = (tree.to_owned(), assignment.to_owned());
        Self { testbed, agent, upstream, rsyncd, tree, assignment }
    }

    /// Other lines for the tree and the assignment.
    pub(crate) fn redefine(&mut self, tree: &str, assignment: &str) {
        define(&self.testbed, self.rsyncd.as_ref().unwrap(), tree, assignment);
        (self.tree, self.assignment) = (tree.to_owned(), assignment.to_owned());
    }

    /// Makes a version with a file that says which it is, `age` seconds after the first.
    pub(crate) fn version(&self, name: &str, age: u64) {
        self.file(name, "content", &format!("of {name}\n"), age);
        self.file(name, "common", "the same everywhere\n", 0);
        set_time(&self.upstream.join(name), age);
    }

    /// Makes a version that says it is finished.
    pub(crate) fn finished(&self, name: &str, age: u64) {
        self.version(name, age);
        self.status(name, "FINISHED\n", age);
    }

    /// Writes a version's status file; the version's time stays.
    pub(crate) fn status(&self, name: &str, text: &str, age: u64) {
        write(&self.upstream.join(name).join("STATUS"), text);
        set_time(&self.upstream.join(name), age);
    }

    /// Writes a file of a version with a time of its own.
    pub(crate) fn file(&self, version: &str, name: &str, text: &str, age: u64) {
        let path = self.upstream.join(version).join(name);
        write(&path, text);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        set_time(&path, age);
    }

    /// Makes a link at the top of the upstream.
    pub(crate) fn link(&self, name: &str, target: &str) {
        let _ = fs::remove_file(self.upstream.join(name));
        symlink(target, self.upstream.join(name)).unwrap();
    }

    /// Takes a version away from the upstream.
    pub(crate) fn gone(&self, name: &str) {
        fs::remove_dir_all(self.upstream.join(name)).unwrap();
    }

    /// Where a name is published.
    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.agent.published("tree").join(name)
    }

    /// One run that has to end well; its report.
    pub(crate) fn sync(&self) -> Value {
        let output = self.run();
        assert!(output.status.success(), "{}", told(&output));
        self.last_run()
    }

    /// One run, however it ends: its result.
    pub(crate) fn result(&self) -> String {
        self.run();
        self.last_run()["result"].as_str().unwrap_or_default().to_owned()
    }

    fn run(&self) -> Output {
        self.testbed.ctl(&["sync", "tree@site"]);
        self.agent.run_once()
    }

    /// What a dry run reports, which changes nothing at all in the published directory.
    pub(crate) fn rehearse(&self) -> Value {
        let before = self.everything();
        let output =
            self.agent.command(&["sync", "--dry-run", "--output", "json"]).output().unwrap();
        assert_eq!(self.everything(), before, "a dry run changed something");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let reports: Value = serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("{error}: {}", told(&output)));
        reports.as_array().map_or(reports.clone(), |reports| reports[0].clone())
    }

    pub(crate) fn last_run(&self) -> Value {
        self.testbed.runs("tree@site").into_iter().next().unwrap()
    }

    /// What a published file says; nothing where there is none.
    pub(crate) fn read(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.at(path)).ok()
    }

    /// Names in the published directory, sorted; a link as `NAME -> TARGET`.
    pub(crate) fn names(&self) -> Vec<String> {
        names(&self.at(""))
    }

    /// Every object of the published directory: inode, time, mode, number of names and link.
    pub(crate) fn everything(&self) -> BTreeMap<PathBuf, String> {
        let mut found = BTreeMap::new();
        look(&self.agent.published("tree"), &mut found);
        found
    }

    /// The inode of a published file.
    pub(crate) fn inode(&self, path: &str) -> u64 {
        fs::metadata(self.at(path)).unwrap().ino()
    }
}

/// Sets the modification time of a file or directory.
pub(crate) fn set_time(path: &Path, age: u64) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(BEGIN + age);
    fs::File::open(path).unwrap().set_modified(time).unwrap();
}

/// Names in a directory, sorted; a link as `NAME -> TARGET`.
pub(crate) fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            match fs::read_link(entry.path()) {
                Ok(target) => format!("{name} -> {}", target.display()),
                Err(_) => name,
            }
        })
        .collect();
    names.sort();
    names
}

fn look(path: &Path, found: &mut BTreeMap<PathBuf, String>) {
    let Ok(meta) = fs::symlink_metadata(path) else { return };
    let target = fs::read_link(path).unwrap_or_default();
    let text = format!(
        "{} {}.{} {:o} {} {}",
        meta.ino(),
        meta.mtime(),
        meta.mtime_nsec(),
        meta.mode(),
        meta.nlink(),
        target.display()
    );
    found.insert(path.to_owned(), text);
    if meta.is_dir() {
        for entry in fs::read_dir(path).unwrap().flatten() {
            look(&entry.path(), found);
        }
    }
}

fn define(testbed: &Testbed, rsyncd: &Rsyncd, tree: &str, assignment: &str) {
    testbed.apply(&mirrored(rsyncd, "", tree, assignment));
}
