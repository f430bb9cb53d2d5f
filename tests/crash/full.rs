//! The disk of the real agent is full, of bytes or of inodes, at the beginning of a run or in the
//! middle of one.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
};

use tests::{
    Rsyncd, Testbed,
    fixture::{OneTree, noise},
    programs::told,
    wait_until,
};

use crate::{
    corpus::{Thing, Tree, difference, put, read},
    count, tell,
};

/// A tmpfs that can grow and shrink.
struct Volume(PathBuf);

impl Volume {
    fn mount(at: &Path) -> Option<Self> {
        let made = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=64m,nr_inodes=100k", "mirrornet-test"])
            .arg(at)
            .output();
        made.is_ok_and(|made| made.status.success()).then(|| Self(at.to_owned()))
    }

    /// Room for so many bytes or inodes more than are used.
    fn leave(&self, bytes: Option<u64>, inodes: Option<u64>) {
        let now = rustix::fs::statvfs(&self.0).unwrap();
        let used = (now.f_blocks - now.f_bfree) * now.f_frsize;
        let size = bytes.map_or(64 << 20, |bytes| used + bytes);
        let inodes = inodes.map_or(100_000, |inodes| now.f_files - now.f_ffree + inodes);
        let options = format!("remount,size={size},nr_inodes={inodes}");
        let done = Command::new("mount").args(["-o", &options]).arg(&self.0).output().unwrap();
        assert!(done.status.success(), "{}", told(&done));
    }

    fn give_room(&self) {
        self.leave(None, None);
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["--lazy"]).arg(&self.0).status();
    }
}

fn generation(number: u64) -> Tree {
    let file = |n: u64| {
        let seed = if n < 10 { n } else { n + 1_000 * number };
        let name = if n % 4 == 3 { format!("d{number}/f{n}") } else { format!("f{n}") };
        (name, Thing::File(noise(seed, 60_000), 0o644))
    };
    (0..40).map(file).collect()
}

struct Site {
    net: OneTree,
    volume: Volume,
    number: u64,
}

impl Site {
    fn start() -> Option<Self> {
        let net = OneTree::start(
            "guard = { max-delete-files = \"100%\", max-delete-bytes = \"100%\" }",
            "",
        );
        // Else it gives way, and the disk is hardly ever full.
        net.configure_agent("trash-keep = \"0s\"");
        let volume = Volume::mount(&net.agent.storage)?;
        let mut site = Self { net, volume, number: 0 };
        site.publish();
        site.net.agent.sync();
        Some(site)
    }

    fn publish(&mut self) {
        self.number += 1;
        put(&self.net.upstream, &generation(self.number));
        self.net.publish();
    }

    fn holds(&self, number: u64) -> bool {
        difference(&read(&self.net.mirror(), |_| false), &generation(number)).is_none()
    }

    /// Fills the disk as soon as content arrives, as another program may.
    fn fill_meanwhile(&self, done: &AtomicBool) {
        let work = self.net.agent.storage.join("work/tree@site");
        let arrives = || {
            let below = |name: &str| fs::read_dir(work.join(name)).map_or(0, Iterator::count);
            below("staging") > 1 || below("partial") > 0
        };
        while !done.load(Ordering::Relaxed) && !arrives() {
            std::thread::yield_now();
        }
        let ballast = fs::File::create(self.net.agent.storage.join("ballast")).unwrap();
        let block = vec![0; 64 * 1024];
        while std::io::Write::write(&mut &ballast, &block).is_ok_and(|wrote| wrote > 0) {}
    }
}

#[test]
fn a_full_disk_leaves_the_old_tree_and_the_run_resumes_when_there_is_room() {
    let wanted = count("MIRRORNET_DISK_FULL", 12);
    let Some(mut site) = Site::start() else {
        eprintln!("skipped: this machine lets nobody mount a tmpfs");
        return;
    };
    let (mut full, mut fitted) = (0, 0);
    for run in 0..wanted {
        site.publish();
        let step = run / 3 + 1;
        let done = AtomicBool::new(false);
        let output = match run % 3 {
            0 => {
                site.volume.leave(Some(step % 12 * 300_000), None);
                site.net.agent.run_once()
            }
            1 => {
                site.volume.leave(None, Some(step % 12 * 12));
                site.net.agent.run_once()
            }
            _ => std::thread::scope(|scope| {
                let (site, done) = (&site, &done);
                // Enough for the plan, and then not.
                site.volume.leave(Some(6_000_000 + step % 12 * 100_000), None);
                scope.spawn(|| site.fill_meanwhile(done));
                let output = site.net.agent.run_once();
                done.store(true, Ordering::Relaxed);
                output
            }),
        };
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!said.contains("panicked"), "{}", told(&output));
        assert!(output.status.code().is_some(), "{}", told(&output));
        if output.status.success() {
            fitted += 1;
            assert!(site.holds(site.number), "run {run}: success, and not the new generation");
        } else {
            full += 1;
            let whole = site.holds(site.number - 1) || site.holds(site.number);
            assert!(whole, "run {run}: neither the old nor the new generation\n{said}");
            let clear = said.contains("does not fit") || said.contains("No space left");
            assert!(clear, "run {run}: {said}");
        }
        let _ = fs::remove_file(site.net.agent.storage.join("ballast"));
        site.volume.give_room();
        site.net.agent.sync();
        assert!(site.holds(site.number), "run {run} did not resume");
    }
    eprintln!("{full} runs met a full disk, {fitted} had room");
    tell("runs of the real agent on a disk that is full", wanted, 0);
    assert!(full * 2 > wanted, "only {full} of {wanted} runs met a full disk");

    // The daemon outlives it, and goes on by itself.
    site.publish();
    site.volume.leave(Some(200_000), None);
    let mut daemon = site.net.testbed.run_agent(&site.net.agent);
    daemon.wait_for_log("does not fit");
    assert!(site.holds(site.number - 1));
    site.volume.give_room();
    wait_until("the daemon to go on by itself", || site.holds(site.number));
    assert!(daemon.stop().success());
}

