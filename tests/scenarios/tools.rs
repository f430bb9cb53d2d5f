//! The commands that people use beside the daemons: what they make, and what they refuse.

use std::{
    fs,
    os::unix::{ffi::OsStrExt, fs::symlink},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;
use tests::{
    compare,
    fixture::{OneTree, noise, prose, write},
    image,
    programs::{isolate, program, succeed, told},
};

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}\n{}", told(output)))
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Two directories that differ in every way, and where packs go.
struct Releases {
    dir: tempfile::TempDir,
    old: PathBuf,
    new: PathBuf,
}

fn releases() -> Releases {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (dir.path().join("old"), dir.path().join("new"));
    for root in [&old, &new] {
        write(&root.join("same"), prose(1, 20_000));
        write(&root.join("debug/symbols"), noise(2, 50_000));
        write(&root.join("debug/keep.txt"), "keep");
        fs::write(root.join(std::ffi::OsStr::from_bytes(b"\xff\xfe")), "odd").unwrap();
    }
    write(&old.join("edited"), prose(3, 60_000));
    write(&new.join("edited"), format!("{}one more line\n", prose(3, 60_000)));
    write(&old.join("gone"), "gone");
    write(&old.join("file-then-dir"), "file");
    write(&new.join("file-then-dir/inside"), "inside");
    write(&new.join("added"), prose(4, 5_000));
    symlink("same", new.join("link")).unwrap();
    Releases { dir, old, new }
}

impl Releases {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn pack(&self, from: &Path, out: &str, more: &[&str]) -> Value {
        let mut pack = program("publisher");
        pack.arg("pack").arg("--from").arg(from).arg("--to").arg(&self.new);
        pack.arg("--out").arg(self.path(out)).args(more).args(["--output", "json"]);
        serde_json::from_str(&succeed(&mut pack)).unwrap()
    }

    fn unpack(&self, pack: &str, base: &Path, out: &str, more: &[&str]) -> Output {
        let mut unpack = program("mirror-agent");
        unpack.arg("unpack").arg("--pack").arg(self.path(pack)).arg("--base").arg(base);
        unpack.arg("--out").arg(self.path(out)).args(more).args(["--output", "json"]);
        unpack.output().unwrap()
    }
}

#[test]
fn a_pack_leads_from_one_directory_to_the_other_and_leaves_its_base_alone() {
    let releases = releases();
    let before = compare::sha256sums(&releases.old);
    for encoder in ["auto", "rsync", "whole"] {
        let name = format!("{encoder}.pack");
        releases.pack(&releases.old, &name, &["--encoder", encoder]);
        let output = releases.unpack(&name, &releases.old, encoder, &[]);
        assert!(output.status.success(), "{encoder}: {}", told(&output));
        compare::assert_same(&releases.new, &releases.path(encoder), &[]);
        json(&output);
    }
    let size = |name: &str| fs::metadata(releases.path(name)).unwrap().len();
    assert!(size("rsync.pack") < size("whole.pack"), "deltas save nothing");
    assert_eq!(compare::sha256sums(&releases.old), before);
}

#[test]
fn a_pack_from_nothing_makes_the_directory_without_a_base() {
    let releases = releases();
    releases.pack(Path::new("none"), "first.pack", &[]);
    let output = releases.unpack("first.pack", Path::new("none"), "out", &[]);
    assert!(output.status.success(), "{}", told(&output));
    compare::assert_same(&releases.new, &releases.path("out"), &[]);
}

#[test]
fn a_filter_holds_for_what_is_packed_and_for_what_is_unpacked() {
    let releases = releases();
    let rules = releases.path("rules");
    fs::write(&rules, "+ /debug/keep.txt\n- /debug/*\n").unwrap();
    let rules = ["--filter", rules.to_str().unwrap()];
    let kept = ["+ /debug/keep.txt", "- /debug/*"];

    releases.pack(Path::new("none"), "part.pack", &rules);
    let whole_of_a_part = releases.unpack("part.pack", Path::new("none"), "a", &[]);
    assert!(whole_of_a_part.status.success(), "{}", told(&whole_of_a_part));
    compare::assert_same(&releases.new, &releases.path("a"), &kept);

    releases.pack(&releases.old, "whole.pack", &[]);
    let part_of_the_whole = releases.unpack("whole.pack", &releases.old, "b", &rules);
    assert!(part_of_the_whole.status.success(), "{}", told(&part_of_the_whole));
    compare::assert_same(&releases.new, &releases.path("b"), &kept);
    for out in ["a", "b"] {
        assert!(releases.path(out).join("debug/keep.txt").exists(), "{out}");
        assert!(!releases.path(out).join("debug/symbols").exists(), "{out}");
    }
}

