//! A large disk image in two versions, and what packing the second takes.
//!
//! Like the image of a machine it is zeros for the most part, so it takes little of a disk; what else
//! there is does not compress. Some of it changes in its place, and from the middle on all is shifted.
//! At its end there is something of which every bit of 20 kB has changed: that is what takes memory.

use std::{
    fs,
    os::unix::fs::FileExt as _,
    path::Path,
    process::{Child, Command},
    time::{Duration, Instant},
};

use crate::{
    fixture::noise,
    programs::{program, succeed},
};

/// From the beginning of one piece of content to that of the next.
const STEP: u64 = 40 << 20;
/// Bytes of content in each.
const CONTENT: usize = 1 << 20;
/// Bytes of what has changed all over, and from one change in it to the next.
const DENSE: usize = 16 << 20;
const CHANGED: usize = 20_000;
/// By how much the second half is shifted.
const SHIFT: u64 = 12_345;

/// What packing took.
#[derive(Debug)]
pub struct Packed {
    /// Most memory that was the process's own: neither of a file nor shared.
    pub peak_bytes: u64,
    /// Bytes of the pack.
    pub pack_bytes: u64,
    /// How long it took.
    pub took: Duration,
}

/// Writes both versions, of about `len` bytes, below `dir`, and packs the step between them within
/// `memory`; what comes out of the pack is compared with the second.
pub fn pack(dir: &Path, len: u64, memory: &str) -> Packed {
    let [old, new, pack, out] = ["old", "new", "pack", "out"].map(|name| dir.join(name));
    write(&old, len, false);
    write(&new, len, true);
    let mut command = program("publisher");
    command.args(["pack", "--memory", memory, "--from"]).arg(&old).arg("--to").arg(&new);
    command.arg("--out").arg(&pack).stdout(std::process::Stdio::null());
    let start = Instant::now();
    let peak_bytes = peak_of(command.spawn().unwrap());
    let took = start.elapsed();
    let mut unpack = program("mirror-agent");
    unpack.arg("unpack").arg("--pack").arg(&pack).arg("--base").arg(&old).arg("--out").arg(&out);
    succeed(&mut unpack);
    succeed(Command::new("cmp").arg(new.join("image")).arg(out.join("image")));
    Packed { peak_bytes, pack_bytes: fs::metadata(&pack).unwrap().len(), took }
}

fn write(dir: &Path, len: u64, is_new: bool) {
    fs::create_dir_all(dir).unwrap();
    let file = fs::File::create(dir.join("image")).unwrap();
    let shifted = if is_new { SHIFT } else { 0 };
    file.set_len(len + shifted).unwrap();
    let mut dense = noise(77, DENSE);
    if is_new {
        dense.iter_mut().step_by(CHANGED).for_each(|byte| *byte ^= 1);
    }
    file.write_all_at(&dense, len + shifted - DENSE as u64).unwrap();
    for n in 0..(len - DENSE as u64) / STEP {
        let mut content = noise(n, CONTENT);
        if is_new && n % 4 == 1 {
            content[500_000..504_096].copy_from_slice(&noise(n + 10_000, 4_096));
        }
        let shift = if n * STEP > len / 2 { shifted } else { 0 };
        file.write_all_at(&content, n * STEP + 4_096 + shift).unwrap();
    }
}

/// Most memory of its own that a process had until it ended, which must be well.
fn peak_of(mut child: Child) -> u64 {
    let status = format!("/proc/{}/status", child.id());
    let mut most = 0;
    loop {
        if let Some(ended) = child.try_wait().unwrap() {
            assert!(ended.success(), "{ended}");
            return most;
        }
        let text = fs::read_to_string(&status).unwrap_or_default();
        let own = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let kibibytes = own.and_then(|own| own.trim().trim_end_matches(" kB").parse::<u64>().ok());
        most = most.max(kibibytes.unwrap_or_default() << 10);
        std::thread::sleep(Duration::from_millis(2));
    }
}
