//! Readers while the tree is switched hundreds of times.
//!
//! A web server resolves each request: every answer is one generation, whole, and never older than
//! the one before. A session of an rsync daemon on the tree's own path stays with the generation
//! that it began with, however many switches it spans. A session on the parent of the path resolves
//! the path again and may see two generations: that is counted apart, and told as it is.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use tests::{
    PATIENCE, Rsyncd,
    nginx::{Nginx, Scheme},
    programs::{isolate, succeed},
};

use crate::{
    count,
    mirror::{self, Mirror},
    tell,
};

const FILES: u64 = 24;
const FILLING: usize = 40_000;
/// Sessions that have to span three switches and more.
const SPANNING: u64 = 5;
/// How long it may take on a machine that is busy.
const MOST: Duration = Duration::from_secs(240);

#[derive(Default)]
struct Seen {
    answers: AtomicU64,
    mixed_answers: AtomicU64,
    sessions: AtomicU64,
    spanning: AtomicU64,
    mixed: AtomicU64,
    parent_sessions: AtomicU64,
    parent_mixed: AtomicU64,
}

/// Which generation some content is of; `None` if of more than one, or of none.
fn generation_of(content: &[u8], n: u64) -> Option<u64> {
    let line = std::str::from_utf8(content.get(..40)?).ok()?;
    let number: u64 = line.strip_prefix("generation ")?.get(..8)?.parse().ok()?;
    (content == Mirror::content(number, n, FILLING)).then_some(number)
}

/// The body of an answer over a connection that is kept.
fn get(connection: &mut TcpStream, path: &str) -> Option<Vec<u8>> {
    write!(connection, "GET /{path} HTTP/1.1\r\nHost: mirror\r\n\r\n").ok()?;
    let mut answer = Vec::new();
    let mut buffer = [0; 16 * 1024];
    let (head, length) = loop {
        let read = connection.read(&mut buffer).ok()?;
        if read == 0 {
            return None;
        }
        answer.extend_from_slice(&buffer[..read]);
        if let Some(head) = answer.windows(4).position(|window| window == b"\r\n\r\n") {
            let text = String::from_utf8_lossy(&answer[..head]).to_ascii_lowercase();
            assert!(text.starts_with("http/1.1 200"), "{path}: {text}");
            let length = text.split("content-length: ").nth(1).unwrap();
            break (head + 4, length.split("\r\n").next().unwrap().parse::<usize>().unwrap());
        }
    };
    while answer.len() < head + length {
        let read = connection.read(&mut buffer).ok()?;
        if read == 0 {
            return None;
        }
        answer.extend_from_slice(&buffer[..read]);
    }
    Some(answer.split_off(head))
}