#[test]
fn a_pack_on_another_base_or_over_something_is_refused() {
    let releases = releases();
    releases.pack(&releases.old, "update.pack", &["--encoder", "rsync"]);
    fs::write(releases.old.join("edited"), prose(9, 60_000)).unwrap();
    let output = releases.unpack("update.pack", &releases.old, "out", &[]);
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    assert!(said(&output).contains("old") && said(&output).contains("leads"), "{}", said(&output));

    write(&releases.path("taken/f"), "here first");
    let output = releases.unpack("update.pack", &releases.old, "taken", &[]);
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    assert!(said(&output).contains("taken"), "{}", said(&output));
    assert_eq!(fs::read(releases.path("taken/f")).unwrap(), b"here first");

    let pack = releases.path("update.pack");
    let bytes = fs::read(&pack).unwrap();
    fs::write(&pack, &bytes[..bytes.len() / 2]).unwrap();
    let output = releases.unpack("update.pack", &releases.old, "cut", &[]);
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    assert!(said(&output).contains("update.pack"), "{}", said(&output));
}

#[test]
fn a_delta_that_is_taken_out_of_a_pack_is_one_for_rdiff() {
    let releases = releases();
    let pack = releases.path("update.pack");
    releases.pack(&releases.old, "update.pack", &["--encoder", "rsync"]);
    let seen = succeed(program("publisher").arg("inspect").arg(&pack).args(["--output", "json"]));
    let seen: Value = serde_json::from_str(&seen).unwrap();
    assert!(seen["frames"].as_u64() > Some(0), "{seen:#}");

    let delta = releases.path("delta");
    let mut extract = program("publisher");
    extract.arg("inspect").arg(&pack).args(["--extract", "edited", "--out"]).arg(&delta);
    succeed(&mut extract);
    let mut rdiff = Command::new("rdiff");
    isolate(&mut rdiff);
    rdiff.arg("patch").arg(releases.old.join("edited")).arg(&delta).arg(releases.path("made"));
    succeed(&mut rdiff);
    let made = fs::read(releases.path("made")).unwrap();
    assert!(made == fs::read(releases.new.join("edited")).unwrap(), "rdiff made something else");

    let absent = program("publisher")
        .arg("inspect")
        .arg(&pack)
        .args(["--extract", "no/such"])
        .output()
        .unwrap();
    assert_eq!(absent.status.code(), Some(1), "{}", told(&absent));
    assert!(said(&absent).contains("no/such"), "{}", said(&absent));
}

#[test]
fn verify_finds_a_flipped_byte_and_names_the_file() {
    let net = OneTree::start("", "");
    for n in 0..5 {
        net.write(&format!("d/f{n}"), prose(n, 3_000));
    }
    net.publish_and_sync();
    let verify = |more: &[&str]| {
        let args = [&["verify", "tree", "--output", "json"], more].concat();
        net.agent.command(&args).output().unwrap()
    };
    let good = verify(&[]);
    assert!(good.status.success(), "{}", told(&good));
    assert_eq!(json(&good)[0]["result"], "SYNC_UP_TO_DATE", "{}", told(&good));

    // As a failing disk would: neither size nor time tell.
    let file = net.mirror().join("d/f3");
    let time = fs::metadata(&file).unwrap().modified().unwrap();
    let mut bytes = fs::read(&file).unwrap();
    bytes[1_000] ^= 1;
    let open = fs::File::options().write(true).open(&file).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&open, &bytes, 0).unwrap();
    open.set_modified(time).unwrap();
    let bad = verify(&["--dry-run"]);
    assert_eq!(bad.status.code(), Some(1), "{}", told(&bad));
    assert!(said(&bad).contains("d/f3") && said(&bad).contains("tree@site"), "{}", said(&bad));
    assert!(json(&bad)[0]["error"].as_str().unwrap().contains("d/f3"), "{}", told(&bad));
    assert_eq!(fs::read(&file).unwrap(), bytes, "it was only to be looked at");

    let mended = verify(&[]);
    assert!(mended.status.success(), "{}", told(&mended));
    assert_eq!(json(&mended)[0]["checked"]["flipped"], 1, "{}", told(&mended));
    assert_eq!(json(&mended)[0]["checked"]["repaired"], 1, "{}", told(&mended));
    net.assert_same();
}

