//! Publication points that answer wrongly in every way we could think of, for every kind of object.
//!
//! A table: each fault with each object, once where there is no other point (then the end is a
//! clean refusal that says why, or, where the fault passes, the right bytes), and once with a good
//! point behind (then the end is the right bytes, and the bad point is told apart in the report).
//! Whatever happens, no more is read than was signed.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use certs::{
    dial::{Dialer, Reach},
    live::public_http_client,
    tls::PublicRoots,
};
use filetree::{
    delta::ReadAt,
    pack::{
        ContentSource, NoBase,
        write::{PackOptions, Shared, SharedObject, write_pack},
    },
};
use futures_util::{StreamExt, stream};
use mirror_agent::{
    fetch::{
        allowed::{Allowed, PointsConfig},
        manifest::{Store, fetch as fetch_manifest},
        pack::{Remote, open_work_file},
        points::{ORIGIN, Point, Points},
        ranges::{Ask, Patience},
        retries::get_from,
    },
    stage::Content,
};
use protocol::{
    digest::Digest,
    generation::{Epoch, Generation},
    manifest::{Entry, EntryKind, Manifest},
    name::TreeName,
    origin,
    path::TreePath,
    statement::{GuardVerdict, Offer, Statement},
    v1::agent::PointReport,
    wire,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

const FAST: Patience = Patience { silence: Duration::from_millis(1_500), minimum_rate: 2_000 };
/// For many points at once on a busy machine.
const PATIENT: Patience = Patience { silence: Duration::from_secs(3), minimum_rate: 500 };
/// An address of this test's own: a port that another program has chosen stays free for it.
const HERE: &str = "127.0.0.2:0";
/// More than a read buffer, which is what can arrive beyond what is taken.
const SLACK: u64 = 512 << 10;
/// Longest that any case may take, on a busy machine.
const SOON: Duration = Duration::from_secs(90);

/// Where in the answer a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq)]
enum At {
    Start,
    One,
    Middle,
    Last,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// The length is promised, and the connection ends early.
    Cut(At),
    /// The same, ended by a reset.
    Reset(At),
    /// Shorter by one, and says so.
    Shorter,
    /// Longer by one, and says so.
    Longer,
    /// Never ends.
    Endless,
    Flip(At),
    /// Another object of the same length.
    Swapped,
    /// An object that was there before: right in itself, but not what is asked for.
    Stale,
    Status(u16),
    /// That status for the first request alone.
    FirstStatus(u16),
    ShiftedRange,
    RangeOfAnotherLength,
    NoContentRange,
    WholeForRange,
    Multipart,
    Encoded(&'static str),
    /// Compressed, without saying so.
    Compressed,
    Redirect(&'static str),
    RedirectToItself,
    HangBeforeHead,
    HangAfterHead,
    /// A few bytes per second.
    Slow,
    Garbage,
    Nothing,
    EndlessHead,
    NegativeLength,
    TwoLengths,
}

const FAULTS: &[Fault] = &[
    Fault::Cut(At::Start),
    Fault::Cut(At::One),
    Fault::Cut(At::Middle),
    Fault::Cut(At::Last),
    Fault::Reset(At::Start),
    Fault::Reset(At::One),
    Fault::Reset(At::Middle),
    Fault::Reset(At::Last),
    Fault::Shorter,
    Fault::Longer,
    Fault::Endless,
    Fault::Flip(At::Start),
    Fault::Flip(At::One),
    Fault::Flip(At::Middle),
    Fault::Flip(At::Last),
    Fault::Swapped,
    Fault::Stale,
    Fault::Status(204),
    Fault::Status(304),
    Fault::Status(400),
    Fault::Status(401),
    Fault::Status(403),
    Fault::Status(404),
    Fault::Status(410),
    Fault::Status(416),
    Fault::Status(429),
    Fault::Status(500),
    Fault::Status(503),
    Fault::FirstStatus(404),
    Fault::FirstStatus(503),
    Fault::ShiftedRange,
    Fault::RangeOfAnotherLength,
    Fault::NoContentRange,
    Fault::WholeForRange,
    Fault::Multipart,
    Fault::Encoded("gzip"),
    Fault::Encoded("zstd"),
    Fault::Compressed,
    Fault::Redirect("https://other.example/x"),
    Fault::Redirect("http://169.254.169.254/latest/meta-data/"),
    Fault::Redirect("file:///etc/passwd"),
    Fault::Redirect(""),
    Fault::RedirectToItself,
    Fault::HangBeforeHead,
    Fault::HangAfterHead,
    Fault::Slow,
    Fault::Garbage,
    Fault::Nothing,
    Fault::EndlessHead,
    Fault::NegativeLength,
    Fault::TwoLengths,
];

/// What is fetched.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    /// The list of a manifest's blocks.
    List,
    /// One of its blocks.
    Block,
    /// The head of a pack.
    Index,
    /// A frame of a pack.
    Frame,
    /// A frame that lies in an object of its own.
    Object,
    /// A whole file.
    Whole,
    /// What the coordinator says.
    Word,
}

const KINDS: [Kind; 6] =
    [Kind::List, Kind::Block, Kind::Index, Kind::Frame, Kind::Object, Kind::Whole];

/// Everything that a tree consists of at a point.
struct Tree {
    name: TreeName,
    files: HashMap<String, Vec<u8>>,
    statement: Statement,
    manifest: Manifest,
    offer: Offer,
    /// Objects that have frames of the pack.
    objects: Vec<Digest>,
    /// One file of it.
    content: Content,
}

/// Shared objects in a directory; none is found again.
struct Objects {
    dir: PathBuf,
    kept: Mutex<Vec<Digest>>,
}

impl Shared for Objects {
    fn find(&self, _from: Option<Digest>, _to: Digest) -> Option<(SharedObject, PathBuf)> {
        None
    }

    fn unfinished(&self) -> io::Result<PathBuf> {
        Ok(self.dir.join("unfinished"))
    }

    fn keep(&self, object: SharedObject, unfinished: &Path) -> io::Result<()> {
        self.kept.lock().unwrap().push(object.name);
        std::fs::rename(unfinished, self.dir.join(object.name.hex()))
    }
}

struct Files(HashMap<TreePath, Vec<u8>>);

impl ContentSource for Files {
    fn open(&self, entry: &Entry) -> io::Result<Box<dyn ReadAt>> {
        Ok(Box::new(self.0[&entry.path].clone()))
    }
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let byte = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(byte).take(len).collect()
}

/// What is tried in many combinations is small.
fn small_tree(dir: &Path) -> Tree {
    tree_of(dir, &[50_000, 50_000, 1_100_000])
}

/// The last two files are in objects of their own; the others fill more than one frame.
fn tree(dir: &Path) -> Tree {
    tree_of(dir, &[&[700_000; 7][..], &[2_000_000; 2]].concat())
}

fn tree_of(dir: &Path, sizes: &[usize]) -> Tree {
    let name: TreeName = "fedora".parse().unwrap();
    let path = |n: u64| TreePath::parse(format!("f{n:06}").as_bytes()).unwrap();
    let contents: HashMap<TreePath, Vec<u8>> =
        (0..).zip(sizes).map(|(n, size)| (path(n), noise(n + 1, *size))).collect();
    let bytes = contents.values().map(|content| content.len() as u64).sum();
    let file = |path: TreePath, content: &[u8]| Entry {
        path,
        mode: 0o644,
        mtime: 0,
        kind: EntryKind::File {
            size: content.len() as u64,
            digest: Digest::of(content),
            link_group: None,
        },
    };
    let mut entries: Vec<Entry> = contents.iter().map(|(path, c)| file(path.clone(), c)).collect();
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    let manifest = Manifest::new(entries).unwrap();
    let packed = dir.join("pack");
    let content = contents[&path(1)].clone();
    let objects = Objects { dir: dir.to_path_buf(), kept: Mutex::default() };
    let options = PackOptions { shared: Some(&objects), ..PackOptions::new() };
    let made = write_pack(None, &NoBase, &manifest, &Files(contents), &packed, &options).unwrap();
    let offer = Offer {
        tree: name.clone(),
        from: None,
        to: made.to,
        pack: made.digest,
        length: made.length,
        index_length: made.index_length,
        index: made.index_digest,
        shared_length: made.shared_length(),
        encryption: None,
        figures: None,
    };
    let mut files = HashMap::new();
    files.insert(origin::pack_path(&name, &made.digest), std::fs::read(&packed).unwrap());
    let objects = objects.kept.into_inner().unwrap();
    for object in &objects {
        let stored = std::fs::read(dir.join(object.hex())).unwrap();
        files.insert(origin::shared_path(&name, object), stored);
    }
    let list = manifest.list().encode();
    let compressed = |bytes: &[u8]| wire::compress(bytes, 3).unwrap();
    files.insert(origin::manifest_path(&name, &manifest.digest()), compressed(&list));
    for block in manifest.blocks() {
        files.insert(origin::block_path(&name, &block.digest()), compressed(block.bytes()));
    }
    let whole = origin::content_path(&name, &manifest.digest(), &path(1));
    let digest = Digest::of(&content);
    let size = content.len() as u64;
    files.insert(whole, content);
    let statement = Statement {
        tree: name.clone(),
        epoch: Epoch(1),
        generation: Generation(1),
        manifest: manifest.digest(),
        manifest_length: list.len() as u64,
        entries: sizes.len() as u64,
        bytes,
        parent: None,
        guard: GuardVerdict { removed_files: 0, removed_bytes: 0, approved_by: None },
        created: jiff::Timestamp::UNIX_EPOCH,
        expires: jiff::Timestamp::MAX,
    };
    let me = concat!(
        r#"{"network":"net","role":"agent","name":"a","serial":"1","#,
        r#""not-after":"2030-01-01T00:00:00Z"}"#
    );
    files.insert("/v1/whoami".into(), me.into());
    Tree {
        name,
        files,
        statement,
        manifest,
        offer,
        objects,
        content: Content { digest, size, path: path(1) },
    }
}

/// A server that is good but for some kinds of objects.
struct Server {
    address: SocketAddr,
    faults: Vec<(Kind, Fault, AtomicUsize)>,
    tree: Arc<Tree>,
    paths: Mutex<Vec<String>>,
}

impl Server {
    async fn start(tree: &Arc<Tree>, kind: Kind, fault: Fault) -> Arc<Self> {
        Self::start_with(tree, &[(kind, fault)]).await
    }

    async fn start_with(tree: &Arc<Tree>, faults: &[(Kind, Fault)]) -> Arc<Self> {
        let listener = TcpListener::bind(HERE).await.unwrap();
        let server = Arc::new(Self {
            address: listener.local_addr().unwrap(),
            faults: faults.iter().map(|(k, f)| (*k, *f, AtomicUsize::new(0))).collect(),
            tree: Arc::clone(tree),
            paths: Mutex::default(),
        });
        let serving = Arc::downgrade(&server);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Some(server) = serving.upgrade() else { return };
                tokio::spawn(async move { drop(server.serve(stream).await) });
            }
        });
        server
    }

    /// What is wrong with the answer to a request.
    fn fault(&self, path: &str, range: Option<(usize, usize)>) -> Fault {
        let is_of = |kind| match kind {
            Kind::List => path.contains("/manifests/"),
            Kind::Block => path.contains("/blocks/"),
            Kind::Index => path.contains("/packs/") && range.is_some_and(|(first, _)| first == 0),
            Kind::Frame => path.contains("/packs/") && range.is_none_or(|(first, _)| first > 0),
            Kind::Object => path.contains("/objects/"),
            Kind::Whole => path.contains("/content/"),
            Kind::Word => path.contains("/v1/"),
        };
        let spoiled = self.faults.iter().find(|(kind, ..)| is_of(*kind));
        let Some((_, fault, struck)) = spoiled else { return Fault::None };
        match (*fault, struck.fetch_add(1, Ordering::SeqCst)) {
            (Fault::FirstStatus(status), 0) => Fault::Status(status),
            (Fault::FirstStatus(_), _) => Fault::None,
            (fault, _) => fault,
        }
    }

    async fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        while let Some((path, range)) = request(&mut stream).await? {
            self.paths.lock().unwrap().push(path.clone());
            let Some(content) = self.tree.files.get(&path) else {
                stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").await?;
                continue;
            };
            let total = content.len();
            let range = range.map(|(first, end)| (first, end.min(total)));
            let (first, end) = range.unwrap_or((0, total));
            let fault = self.fault(&path, range);
            let body = content[first..end].to_vec();
            let content_range = format!("bytes {first}-{}/{total}", end.saturating_sub(1));
            let content_range = range.map(|_| content_range);
            answer(&mut stream, fault, body, content_range, content).await?;
        }
        Ok(())
    }
}

