//! What is compressed arrives by what changed in it, byte for byte as other programs made it.

use std::{fs, path::Path, process::Command};

use tests::{
    encoders,
    fixture::{OneTree, prose},
    network::bytes_by,
    programs::succeed,
};

/// Plain text of more than 16 MiB, which no agent keeps in memory: long repetitions, each a little
/// different, so that it takes no time to compress.
fn long_text(release: u64) -> String {
    let part = prose(5, 60_000);
    let mut text = String::with_capacity(18 << 20);
    for n in 0..300 {
        text.push_str(&format!("part {n} of release {}\n", if n == 150 { release } else { 1 }));
        text.push_str(&part);
    }
    assert!(text.len() > 17 << 20);
    text
}

/// What upstreams publish: packages, indexes, tarballs, by the programs that make them.
fn release(tree: &Path, release: u64) {
    let work = tempfile::tempdir().unwrap();
    let source = work.path().join("source");
    for n in 0..40u64 {
        let changed = if n == 7 { release } else { 1 };
        let dir = source.join(format!("module{}", n % 4));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(format!("f{n}.py")), prose(n * 10 + changed, 20_000)).unwrap();
    }
    // As releases are put in place: what is edited where it lies takes its old content with it.
    for entry in fs::read_dir(tree).unwrap().map(Result::unwrap) {
        match entry.file_type().unwrap().is_dir() {
            true => fs::remove_dir_all(entry.path()).unwrap(),
            false => fs::remove_file(entry.path()).unwrap(),
        }
    }
    fs::create_dir(tree.join("index")).unwrap();
    // Python's archives name the time of each file, which is the same in both releases.
    let wheel = "import sys, os, zipfile\n\
        out = zipfile.ZipFile(sys.argv[2], 'w', zipfile.ZIP_DEFLATED)\n\
        for dir, dirs, files in os.walk(sys.argv[1]):\n\
        \x20   dirs.sort()\n\
        \x20   for file in sorted(files):\n\
        \x20       path = os.path.join(dir, file)\n\
        \x20       info = zipfile.ZipInfo(os.path.relpath(path, sys.argv[1]))\n\
        \x20       out.writestr(info, open(path, 'rb').read(), zipfile.ZIP_DEFLATED)\n\
        out.close()\n";
    let name = format!("package-1.{release}.whl");
    succeed(Command::new("python3").args(["-c", wheel]).arg(&source).arg(tree.join(name)));
    let gzip = |plain: &str, to: &str, level: &str| {
        let file = work.path().join("plain");
        fs::write(&file, plain).unwrap();
        let made = Command::new("gzip").args(["-n", "-c", level]).arg(&file).output().unwrap();
        assert!(made.status.success());
        fs::write(tree.join(to), made.stdout).unwrap();
    };
    for n in 0..30u64 {
        let text = prose(900 + n, 30_000) + &format!("release {release}\n");
        gzip(&text, &format!("index/Packages{n}.gz"), "-9");
    }
    gzip(&long_text(release), "Contents.gz", "-1");
}

#[test]
fn packages_and_indexes_come_by_what_changed_in_them_and_are_the_same_to_the_bit() {
    let net = OneTree::start("", "");
    release(&net.upstream, 1);
    net.publish_and_sync();
    net.assert_same();
    release(&net.upstream, 2);
    let run = net.publish_and_sync();
    net.assert_same();
    let used = run["encoders"].as_array().unwrap();
    let inside = used.iter().find(|used| used["encoder"] == "inside");
    if encoders::forced().is_some() {
        assert_eq!(inside, None, "{run:#}");
        return;
    }
    assert_eq!(inside.unwrap()["files"], 32, "{run:#}");
    let (pack, compressed) = (bytes_by(&run, "pack"), size(&net.upstream));
    // The new module, and some hundred bytes for each other file.
    assert!(pack * 100 < compressed, "{pack} bytes by pack of {compressed}: {run:#}");
    assert_eq!(bytes_by(&run, "whole") + bytes_by(&run, "rsync"), 0, "{run:#}");
    let left = net.agent.storage.join("work/tree@site/partial");
    let files = walkdir::WalkDir::new(left).into_iter().flatten();
    assert_eq!(files.filter(|entry| entry.file_type().is_file()).count(), 0);
}

/// Bytes of all files.
fn size(tree: &Path) -> u64 {
    let entries = walkdir::WalkDir::new(tree).into_iter().map(Result::unwrap);
    entries
        .map(|entry| entry.metadata().unwrap())
        .filter(|meta| meta.is_file())
        .map(|m| m.len())
        .sum()
}
