//! Fetching from points that lie, stall and break off, over real TLS.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, Response, StatusCode, Uri, header},
};
use certs::{
    dial::Dialer,
    identity::Role,
    live::http_client,
    testing::TestNetwork,
    tls::{self, ServerExpectation},
};
use filetree::fs::{Dir, Fs};
use futures_util::{StreamExt, stream};
use mirror_agent::{
    fetch::{
        manifest::{Store, fetch as fetch_manifest},
        points::{ORIGIN, Point, Points},
        ranges::{Ask, Error, Got, Patience, get},
        retries::get_from,
        whole,
    },
    stage::{Content, Stage, StageWriter},
};
use protocol::{
    digest::Digest,
    generation::{Epoch, Generation},
    manifest::{Entry, EntryKind, Manifest},
    origin,
    path::TreePath,
    statement::{GuardVerdict, Statement},
    transfer::NoDelta,
    wire,
};
use tokio_util::sync::CancellationToken;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// The first answers end after so many bytes.
    BreakOff(usize),
    Flip,
    WrongRange,
    Redirect,
    Hang,
    TooLong,
    Encoded,
    WholeForRange,
    Gone,
}

struct Site {
    files: HashMap<String, Vec<u8>>,
    fault: Mutex<Fault>,
    requests: AtomicUsize,
}

struct World {
    site: Arc<Site>,
    points: Points,
    shutdown: CancellationToken,
    _dir: tempfile::TempDir,
}

impl Drop for World {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

const FAST: Patience = Patience { silence: Duration::from_millis(700), minimum_rate: 1 };

async fn world(files: &[(&str, &[u8])]) -> World {
    let dir = tempfile::tempdir().unwrap();
    let network = TestNetwork::create(dir.path(), "net");
    let identity = network.identity(Role::Agent, "lisbon-1").await;
    let files = files.iter().map(|(path, bytes)| ((*path).to_owned(), bytes.to_vec())).collect();
    let requests = AtomicUsize::new(0);
    let site = Arc::new(Site { files, fault: Mutex::new(Fault::None), requests });
    let router = Router::new().fallback(answer).with_state(Arc::clone(&site));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("https://{}", listener.local_addr().unwrap());
    let shutdown = CancellationToken::new();
    let limits = tls::Limits::default();
    tokio::spawn(tls::serve(listener, network.server(), router, vec![], limits, shutdown.clone()));
    let http = http_client(&identity, &ServerExpectation::Coordinator, &Dialer::default()).unwrap();
    let point = Point::new(ORIGIN, &base, Arc::new(move || http.clone()));
    World { site, points: Points::new(vec![point]), shutdown, _dir: dir }
}

impl World {
    fn break_with(&self, fault: Fault) {
        *self.site.fault.lock().unwrap() = fault;
    }

    fn point(&self) -> &Point {
        self.points.origin().unwrap()
    }

    fn requests(&self) -> usize {
        self.site.requests.load(Ordering::SeqCst)
    }

    async fn get(&self, ask: &Ask) -> (Vec<u8>, Result<(), Error>) {
        let mut bytes = Vec::new();
        let mut got = Got::default();
        let result = get(self.point(), ask, FAST, &mut got, |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        });
        let result = result.await;
        (bytes, result)
    }
}

