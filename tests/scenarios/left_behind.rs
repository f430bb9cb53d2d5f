//! What other mirroring programs leave on a disk, as each leaves it, and what becomes of it: content is
//! taken over where it lies, their own files stay until somebody removes them, and nothing of them is
//! ever taken for the tree's.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use tests::{
    Rsyncd, Testbed, compare,
    fixture::{mirrored, noise, prose, write},
    network::{Agent, inodes},
    programs::{isolate, succeed, told},
};

/// A stock rsync server with a tree, and a site to which another program has mirrored it so far.
struct Moved {
    testbed: Testbed,
    _rsyncd: Rsyncd,
    upstream: PathBuf,
    agent: Agent,
}

impl Moved {
    /// `tree` and `assignment` are further lines of the definitions.
    fn start(tree: &str, assignment: &str, fill: impl Fn(&Path)) -> Self {
        let testbed = Testbed::start();
        let upstream = testbed.make_dir("upstream/tree");
        fill(&upstream);
        let top = testbed.path("upstream");
        let rsyncd = Rsyncd::start(&testbed.path("stock"), &[("pub", &top)], "");
        let assignment = format!("keep-withdrawn = \"0s\"\n{assignment}");
        testbed.apply(&mirrored(&rsyncd, "", tree, &assignment));
        let agent = testbed.enroll_agent("agent", "site");
        Self { testbed, _rsyncd: rsyncd, upstream, agent }
    }

    fn mirror(&self) -> PathBuf {
        self.agent.published("tree")
    }

    /// Mirrors with the real rsync, as the other program calls it.
    fn mirrored_by(&self, args: &[&str]) {
        fs::create_dir_all(self.mirror()).unwrap();
        let mut rsync = Command::new("rsync");
        isolate(&mut rsync);
        rsync.args(args).arg(format!("{}tree/", self.module())).arg(self.mirror());
        succeed(&mut rsync);
    }

    fn module(&self) -> String {
        format!("{}pub/", self._rsyncd.url())
    }

    fn left(&self, path: &str) {
        write(&self.mirror().join(path), format!("left by another program: {path}"));
    }

    /// Takes everything over, and checks what the upstream has against what lies here now: nothing else
    /// differs than what another program left, which is all there, as it was.
    fn take_over(&self, left: &[&str]) -> Value {
        let before = inodes(&self.mirror());
        let dry = self.agent.command(&["sync", "tree", "--dry-run"]).output().unwrap();
        assert!(dry.status.success(), "{}", told(&dry));
        assert_eq!(inodes(&self.mirror()), before, "a dry run changes nothing");
        self.agent.sync();
        let run = self.testbed.runs("tree@site").into_iter().next().unwrap();
        assert_eq!(run["result"], "SYNC_COMPLETED", "{run:#}");
        let different = compare::rsync_differences(&self.upstream, &self.mirror(), &[]);
        // Beside what was left, and the directories that were made for it, nothing differs.
        for line in &different {
            let path = line.strip_prefix("*deleting").map(str::trim).unwrap_or_else(|| {
                panic!("{line} differs: {different:#?}");
            });
            let of_left = |left: &&str| {
                *left == path || left.starts_with(path) || path.starts_with(&format!("{left}/"))
            };
            assert!(left.iter().any(of_left), "{path} is nobody's: {different:#?}");
        }
        for path in left {
            let text = fs::read_to_string(self.mirror().join(path)).unwrap();
            assert_eq!(text, format!("left by another program: {path}"));
        }
        // Whatever was right lies where it lay.
        let after = inodes(&self.mirror());
        let kept = before.iter().filter(|(path, inode)| after.get(*path) == Some(inode)).count();
        assert!(kept > 40, "{kept} of {} were taken over", before.len());
        run
    }

    /// A second run finds nothing to do, whatever still lies there.
    fn assert_settled(&self) {
        self.agent.sync();
        let run = &self.testbed.runs("tree@site")[0];
        assert_eq!(run["result"], "SYNC_UP_TO_DATE", "{run:#}");
    }
}

fn archive(upstream: &Path) {
    for n in 0..60 {
        write(&upstream.join(format!("pool/p{}/f{n}", n % 6)), prose(n, 4_000));
    }
    write(&upstream.join("pool/large.deb"), noise(1, 400_000));
    write(&upstream.join("dists/stable/Release"), "Release of today");
    write(&upstream.join("project/trace/master"), "today");
    symlink("stable", upstream.join("dists/latest")).unwrap();
}

fn received(run: &Value) -> u64 {
    let ways = run["ways"].as_array().into_iter().flatten();
    let content = ways.filter(|way| way["way"] != "metadata");
    content.filter_map(|way| way["received-bytes"].as_u64()).sum()
}

