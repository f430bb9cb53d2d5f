//! Manifests that mean harm, applied to a real disk with other people's files all around.
//!
//! They are written byte by byte, because nothing of ours would encode them. Whatever becomes of one, a
//! refusal or a published tree, nothing outside of the tree's own directories changes, and what is
//! published is exactly what the manifest says.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::{MetadataExt, symlink},
    path::{Path, PathBuf},
    sync::Arc,
};

use protocol::{
    digest::Digest,
    manifest::{Block, Entry, Manifest},
    wire::Writer,
};

use super::{
    figures::{Figure, count, tell},
    model::{assert_same, place, read, target},
    *,
};
use crate::{fs::Fs, plan::View, switch::SwitchOptions};

/// What an entry claims to be.
#[derive(Debug, Clone)]
enum Claim {
    File,
    Dir,
    Link(Vec<u8>),
    /// A kind that there is not.
    Unknown,
}

/// An entry as a stranger writes it.
#[derive(Debug, Clone)]
struct Forged {
    path: Vec<u8>,
    claim: Claim,
    mode: u64,
    mtime: i64,
    /// Instead of the content's length.
    size: Option<u64>,
}

impl Forged {
    fn new(path: impl AsRef<[u8]>, claim: Claim) -> Self {
        Self { path: path.as_ref().into(), claim, mode: 0o644, mtime: 1_600_000_000, size: None }
    }

    fn file(path: impl AsRef<[u8]>) -> Self {
        Self::new(path, Claim::File)
    }

    fn dir(path: impl AsRef<[u8]>) -> Self {
        Self { mode: 0o755, ..Self::new(path, Claim::Dir) }
    }

    fn link(path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        Self { mode: 0, ..Self::new(path, Claim::Link(target.as_ref().into())) }
    }
}

const CONTENT: &[u8] = b"content of a stranger";

/// A block of these entries, in this order, with nothing checked.
fn encode(entries: &[Forged]) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.raw(b"MNMB\x01");
    let (mut last, mut last_mtime) = (&[][..], 0_i64);
    for entry in entries {
        let kind = match entry.claim {
            Claim::File => 0,
            Claim::Dir => 1,
            Claim::Link(_) => 2,
            Claim::Unknown => 3,
        };
        let shared = last.iter().zip(&entry.path).take_while(|(a, b)| a == b).count();
        writer.byte(kind).varint(shared as u64).bytes(&entry.path[shared..]);
        writer.varint(entry.mode).signed(entry.mtime.wrapping_sub(last_mtime));
        match &entry.claim {
            Claim::File => {
                writer.varint(entry.size.unwrap_or(CONTENT.len() as u64));
                writer.digest(&Digest::of(CONTENT));
            }
            Claim::Link(target) => {
                writer.bytes(target);
            }
            Claim::Dir | Claim::Unknown => {}
        }
        (last, last_mtime) = (&entry.path, entry.mtime);
    }
    writer.into_bytes()
}

/// Everything about a path that anybody could mind.
type Seen = BTreeMap<PathBuf, (u64, u32, u64, i64, i64, Vec<u8>)>;

/// A mirror among other people's files.
struct Site {
    temp: tempfile::TempDir,
    fs: Fs,
    have: Arc<Manifest>,
    generation: u64,
    canaries: Seen,
}

impl Site {
    fn new() -> Self {
        // In memory where that is at hand: thousands of syncs of a disk would prove no more.
        let memory = Path::new("/dev/shm");
        let temp = match memory.is_dir() {
            true => tempfile::tempdir_in(memory).unwrap(),
            false => tempfile::tempdir().unwrap(),
        };
        for dir in ["pub/other", "work/other/trash", "etc"] {
            fs::create_dir_all(temp.path().join(dir)).unwrap();
        }
        for file in
            ["pub/other/f", "pub/f", "pub/passwd", "work/f", "work/other/plan", "etc/passwd", "f"]
        {
            fs::write(temp.path().join(file), format!("{file} as it was")).unwrap();
        }
        symlink("etc", temp.path().join("way")).unwrap();
        let (fs, have) = (Fs::disk(), Arc::new(Manifest::empty()));
        let mut site = Self { temp, fs, have, generation: 0, canaries: Seen::new() };
        site.try_apply(&[Forged::file("f")]).unwrap();
        site.canaries = site.look();
        site
    }

