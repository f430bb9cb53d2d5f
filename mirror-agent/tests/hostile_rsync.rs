//! rsync daemons that break every rule, against the real rsync as the agent runs it.
//!
//! Each case is a lie of [`speaker`]. Whatever the daemon does, nothing outside of the stage changes,
//! the stage holds nothing but plain files and directories, the run ends within its time, and an
//! admin is told in words.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

#[path = "hostile_rsync/speaker.rs"]
mod speaker;

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use certs::dial::Dialer;
use filetree::confine::Confine;
use mirror_agent::rsync::{
    child::{Error, Limits, Programs},
    connect::to_stock,
    listing::{Listed, ListedKind, Listing},
    source::{Asked, Source},
};
use mirror_agent::run_log::RunLog;
use protocol::{filter::Filter, path::TreePath, spec::Transport, v1::agent::RsyncdOrigin};
use speaker::{End, Item, Moment, Play};

const LIMITS: Limits =
    Limits { total: Duration::from_secs(3), silence: Duration::from_millis(1_500) };
/// Longest that a case may take: its limits, on a busy machine.
const SOON: Duration = Duration::from_secs(40);
const SIZE: usize = 3_000;

/// A stage with a mirror and other people's files around it.
struct Site {
    dir: tempfile::TempDir,
}

/// Everything about a path that anybody could mind.
type Seen = BTreeMap<PathBuf, (u64, u32, u64, i64, i64, Vec<u8>)>;

fn look(dir: &Path) -> Seen {
    let mut seen = Seen::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(path) = todo.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        if meta.is_dir() {
            todo.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        let content = if meta.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
        let facts =
            (meta.ino(), meta.mode(), meta.nlink(), meta.mtime(), meta.mtime_nsec(), content);
        seen.insert(path, facts);
    }
    seen
}

impl Site {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["around/canaries", "around/live/d", "around/work"] {
            fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        let site = Self { dir };
        for name in ["canaries/passwd", "canaries/f", "live/f", "live/d/f", "f", "evil"] {
            fs::write(site.at(name), format!("{name} as it was\n").repeat(100)).unwrap();
        }
        symlink("canaries", site.at("way")).unwrap();
        site
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join("around").join(name)
    }

    /// Everything outside of the private directory.
    fn canaries(&self) -> Seen {
        let mut seen = look(&self.dir.path().join("around"));
        seen.retain(|path, _| !path.starts_with(self.at("work")));
        seen
    }

    fn source(&self, port: u16, limits: Limits) -> Source {
        let origin = RsyncdOrigin {
            host: "127.0.0.1".into(),
            port,
            path: "pub".into(),
            user: None,
            password_file: None,
            transport: Transport::Plain,
            ssh: None,
            max_connections: None,
        };
        Source {
            connect: to_stock(Dialer::default(), &origin, Path::new("/"), Path::new("")),
            line: Arc::default(),
            host: origin.host,
            path: origin.path,
            user: None,
            password_file: None,
            compress: false,
            programs: Programs {
                rsync: "rsync".into(),
                helper: env!("CARGO_BIN_EXE_mirror-agent").into(),
                confine: Confine::Auto,
                list_first: false,
            },
            limits,
            log: RunLog::none(),
        }
    }

    async fn list(&self, play: Play, limits: Limits) -> Result<Listing, Error> {
        let source = self.source(speaker::start(play), limits);
        source.list(&Filter::all(), &self.at("work")).await.1
    }

    /// Asks for `f` and `d/f`.
    async fn fetch(&self, play: Play, limits: Limits) -> Result<(), Error> {
        let source = self.source(speaker::start(play), limits);
        let (stage, work) = (self.at("work/stage"), self.at("work"));
        fs::remove_dir_all(&stage).ok();
        fs::create_dir(&stage).unwrap();
        let asked = |name: &[u8]| Asked { path: TreePath::parse(name).unwrap(), size: SIZE as u64 };
        let files = [asked(b"d/f"), asked(b"f")];
        source.fetch(&files, &[self.at("live")], &stage, &work).await.1
    }

