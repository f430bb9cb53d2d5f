//! `publisher pack` and `publisher inspect` on plain directories, with the real `rdiff`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on should say so")]

use std::{
    fs,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use filetree::{pack::unpack::unpack, scan::keep_all};
use serde_json::Value;

struct Bench(tempfile::TempDir);

impl Bench {
    fn new() -> Self {
        let bench = Self(tempfile::tempdir().unwrap());
        for n in 0..40u32 {
            let old = text(n, 20_000);
            let new = if n == 7 { old.replace("line 100 ", "LINE 100 ") } else { old.clone() };
            bench.write("old", &format!("d/f{n}"), &old);
            bench.write("new", &format!("d/f{n}"), &new);
        }
        bench.write("new", "added", "added");
        bench.write("old", "gone", "gone");
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, tree: &str, path: &str, content: &str) {
        let path = self.path(tree).join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn publisher(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_publisher"));
        command.args(args).current_dir(self.0.path()).env("RUST_LOG", "warn").output().unwrap()
    }

    fn succeed(&self, args: &[&str]) -> Vec<u8> {
        let output = self.publisher(args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {said}");
        output.stdout
    }

    fn json(&self, args: &[&str]) -> Value {
        let args = [args, &["--output", "json"]].concat();
        serde_json::from_slice(&self.succeed(&args)).unwrap()
    }

    fn pack(&self, extra: &[&str]) -> Value {
        let args = ["pack", "--from", "old", "--to", "new", "--out", "p.pack"];
        self.json(&[&args[..], extra].concat())
    }

    /// Unpacks `p.pack` and gives what came of it.
    fn unpack(&self, base: Option<&str>) -> PathBuf {
        let out = self.path("out");
        fs::remove_dir_all(&out).ok();
        let base = base.map(|base| self.path(base));
        let (pack, disk) = (self.path("p.pack"), filetree::fs::Fs::disk());
        unpack(&disk, &pack, base.as_deref(), &out, &keep_all, i64::MAX).unwrap();
        out
    }
}

fn text(seed: u32, len: usize) -> String {
    let mut text = String::new();
    let mut n = seed;
    while text.len() < len {
        n = n.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        text.push_str(&format!("line {} of file {seed}: {n:08x}\n", text.len() / 40));
        text.push_str(&format!("line {} \n", text.len() / 40));
    }
    text
}

fn assert_same(one: &Path, other: &Path) {
    let diff = Command::new("diff").arg("-r").arg(one).arg(other).output().unwrap();
    assert!(diff.status.success(), "{}", String::from_utf8_lossy(&diff.stdout));
}

#[test]
fn a_pack_of_directories_makes_the_new_one_from_the_old_with_every_encoder() {
    let bench = Bench::new();
    for encoder in ["auto", "rsync", "patch", "group", "whole"] {
        let summary = bench.pack(&["--encoder", encoder]);
        let length = summary["length"].as_u64().unwrap();
        assert_eq!(fs::metadata(bench.path("p.pack")).unwrap().len(), length);
        assert!(length < if encoder == "whole" { 20_000 } else { 3_000 }, "{encoder}: {length}");
        assert_same(&bench.path("new"), &bench.unpack(Some("old")));
    }
    let inspection = bench.json(&["inspect", "p.pack"]);
    assert_eq!(inspection["put"], 2);
    assert_eq!(inspection["deleted"], 1);
    assert_eq!(inspection["index_blocks"], 2);
    let shown = String::from_utf8(bench.succeed(&["inspect", "p.pack"])).unwrap();
    for fact in ["whole files", "rsync (estimate)", "% saved", "in 2 blocks"] {
        assert!(shown.contains(fact), "{fact:?} is not in {shown}");
    }
}

#[test]
fn an_extracted_delta_is_what_rdiff_applies() {
    let bench = Bench::new();
    bench.pack(&["--encoder", "rsync"]);
    bench.succeed(&["inspect", "p.pack", "--extract", "d/f7", "--out", "delta"]);
    let mut rdiff = Command::new("rdiff");
    rdiff.current_dir(bench.0.path()).args(["patch", "old/d/f7", "delta", "result"]);
    assert!(rdiff.status().unwrap().success());
    assert_eq!(fs::read(bench.path("result")).unwrap(), fs::read(bench.path("new/d/f7")).unwrap());
    assert_eq!(bench.succeed(&["inspect", "p.pack", "--extract", "d/f7"]).len() as u64, {
        fs::metadata(bench.path("delta")).unwrap().len()
    });
    let refused = bench.publisher(&["inspect", "p.pack", "--extract", "d/f8"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("does not change it"));
}

#[test]
fn a_filter_limits_both_directories_and_a_pack_from_nothing_has_everything() {
    let bench = Bench::new();
    bench.write("new", "private.key", "secret");
    let odd = bench.path("new").join(std::ffi::OsStr::from_bytes(b"odd \xff\n"));
    fs::write(odd, "odd").unwrap();
    fs::write(bench.path("rules"), "- *.key\n- /d/\n").unwrap();
    bench.json(&["pack", "--from", "none", "--to", "new", "--out", "p.pack", "--filter", "rules"]);
    let out = bench.unpack(None);
    fs::remove_file(bench.path("new/private.key")).unwrap();
    fs::remove_dir_all(bench.path("new/d")).unwrap();
    assert_same(&bench.path("new"), &out);
}

/// An image of 256 MiB of which little is not zeros, old and new; the new one is edited all over.
#[test]
fn a_large_image_is_packed_in_little_memory_on_one_core_or_more() {
    use std::os::unix::fs::FileExt;
    let bench = Bench::new();
    for (tree, edit) in [("old", 0u8), ("new", 1)] {
        let image = fs::File::create(bench.path(tree).join("image")).unwrap();
        image.set_len(256 << 20).unwrap();
        for n in 0..32u32 {
            let mut noise = text(n, 65_536).into_bytes();
            noise[100] = noise[100].wrapping_add(edit);
            image.write_all_at(&noise, u64::from(n) * (8 << 20) + 777).unwrap();
        }
    }
    let mut limited = Command::new("sh");
    // Only what the program allocates counts; the stacks of its threads lie elsewhere.
    limited.args(["-c", "ulimit -d 131072 && exec \"$@\"", "sh", env!("CARGO_BIN_EXE_publisher")]);
    limited.args(["pack", "--from", "old", "--to", "new", "--out", "p.pack", "--level", "6"]);
    limited.args(["--memory", "128MiB", "--output", "json"]);
    let output = limited.current_dir(bench.0.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(summary["length"].as_u64().unwrap() < 400_000, "{summary:#}");
}

#[test]
fn wrong_usage_ends_with_2_and_a_failure_with_1() {
    let bench = Bench::new();
    assert_eq!(bench.publisher(&["pack", "--from", "old"]).status.code(), Some(2));
    let unknown = ["pack", "--from", "old", "--to", "new", "--out", "x", "--encoder", "best"];
    assert_eq!(bench.publisher(&unknown).status.code(), Some(2));
    let missing = bench.publisher(&["pack", "--from", "absent", "--to", "new", "--out", "x"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("absent"));
    fs::write(bench.path("bad"), "not a pack").unwrap();
    assert_eq!(bench.publisher(&["inspect", "bad"]).status.code(), Some(1));
    assert_eq!(bench.publisher(&["status", "--data", "."]).status.code(), Some(1));
}