#[test]
fn the_trash_gives_way_where_a_run_would_not_fit() {
    let guard = "guard = { max-delete-files = \"100%\", max-delete-bytes = \"100%\" }";
    // In place, so that no retired tree holds the same files.
    let net = OneTree::start(guard, "switch = \"in-place\"");
    let Some(volume) = Volume::mount(&net.agent.storage) else { return };
    let mut site = Site { net, volume, number: 0 };
    for _ in 0..2 {
        site.publish();
        site.net.agent.sync();
    }
    // Thirty files of 60 kB come, eight lie in the trash.
    site.publish();
    site.volume.leave(Some(1_700_000), None);
    let run = site.net.sync();
    assert!(site.holds(site.number), "{run:#}");
    assert!(run["notices"].to_string().contains("room is short: batch"), "{run:#}");
}

#[test]
fn what_a_stock_server_shows_is_not_fetched_where_it_does_not_fit() {
    let testbed = Testbed::start();
    let upstream = testbed.make_dir("upstream/tree");
    let rsyncd = Rsyncd::start(&testbed.path("rsyncd"), &[("pub", &testbed.path("upstream"))], "");
    testbed.apply(&tests::fixture::mirrored(&rsyncd, "", "", ""));
    let agent = testbed.enroll_agent("agent", "site");
    let Some(volume) = Volume::mount(&agent.storage) else { return };
    tests::fixture::write(&upstream.join("small"), "small");
    agent.sync();
    tests::fixture::write(&upstream.join("large"), noise(1, 2_000_000));
    volume.leave(Some(1_000_000), None);
    let output = agent.run_once();
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    let run = testbed.runs("tree@site").remove(0);
    let error = run["error"].as_str().unwrap();
    assert!(error.contains("does not fit: needs 2200000B, has"), "{run:#}");
    let by_rsync = run["ways"].as_array().unwrap().iter().filter(|way| way["way"] == "rsync");
    assert_eq!(by_rsync.count(), 0, "nothing was fetched: {run:#}");
    assert!(!agent.published("tree/large").exists() && agent.published("tree/small").exists());
    volume.give_room();
    agent.sync();
    assert_eq!(fs::read(agent.published("tree/large")).unwrap(), noise(1, 2_000_000));
}

#[test]
fn a_daemon_with_the_usual_trash_goes_on_by_itself_when_there_is_room() {
    let guard = "guard = { max-delete-files = \"100%\", max-delete-bytes = \"100%\" }";
    let net = OneTree::start(guard, "");
    let Some(volume) = Volume::mount(&net.agent.storage) else { return };
    let mut site = Site { net, volume, number: 0 };
    for _ in 0..3 {
        site.publish();
        site.net.agent.sync();
    }
    let batches = fs::read_dir(site.net.agent.storage.join("work/tree@site/trash")).unwrap();
    assert!(batches.count() > 0, "nothing lies in the trash");
    let mut daemon = site.net.testbed.run_agent(&site.net.agent);
    for (bytes, inodes) in [(Some(100_000), None), (None, Some(8)), (Some(0), None)] {
        // What the trash holds gives way first, and is not enough.
        site.volume.leave(bytes, inodes);
        let before = daemon.log().matches("does not fit").count();
        site.publish();
        wait_until("the disk to be full", || {
            let said = daemon.log();
            said.matches("does not fit").count() > before || said.contains("No space left")
        });
        daemon.must_run();
        assert!(site.holds(site.number - 1) || site.holds(site.number));
        site.volume.give_room();
        wait_until("the daemon to go on by itself", || site.holds(site.number));
    }
    assert!(daemon.stop().success());
}