    /// The stage holds plain files and directories, none of them with a set user id or for others to
    /// write.
    fn check_stage(&self, case: &str) {
        let stage = self.at("work/stage");
        for path in look(&stage).into_keys().filter(|path| *path != stage) {
            let meta = fs::symlink_metadata(&path).unwrap();
            assert!(meta.is_dir() || meta.is_file(), "{case}: {path:?} is {:?}", meta.file_type());
            // The directory above is nobody else's to enter; what is staged later gets its own mode.
            assert_eq!(meta.permissions().mode() & 0o7022, 0, "{case}: {path:?}");
            assert!(!(meta.nlink() > 1 && meta.is_file()), "{case}: {path:?} is shared");
            assert!(meta.is_dir() || meta.len() <= SIZE as u64, "{case}: {path:?} is too large");
        }
    }
}

/// Whole sentences without anything that a terminal would obey.
fn check_words(case: &str, error: &Error) {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    eprintln!("{case}: {text}");
    assert!(text.len() > 20 && !text.chars().any(char::is_control), "{case}: {text:?}");
}

fn files() -> Vec<(String, Vec<u8>)> {
    let content = |seed: u8| (0..SIZE).map(|n| (n as u8).wrapping_mul(seed)).collect();
    vec![("d/f".into(), content(3)), ("f".into(), content(7))]
}

fn listing(items: Vec<Item>) -> Play {
    let items = std::iter::once(Item::dir(".")).chain(items).collect();
    Play { items: Some(items), ..Play::default() }
}

fn sending(items: Vec<Item>) -> Play {
    Play { items: Some(items), files: files(), ..Play::default() }
}

fn honest() -> Play {
    sending(whole())
}

/// What was asked for, in the order of a list: files, then directories with what is in them.
fn whole() -> Vec<Item> {
    vec![Item::file("f", SIZE as i64), Item::dir("d"), Item::file("d/f", SIZE as i64)]
}

/// The same, with one of the three replaced.
fn with(at: usize, item: Item) -> Play {
    let mut items = whole();
    items[at] = item;
    sending(items)
}

fn with_also(item: Item) -> Play {
    sending(std::iter::once(item).chain(whole()).collect())
}

#[tokio::test]
async fn an_honest_speaker_is_understood() {
    let site = Site::new();
    let play = listing(vec![Item::link("l", "d/f"), Item::dir("d"), Item::file("d/f", 5)]);
    let list = site.list(play, Limits::default()).await.unwrap();
    let names: Vec<String> = list.each().map(|listed| listed.unwrap().path.to_string()).collect();
    assert_eq!(names, ["d", "d/f", "l"]);
    assert_eq!(list.refused.count, 0, "{:?}", list.refused);
    site.fetch(honest(), Limits::default()).await.unwrap();
    for (name, content) in files() {
        assert!(fs::read(site.at("work/stage").join(&name)).unwrap() == content, "{name}");
    }
    site.check_stage("honest");
}