#[test]
fn an_agent_answers_for_itself_while_the_coordinator_is_away() {
    let mut net = OneTree::start("", "");
    net.write("f", prose(1, 3_000));
    net.publish_and_sync();
    net.testbed.kill_coordinator();
    let ask = |args: &[&str]| {
        let output = net.agent.command(&[args, &["--output", "json"]].concat()).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", told(&output));
        json(&output)
    };
    let status = ask(&["status"]);
    assert_eq!(status["assignments"][0]["name"], "tree@site", "{status:#}");
    assert_eq!(status["assignments"][0]["held"]["generation"], 1, "{status:#}");
    let log = ask(&["log", "tree"]);
    assert_eq!(log[0]["result"], "SYNC_COMPLETED", "{log:#}");
    assert_eq!(ask(&["verify"])[0]["result"], "SYNC_UP_TO_DATE");
    for args in [&["status"][..], &["log"], &["verify"]] {
        let text = succeed(&mut net.agent.command(args));
        assert!(text.contains("tree@site"), "{args:?}: {text}");
    }
    for args in [["verify", "nosuch"], ["sync", "nosuch"], ["log", "nosuch"], ["purge", "nosuch"]] {
        let output = net.agent.command(&args).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}: {}", told(&output));
        assert!(said(&output).contains("nosuch"), "{args:?}: {}", said(&output));
    }
}

#[test]
fn a_dry_run_of_a_tree_in_one_piece_lists_what_would_come_and_what_would_go() {
    let net = OneTree::start("", "");
    for n in 0..20 {
        net.write(&format!("d/f{n}"), prose(n, 3_000));
    }
    net.publish_and_sync();
    net.write("d/f1", prose(100, 3_000));
    net.write("new/g", prose(101, 3_000));
    fs::remove_file(net.upstream.join("d/f2")).unwrap();
    net.publish();
    let before = tests::network::inodes(&net.agent.storage.join("pub"));
    let output =
        net.agent.command(&["sync", "tree", "--dry-run", "--output", "json"]).output().unwrap();
    assert!(output.status.success(), "{}", told(&output));
    let report = &json(&output)[0];
    assert_eq!(report["result"], "SYNC_COMPLETED_DRY_RUN", "{report:#}");
    let list = |key: &str| {
        let listed = report["foreseen"][key].as_array().cloned().unwrap_or_default();
        let mut listed: Vec<_> =
            listed.iter().map(|path| path.as_str().unwrap().to_owned()).collect();
        listed.sort();
        listed
    };
    assert_eq!(list("would-transfer"), ["d/f1", "new/g"], "{report:#}");
    assert_eq!(list("would-delete"), ["d/f2"], "{report:#}");
    assert_eq!(tests::network::inodes(&net.agent.storage.join("pub")), before);
    // What it foresaw is what is done.
    net.sync();
    net.assert_same();
}

#[test]
fn purge_removes_only_what_is_no_longer_assigned() {
    let net = OneTree::start("", "");
    net.write("f", "content");
    net.publish_and_sync();
    let purge = || net.agent.command(&["purge", "tree", "--output", "json"]).output().unwrap();
    let refused = purge();
    assert_eq!(refused.status.code(), Some(1), "{}", told(&refused));
    assert!(said(&refused).contains("assigned"), "{}", said(&refused));
    assert!(net.mirror().join("f").exists());

    net.testbed.ctl(&["delete", "assignment", "tree@site"]);
    net.agent.sync();
    assert_eq!(fs::read(net.mirror().join("f")).unwrap(), b"content");
    let purged = purge();
    assert!(purged.status.success(), "{}", told(&purged));
    assert_eq!(json(&purged)[0], "tree@site");
    assert!(!net.mirror().exists());
    let work = net.agent.storage.join("work");
    assert!(!work.join("tree@site").exists());
}

#[test]
fn a_large_image_is_packed_in_128_mebibytes_however_long_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let packed = image::pack(dir.path(), 1 << 30, "128MiB");
    eprintln!("{packed:?}");
    assert!(packed.peak_bytes <= 128 << 20, "{packed:?}");
    // Seven places of 4 KiB are new, and some bits; what is shifted, and what is zeros, is referred to.
    assert!(packed.pack_bytes < 1 << 20, "{packed:?}");
}