fn browse(port: u16, seen: &Seen, done: &AtomicBool) {
    let connect = || {
        let connection = TcpStream::connect(("127.0.0.1", port)).unwrap();
        connection.set_read_timeout(Some(PATIENCE)).unwrap();
        connection
    };
    let mut connection = connect();
    let mut last = [0; FILES as usize];
    while !done.load(Ordering::Relaxed) {
        for n in 0..FILES {
            let Some(body) = get(&mut connection, &Mirror::name(n)) else {
                connection = connect();
                continue;
            };
            seen.answers.fetch_add(1, Ordering::Relaxed);
            let last = &mut last[n as usize];
            match generation_of(&body, n) {
                Some(number) if number >= *last => *last = number,
                _ => {
                    seen.mixed_answers.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }
}

/// The generations that one session delivered.
fn session(url: &str, to: &Path) -> Vec<Option<u64>> {
    let _ = fs::remove_dir_all(to);
    let mut command = Command::new("rsync");
    isolate(&mut command);
    // Slow enough that the tree is switched several times meanwhile.
    command.args(["-a", "--bwlimit=400", "--timeout=60", url]).arg(to);
    let output = command.output().unwrap();
    // 24: files vanished while the session ran, as they may below the parent.
    let code = output.status.code();
    assert!(matches!(code, Some(0 | 23 | 24)), "{}", tests::programs::told(&output));
    let files = (0..FILES).filter_map(|n| Some((n, fs::read(to.join(Mirror::name(n))).ok()?)));
    files.map(|(n, content)| generation_of(&content, n)).collect()
}

fn is_mixed(generations: &[Option<u64>]) -> bool {
    generations.len() != FILES as usize
        || generations.iter().any(|one| one.is_none() || *one != generations[0])
}

#[test]
fn readers_see_one_generation_while_the_tree_is_switched() {
    let wanted_switches = count("MIRRORNET_SWITCHES", 200);
    let wanted_answers = count("MIRRORNET_READS", 5_000);
    let dir = mirror::scratch();
    let mut mirror = Mirror::new(dir.path().to_owned(), FILES, FILLING);
    mirror.switch();
    let live = dir.path().join("pub/tree");
    let server = format!("root {};", live.display());
    let nginx = Nginx::start(&dir.path().join("nginx"), Scheme::Plain, "", &server);
    let parent = dir.path().join("pub");
    let modules: [(&str, &Path); 2] = [("tree", &live), ("parent", &parent)];
    let rsyncd = Rsyncd::start(&dir.path().join("rsyncd"), &modules, "");
    succeed(Command::new("rsync").arg(rsyncd.url()));

    let (seen, done, switches) = (Seen::default(), AtomicBool::new(false), AtomicU64::new(0));
    let (seen, done, switches) = (&seen, &done, &switches);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| browse(nginx.port(), seen, done));
        }
        let own = (format!("{}tree/", rsyncd.url()), dir.path().join("got-own"));
        scope.spawn(move || {
            while !done.load(Ordering::Relaxed) {
                let before = switches.load(Ordering::Relaxed);
                let got = session(&own.0, &own.1);
                let spanned = switches.load(Ordering::Relaxed) - before;
                seen.sessions.fetch_add(1, Ordering::Relaxed);
                seen.spanning.fetch_add(u64::from(spanned >= 3), Ordering::Relaxed);
                seen.mixed.fetch_add(u64::from(is_mixed(&got)), Ordering::Relaxed);
            }
        });
        let above = (format!("{}parent/tree/", rsyncd.url()), dir.path().join("got-parent"));
        scope.spawn(move || {
            while !done.load(Ordering::Relaxed) {
                let got = session(&above.0, &above.1);
                seen.parent_sessions.fetch_add(1, Ordering::Relaxed);
                seen.parent_mixed.fetch_add(u64::from(is_mixed(&got)), Ordering::Relaxed);
            }
        });
        let begin = Instant::now();
        let patience = MOST.max(Duration::from_millis(wanted_answers * 4));
        while switches.load(Ordering::Relaxed) < wanted_switches
            || seen.answers.load(Ordering::Relaxed) < wanted_answers
            || seen.spanning.load(Ordering::Relaxed) < SPANNING
        {
            mirror.switch();
            switches.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(20));
            if begin.elapsed() > patience {
                break;
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let switches = of(switches);
    eprintln!(
        "{switches} switches; {} sessions on the tree's own path, {} of them over three switches \
         and more; {} of {} sessions on its parent saw two generations",
        of(&seen.sessions),
        of(&seen.spanning),
        of(&seen.parent_mixed),
        of(&seen.parent_sessions)
    );
    tell("answers of nginx during switches", of(&seen.answers), of(&seen.mixed_answers));
    tell(
        "rsync sessions on the tree's own path during switches",
        of(&seen.sessions),
        of(&seen.mixed),
    );
    tell(
        "rsync sessions on its parent during switches",
        of(&seen.parent_sessions),
        of(&seen.parent_mixed),
    );
    assert_eq!((of(&seen.mixed_answers), of(&seen.mixed)), (0, 0));
    assert!(switches >= wanted_switches, "only {switches} switches");
    assert!(of(&seen.spanning) >= SPANNING, "{} sessions over three switches", of(&seen.spanning));
}