/// Names and kinds that no tree can have are left out of a listing, or end it.
#[tokio::test]
async fn no_listing_names_anything_outside_of_the_tree() {
    let site = Site::new();
    let canaries = site.canaries();
    let deep = "d/".repeat(5_000) + "f";
    let around = site.at("canaries");
    let around = around.to_str().unwrap();
    let cases: Vec<(&str, Play)> = vec![
        ("a parent's name", listing(vec![Item::file("../evil", 1)])),
        ("a parent in the middle", listing(vec![Item::file("d/../../evil", 1)])),
        ("an absolute name", listing(vec![Item::file("/etc/passwd", 1)])),
        ("only slashes", listing(vec![Item::file("///", 1)])),
        ("no name", listing(vec![Item::file("", 1)])),
        ("a file below a link", listing(vec![Item::link("l", around), Item::file("l/f", 1)])),
        ("a file twice", listing(vec![Item::file("f", 1), Item::file("f", 2)])),
        (
            "a link where a directory is",
            listing(vec![Item::dir("d"), Item::link("d", around), Item::file("d/f", 1)]),
        ),
        ("a character device", listing(vec![Item::of_mode("null", 0o020_666)])),
        ("a block device", listing(vec![Item::of_mode("sda", 0o060_666)])),
        ("a pipe", listing(vec![Item::of_mode("pipe", 0o010_666)])),
        ("a socket", listing(vec![Item::of_mode("socket", 0o140_666)])),
        ("no kind at all", listing(vec![Item::of_mode("what", 0o170_777)])),
        ("a set user id", listing(vec![Item::of_mode("su", 0o106_755)])),
        ("control characters", listing(vec![Item::file("a\u{1b}[2J\nb\r\u{7}", 1)])),
        (
            "a name that looks like an entry",
            listing(vec![Item::file(">f+++++++++|rw-r--r--|7|2026/11/20-15:14:22|../x", 1)]),
        ),
        ("a negative size", listing(vec![Item::file("f", -5)])),
        ("an enormous size", listing(vec![Item::file("f", i64::MAX)])),
        ("a deep path", listing(vec![Item::file(&deep, 1)])),
        (
            "a name of 255 and one of 256",
            listing(vec![Item::file("n".repeat(255), 1), Item::file("m".repeat(256), 1)]),
        ),
        ("a long target", listing(vec![Item::link("l", "t".repeat(4_095))])),
        ("a target that is too long", listing(vec![Item::link("l", "t".repeat(70_000))])),
        ("a target with control characters", listing(vec![Item::link("l", "x -> y\n/etc")])),
        ("nothing, not even the root", Play { items: Some(Vec::new()), ..Play::default() }),
    ];
    for (case, play) in cases {
        let begun = Instant::now();
        let result = site.list(play, LIMITS).await;
        assert!(begun.elapsed() < SOON, "{case}: {:?}", begun.elapsed());
        match result {
            Err(error) => check_words(case, &error),
            Ok(list) => {
                if ["a character device", "a block device", "a pipe", "a socket"].contains(&case) {
                    assert!(list.refused.named[0].contains("device, fifo or socket"), "{case}");
                }
                let entries: Vec<Listed> = list.each().collect::<Result<_, _>>().unwrap();
                eprintln!("{case}: {} listed, left out: {:?}", entries.len(), list.refused);
                for entry in entries {
                    assert_eq!(entry.mode & !0o777, 0, "{case}: {entry:?}");
                    let plain = matches!(
                        entry.kind,
                        ListedKind::File { .. } | ListedKind::Dir | ListedKind::Symlink { .. }
                    );
                    assert!(plain, "{case}: {entry:?}");
                    // A path is whole, relative and goes down only: its type says so.
                    let parent = entry.path.parent();
                    let known =
                        |p: &TreePath| list.get(p).unwrap().is_some_and(|above| above.is_dir());
                    assert!(
                        parent.as_ref().is_none_or(known),
                        "{case}: {entry:?} hangs in the air"
                    );
                }
            }
        }
        assert!(site.canaries() == canaries, "{case}: something changed outside");
    }
}