/// Reads the head of a request: path, and range (first, end).
async fn request(stream: &mut TcpStream) -> io::Result<Option<(String, Option<(usize, usize)>)>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return Ok(None),
        }
    }
    let head = String::from_utf8(head).unwrap();
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let range = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        let (first, last) = value.strip_prefix("bytes=")?.split_once('-')?;
        let is_range = name.eq_ignore_ascii_case("range");
        is_range.then(|| (first.parse().unwrap(), last.parse::<usize>().unwrap() + 1))
    });
    Ok(Some((path, range)))
}

async fn answer(
    stream: &mut TcpStream,
    fault: Fault,
    mut body: Vec<u8>,
    mut content_range: Option<String>,
    whole: &[u8],
) -> io::Result<()> {
    let len = body.len();
    let at = |at: At| match at {
        At::Start => 0,
        At::One => 1.min(len - 1),
        At::Middle => len / 2,
        At::Last => len - 1,
    };
    let mut status =
        if content_range.is_some() { "206 Partial Content" } else { "200 OK" }.to_owned();
    let mut headers = String::from("ETag: \"same\"\r\n");
    let mut length = len.to_string();
    let mut end = None;
    match fault {
        Fault::None | Fault::FirstStatus(_) => {}
        Fault::Cut(place) | Fault::Reset(place) => end = Some(at(place)),
        Fault::Shorter => {
            body.pop();
            length = body.len().to_string();
        }
        Fault::Longer => {
            body.push(0);
            length = body.len().to_string();
        }
        Fault::Flip(place) => body[at(place)] ^= 1,
        Fault::Swapped => body.reverse(),
        Fault::Stale => {
            body = wire::compress(b"something that was right once", 3).unwrap();
            body.resize(len, 0);
        }
        Fault::Status(code) => {
            status = format!("{code} Fault");
            content_range = None;
            body.clear();
            length = "0".into();
        }
        Fault::ShiftedRange => content_range = content_range.map(|_| "bytes 1-2/3".into()),
        Fault::RangeOfAnotherLength => {
            content_range = content_range.map(|text| format!("{text}0"));
        }
        Fault::NoContentRange => content_range = None,
        Fault::WholeForRange => {
            status = "200 OK".into();
            content_range = None;
            body = whole.iter().rev().copied().collect();
            length = body.len().to_string();
        }
        Fault::Multipart => {
            headers.push_str("Content-Type: multipart/byteranges; boundary=b\r\n");
            content_range = None;
            body = [b"--b\r\n\r\n", &body[..], b"\r\n--b--\r\n"].concat();
            length = body.len().to_string();
        }
        Fault::Encoded(how) => headers.push_str(&format!("Content-Encoding: {how}\r\n")),
        Fault::Compressed => {
            body = wire::compress(&body, 3).unwrap();
            length = body.len().to_string();
        }
        Fault::Redirect(to) => {
            status = "302 Found".into();
            headers.push_str(&format!("Location: {to}\r\n"));
            body.clear();
            length = "0".into();
        }
        Fault::RedirectToItself => {
            let here = stream.local_addr()?;
            status = "307 Temporary Redirect".into();
            headers.push_str(&format!("Location: http://{here}/trees/fedora/again\r\n"));
            body.clear();
            length = "0".into();
        }
        Fault::NegativeLength => length = "-1".into(),
        Fault::TwoLengths => length = format!("{len}\r\nContent-Length: {}", len + 7),
        Fault::HangBeforeHead => return hang(stream).await,
        Fault::Nothing => return stream.shutdown().await,
        Fault::Garbage => {
            stream.write_all(b"\x16\x03\x01\x00\x05hello, I am no HTTP\r\n\r\n").await?;
            return stream.shutdown().await;
        }
        Fault::EndlessHead => {
            stream.write_all(b"HTTP/1.1 200 OK\r\n").await?;
            for number in 0..200_000 {
                stream.write_all(format!("X-{number}: {number}\r\n").as_bytes()).await?;
            }
            return Ok(());
        }
        Fault::Endless => {
            stream
                .write_all(
                    format!("HTTP/1.1 {status}\r\nTransfer-Encoding: chunked\r\n").as_bytes(),
                )
                .await?;
            if let Some(range) = content_range {
                stream.write_all(format!("Content-Range: {range}\r\n").as_bytes()).await?;
            }
            stream.write_all(b"\r\n").await?;
            let chunk = [b"10000\r\n", &noise(9, 0x10000)[..], b"\r\n"].concat();
            for _ in 0..2_000 {
                stream.write_all(&chunk).await?;
            }
            return Ok(());
        }
        Fault::HangAfterHead | Fault::Slow => {}
    }
    if let Some(range) = content_range {
        headers.push_str(&format!("Content-Range: {range}\r\n"));
    }
    let head = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    match (fault, end) {
        (Fault::HangAfterHead, _) => hang(stream).await,
        (Fault::Slow, _) => {
            for byte in body {
                stream.write_all(&[byte]).await?;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Ok(())
        }
        (_, Some(end)) => {
            stream.write_all(&body[..end]).await?;
            if matches!(fault, Fault::Reset(_)) {
                // What was written shall arrive before the reset takes the rest along.
                tokio::time::sleep(Duration::from_millis(50)).await;
                rustix::net::sockopt::set_socket_linger(&*stream, Some(Duration::ZERO))?;
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            stream.shutdown().await?;
            Err(io::ErrorKind::ConnectionAborted.into())
        }
        (_, None) => stream.write_all(&body).await,
    }
}

/// Says nothing for longer than anyone waits.
async fn hang(stream: &mut TcpStream) -> io::Result<()> {
    let mut nothing = [0];
    tokio::time::timeout(SOON, stream.read(&mut nothing)).await.ok();
    Ok(())
}

fn public_client() -> reqwest::Client {
    let reach = Reach::everywhere();
    public_http_client(&PublicRoots::none(), &Dialer::default(), &reach).unwrap()
}

fn point(name: &str, base: &str) -> Point {
    let client = public_client();
    let config = PointsConfig { plain_http: true, ..PointsConfig::default() };
    Point::new(name, base, Arc::new(move || client.clone())).allowing(Allowed::new(&config))
}

/// Fetches one object of that kind, and compares it. Gives what went wrong, and how many bytes may
/// have been read.
async fn fetch(tree: &Tree, kind: Kind, points: &Points) -> Result<(), String> {
    fetch_with(FAST, tree, kind, points).await
}

async fn fetch_with(
    patience: Patience,
    tree: &Tree,
    kind: Kind,
    points: &Points,
) -> Result<(), String> {
    let dir = tempfile::tempdir().unwrap();
    let offer = &tree.offer;
    let remote = Remote { points, tree: &tree.name, offer, patience };
    match kind {
        Kind::List | Kind::Block => {
            let store = Store::open(dir.path()).unwrap();
            let fetched =
                fetch_manifest(points, &store, &tree.name, &tree.statement, patience).await;
            fetched
                .map(|found| assert_eq!(found.load().unwrap(), tree.manifest))
                .map_err(|error| told(&error))
        }
        Kind::Index => remote.index().await.map(drop).map_err(|error| told(&error)),
        Kind::Frame | Kind::Object => {
            let good = remote.index().await.map_err(|error| told(&error))?;
            let all = |number: &u32| {
                let (first, frames) = good.frames_around(*number).unwrap();
                let part = good.shared_part(&frames[(number - first) as usize]);
                part.is_some() == (kind == Kind::Object)
            };
            let all: Vec<u32> = (0..good.frame_count()).filter(all).collect();
            assert!(!all.is_empty());
            let file = open_work_file(dir.path(), &offer.pack).unwrap();
            remote.frames(&good, &all, &file, &|_| {}).await.map_err(|error| told(&error))?;
            let at = |offset: u64, len: usize| file.range(offset, len).unwrap();
            if kind == Kind::Frame {
                let pack = &tree.files[&origin::pack_path(&tree.name, &offer.pack)];
                let begin = usize::try_from(offer.index_length).unwrap();
                assert_eq!(at(offer.index_length, pack.len() - begin), pack[begin..]);
                return Ok(());
            }
            assert_eq!(good.shared().len(), tree.objects.len());
            for part in good.shared() {
                let object = &tree.files[&origin::shared_path(&tree.name, &part.name)];
                let begin = usize::try_from(part.start).unwrap();
                assert_eq!(at(part.offset, object.len() - begin), object[begin..]);
            }
            Ok(())
        }
        Kind::Word => {
            let client = public_client();
            let base = &points.origin().unwrap().base;
            let api = protocol::client::Client::new(base, Arc::new(move || client.clone()));
            api.whoami().await.map(drop).map_err(|error| told(&error))
        }
        Kind::Whole => {
            let Content { digest, size, path } = &tree.content;
            let path = origin::content_path(&tree.name, &tree.manifest.digest(), path);
            let mut last = String::new();
            for point in points.in_order() {
                let mut bytes = Vec::new();
                let ask = Ask::whole(path.clone(), *size);
                let got = get_from(point, &ask, patience, |piece| {
                    bytes.extend_from_slice(piece);
                    Ok(())
                });
                match got.await {
                    Ok(()) if Digest::of(&bytes) == *digest => return Ok(()),
                    Ok(()) => last = "another digest".into(),
                    Err(error) => last = told(&error),
                }
                assert!(bytes.len() as u64 <= *size, "{} bytes of {size}", bytes.len());
            }
            Err(last)
        }
    }
}

/// An error with its causes.
fn told(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// Most bytes that are signed for everything that a fetch of that kind asks for.
fn signed(tree: &Tree, kind: Kind) -> u64 {
    let packed = |bytes: u64| bytes + bytes / 64 + 1024;
    match kind {
        Kind::List | Kind::Block => {
            let list = tree.manifest.list();
            let blocks: u64 = list.blocks().iter().map(|block| packed(block.bytes)).sum();
            packed(tree.statement.manifest_length) + blocks
        }
        Kind::Index => tree.offer.index_length,
        Kind::Frame | Kind::Object => tree.offer.total_length(),
        Kind::Whole => tree.content.size,
        Kind::Word => protocol::client::MAX_ANSWER as u64,
    }
}

/// Whether the fault has no effect on that kind: what is asked for without a range has none.
fn is_harmless(kind: Kind, fault: Fault) -> bool {
    let ranged = matches!(kind, Kind::Index | Kind::Frame | Kind::Object);
    matches!(fault, Fault::ShiftedRange | Fault::RangeOfAnotherLength | Fault::NoContentRange)
        && !ranged
        // A transfer that broke off goes on by itself.
        || matches!(fault, Fault::FirstStatus(503))
}

async fn case(tree: &Arc<Tree>, kind: Kind, fault: Fault) {
    let bad = Server::start(tree, kind, fault).await;
    let base = format!("http://{}", bad.address);
    let alone = Points::new(vec![point(ORIGIN, &base)]);
    let begun = Instant::now();
    let fetched = tokio::time::timeout(SOON, fetch(tree, kind, &alone));
    let fetched = fetched.await.unwrap_or_else(|_| panic!("{kind:?} {fault:?} hangs"));
    let report: PointReport = alone.reports().remove(0);
    // What breaks off goes on where it was; so it may end well, but never with other bytes.
    let goes_on = matches!(fault, Fault::Cut(_) | Fault::Reset(_));
    if let Err(why) = &fetched {
        assert!(!is_harmless(kind, fault), "{kind:?} {fault:?}: {why}");
        assert!(why.contains("http://") || why.contains("another digest"), "{why}");
    }
    let once = signed(tree, kind) + SLACK;
    // A retry reads a small thing again from its beginning; what is large goes on.
    let tries = 3;
    let read = report.received_bytes;
    assert!(read <= once * tries, "{kind:?} {fault:?}: {read} bytes were read of {once}");

    let good = Server::start(tree, kind, Fault::None).await;
    let again = Server::start(tree, kind, fault).await;
    let both = Points::new(vec![
        point("bad", &format!("http://{}", again.address)),
        point("good", &format!("http://{}", good.address)),
    ]);
    let fetched = tokio::time::timeout(SOON, fetch(tree, kind, &both));
    let fetched = fetched.await.unwrap_or_else(|_| panic!("{kind:?} {fault:?} hangs"));
    assert_eq!(fetched, Ok(()), "{kind:?} {fault:?} with a good point behind");
    let reports = both.reports();
    let noted = reports[0].failed + reports[0].wrong;
    let used_good = good.paths.lock().unwrap().len();
    // Whole content that is wrong is found by the staging area, which this test does without.
    if fault != Fault::None && !goes_on && kind != Kind::Whole && used_good > 0 {
        assert!(noted > 0 && !reports[0].detail.is_empty(), "{kind:?} {fault:?}: {reports:?}");
    }
    let took = begun.elapsed();
    assert!(took < SOON, "{kind:?} {fault:?} took {took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_point_answers_the_end_is_the_signed_bytes_or_a_refusal() {
    let dir = tempfile::tempdir().unwrap();
    let tree = Arc::new(tree(dir.path()));
    let mut cases = Vec::new();
    for kind in KINDS {
        for &fault in FAULTS {
            cases.push((kind, fault));
        }
    }
    let tree = &tree;
    let run = |(kind, fault)| async move { case(tree, kind, fault).await };
    let count = stream::iter(cases).map(run).buffer_unordered(24).count().await;
    assert_eq!(count, KINDS.len() * FAULTS.len());
}

/// Numbers that look random, by seed.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ mixed >> 31) >> 1).unwrap() % end
    }

    /// Those that need long waits come now and then.
    fn fault(&mut self) -> Fault {
        loop {
            let fault = FAULTS[self.below(FAULTS.len())];
            let waits = matches!(
                fault,
                Fault::HangBeforeHead
                    | Fault::HangAfterHead
                    | Fault::Slow
                    | Fault::Endless
                    | Fault::EndlessHead
            );
            if !waits || self.below(24) == 0 {
                return fault;
            }
        }
    }
}

/// One to three points, each with its own faults for its own kinds of objects, and everything that a
/// first sync asks for. What some point gives as it should arrives; the rest is refused.
async fn combination(tree: &Arc<Tree>, number: u64) {
    let mut random = Random(number);
    let (mut servers, mut points) = (Vec::new(), Vec::new());
    let mut good: Vec<Kind> = Vec::new();
    for at in 0..1 + random.below(3) {
        let mut faults = Vec::new();
        for kind in KINDS {
            match random.below(3) {
                0 => good.push(kind),
                _ => faults.push((kind, random.fault())),
            }
        }
        let server = Server::start_with(tree, &faults).await;
        points.push(point(&format!("point{at}"), &format!("http://{}", server.address)));
        servers.push((server, faults));
    }
    let points = Points::new(points);
    let said = |what: &str| -> String {
        let faults: Vec<_> = servers.iter().map(|(_, faults)| faults).collect();
        format!("combination {number}: {what}: {faults:?}")
    };
    for kind in KINDS {
        let fetched = tokio::time::timeout(SOON, fetch_with(PATIENT, tree, kind, &points)).await;
        let fetched = fetched.unwrap_or_else(|_| panic!("{}", said("hangs")));
        // Frames and objects need the index, blocks the list.
        let needs: &[Kind] = match kind {
            Kind::Frame | Kind::Object => &[Kind::Index],
            Kind::List | Kind::Block => &[Kind::List, Kind::Block],
            Kind::Index | Kind::Whole | Kind::Word => &[],
        };
        if good.contains(&kind) && needs.iter().all(|kind| good.contains(kind)) {
            assert_eq!(fetched, Ok(()), "{}", said(&format!("{kind:?}")));
        }
    }
    // Every point is asked for each thing at most three times, and gives no more than was signed.
    let signed: u64 = KINDS.iter().map(|kind| signed(tree, *kind) + SLACK).sum();
    for report in points.reports() {
        let read = report.received_bytes;
        assert!(read <= 3 * signed, "{}", said(&format!("{read} bytes of {signed}")));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_several_points_answer_together_the_end_is_the_signed_bytes_or_a_refusal() {
    let count = std::env::var("MIRRORNET_HOSTILE_CASES").ok().and_then(|n| n.parse().ok());
    let dir = tempfile::tempdir().unwrap();
    let tree = &Arc::new(small_tree(dir.path()));
    let numbers = stream::iter(0..count.unwrap_or(400));
    let run = |number| async move { combination(tree, number).await };
    numbers.map(run).buffer_unordered(16).count().await;
}

#[tokio::test]
async fn a_lie_costs_one_frame_once_more_and_is_counted_for_the_one_who_told_it() {
    let dir = tempfile::tempdir().unwrap();
    let tree = Arc::new(tree(dir.path()));
    let liar = Server::start(&tree, Kind::Frame, Fault::Flip(At::Last)).await;
    let good = Server::start(&tree, Kind::Frame, Fault::None).await;
    let points = Points::new(vec![
        point("liar", &format!("http://{}", liar.address)),
        point("good", &format!("http://{}", good.address)),
    ]);
    fetch(&tree, Kind::Frame, &points).await.unwrap();
    let reports = points.reports();
    assert_eq!((reports[0].wrong, reports[0].failed), (1, 0), "{reports:?}");
    assert_eq!((reports[1].wrong, reports[1].failed), (0, 0), "{reports:?}");
    let remote = Remote { points: &points, tree: &tree.name, offer: &tree.offer, patience: FAST };
    let index = remote.index().await.unwrap();
    let largest = index.frames_around(0).unwrap().1;
    let largest = largest.iter().map(|frame| u64::from(frame.stored_len)).max().unwrap();
    let again = reports[1].received_bytes;
    assert!(again <= largest, "{again} bytes came twice, a frame has at most {largest}");
    assert!(index.frame_count() > 1, "the test needs several frames");
}

#[tokio::test]
async fn a_server_without_tls_is_not_spoken_to_as_if_it_had() {
    let dir = tempfile::tempdir().unwrap();
    let tree = Arc::new(tree(dir.path()));
    let plain = Server::start(&tree, Kind::List, Fault::None).await;
    let points = Points::new(vec![point("cdn", &format!("https://{}", plain.address))]);
    let why = fetch(&tree, Kind::List, &points).await.unwrap_err();
    assert!(why.contains("https://"), "{why}");
    assert_eq!(points.reports()[0].received_bytes, 0);
}

#[tokio::test]
async fn a_wrong_answer_instead_of_the_coordinators_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let tree = Arc::new(tree(dir.path()));
    let good = Server::start(&tree, Kind::Word, Fault::None).await;
    let ask =
        |server: &Server| Points::new(vec![point(ORIGIN, &format!("http://{}", server.address))]);
    fetch(&tree, Kind::Word, &ask(&good)).await.unwrap();
    for &fault in FAULTS {
        let passes = matches!(
            fault,
            // What the coordinator says is signed where it matters, which others check.
            Fault::Flip(_) | Fault::Encoded(_) | Fault::FirstStatus(_)
            // A minute of patience: a long poll is allowed to be silent.
            | Fault::HangBeforeHead | Fault::HangAfterHead | Fault::Slow
        );
        if passes || is_harmless(Kind::Word, fault) {
            continue;
        }
        let bad = Server::start(&tree, Kind::Word, fault).await;
        let answer = tokio::time::timeout(SOON, fetch(&tree, Kind::Word, &ask(&bad))).await;
        let why = answer.unwrap_or_else(|_| panic!("{fault:?} hangs")).unwrap_err();
        assert!(why.contains("coordinator"), "{fault:?}: {why}");
    }
}