async fn answer(State(site): State<Arc<Site>>, uri: Uri, headers: HeaderMap) -> Response<Body> {
    let number = site.requests.fetch_add(1, Ordering::SeqCst);
    let fault = *site.fault.lock().unwrap();
    let plain = |status: StatusCode| Response::builder().status(status);
    let Some(content) = site.files.get(uri.path()).filter(|_| fault != Fault::Gone) else {
        return plain(StatusCode::NOT_FOUND).body(Body::empty()).unwrap();
    };
    match fault {
        Fault::Redirect => {
            let elsewhere = plain(StatusCode::FOUND).header(header::LOCATION, "https://evil/");
            return elsewhere.body(Body::empty()).unwrap();
        }
        Fault::Hang => std::future::pending::<()>().await,
        _ => {}
    }
    let total = content.len();
    let range = headers.get(header::RANGE).map(|value| {
        let text = value.to_str().unwrap().strip_prefix("bytes=").unwrap();
        let (first, last) = text.split_once('-').unwrap();
        first.parse::<usize>().unwrap()..(last.parse::<usize>().unwrap() + 1).min(total)
    });
    let range = range.filter(|_| fault != Fault::WholeForRange);
    let mut body = content[range.clone().unwrap_or(0..total)].to_vec();
    let mut response = plain(StatusCode::OK).header(header::ETAG, "\"one\"");
    if let Some(range) = &range {
        let shift = usize::from(fault == Fault::WrongRange);
        let text = format!("bytes {}-{}/{total}", range.start + shift, range.end - 1 + shift);
        response = response.status(StatusCode::PARTIAL_CONTENT).header(header::CONTENT_RANGE, text);
    }
    match fault {
        Fault::Flip => body[total / 2] ^= 1,
        Fault::TooLong => body.extend_from_slice(b"and more"),
        Fault::Encoded => response = response.header(header::CONTENT_ENCODING, "gzip"),
        Fault::BreakOff(len) if number < 3 => {
            let piece = Bytes::from(body[..len.min(body.len())].to_vec());
            // The piece is on its way before the connection breaks; else the reset takes it along.
            let broken = async {
                tokio::time::sleep(Duration::from_millis(100)).await;
                Err(io::Error::other("cut"))
            };
            let pieces = stream::iter([Ok(piece)]).chain(stream::once(broken));
            return response.body(Body::from_stream(pieces)).unwrap();
        }
        _ => {}
    }
    response.body(Body::from(body)).unwrap()
}

#[tokio::test]
async fn what_breaks_off_is_continued_where_it_broke_off() {
    let content = vec![7; 100_000];
    let world = world(&[("/f", &content)]).await;
    world.break_with(Fault::BreakOff(30_000));
    let mut bytes = Vec::new();
    let ask = Ask::whole("/f".into(), 100_000);
    let result = get_from(world.point(), &ask, FAST, |piece| {
        bytes.extend_from_slice(piece);
        Ok(())
    });
    result.await.unwrap();
    assert_eq!(bytes, content);
    assert!(world.requests() >= 4, "{}", world.requests());
    assert_eq!(world.point().received(), 100_000, "a byte came twice");
}

#[tokio::test]
async fn other_bytes_than_were_asked_for_are_refused() {
    let world = world(&[("/f", &[1; 1_000])]).await;
    let part = Ask::part("/f".into(), 100..200);
    let (bytes, result) = world.get(&part).await;
    result.unwrap();
    assert_eq!(bytes.len(), 100);
    for fault in [Fault::WrongRange, Fault::WholeForRange, Fault::Encoded] {
        world.break_with(fault);
        let (bytes, result) = world.get(&part).await;
        assert!(matches!(result, Err(Error::Wrong { .. })), "{fault:?}: {result:?}");
        assert!(bytes.is_empty(), "{fault:?}");
    }
}

#[tokio::test]
async fn redirects_are_not_followed_and_a_hang_ends() {
    let world = world(&[("/f", &[1; 1_000])]).await;
    let ask = Ask::whole("/f".into(), 1_000);
    world.break_with(Fault::Redirect);
    assert!(matches!(world.get(&ask).await.1, Err(Error::Redirect { .. })));
    world.break_with(Fault::Hang);
    assert!(matches!(world.get(&ask).await.1, Err(Error::Slow { .. })));
    world.break_with(Fault::Gone);
    assert!(matches!(world.get(&ask).await.1, Err(Error::Missing { .. })));
}

#[tokio::test]
async fn nothing_is_read_beyond_what_was_signed() {
    let world = world(&[("/f", &[1; 1_000])]).await;
    world.break_with(Fault::TooLong);
    let (bytes, result) = world.get(&Ask::whole("/f".into(), 1_000)).await;
    assert!(result.is_err(), "{result:?}");
    assert!(bytes.len() <= 1_000);
    let (bytes, result) = world.get(&Ask::up_to("/f".into(), 900)).await;
    assert!(matches!(result, Err(Error::Wrong { .. })), "{result:?}");
    assert_eq!(bytes.len(), 0, "what is too long by its own word is not begun");
}