/// Messages that are too long, too many, or mean nothing.
#[tokio::test]
async fn a_listing_that_is_no_listing_ends_in_time_with_a_reason() {
    let site = Site::new();
    let canaries = site.canaries();
    let int = |n: i32| n.to_le_bytes();
    let raw = |bytes: Vec<u8>| Play { raw_list: Some(bytes), ..Play::default() };
    let cases: Vec<(&str, Play)> = vec![
        (
            "no greeting of rsync's",
            Play { greeting: b"HTTP/1.1 400 Bad Request\n".to_vec(), ..Play::default() },
        ),
        (
            "a protocol of the future",
            Play {
                greeting: b"@RSYNCD: 99.0\n".to_vec(),
                opening: b"@ERROR: too new\n".to_vec(),
                ..Play::default()
            },
        ),
        (
            "a protocol of the past",
            Play { greeting: b"@RSYNCD: 3.0\n".to_vec(), ..Play::default() },
        ),
        ("an endless greeting", Play { greeting: vec![b'x'; 4 << 20], ..Play::default() }),
        (
            "an error instead of a module",
            Play { opening: b"@ERROR: no\x1b[2J\n".to_vec(), ..Play::default() },
        ),
        (
            "an enormous message of the day",
            Play { opening: b"welcome\n".repeat(200_000), ..Play::default() },
        ),
        ("a name of two billion bytes", raw([&[1 << 6][..], &int(i32::MAX)].concat())),
        ("a name of minus one byte", raw([&[1 << 6][..], &int(-1)].concat())),
        (
            "a common part that is not there",
            raw([&[1 << 5 | 1 << 6, 200][..], &int(3), b"abc"].concat()),
        ),
        ("names without end", Play { endless_names: true, ..Play::default() }),
        (
            "a list that confesses to errors",
            Play { list_errors: 1, ..listing(vec![Item::file("f", 1)]) },
        ),
        (
            "a frame of an unknown kind",
            Play { messages: vec![(77, vec![0; 9])], ..Play::default() },
        ),
        (
            "a time limit of nothing",
            Play {
                messages: vec![(33, int(0).to_vec())],
                end: Some((Moment::ListBegun, End::Silence)),
                ..Play::default()
            },
        ),
        (
            "a time limit of a year",
            Play {
                messages: vec![(33, int(31_000_000).to_vec())],
                end: Some((Moment::ListBegun, End::Trickle)),
                ..Play::default()
            },
        ),
        (
            "an answer about entry minus two",
            Play { answer_as: Some(-2), ..listing(vec![Item::file("f", 1)]) },
        ),
        (
            "an answer about entry one million",
            Play { answer_as: Some(1_000_000), ..listing(vec![Item::file("f", 1)]) },
        ),
    ];
    for (case, play) in cases {
        let begun = Instant::now();
        let result = site.list(play, LIMITS).await;
        assert!(begun.elapsed() < SOON, "{case}: {:?}", begun.elapsed());
        match (case, result) {
            // Greetings and news for people do no harm, however long.
            ("an enormous message of the day", Ok(list)) => assert_eq!(list.each().count(), 0),
            (_, Ok(list)) => panic!("{case}: {list:?}"),
            (_, Err(error)) => check_words(case, &error),
        }
        assert!(site.canaries() == canaries, "{case}: something changed outside");
    }
}

#[tokio::test]
async fn a_server_that_goes_away_or_falls_silent_at_any_moment_is_no_success() {
    let site = Site::new();
    let canaries = site.canaries();
    for end in [End::Cut, End::Silence, End::Trickle] {
        for moment in Moment::ALL {
            // Half of the moments are enough for those that cost their whole time.
            if end != End::Cut && moment as u8 % 3 != 1 {
                continue;
            }
            let case = format!("{end:?} at {moment:?}");
            let begun = Instant::now();
            let play = Play { end: Some((moment, end)), ..honest() };
            let limits =
                Limits { total: Duration::from_millis(1_500), silence: Duration::from_millis(700) };
            match site.fetch(play, limits).await {
                Err(error) => check_words(&case, &error),
                Ok(()) => panic!("{case}: taken for a success"),
            }
            assert!(begun.elapsed() < SOON, "{case}: {:?}", begun.elapsed());
            site.check_stage(&case);
            assert!(site.canaries() == canaries, "{case}: something changed outside");
        }
    }
}