    fn at(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    /// Everything but the tree's own directories.
    fn look(&self) -> Seen {
        let own = ["pub/linux", "work/fedora"].map(|name| self.at(name));
        // Switching changes the times of the two directories that hold these.
        let above = ["pub", "work"].map(|name| self.at(name));
        let mut seen = Seen::new();
        for entry in walkdir::WalkDir::new(self.temp.path())
            .into_iter()
            .filter_entry(|entry| !own.contains(&entry.path().to_owned()))
        {
            let entry = entry.unwrap();
            let meta = entry.path().symlink_metadata().unwrap();
            let content = if meta.is_file() { fs::read(entry.path()).unwrap() } else { Vec::new() };
            let mut facts =
                (meta.ino(), meta.mode(), meta.nlink(), meta.mtime(), meta.mtime_nsec(), content);
            if above.contains(&entry.path().to_owned()) {
                (facts.2, facts.3, facts.4) = (0, 0, 0);
            }
            seen.insert(entry.path().to_owned(), facts);
        }
        seen
    }

    /// Takes a manifest as an agent does, from its bytes to the switch.
    fn try_apply(&mut self, entries: &[Forged]) -> Result<(), String> {
        let said = |error: &dyn std::error::Error| error.to_string();
        let block = Block::parse(encode(entries)).map_err(|error| said(&error))?;
        let entries = block.entries().map_err(|error| said(&error))?;
        let want = Arc::new(Manifest::new(entries).map_err(|error| said(&error))?);
        let mut area = Area::open(&self.fs, place(self.temp.path())).map_err(|e| said(&e))?;
        // Links may be anything here: where they lead is not what is tried.
        let view = View::AS_IS;
        let plan = area.plan(&self.have, view, &want, view).map_err(|e| said(&e))?;
        area.check_room(&plan).map_err(|e| said(&e))?;
        for need in &plan.all_needs() {
            if !area.staging().has(need).map_err(|e| said(&e))? {
                let mut writer = area.staging().writer(need).map_err(|e| said(&e))?;
                writer.push(CONTENT).map_err(|e| said(&e))?;
                writer.finish().map_err(|e| said(&e))?;
            }
        }
        let number = self.generation + 1;
        let options = SwitchOptions::new(1_700_000_000 + number as i64 * 10_000);
        area.switch(&plan, &target(number, &want), &options).map_err(|e| said(&e))?;
        (self.have, self.generation) = (want, number);
        Ok(())
    }

    /// Takes it or leaves it; whether it was taken. What is wrong afterwards is the test's failure.
    fn apply(&mut self, what: &str, entries: &[Forged]) -> bool {
        let result = self.try_apply(entries);
        assert!(self.look() == self.canaries, "{what}: something changed outside: {result:?}");
        if let Err(why) = &result {
            let clean = why.len() > 5 && !why.chars().any(char::is_control);
            assert!(clean, "{what}: {why:?}");
        }
        // What is reserved for the mirror's own work is never published.
        let reserved = |entry: &&Entry| crate::safe_path::is_reserved(&entry.path);
        let mut expected: Vec<Entry> =
            self.have.entries().iter().filter(|entry| !reserved(entry)).cloned().collect();
        for entry in expected.iter_mut().filter(|entry| !entry.is_dir() && !entry.is_file()) {
            // A link has no mode, whatever somebody wrote down.
            entry.mode = 0;
        }
        assert_same(&read(&self.at("pub/linux")), &Manifest::new(expected).unwrap());
        result.is_ok()
    }
}

/// Names that have hurt somebody.
fn names() -> Vec<Vec<u8>> {
    let mut names: Vec<Vec<u8>> = [
        "",
        ".",
        "..",
        "/",
        "//",
        "...",
        "....",
        ".. ",
        " ..",
        "..\t",
        "..\n",
        "../",
        "./",
        "../..",
        "../../..",
        "../f",
        "../passwd",
        "../other/f",
        "../../f",
        "../../etc/passwd",
        "./f",
        "f/.",
        "f/..",
        "a/../b",
        "a/../../f",
        "a/./b",
        "a//b",
        "/f",
        "//f",
        "/etc/passwd",
        "/proc/self/root/f",
        "~",
        "~root",
        "$HOME",
        "`id`",
        "$(id)",
        ";id",
        "|id",
        "&",
        "-rf",
        "--delete",
        "-",
        "--",
        "*",
        "?",
        "[a]",
        "{a,b}",
        "!",
        "#",
        "%",
        "%2e%2e",
        "..%2f",
        "%00",
        "%s%n",
        "\\",
        "..\\",
        "\\..\\f",
        "C:",
        "C:\\f",
        "con",
        "nul.txt",
        "a.",
        "a ",
        " a",
        "a:b",
        "\n",
        "\r",
        "a\nb",
        "\t",
        "\u{1b}[2J",
        "\u{7f}",
        "\u{85}",
        "\u{202e}gpj",
        "\u{200b}",
        "\u{feff}",
        "é",
        "e\u{301}",
        "．．",
        "‥",
        "⁄f",
        "PROTECTED",
        ".mirrornet",
        ".mirrornet/f",
        ".mirrornet-partial",
        ".nfs0001",
        ".fuse_hidden1",
        "lost+found",
        "standby-1",
        "standby-1.missed",
        "staging",
        "trash",
        "plan",
        "marks",
        "agent.json",
        ".~tmp~",
        ".git",
        ".htaccess",
        "index.html",
        "core",
        "f.gz;1",
        "name\0",
        "\0",
        "a\0/../f",
        "..\0",
    ]
    .iter()
    .map(|name| name.as_bytes().to_vec())
    .collect();
    names.extend([
        b"\xff\xfe".to_vec(),
        b"\xc0\xae\xc0\xae".to_vec(),
        b"\xc0\xaf".to_vec(),
        b"\xed\xa0\x80".to_vec(),
        vec![b'n'; 255],
        vec![b'n'; 256],
        vec![b'n'; 5_000],
        b"d/".repeat(255),
        [b"d/".repeat(254), b"f".to_vec()].concat(),
        [b"d/".repeat(256), b"f".to_vec()].concat(),
        [b"d/".repeat(9_999), b"f".to_vec()].concat(),
        vec![b'/'; 4_096],
    ]);
    names
}

/// The entry with every directory above it that a well-meaning manifest would have.
fn with_dirs(entry: Forged) -> Vec<Forged> {
    let cuts: Vec<usize> =
        (1..entry.path.len()).filter(|at| entry.path[*at] == b'/').take(300).collect();
    let dirs = cuts.iter().map(|at| Forged::dir(&entry.path[..*at]));
    dirs.chain([entry.clone()]).collect()
}

fn named() -> Vec<(String, Vec<Forged>)> {
    let mut cases: Vec<(String, Vec<Forged>)> = Vec::new();
    let shown = |name: &[u8]| {
        let name: String = String::from_utf8_lossy(name).chars().take(40).collect();
        format!("{name:?}")
    };
    for name in names() {
        let inside = [b"d/", &name[..]].concat();
        cases.push((format!("{} as a file", shown(&name)), with_dirs(Forged::file(&name))));
        cases.push((format!("{} in a directory", shown(&name)), with_dirs(Forged::file(&inside))));
        cases.push((format!("{} as a target", shown(&name)), vec![Forged::link("l", &name)]));
    }
    let f = || Forged::file("f");
    let mut odd = |what: &str, entries: Vec<Forged>| cases.push((what.to_owned(), entries));
    for target in ["/", "/etc", "..", "../..", "../other", ".", "l", "../../work/fedora/staging"] {
        odd(
            &format!("a file below a link to {target}"),
            vec![Forged::link("l", target), Forged::file("l/f")],
        );
        odd(
            &format!("a directory below a link to {target}"),
            vec![Forged::link("l", target), Forged::dir("l/d"), Forged::file("l/d/f")],
        );
        odd(
            &format!("a link to {target}, then a directory there"),
            vec![Forged::link("l", target), Forged::dir("l")],
        );
    }
    odd("a file twice", vec![f(), f()]);
    odd("a file that is also a directory", vec![f(), Forged::file("f/g")]);
    odd("out of order", vec![Forged::file("g"), f()]);
    odd("no directory above", vec![Forged::file("nowhere/f")]);
    odd("the directory after its content", vec![Forged::file("d/f"), Forged::dir("d")]);
    odd("an unknown kind", vec![Forged::new("f", Claim::Unknown)]);
    odd("nothing at all", vec![]);
    odd("a link without a target", vec![Forged::link("l", "")]);
    odd("a target with a null byte", vec![Forged::link("l", "a\0b")]);
    odd("a target of 4,095 bytes", vec![Forged::link("l", "t".repeat(4_095))]);
    odd("a target of 4,096 bytes", vec![Forged::link("l", "t".repeat(4_096))]);
    for mode in [0o4755, 0o2755, 0o1777, 0o7777, 0o100_644, u64::from(u32::MAX), u64::MAX] {
        odd(&format!("mode {mode:o}"), vec![Forged { mode, ..f() }]);
        odd(&format!("a directory of mode {mode:o}"), vec![Forged { mode, ..Forged::dir("d") }]);
    }
    for mode in [0, 0o777, 0o111] {
        odd(&format!("mode {mode:o}"), vec![Forged { mode, ..f() }]);
    }
    for size in [
        0,
        1,
        CONTENT.len() as u64 - 1,
        CONTENT.len() as u64 + 1,
        1 << 40,
        i64::MAX as u64,
        u64::MAX,
    ] {
        odd(&format!("a size of {size}"), vec![Forged { size: Some(size), ..f() }]);
    }
    for mtime in [i64::MIN, i64::MIN + 1, -1, 0, i64::MAX] {
        odd(&format!("a time of {mtime}"), vec![Forged { mtime, ..f() }]);
    }
    cases
}

#[test]
fn no_manifest_with_a_name_changes_anything_outside_of_its_tree() {
    let mut site = Site::new();
    let cases = named();
    assert!(cases.len() >= 250, "{}", cases.len());
    let (mut taken, mut refused) = (BTreeSet::new(), BTreeSet::new());
    for (what, entries) in &cases {
        let set = if site.apply(what, entries) { &mut taken } else { &mut refused };
        set.insert(what.clone());
    }
    // Both happen, and the ones that matter are refused.
    assert!(taken.len() > 150 && refused.len() > 100, "{} {}", taken.len(), refused.len());
    for what in [
        "\"..\" as a file",
        "\"../f\" as a file",
        "\"/etc/passwd\" as a file",
        "a file below a link to /",
        "a file twice",
        "out of order",
        "mode 4755",
    ] {
        assert!(refused.contains(what), "{what} was taken");
    }
    for what in ["\"...\" as a file", "\"\\n\" as a file", "\"--delete\" as a file", "mode 777"] {
        assert!(taken.contains(what), "{what} was refused");
    }
    eprintln!("{} taken, {} refused", taken.len(), refused.len());
    tell(&Figure {
        what: "named hostile manifests with canaries around",
        ran: cases.len() as u64,
        bad: 0,
    });
}

/// Numbers that look random.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}

/// A manifest of a few entries out of names that hurt, sometimes with the manners of a good one.
fn generated(chance: &mut Chance, names: &[Vec<u8>]) -> Vec<Forged> {
    let mut entries: BTreeMap<Vec<u8>, Forged> = BTreeMap::new();
    let mut list = Vec::new();
    for _ in 0..=chance.below(6) {
        let mut path = Vec::new();
        for at in 0..=chance.below(3) {
            if at > 0 {
                path.push(b'/');
            }
            match chance.below(4) {
                0 => path.extend(&names[chance.below(names.len())]),
                1 => path.extend([b'd', b'0' + chance.below(3) as u8]),
                2 => path.extend([b'l', b'0' + chance.below(3) as u8]),
                _ => path.extend([b'f', b'0' + chance.below(6) as u8]),
            }
        }
        let mut entry = match chance.below(5) {
            0 => Forged::link(&path, &names[chance.below(names.len())]),
            1 => Forged::link(&path, ["/", "..", "../other", "d0", "../../etc"][chance.below(5)]),
            2 => Forged::dir(&path),
            _ => Forged::file(&path),
        };
        if chance.below(10) == 0 {
            entry.mode = 1 << chance.below(20);
        }
        if chance.below(20) == 0 {
            entry.size = Some(chance.below(100) as u64);
        }
        list.push(entry);
    }
    if chance.below(4) == 0 {
        return list;
    }
    // In the order of paths, once each, with directories where somebody lies below.
    for entry in list.iter().cloned().flat_map(with_dirs) {
        entries
            .entry(entry.path.iter().map(|b| if *b == b'/' { 0 } else { *b }).collect())
            .or_insert(entry);
    }
    entries.into_values().collect()
}

#[test]
fn no_manifest_that_chance_makes_changes_anything_outside_of_its_tree() {
    let cases = count("MIRRORNET_HOSTILE_MANIFESTS", 2_000);
    let names: Vec<Vec<u8>> = names().into_iter().filter(|name| name.len() < 300).collect();
    let mut site = Site::new();
    let mut chance = Chance(0x5eed);
    let mut taken = 0;
    for case in 0..cases {
        let entries = generated(&mut chance, &names);
        taken += u64::from(site.apply(&format!("case {case}: {entries:?}"), &entries));
    }
    eprintln!("{taken} of {cases} were manifests all the same, and published");
    assert!(taken * 10 > cases, "only {taken} of {cases} were taken: too little was tried");
    tell(&Figure { what: "generated hostile manifests with canaries around", ran: cases, bad: 0 });
}
