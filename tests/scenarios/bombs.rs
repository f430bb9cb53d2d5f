//! Packs of a few kilobytes that claim, or grow into, gigabytes: the real agent takes what was signed and
//! no more, in little memory.

use std::{
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use protocol::{
    digest::Digest,
    manifest::{Entry, EntryKind, Manifest},
    pack::{Codec, Content, Encoder, Frame, Header, IndexBuilder, Op, Slice},
    path::TreePath,
};
use tests::{PATIENCE, fixture::noise, programs};

const MOST_MIB: f64 = 128.0;
const GIB: u64 = 1 << 30;

/// A directory with a base of one file, `base`, of 1 MiB.
struct Site {
    dir: tempfile::TempDir,
    from: Manifest,
}

fn entry(path: &str, content: &[u8]) -> Entry {
    sized(path, content.len() as u64, Digest::of(content))
}

fn sized(path: &str, size: u64, digest: Digest) -> Entry {
    let kind = EntryKind::File { size, digest, link_group: None };
    Entry { path: TreePath::parse(path.as_bytes()).unwrap(), mode: 0o644, mtime: 0, kind }
}

impl Site {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let base = noise(1, 1 << 20);
        let at = dir.path().join("base");
        fs::create_dir(&at).unwrap();
        fs::write(at.join("base"), &base).unwrap();
        File::options()
            .write(true)
            .open(at.join("base"))
            .unwrap()
            .set_modified(std::time::UNIX_EPOCH)
            .unwrap();
        Self { dir, from: Manifest::new(vec![entry("base", &base)]).unwrap() }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A pack that replaces the base by a file `f` of this size, made of hand-made frames.
    fn forge(&self, size: u64, content: Content, frames: &[(Vec<u8>, u32, Codec)]) -> Vec<u8> {
        let put = sized("f", size, Digest::of(b"whatever"));
        let to = Manifest::new(vec![put.clone()]).unwrap();
        let mut builder = IndexBuilder::new();
        for (stored, raw_len, codec) in frames {
            let (digest, stored_len) = (Digest::of(stored), stored.len() as u32);
            let codec = codec.clone();
            builder
                .push_frame(&Frame { offset: 0, stored_len, digest, raw_len: *raw_len, codec })
                .unwrap();
        }
        builder.push_op(&Op::Delete { path: TreePath::parse(b"base").unwrap() }).unwrap();
        builder.push_op(&Op::Put { entry: put, content: Some(content) }).unwrap();
        let header = Header {
            from: Some(self.from.digest()),
            from_entries: 1,
            to: to.digest(),
            to_entries: 1,
        };
        let mut pack = builder.finish(&header).unwrap();
        frames.iter().for_each(|(stored, ..)| pack.extend(stored));
        pack
    }

    /// Has the real agent unpack it: what it said, and its peak memory in MiB.
    fn unpack(&self, pack: &[u8]) -> (bool, String, f64) {
        fs::write(self.at("pack"), pack).unwrap();
        let mut command = programs::program("mirror-agent");
        command.arg("unpack").arg("--pack").arg(self.at("pack"));
        command.arg("--base").arg(self.at("base")).arg("--out").arg(self.at("out"));
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let begin = Instant::now();
        let mut child = command.spawn().unwrap();
        let status_file = PathBuf::from(format!("/proc/{}/status", child.id()));
        let mut peak = 0.0_f64;
        let status = loop {
            peak = peak.max(high_water(&status_file).unwrap_or_default());
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            assert!(begin.elapsed() < PATIENCE, "it does not end");
            std::thread::sleep(Duration::from_millis(2));
        };
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (status.success(), said, peak)
    }
}

/// The most memory that a process has had, in MiB.
fn high_water(status: &Path) -> Option<f64> {
    let status = fs::read_to_string(status).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<f64>().ok()? / 1024.0)
}

/// A gigabyte of zeros, in zstd's words.
fn zeros() -> Vec<u8> {
    let mut packed = Vec::new();
    let mut encoder = zstd::Encoder::new(&mut packed, 1).unwrap();
    encoder.window_log(20).unwrap();
    std::io::copy(&mut std::io::repeat(0).take(GIB), &mut encoder).unwrap();
    encoder.finish().unwrap();
    packed
}

