//! What rsync's end means.
//!
//! The exit code alone does not tell: a refused option, an unknown module and a refused connection
//! share codes. So the text decides first and the code second, and a partial transfer is never
//! taken for a whole one.

/// Why an rsync run is not a success, in words for an admin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The daemon has no such module.
    #[error(
        "the rsync server has no module {module:?}: check the source's path (MODULE or MODULE/PATH)"
    )]
    UnknownModule {
        /// The module as the server named it.
        module: String,
    },
    /// The daemon does not let this user or address in.
    #[error(
        "the rsync server refuses access: {text}; check user, password file and the server's 'hosts allow'"
    )]
    AccessDenied {
        /// What it said.
        text: String,
    },
    /// The daemon has too many clients.
    #[error("the rsync server has no free connection; it is tried again later")]
    Busy,
    /// The daemon does not accept one of our options.
    #[error("the rsync server refuses the option {option}")]
    RefusedOption {
        /// Which option, as the server named it.
        option: String,
    },
    /// Files disappeared while they were listed or read.
    #[error("files vanished at the upstream during the transfer; it is tried again")]
    Vanished,
    /// Some files were not transferred: never a success.
    #[error("rsync transferred only a part (exit code {code}): {text}")]
    Partial {
        /// Exit code.
        code: i32,
        /// The last messages.
        text: String,
    },
    /// Connection lost or refused, or a time limit.
    #[error("the connection to the rsync server failed (exit code {code}): {text}")]
    Connection {
        /// Exit code.
        code: i32,
        /// The last messages.
        text: String,
    },
    /// The path within the module does not exist.
    #[error("the rsync server has no such path: {text}")]
    NoSuchPath {
        /// What it said.
        text: String,
    },
    /// This side could not read or write.
    #[error("rsync could not read or write here (exit code 11): {text}")]
    LocalFiles {
        /// The last messages.
        text: String,
    },
    /// The server sent more of a file than it listed.
    #[error(
        "the rsync server sent more of a file than it had listed: the file changed meanwhile, or the server cannot be trusted; it is tried again"
    )]
    TooLarge,
    /// It computed for longer than any honest server makes it.
    #[error(
        "rsync went past its limit of computing time and was ended: the server is broken or cannot be trusted"
    )]
    TooBusy,
    /// What was sent does not fit into rsync, or into the memory that it is allowed.
    #[error(
        "rsync cannot hold what the server sent (exit code 22): {text}; the server is broken or cannot be trusted"
    )]
    TooBig {
        /// The last messages.
        text: String,
    },
    /// Ended by a signal: by us, for a limit, or by someone else.
    #[error("rsync was ended by signal {signal}")]
    Signal {
        /// Number of the signal.
        signal: i32,
    },
    /// Anything else.
    #[error("rsync failed (exit code {code}): {text}")]
    Other {
        /// Exit code.
        code: i32,
        /// The last messages.
        text: String,
    },
}

impl Failure {
    /// Whether the same run may succeed a little later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Busy | Self::Vanished | Self::Connection { .. })
    }
}

/// How rsync ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// With this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

/// Numbers of the signals that say which limit was passed.
const SIGXCPU: i32 = rustix::process::Signal::XCPU.as_raw();
const SIGXFSZ: i32 = rustix::process::Signal::XFSZ.as_raw();

/// Reads exit and messages; `Ok` only for code 0 without any message that contradicts it.
pub fn classify(exit: Exit, stderr: &str) -> Result<(), Failure> {
    let code = match exit {
        Exit::Code(code) => code,
        Exit::Signal(SIGXCPU) => return Err(Failure::TooBusy),
        Exit::Signal(SIGXFSZ) => return Err(Failure::TooLarge),
        Exit::Signal(signal) => return Err(Failure::Signal { signal }),
    };
    if let Some(failure) = by_text(stderr) {
        // A success may carry warnings, but never one of these.
        return Err(failure);
    }
    let text = summary(stderr);
    Err(match code {
        0 => return Ok(()),
        24 => Failure::Vanished,
        23 if is_missing(stderr) => Failure::NoSuchPath { text },
        3 | 23 | 25 => Failure::Partial { code, text },
        10 | 12 | 30 | 35 => Failure::Connection { code, text },
        19 | 20 => Failure::Signal { signal: if code == 20 { 15 } else { 10 } },
        11 if stderr.contains("File too large") => Failure::TooLarge,
        11 => Failure::LocalFiles { text },
        22 => Failure::TooBig { text },
        _ => Failure::Other { code, text },
    })
}

