//! A proxy that stops passing bytes on when it is told to, so that a test can do something in the
//! middle of a transfer without guessing when that is.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex},
    thread,
};

use crate::wait_until;

/// A running CONNECT proxy. What comes from one address passes up to a limit; the rest passes.
#[derive(Debug)]
pub struct Valve {
    port: u16,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    /// Whose answers are limited.
    limited: SocketAddr,
    counts: Mutex<Counts>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Counts {
    passed: u64,
    limit: u64,
    /// At the limit connections end, instead of waiting.
    cuts: bool,
    /// Nobody reaches the limited address.
    severed: bool,
    /// Connections to it.
    open: Vec<TcpStream>,
}

impl Valve {
    /// Starts one that lets `limit` bytes pass from `limited`.
    pub fn start(limited: SocketAddr, limit: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let counts = Mutex::new(Counts { limit, ..Counts::default() });
        let state = Arc::new(State { limited, counts, changed: Condvar::new() });
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                // A connection that breaks is the business of those at its ends.
                thread::spawn(move || state.tunnel(client).ok());
            }
        });
        Self { port, state }
    }

    /// The line that has an agent use it.
    pub fn setting(&self) -> String {
        format!("proxy = \"{}\"\n", self.url())
    }

    /// Its address as a proxy.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Ends every connection to the limited address, and lets nobody reach it until it is mended; or
    /// mends it. Everything else passes.
    pub fn sever(&self, severed: bool) {
        let mut counts = self.state.counts.lock().unwrap();
        counts.severed = severed;
        if severed {
            for connection in counts.open.drain(..) {
                connection.shutdown(Shutdown::Both).ok();
            }
        }
    }

    /// Bytes that have passed from the limited address.
    pub fn passed(&self) -> u64 {
        self.state.counts.lock().unwrap().passed
    }

    /// Waits until the limit is reached.
    pub fn wait_until_shut(&self) {
        wait_until("the transfer to reach the limit", || {
            let counts = self.state.counts.lock().unwrap();
            counts.passed >= counts.limit
        });
    }

    /// From now on every connection ends where the limit is reached, to the byte.
    pub fn cut_at_limit(&self) {
        self.state.counts.lock().unwrap().cuts = true;
    }

    /// Lets so many bytes pass, counted from the beginning.
    pub fn open_up_to(&self, limit: u64) {
        self.state.counts.lock().unwrap().limit = limit;
        self.state.changed.notify_all();
    }

    /// Lets everything pass.
    pub fn open(&self) {
        self.state.counts.lock().unwrap().limit = u64::MAX;
        self.state.changed.notify_all();
    }
}

impl State {
    fn tunnel(&self, mut client: TcpStream) -> std::io::Result<()> {
        let mut lines = BufReader::new(client.try_clone()?);
        let mut request = String::new();
        lines.read_line(&mut request)?;
        let mut header = String::new();
        while lines.read_line(&mut header)? > 2 {
            header.clear();
        }
        let target = request.split(' ').nth(1).unwrap_or_default().to_owned();
        let server = TcpStream::connect(&target)?;
        let is_limited = server.peer_addr()? == self.limited;
        if is_limited {
            let mut counts = self.counts.lock().unwrap();
            if counts.severed {
                return Ok(());
            }
            counts.open.push(server.try_clone()?);
        }
        client.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
        let (from, mut to) = (server.try_clone()?, client.try_clone()?);
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut upwards = server.try_clone().unwrap();
                std::io::copy(&mut lines, &mut upwards).ok();
                server.shutdown(Shutdown::Both).ok();
            });
            self.pass(from, &mut to, is_limited);
            client.shutdown(Shutdown::Both).ok();
        });
        Ok(())
    }

    fn pass(&self, mut from: TcpStream, to: &mut TcpStream, is_limited: bool) {
        let mut buffer = [0; 16 << 10];
        loop {
            let mut room = buffer.len();
            if is_limited {
                let counts = self.counts.lock().unwrap();
                let shut = |c: &mut Counts| c.passed >= c.limit && !c.cuts;
                let counts = self.changed.wait_while(counts, shut).unwrap();
                if counts.cuts {
                    let left = counts.limit.saturating_sub(counts.passed);
                    room = room.min(usize::try_from(left).unwrap_or(room));
                }
                if room == 0 {
                    return;
                }
            }
            let Ok(len @ 1..) = from.read(&mut buffer[..room]) else { return };
            if is_limited {
                self.counts.lock().unwrap().passed += len as u64;
            }
            if to.write_all(&buffer[..len]).is_err() {
                return;
            }
        }
    }
}
