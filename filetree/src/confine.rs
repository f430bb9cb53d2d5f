//! What a program may touch: this one from now on, or another that is started in a cage.
//!
//! *Why.* rsync reads what a stranger sends, and has been made to write outside of its destination
//! and to read its user's files more than once. So a mistake of rsync's, or of ours, must not be
//! enough: the kernel itself is asked to refuse everything but the few directories that the work
//! needs (Landlock, which no privilege is needed for), and to end a program that takes too much.
//!
//! A cage has to be closed between `fork` and `exec`. That moment is nobody's without unsafe code,
//! so the program that starts another calls *itself* with [`Cage::arguments`]; that process closes
//! its own cage and becomes the other program ([`enter`]).
//!
//! What Landlock does not know stays possible within the limits of the user: changing modes, owners
//! and times of files that the user owns, and connecting to sockets that have a path.

mod arguments;
mod landlock;

use std::{
    ffi::OsString,
    fmt, io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};

pub use self::arguments::InvalidArguments;

/// Whether a program is confined.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Confine {
    /// As far as the kernel can.
    #[default]
    Auto,
    /// Not at all without the kernel's help.
    Required,
    /// Never.
    Off,
}

/// How far a program is confined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Confinement {
    /// By everything that was asked of the kernel.
    Full,
    /// By what this kernel knows of it.
    Partial,
    /// The kernel knows nothing of it.
    Unavailable,
    /// An admin did not want it.
    Off,
}

impl fmt::Display for Confinement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "by Landlock",
            Self::Partial => "by Landlock, as far as this older kernel knows it",
            Self::Unavailable => {
                "not confined: this kernel has no Landlock (Linux 5.19 and newer, with 'landlock' in its lsm= list)"
            }
            Self::Off => "not confined, as configured",
        })
    }
}

/// Why a program was not confined, and therefore not started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A directory that it needs is not there.
    #[error("{path} cannot be opened to let a program reach it", path = .path.display())]
    Path {
        /// Which.
        path: PathBuf,
        /// Why.
        source: ::landlock::PathFdError,
    },
    /// The kernel knows Landlock, and refuses all the same.
    #[error("the kernel refuses to confine this program")]
    Kernel(#[from] ::landlock::RulesetError),
    /// It must be confined and cannot be.
    #[error(
        "confine = \"required\", and this kernel has no Landlock: use Linux 5.19 or newer with 'landlock' in its lsm= list, or set confine = \"auto\""
    )]
    Unavailable,
    /// A limit of the process.
    #[error("the limit of {what} cannot be set")]
    Limit {
        /// Of what.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The other program.
    #[error("{program} cannot be started", program = .program.display())]
    Start {
        /// Which.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// How much a program may take. What it has less already stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes of address space.
    pub memory_bytes: u64,
    /// Bytes of a file that it writes.
    pub file_bytes: u64,
    /// Seconds of computing.
    pub cpu_seconds: u64,
    /// Open files.
    pub open_files: u64,
}

/// What a program may reach, and how much it may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cage {
    /// Whether Landlock is wanted; limits are set in any case.
    pub confine: Confine,
    /// Files, and directories with everything below, that it may read.
    pub read: Vec<PathBuf>,
    /// Directories in which it may make, change and remove files and directories; and nothing else:
    /// no links, devices, pipes or sockets.
    pub write: Vec<PathBuf>,
    /// Programs that it may start besides those of the system.
    pub programs: Vec<PathBuf>,
    /// How much it may take.
    pub bounds: Bounds,
}

/// Lets this process, and whatever it starts from now on, write below these directories only.
///
/// To be called while there is one thread: threads that are there already are not confined. A
/// directory that is missing now is out of reach for good.
///
/// # Errors
/// [`Error::Unavailable`] if it is required and cannot be.
pub fn keep_writes_below(dirs: &[PathBuf], confine: Confine) -> Result<Confinement, Error> {
    required(confine, landlock::keep_writes_below(dirs, confine)?)
}

/// Whether the kernel can confine programs that move files about.
pub fn is_available() -> bool {
    landlock::is_available()
}

fn required(confine: Confine, confinement: Confinement) -> Result<Confinement, Error> {
    match (confine, confinement) {
        (Confine::Required, Confinement::Unavailable) => Err(Error::Unavailable),
        _ => Ok(confinement),
    }
}

/// Becomes the program that [`Cage::arguments`] names, in that cage. Comes back only with the reason
/// why not.
pub fn enter(arguments: impl Iterator<Item = OsString>) -> EnterError {
    let (cage, program, rest) = match Cage::parse(arguments) {
        Ok(parsed) => parsed,
        Err(error) => return error.into(),
    };
    match cage.close() {
        Ok(_) => {
            let source = Command::new(&program).args(rest).exec();
            Error::Start { program, source }.into()
        }
        Err(error) => error.into(),
    }
}

/// Why [`enter`] came back.
#[derive(Debug, thiserror::Error)]
pub enum EnterError {
    /// Nothing of ours called it.
    #[error(transparent)]
    Arguments(#[from] InvalidArguments),
    /// There was no cage, so there is no program.
    #[error(transparent)]
    Cage(#[from] Error),
}

impl Cage {
    /// Closes it around this process.
    fn close(&self) -> Result<Confinement, Error> {
        self.bounds.set()?;
        required(self.confine, landlock::close(self)?)
    }
}

impl Bounds {
    fn set(&self) -> Result<(), Error> {
        let limits = [
            ("memory", Resource::As, self.memory_bytes),
            ("file size", Resource::Fsize, self.file_bytes),
            ("computing time", Resource::Cpu, self.cpu_seconds),
            ("open files", Resource::Nofile, self.open_files),
            // What a program had in its memory is nobody's business.
            ("core files", Resource::Core, 0),
        ];
        for (what, resource, most) in limits {
            let least = getrlimit(resource).maximum.map_or(most, |now| now.min(most));
            let limit = Rlimit { current: Some(least), maximum: Some(least) };
            setrlimit(resource, limit)
                .map_err(|errno| Error::Limit { what, source: errno.into() })?;
        }
        Ok(())
    }
}

/// The program that a name without a slash means, as a shell finds it; a path means itself.
pub fn find_program(program: &Path) -> Option<PathBuf> {
    if program.components().count() != 1 || program.is_absolute() {
        return program.exists().then(|| program.to_owned());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|path| path.is_file())
}

#[cfg(test)]
mod tests;