#[derive(Default)]
struct Memory(Mutex<HashMap<Digest, Vec<u8>>>);

struct MemoryWriter<'a>(&'a Memory, Digest, Vec<u8>);

impl Stage for Memory {
    fn writer<'s>(&'s self, content: &Content) -> io::Result<Box<dyn StageWriter + 's>> {
        Ok(Box::new(MemoryWriter(self, content.digest, Vec::new())))
    }

    fn take(&self, content: &Content, dir: &Dir, name: &[u8]) -> io::Result<()> {
        let mut writer = self.writer(content)?;
        let mut bytes = Vec::new();
        let file = dir.open_file(name).map_err(io::Error::other)?;
        io::Read::read_to_end(&mut file.reader(), &mut bytes)?;
        writer.write_all(&bytes)?;
        writer.finish()
    }
}

impl StageWriter for MemoryWriter<'_> {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.2.extend_from_slice(bytes);
        Ok(())
    }

    fn finish(self: Box<Self>) -> io::Result<()> {
        if Digest::of(&self.2) != self.1 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "another digest"));
        }
        self.0.0.lock().unwrap().insert(self.1, self.2);
        Ok(())
    }
}

fn beginnings(dir: &std::path::Path) -> whole::Beginnings {
    whole::Beginnings { path: dir.to_owned(), dir: Fs::disk().open_root(dir).unwrap() }
}

#[tokio::test]
async fn the_beginning_of_a_large_content_is_kept_and_only_believed_when_it_is_whole() {
    let tree = "fedora".parse().unwrap();
    let manifest = Digest::of(b"manifest");
    let path = TreePath::parse(b"big").unwrap();
    let content: Vec<u8> = (0..10 << 20).map(|n: u32| (n / 7) as u8).collect();
    let url = origin::content_path(&tree, &manifest, &path);
    let world = world(&[(&url, &content)]).await;
    let (digest, size) = (Digest::of(&content), content.len() as u64);
    let wanted = [Content { digest, size, path }];
    let dir = tempfile::tempdir().unwrap();
    let beginnings = beginnings(dir.path());
    let request = whole::Request {
        points: &world.points,
        tree: &tree,
        manifest,
        patience: FAST,
        beginnings: &beginnings,
    };
    let kept = dir.path().join(digest.hex());
    // The right beginning, too much of it, and a beginning of something else.
    let mut wrong = content[..9 << 20].to_vec();
    wrong[1 << 20] ^= 1;
    for (beginning, came) in [
        (content[..9 << 20].to_vec(), 1 << 20),
        ([&content[..], b"and more"].concat(), 10 << 20),
        (content.clone(), 0),
        (wrong, 1 << 20),
    ] {
        std::fs::write(&kept, &beginning).unwrap();
        let stage = Memory::default();
        let received = std::sync::atomic::AtomicU64::new(0);
        let count = |bytes| {
            received.fetch_add(bytes, std::sync::atomic::Ordering::Relaxed);
        };
        let failed = whole::fetch(&request, &wanted, &stage, &count).await.unwrap();
        assert_eq!(received.into_inner(), came);
        let is_wrong = content.get(..beginning.len()).is_some_and(|right| right != beginning);
        match failed.first() {
            Some(failed) => assert!(is_wrong && failed.reason == NoDelta::Corrupt, "{failed:?}"),
            None => assert!(!is_wrong && stage.0.lock().unwrap()[&digest] == content),
        }
        // A beginning that led nowhere is not tried again.
        assert!(!is_wrong || !kept.exists());
    }
}

