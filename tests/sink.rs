//! A web server that takes whatever is sent to it and answers as it is told to: what caches,
//! trackers and chat rooms are to those who report to them.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU16, Ordering},
    },
    time::Duration,
};

use crate::wait_for;

/// A running server; it ends when this goes.
pub struct Sink {
    address: SocketAddr,
    state: Arc<State>,
}

/// One request that it got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Got {
    /// Method and path.
    pub request: String,
    /// Headers by their names in small letters.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: String,
    /// What was answered.
    pub status: u16,
}

struct State {
    status: AtomicU16,
    is_over: AtomicBool,
    got: Mutex<Vec<Got>>,
}

impl Sink {
    /// In place of a status: what comes is taken and never answered.
    pub const SILENT: u16 = 0;

    /// Starts it; every request is answered with `status` until [`Sink::answer`] says otherwise.
    pub fn start(status: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            status: AtomicU16::new(status),
            is_over: AtomicBool::new(false),
            got: Mutex::default(),
        });
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.is_over.load(Ordering::Acquire) {
                    return;
                }
                let shared = Arc::clone(&shared);
                if let Ok(stream) = stream {
                    std::thread::spawn(move || shared.take(stream));
                }
            }
        });
        Self { address, state }
    }

    /// `http://ADDRESS`
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Answers with `status` from now on; [`Sink::SILENT`] for no answer.
    pub fn answer(&self, status: u16) {
        self.state.status.store(status, Ordering::Release);
    }

    /// Everything that it got.
    pub fn got(&self) -> Vec<Got> {
        self.state.got.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for a request of which `is_it` holds.
    pub fn wait_for(&self, what: &str, is_it: impl Fn(&Got) -> bool) -> Got {
        wait_for(what, || self.got().into_iter().find(&is_it))
    }
}

impl State {
    fn take(&self, stream: TcpStream) {
        stream.set_read_timeout(Some(Duration::from_secs(20))).ok();
        let mut reader = BufReader::new(&stream);
        let mut line = String::new();
        if reader.read_line(&mut line).is_err() || line.is_empty() {
            return;
        }
        let request = line.split(' ').take(2).collect::<Vec<_>>().join(" ");
        let mut headers = BTreeMap::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).is_err() {
                return;
            }
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        let len: usize = headers.get("content-length").map_or(0, |len| len.parse().unwrap_or(0));
        let mut body = vec![0; len];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        let status = self.status.load(Ordering::Acquire);
        let body = String::from_utf8_lossy(&body).into_owned();
        // Before the answer: whoever has it may ask at once what came.
        let mut got = self.got.lock().unwrap_or_else(PoisonError::into_inner);
        got.push(Got { request, headers, body, status });
        drop(got);
        if status == Sink::SILENT {
            // Until whoever sent it has enough.
            reader.read_to_end(&mut Vec::new()).ok();
            return;
        }
        let location = if status / 100 == 3 { "location: /elsewhere\r\n" } else { "" };
        let answer = format!(
            "HTTP/1.1 {status} As-Told\r\n{location}content-length: 0\r\nconnection: close\r\n\r\n"
        );
        (&stream).write_all(answer.as_bytes()).ok();
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.state.is_over.store(true, Ordering::Release);
        drop(TcpStream::connect(self.address));
    }
}
