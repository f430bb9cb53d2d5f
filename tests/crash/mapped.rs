//! A file that loses its end while it is encoded: who has mapped it is killed by the kernel, who reads
//! it is told. Publishers work on trees that others write to, so they read.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use tests::programs::{program, told};

use crate::{count, tell};

const SIGBUS: i32 = 7;
const LENGTH: usize = 12 << 20;

/// Content that does not shrink, so that there is something to do.
fn content(mut seed: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(LENGTH);
    while bytes.len() < LENGTH {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        bytes.extend_from_slice(&seed.to_le_bytes());
    }
    bytes
}

fn cut(file: &Path) {
    File::options().write(true).open(file).unwrap().set_len(0).unwrap();
}

#[test]
fn whoever_maps_a_file_that_is_cut_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("image");
    fs::write(&file, content(1)).unwrap();
    let reader = "import mmap, sys\n\
        file = open(sys.argv[1], 'rb')\n\
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)\n\
        print('mapped', flush=True)\n\
        sys.stdin.readline()\n\
        sum(mapped[::4096])\n";
    let mut child = Command::new("python3")
        .args(["-c", reader])
        .arg(&file)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "mapped\n");
    cut(&file);
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(SIGBUS));
}

#[test]
fn a_publisher_whose_file_is_cut_while_it_is_encoded_says_so_and_lives() {
    let rounds = count("MIRRORNET_CUTS", 8);
    let dir = tempfile::tempdir().unwrap();
    let [old, new] = ["old", "new"].map(|name| dir.path().join(name));
    for (tree, seed) in [(&old, 1), (&new, 2)] {
        fs::create_dir(tree).unwrap();
        let mut bytes = content(1);
        // Half of it is new, in pieces all over it.
        let other = content(seed);
        for at in (0..LENGTH).step_by(1 << 20) {
            bytes[at..at + (1 << 19)].copy_from_slice(&other[at..at + (1 << 19)]);
        }
        fs::write(tree.join("image"), bytes).unwrap();
    }
    let whole = fs::read(new.join("image")).unwrap();
    let pack = dir.path().join("pack");
    let run = || {
        let mut command = program("publisher");
        command
            .args(["pack", "--level", "3", "--from"])
            .arg(&old)
            .arg("--to")
            .arg(&new)
            .arg("--out")
            .arg(&pack);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let begin = Instant::now();
    let output = run().wait_with_output().unwrap();
    assert!(output.status.success(), "{}", told(&output));
    let usual = begin.elapsed();
    let (mut cuts, mut told_of) = (0, 0);
    for round in 0..rounds {
        fs::write(new.join("image"), &whole).unwrap();
        let _ = fs::remove_file(&pack);
        let mut child = run();
        // At another moment of the work each time: which one it is does not matter.
        std::thread::sleep(usual.mul_f64((round as f64 + 0.5) / rounds as f64));
        let is_under_way = child.try_wait().unwrap().is_none();
        cut(&new.join("image"));
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.signal(), None, "{}", told(&output));
        cuts += u64::from(is_under_way);
        if !output.status.success() {
            told_of += 1;
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(said.contains("image"), "{}", told(&output));
            assert!(!pack.exists(), "half a pack is left");
        }
    }
    assert!(told_of > 0, "no file was cut while it was read, in {rounds} rounds");
    tell("files cut while a publisher encodes them", cuts, 0);
}