#[tokio::test]
async fn whole_content_that_is_not_what_was_signed_is_given_up_file_by_file() {
    let tree = "fedora".parse().unwrap();
    let manifest = Digest::of(b"manifest");
    let path = |name: &str| TreePath::parse(name.as_bytes()).unwrap();
    let url = |name: &str| origin::content_path(&tree, &manifest, &path(name));
    let (good, other) = (vec![1; 5_000], vec![2; 5_000]);
    let world = world(&[(&url("good"), &good), (&url("bad"), &other)]).await;
    let content = |name: &str| Content { digest: Digest::of(&good), size: 5_000, path: path(name) };
    let stage = Memory::default();
    let dir = tempfile::tempdir().unwrap();
    let beginnings = beginnings(dir.path());
    let request = whole::Request {
        points: &world.points,
        tree: &tree,
        manifest,
        patience: FAST,
        beginnings: &beginnings,
    };
    let contents = [content("good"), content("bad"), content("missing")];
    let failed = whole::fetch(&request, &contents, &stage, &|_| {}).await.unwrap();
    let mut failed: Vec<_> = failed.iter().map(|f| (f.content, f.reason)).collect();
    failed.sort_by_key(|(number, _)| *number);
    assert_eq!(failed, [(1, NoDelta::Corrupt), (2, NoDelta::SourceMoved)]);
    assert_eq!(stage.0.lock().unwrap()[&Digest::of(&good)], good);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manifest_costs_only_the_blocks_that_are_not_held() {
    let entry = |number: u64, text: &str| Entry {
        path: TreePath::parse(format!("f{number:06}").as_bytes()).unwrap(),
        mode: 0o644,
        mtime: 0,
        kind: EntryKind::File { size: 1, digest: Digest::of(text.as_bytes()), link_group: None },
    };
    let one = Manifest::new((0..30_000).map(|n| entry(n, "old")).collect()).unwrap();
    let mut entries = one.entries().to_vec();
    entries[5] = entry(5, "new");
    let two = Manifest::new(entries).unwrap();
    let tree = "fedora".parse().unwrap();
    let mut files = Vec::new();
    for manifest in [&one, &two] {
        let list = wire::compress(&manifest.list().encode(), 3).unwrap();
        files.push((origin::manifest_path(&tree, &manifest.digest()), list));
        for block in manifest.blocks() {
            let packed = wire::compress(block.bytes(), 3).unwrap();
            files.push((origin::block_path(&tree, &block.digest()), packed));
        }
    }
    let files: Vec<(&str, &[u8])> = files.iter().map(|(p, b)| (p.as_str(), &b[..])).collect();
    let world = world(&files).await;
    let statement = |manifest: &Manifest| Statement {
        tree: "fedora".parse().unwrap(),
        epoch: Epoch(0),
        generation: Generation(1),
        manifest: manifest.digest(),
        manifest_length: manifest.list().encode().len() as u64,
        entries: 30_000,
        bytes: 30_000,
        parent: None,
        guard: GuardVerdict { removed_files: 0, removed_bytes: 0, approved_by: None },
        created: jiff::Timestamp::UNIX_EPOCH,
        expires: jiff::Timestamp::MAX,
        basis: None,
    };
    let data = tempfile::tempdir().unwrap();
    let store = Store::open(data.path()).unwrap();
    let fetched = fetch_manifest(&world.points, &store, &tree, &statement(&one), FAST).await;
    assert_eq!(fetched.unwrap().load().unwrap(), one);
    let before = world.requests();
    let fetched = fetch_manifest(&world.points, &store, &tree, &statement(&two), FAST).await;
    assert_eq!(fetched.unwrap().load().unwrap(), two);
    assert_eq!(world.requests() - before, 2, "the list and the one block that changed");
    let before = world.requests();
    fetch_manifest(&world.points, &store, &tree, &statement(&one), FAST).await.unwrap();
    assert_eq!(world.requests(), before, "what is kept was asked for again");

    world.break_with(Fault::Flip);
    let empty = tempfile::tempdir().unwrap();
    let store = Store::open(empty.path()).unwrap();
    let refused = fetch_manifest(&world.points, &store, &tree, &statement(&two), FAST).await;
    assert!(refused.is_err());
}