#[test]
fn what_ftpsync_left_is_taken_over_its_traces_and_locks_stay() {
    let net = Moved::start("", "", archive);
    net.mirrored_by(&["-prltvHSB8192", "--safe-links", "--timeout=3600", "--delay-updates"]);
    // Of the mirror's own: its trace beside the upstream's, what ftpsync is about to do, and its lock.
    let left = [
        "project/trace/mirror.site.example",
        "project/trace/_hierarchy",
        "project/trace/_traces",
        "Archive-Update-in-Progress-mirror.site.example",
        "Archive-Update-Required-mirror.site.example",
        // Its second stage was cut off: what had come lies in directories of its own.
        "pool/p1/.~tmp~/f1",
        "dists/stable/.~tmp~/Release",
    ];
    left.iter().for_each(|path| net.left(path));
    // The first stage had brought packages and not the indexes.
    write(&net.mirror().join("dists/stable/Release"), "Release of yesterday");
    fs::remove_file(net.mirror().join("project/trace/master")).unwrap();
    let run = net.take_over(&left);
    assert!(received(&run) < 4_000, "only what differs comes: {run:#}");
    net.assert_settled();
}

#[test]
fn what_tunasync_left_is_taken_over_and_the_beginning_of_a_file_is_no_content() {
    let net = Moved::start("", "", archive);
    // The options of its rsync provider.
    net.mirrored_by(&[
        "-aHvh",
        "--no-o",
        "--no-g",
        "--stats",
        "--filter=risk .~tmp~/",
        "--exclude=.~tmp~/",
        "--delete",
        "--delete-after",
        "--delay-updates",
        "--safe-links",
    ]);
    let left = ["pool/p2/.~tmp~/f2", "pool/.rsync-partial/large.deb", ".tunasync.log"];
    left.iter().for_each(|path| net.left(path));
    // A worker that was killed while rsync ran with --partial: a beginning under the file's own name.
    let large = net.mirror().join("pool/large.deb");
    let beginning = fs::read(&large).unwrap()[..150_000].to_vec();
    fs::write(&large, beginning).unwrap();
    let run = net.take_over(&left);
    assert_eq!(fs::read(&large).unwrap(), noise(1, 400_000));
    assert!(received(&run) < 420_000, "the large file at most: {run:#}");
    net.assert_settled();
}

#[test]
fn what_an_rsync_cron_job_left_is_taken_over_and_what_the_upstream_no_longer_has_stays_until_said()
{
    let net = Moved::start("", "", archive);
    net.mirrored_by(&["-a"]);
    // A job without --delete keeps what is gone; one that was killed leaves its temporary names.
    let left = ["pool/p3/.f3.Ab12Cd", "pool/gone.deb", "mirror.lock", "rsync.log"];
    left.iter().for_each(|path| net.left(path));
    let run = net.take_over(&left);
    assert_eq!(received(&run), 0, "{run:#}");
    let notices = run["notices"].to_string();
    assert!(notices.contains("gone.deb") || notices.contains("mirror.lock"), "{notices}");
    net.assert_settled();
    // From now on the tree is the agent's: what the upstream removes goes, what is local stays.
    fs::remove_file(net.upstream.join("pool/p0/f0")).unwrap();
    net.agent.sync();
    assert!(!net.mirror().join("pool/p0/f0").exists());
    for path in left {
        assert!(net.mirror().join(path).exists(), "{path}");
    }
}

#[test]
fn what_pulpdist_left_is_taken_over_finished_versions_unread_and_its_links_as_they_are() {
    let net = Moved::start("layout = \"sealed\"\nlatest-link = \"latest\"", "", |upstream| {
        for version in ["2011", "2012"] {
            for n in 0..30 {
                write(&upstream.join(format!("{version}/d/f{n}")), prose(n, 3_000));
            }
            write(&upstream.join(format!("{version}/own")), version);
            write(&upstream.join(format!("{version}/STATUS")), "FINISHED\n");
        }
    });
    // PulpDist's snapshots: each linked with the one before, its own status file, the latest link.
    net.mirrored_by(&["-rlptDvH", "--exclude=/2012/"]);
    let second = net.mirror().join("2012");
    fs::create_dir_all(&second).unwrap();
    let mut rsync = Command::new("rsync");
    isolate(&mut rsync);
    rsync.args(["-rlptDvH", "--link-dest=../2011/"]);
    rsync.arg(format!("{}tree/2012/", net.module())).arg(&second);
    succeed(&mut rsync);
    symlink("2012", net.mirror().join("latest")).unwrap();
    write(&net.mirror().join("mine/PROTECTED"), "");
    let before = inodes(&net.mirror());
    net.agent.sync();
    let run = net.testbed.runs("tree@site").into_iter().next().unwrap();
    assert_eq!(received(&run), 0, "{run:#}");
    assert_eq!(inodes(&net.mirror()), before, "nothing is made anew: {run:#}");
    assert_eq!(fs::read_link(net.mirror().join("latest")).unwrap(), Path::new("2012"));

    // What PulpDist had not finished is brought to its end.
    fs::remove_file(net.mirror().join("2012/STATUS")).unwrap();
    fs::remove_file(net.mirror().join("2012/d/f3")).unwrap();
    net.agent.sync();
    for path in ["STATUS", "d/f3"] {
        let (ours, theirs) = (net.mirror().join("2012"), net.upstream.join("2012"));
        let text = |dir: &Path| fs::read_to_string(dir.join(path)).unwrap().trim().to_owned();
        assert_eq!(text(&ours), text(&theirs), "{path}");
    }
}