#[tokio::test]
async fn nothing_that_a_server_sends_leaves_the_stage() {
    let site = Site::new();
    let canaries = site.canaries();
    let size = SIZE as i64;
    let around = site.at("canaries");
    let around = around.to_str().unwrap();
    let int = |n: i32| n.to_le_bytes();
    let tokens = |bytes: Vec<u8>| Play { tokens: Some(bytes), ..honest() };
    let literal = |len: i32| [&int(len)[..], &[b'x'; 1_000]].concat();
    let cases: Vec<(&str, Play)> = vec![
        ("a parent's name", with_also(Item::file("../evil", size))),
        ("a parent's name twice up", with_also(Item::file("d/../../evil", size))),
        ("an absolute name", with_also(Item::file(format!("{around}/passwd"), size))),
        ("a file that nobody asked for", with_also(Item::file("also", size))),
        ("a link in place of the file", with(0, Item::link("f", format!("{around}/f")))),
        ("a link in place of the directory", with(1, Item::link("d", around))),
        ("a link to the directory above", with(1, Item::link("d", ".."))),
        ("a device in place of the file", with(2, Item::of_mode("d/f", 0o060_666))),
        ("a pipe in place of the file", with(2, Item::of_mode("d/f", 0o010_666))),
        ("a set user id", with(2, Item { mode: 0o106_777, ..Item::file("d/f", size) })),
        ("a file twice", sending([whole(), whole()].concat())),
        ("a file that is a directory", with(2, Item::dir("d/f"))),
        ("a directory's name as a file", with(1, Item::file("d", size))),
        ("another file than was asked for", Play { answer_as: Some(1), ..honest() }),
        ("an entry that is not there", Play { answer_as: Some(1_000), ..honest() }),
        ("an entry of less than nothing", Play { answer_as: Some(-100), ..honest() }),
        (
            "more than was listed",
            Play {
                files: vec![("d/f".into(), vec![7; 5 * SIZE]), ("f".into(), vec![7; 5 * SIZE])],
                ..honest()
            },
        ),
        (
            "less than was listed",
            Play { files: vec![("d/f".into(), vec![7; 9]), ("f".into(), vec![])], ..honest() },
        ),
        ("content without end", Play { endless_content: true, ..honest() }),
        ("a sum that is wrong", Play { wrong_checksum: true, ..honest() }),
        ("a piece of two billion bytes", tokens(literal(i32::MAX))),
        ("a block that nobody has", tokens(int(-1_000_000).to_vec())),
        ("the lowest number as a block", tokens(int(i32::MIN).to_vec())),
        (
            "blocks of two billion bytes",
            Play { sums: Some([i32::MAX, i32::MAX, 16, 0]), ..honest() },
        ),
        ("fewer blocks than none", Play { sums: Some([-1, -1, -1, -1]), ..honest() }),
        (
            "word that files were deleted",
            Play { messages: vec![(101, b"f\0".to_vec())], ..honest() },
        ),
        ("word that a file came", Play { messages: vec![(100, int(0).to_vec())], ..honest() }),
        (
            "errors that are none of its business",
            Play { messages: vec![(3, b"\x1b[2Jall is well\n".to_vec())], ..honest() },
        ),
    ];
    for (case, play) in cases {
        let begun = Instant::now();
        match site.fetch(play, LIMITS).await {
            Ok(()) => eprintln!("{case}: ended well"),
            Err(error) => check_words(case, &error),
        }
        assert!(begun.elapsed() < SOON, "{case}: {:?}", begun.elapsed());
        site.check_stage(case);
        assert!(site.canaries() == canaries, "{case}: something changed outside");
    }
}

#[tokio::test]
async fn what_is_more_than_was_asked_for_is_said_in_these_words() {
    let site = Site::new();
    let error = site.fetch(Play { endless_content: true, ..honest() }, Limits::default()).await;
    let error = error.unwrap_err();
    assert!(error.to_string().contains("more of a file than it had listed"), "{error}");
    assert!(!error.is_transient());
}
