//! A program that runs until it is told to stop.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{wait_for, wait_until};

/// A running daemon. Dropping it kills it.
pub struct Daemon {
    name: String,
    child: Child,
    log: PathBuf,
    /// Where its own output begins: one that ran before it may have written to the same file.
    begin: usize,
}

impl Daemon {
    /// Starts `command` with its output in `log`.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> Self {
        let file = fs::File::options().create(true).append(true).open(log).unwrap();
        command.stdout(Stdio::from(file.try_clone().unwrap())).stderr(Stdio::from(file));
        let begin = fs::read(log).map_or(0, |before| before.len());
        let child = command.spawn().unwrap_or_else(|error| panic!("{name}: {error}"));
        Self { name: name.to_owned(), child, log: log.to_owned(), begin }
    }

    /// Everything it printed; nothing, once its directory is gone.
    pub fn log(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(log.get(self.begin..).unwrap_or_default()).into_owned()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until `file` names the address on which it listens.
    pub fn address_in(&mut self, file: &Path) -> SocketAddr {
        let what = format!("{} to listen", self.name);
        wait_for(&what, || {
            self.must_run();
            fs::read_to_string(file).ok()?.trim().parse().ok()
        })
    }

    /// Waits until it has printed `text`.
    pub fn wait_for_log(&mut self, text: &str) {
        let what = format!("{} to print {text:?}; it printed:\n{}", self.name, self.log());
        wait_until(&what, || {
            let found = self.log().contains(text);
            if !found {
                self.must_run();
            }
            found
        });
    }

    /// Sends SIGTERM and waits for its end.
    pub fn stop(mut self) -> ExitStatus {
        self.end()
    }

    /// [`Daemon::stop`] for one that stays where it is, to be replaced later.
    pub fn end(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait()
    }

    /// Sends SIGKILL, as a crash would, and waits for its end.
    pub fn kill(mut self) {
        self.signal(Signal::KILL);
        self.wait();
    }

    /// Waits for its end, which it comes to by itself.
    pub fn wait(&mut self) -> ExitStatus {
        let what = format!("{} to end; it printed:\n{}", self.name, self.log());
        wait_for(&what, || self.child.try_wait().unwrap())
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = Pid::from_raw(self.child.id().cast_signed()) {
            let _ = kill_process(pid, signal);
        }
    }

    /// Whether it has come to its end.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// # Panics
    /// With everything it printed, when it has ended.
    pub fn must_run(&mut self) {
        if let Some(status) = self.child.try_wait().unwrap() {
            panic!("{} ended ({status}):\n{}", self.name, self.log());
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(60).collect();
            eprintln!("--- the last lines of {}", self.name);
            tail.iter().rev().for_each(|line| eprintln!("{line}"));
        }
    }
}
