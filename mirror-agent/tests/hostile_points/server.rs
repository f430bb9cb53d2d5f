//! A server that answers wrongly, in every way we could think of.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use protocol::wire;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::{
    HERE, SOON,
    tree::{Tree, noise},
};

/// Where in the answer a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum At {
    Start,
    One,
    Middle,
    Last,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Fault {
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
    /// Right, but only once so many requests wait for their answers at the same time.
    Together(usize),
}

pub(crate) const FAULTS: &[Fault] = &[
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
pub(crate) enum Kind {
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
    /// A pack from its beginning: the head, and the frames behind it.
    Pack,
    /// The pointer to the newest generation.
    Pointer,
    /// A whole file.
    Whole,
    /// Who the coordinator says that one is.
    Word,
    /// Its orders, with the head.
    Orders,
    /// Its root documents.
    Roots,
}

pub(crate) const KINDS: [Kind; 8] = [
    Kind::List,
    Kind::Block,
    Kind::Index,
    Kind::Frame,
    Kind::Object,
    Kind::Pack,
    Kind::Pointer,
    Kind::Whole,
];

/// What the coordinator is asked.
pub(crate) const WORD: &str = "/v1/whoami";
pub(crate) const ORDERS: &str = "/v1/agent/orders?revision=0&wait=0s";
pub(crate) const ROOTS: &str = "/v1/roots?after=0";

/// A server that is good but for some kinds of objects.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    faults: Vec<(Kind, Fault, AtomicUsize)>,
    tree: Arc<Tree>,
    pub(crate) paths: Mutex<Vec<String>>,
    /// Requests that wait for others, now and at most.
    waiting: AtomicUsize,
    pub(crate) most_waiting: AtomicUsize,
}

impl Server {
    pub(crate) async fn start(tree: &Arc<Tree>, kind: Kind, fault: Fault) -> Arc<Self> {
        Self::start_with(tree, &[(kind, fault)]).await
    }

    pub(crate) async fn start_with(tree: &Arc<Tree>, faults: &[(Kind, Fault)]) -> Arc<Self> {
        let listener = TcpListener::bind(HERE).await.unwrap();
        let server = Arc::new(Self {
            address: listener.local_addr().unwrap(),
            faults: faults.iter().map(|(k, f)| (*k, *f, AtomicUsize::new(0))).collect(),
            tree: Arc::clone(tree),
            paths: Mutex::default(),
            waiting: AtomicUsize::new(0),
            most_waiting: AtomicUsize::new(0),
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
            Kind::Index => path.contains("/packs/") && range.is_none_or(|(first, _)| first == 0),
            Kind::Frame => path.contains("/packs/") && range.is_some_and(|(first, _)| first > 0),
            Kind::Pack => path.contains("/packs/"),
            Kind::Object => path.contains("/objects/"),
            Kind::Pointer => path.ends_with("/latest"),
            Kind::Whole => path.contains("/content/"),
            Kind::Word => path == WORD,
            Kind::Orders => path == ORDERS,
            Kind::Roots => path == ROOTS,
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
            let Some(content) = self.tree.stored.get(&path) else {
                stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").await?;
                continue;
            };
            let total = content.len();
            let range = range.map(|(first, end)| (first, end.min(total)));
            let (first, end) = range.unwrap_or((0, total));
            let fault = self.fault(&path, range);
            if let Fault::Together(wanted) = fault {
                self.wait_for_others(wanted).await;
            }
            let body = content[first..end].to_vec();
            let content_range = format!("bytes {first}-{}/{total}", end.saturating_sub(1));
            let content_range = range.map(|_| content_range);
            answer(&mut stream, fault, body, content_range, content).await?;
        }
        Ok(())
    }
}

impl Server {
    /// Until so many requests wait here, or nobody would wait any longer.
    async fn wait_for_others(&self, wanted: usize) {
        let waiting = self.waiting.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_waiting.fetch_max(waiting, Ordering::SeqCst);
        let all_there = async {
            while self.most_waiting.load(Ordering::SeqCst) < wanted {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(ALONE, all_there).await.ok();
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

/// How long a request waits for others.
const ALONE: Duration = Duration::from_secs(20);

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
        Fault::None | Fault::FirstStatus(_) | Fault::Together(_) => {}
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