/// A delta in librsync's format that copies the whole base a thousand times: 9 kB for a gigabyte.
fn copies() -> Vec<u8> {
    let mut delta = b"rs\x02\x36".to_vec();
    for _ in 0..1_000 {
        // Copy: 4 bytes of offset, 4 of length.
        delta.push(0x4f);
        delta.extend(0_u32.to_be_bytes());
        delta.extend((1_u32 << 20).to_be_bytes());
    }
    delta.push(0);
    delta
}

#[test]
fn what_grows_into_gigabytes_is_refused_in_little_memory() {
    let site = Site::new();
    let slices = |len| vec![Slice::Frame { frame: 0, offset: 0, len }];
    let whole = |len: u32| Content::Slices { encoder: Encoder::Whole, slices: slices(len) };
    let delta = |len: u32| Content::RsyncDelta { base_entry: 0, slices: slices(len) };
    let (zeros, copies) = (zeros(), copies());
    assert!(copies.len() < 10_000 && zeros.len() < 200_000, "{} {}", copies.len(), zeros.len());
    let deep = zstd::encode_all(&zeros[..], 1).unwrap();
    let raw = |bytes: &[u8]| vec![(bytes.to_vec(), bytes.len() as u32, Codec::Raw)];
    let packed = |bytes: &[u8], raw_len: u32| vec![(bytes.to_vec(), raw_len, Codec::Zstd)];
    let cases = [
        ("zeros that claim to be eight bytes", site.forge(8, whole(8), &packed(&zeros, 8))),
        (
            "zeros that claim to be four megabytes",
            site.forge(4 << 20, whole(4 << 20), &packed(&zeros, 4 << 20)),
        ),
        (
            "a delta that claims to make eight bytes",
            site.forge(8, delta(copies.len() as u32), &raw(&copies)),
        ),
        (
            "a delta that makes half of what it claims",
            site.forge(2_000 << 20, delta(copies.len() as u32), &raw(&copies)),
        ),
        (
            "a delta that makes what it claims, of the wrong digest",
            site.forge(1_000 << 20, delta(copies.len() as u32), &raw(&copies)),
        ),
        ("zeros packed twice", site.forge(8, whole(8), &packed(&deep, 8))),
    ];
    let largest = cases.iter().map(|(_, pack)| pack.len()).max().unwrap();
    for (case, pack) in &cases {
        let (good, said, peak) = site.unpack(pack);
        eprintln!("{case}: pack of {} bytes, {peak:.0} MiB at most: {}", pack.len(), said.trim());
        assert!(!good && said.len() > 20, "{case}: {said}");
        assert!(peak > 1.0 && peak <= MOST_MIB, "{case}: {peak} MiB");
        assert!(!site.at("out").exists(), "{case} left something");
    }
    assert!(largest < 300_000, "{largest}");
}

/// What the header promises is not allocated before it is there.
#[test]
fn a_pack_that_claims_millions_of_entries_is_refused_in_little_memory() {
    let site = Site::new();
    for entries in [2, 20_000_000, 20_000_001, u64::MAX >> 1] {
        let mut builder = IndexBuilder::new();
        builder
            .push_op(&Op::Put {
                entry: entry("f", b""),
                content: Some(Content::Slices { encoder: Encoder::Whole, slices: Vec::new() }),
            })
            .unwrap();
        let header = Header {
            from: Some(site.from.digest()),
            from_entries: entries,
            to: Digest::of(b"to"),
            to_entries: entries,
        };
        let Ok(pack) = builder.finish(&header) else { continue };
        let (good, said, peak) = site.unpack(&pack);
        eprintln!("{entries} entries: {peak:.0} MiB at most: {}", said.trim());
        assert!(!good && said.len() > 20, "{said}");
        assert!(peak > 1.0 && peak <= MOST_MIB, "{entries}: {peak} MiB");
    }
}
