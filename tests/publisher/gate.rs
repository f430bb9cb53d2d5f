//! A way into an object store that counts the requests which change it, looks around before and after
//! each, and can refuse or kill at any of them.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use rustix::process::{Pid, Signal, kill_process};

/// What happens at a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The store takes nothing from there on, until [`Gate::mend`].
    Refuse,
    /// The store does it, and whoever asked is killed instead of being told.
    Kill,
}

/// Looks whether all is well.
type Look = Box<dyn Fn() -> Result<(), String> + Send + Sync>;

/// A running gate on loopback.
pub(crate) struct Gate {
    port: u16,
    state: Arc<State>,
}

struct State {
    store: u16,
    look: Look,
    plan: Mutex<Plan>,
}

#[derive(Default)]
struct Plan {
    /// Requests that change something, since the gate was mended: `METHOD PATH`.
    steps: Vec<String>,
    /// At which of them, from 1, what happens to which process.
    fault: Option<(usize, Fault, u32)>,
    /// What was wrong, with the step.
    wrong: Vec<String>,
}

impl Gate {
    /// Opens one to the store at this port of loopback.
    pub(crate) fn open(store: u16, look: Look) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State { store, look, plan: Mutex::default() });
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                // A connection that breaks is the business of those at its ends.
                thread::spawn(move || state.pass(client).ok());
            }
        });
        Self { port, state }
    }

    /// `http://127.0.0.1:PORT`
    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Has this happen at the step of that number, from 1.
    pub(crate) fn fail_at(&self, step: usize, fault: Fault, pid: u32) {
        self.state.plan.lock().unwrap().fault = Some((step, fault, pid));
    }

    /// Lets everything through again, and gives the steps since then.
    ///
    /// # Panics
    /// Where something was wrong at one of them.
    pub(crate) fn mend(&self) -> Vec<String> {
        let plan = std::mem::take(&mut *self.state.plan.lock().unwrap());
        assert!(plan.wrong.is_empty(), "{:#?}\nafter {:#?}", plan.wrong, plan.steps);
        plan.steps
    }
}

impl State {
    /// One request; the connection ends with it.
    fn pass(&self, client: TcpStream) -> io::Result<()> {
        let mut reader = BufReader::new(client.try_clone()?);
        let mut answer = client;
        let (mut head, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let lower = line.to_ascii_lowercase();
            if let Some(value) = lower.strip_prefix("content-length:") {
                length = value.trim().parse().map_err(io::Error::other)?;
            }
            if line == "\r\n" {
                break;
            }
            if !lower.starts_with("connection:") {
                head.push_str(&line);
            }
        }
        head.push_str("Connection: close\r\n\r\n");
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let request = head.lines().next().unwrap_or_default().rsplit_once(' ');
        let request = request.map_or("", |(request, _)| request).to_owned();
        if request.starts_with("GET ") || request.starts_with("HEAD ") {
            let mut answered = self.forward(&head, &body)?;
            answer.write_all(&std::mem::take(&mut answered))?;
            return answer.shutdown(Shutdown::Both);
        }
        let fault = self.step(&request);
        if fault.is_some_and(|(fault, _)| fault == Fault::Refuse) {
            let refused =
                "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            answer.write_all(refused.as_bytes())?;
            return answer.shutdown(Shutdown::Both);
        }
        self.look(&format!("before {request}"));
        let answered = self.forward(&head, &body)?;
        self.look(&format!("after {request}"));
        if let Some((Fault::Kill, pid)) = fault {
            let pid = Pid::from_raw(pid.cast_signed()).ok_or(io::ErrorKind::NotFound)?;
            return Ok(kill_process(pid, Signal::KILL)?);
        }
        answer.write_all(&answered)?;
        answer.shutdown(Shutdown::Both)
    }

    /// Counts a step, and says what happens at it.
    fn step(&self, request: &str) -> Option<(Fault, u32)> {
        let mut plan = self.plan.lock().unwrap();
        plan.steps.push(request.to_owned());
        let (step, fault, pid) = plan.fault?;
        let is_now = match fault {
            Fault::Refuse => plan.steps.len() >= step,
            Fault::Kill => plan.steps.len() == step,
        };
        is_now.then_some((fault, pid))
    }

    fn look(&self, when: &str) {
        if let Err(wrong) = (self.look)() {
            self.plan.lock().unwrap().wrong.push(format!("{when}: {wrong}"));
        }
    }

    fn forward(&self, head: &str, body: &[u8]) -> io::Result<Vec<u8>> {
        let mut store = TcpStream::connect(("127.0.0.1", self.store))?;
        store.write_all(head.as_bytes())?;
        store.write_all(body)?;
        let mut answered = Vec::new();
        store.read_to_end(&mut answered)?;
        Ok(answered)
    }
}