fn by_text(stderr: &str) -> Option<Failure> {
    for line in stderr.lines() {
        if let Some(rest) = after(line, "@ERROR: Unknown module '") {
            let module = rest.split('\'').next().unwrap_or_default().to_owned();
            return Some(Failure::UnknownModule { module });
        }
        if line.contains("max connections (") && line.contains("reached") {
            return Some(Failure::Busy);
        }
        if let Some(option) = after(line, "The server is configured to refuse ") {
            return Some(Failure::RefusedOption { option: option.trim().to_owned() });
        }
        if line.contains("auth failed on module") || line.contains("access denied to") {
            return Some(Failure::AccessDenied { text: shorten(line) });
        }
        if line.contains("chdir failed") || line.contains("change_dir") && line.contains("failed") {
            return Some(Failure::NoSuchPath { text: shorten(line) });
        }
    }
    None
}

fn is_missing(stderr: &str) -> bool {
    stderr.lines().any(|line| line.contains("link_stat") && line.contains("No such file"))
}

fn after<'a>(line: &'a str, mark: &str) -> Option<&'a str> {
    line.find(mark).map(|at| &line[at + mark.len()..])
}

/// The most telling messages, on one line, without control characters.
fn summary(stderr: &str) -> String {
    let telling = |line: &&str| !line.trim().is_empty() && !line.starts_with("rsync error:");
    let lines: Vec<String> = stderr.lines().filter(telling).take(3).map(shorten).collect();
    if lines.is_empty() {
        return stderr.lines().next().map_or_else(|| "it said nothing".into(), shorten);
    }
    lines.join("; ")
}

fn shorten(line: &str) -> String {
    let clean: String = line.trim().chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    clean.chars().take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_decides_before_the_code() {
        let cases = [
            (5, "@ERROR: Unknown module 'nope'\nrsync error: x", "UnknownModule"),
            (
                10,
                "The server is configured to refuse --compress (-z)\nConnection reset",
                "RefusedOption",
            ),
            (5, "@ERROR: auth failed on module m", "AccessDenied"),
            (5, "@ERROR: access denied to m from x", "AccessDenied"),
            (5, "@ERROR: max connections (3) reached -- try again later", "Busy"),
            (5, "@ERROR: chdir failed", "NoSuchPath"),
            (24, "file has vanished: \"x\"", "Vanished"),
            (23, "rsync: [sender] send_files failed to open: Permission denied (13)", "Partial"),
            (
                23,
                "rsync: [sender] link_stat \"/x\" (in m) failed: No such file or directory (2)",
                "NoSuchPath",
            ),
            (12, "connection unexpectedly closed", "Connection"),
            (30, "io timeout", "Connection"),
            (11, "No space left on device", "LocalFiles"),
            (11, "write failed on \"x\": File too large (27)", "TooLarge"),
            (22, "out of memory in flist_expand", "TooBig"),
            (2, "protocol version mismatch", "Other"),
        ];
        for (code, text, expected) in cases {
            let failure = classify(Exit::Code(code), text).unwrap_err();
            assert!(format!("{failure:?}").starts_with(expected), "{code} {text}: {failure:?}");
        }
        assert_eq!(classify(Exit::Code(0), ""), Ok(()));
        assert_eq!(classify(Exit::Signal(9), ""), Err(Failure::Signal { signal: 9 }));
    }

    #[test]
    fn a_partial_transfer_is_neither_success_nor_worth_a_blind_retry() {
        for code in [3, 23, 25] {
            let failure = classify(Exit::Code(code), "something").unwrap_err();
            assert!(!failure.is_transient(), "{failure}");
        }
    }

    #[test]
    fn hostile_messages_cannot_write_to_the_log_what_they_like() {
        let failure = classify(Exit::Code(2), "evil\u{1b}[2J\u{7}").unwrap_err();
        assert!(!failure.to_string().chars().any(char::is_control));
    }
}
