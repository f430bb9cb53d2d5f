//! The one layer through which every mutation of a mirrored tree goes.
//!
//! *Why one layer.* A mirror is harmed by a write in the wrong place (a symlink that an upstream
//! planted where a directory was), by a write that was believed durable and was not, and by a
//! write that nobody expected. So nothing else in this crate changes a disk, and here
//!
//! - everything happens below a directory handle, and paths are resolved by the kernel beneath it
//!   without following any symlink ([`Dir::open_dir`]);
//! - names are checked again, whoever passes them ([`crate::safe_path`]);
//! - the process's umask never matters: what is made has an explicit mode;
//! - every operation is counted ([`Counters`]) and is a named fail point ([`FailPlan`]), so that
//!   tests can ask how much was done, and can kill at every single step;
//! - the file system below is a [`Backend`]: the kernel's, or a double in memory that keeps what
//!   was not synced apart and can lose it.
//!
//! *Why not cap-std?* It gives handles and containment, but neither exchange, syncfs and reflinks
//! nor a place for counting and failing.

mod backend;
mod disk;
mod gate;
mod handle;
#[cfg(any(test, feature = "double"))]
pub mod memory;

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

pub use backend::{Attribute, Backend, DirEntry, FileId, Handle, Kind, Meta, Room};
pub use gate::{Counted, Counters, Counts, FAIL_ENV, FailPlan, Failure, Op, SITES_ENV, Site};
pub use handle::{Dir, File};

/// An operation on a disk that did not work.
#[derive(Debug, thiserror::Error)]
#[error("cannot {} {}", .op.name().replace('-', " "), .path.display())]
pub struct Error {
    /// What was tried.
    pub op: Op,
    /// On what. Names that are not UTF-8 are printed with replacement characters.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

/// Shorthand for what this layer returns.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Whether nothing has that name.
    pub fn is_not_found(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }

    /// Whether something already has that name.
    pub fn is_already_there(&self) -> bool {
        self.source.kind() == io::ErrorKind::AlreadyExists
    }

    /// Whether the file system cannot give this file another name: it knows no hard links, the
    /// file has as many as it can have, it lies on another file system, or it is another user's
    /// and `fs.protected_hardlinks` forbids it.
    pub fn is_link_refused(&self) -> bool {
        use rustix::io::Errno;
        let refusals = [Errno::MLINK, Errno::XDEV, Errno::PERM, Errno::OPNOTSUPP, Errno::NOSYS];
        let raw = self.source.raw_os_error();
        self.op == Op::Link && refusals.iter().any(|errno| Some(errno.raw_os_error()) == raw)
    }

    /// Whether the file system does not know the operation at all.
    pub fn is_unsupported(&self) -> bool {
        use rustix::io::Errno;
        let refusals = [Errno::PERM, Errno::INVAL, Errno::OPNOTSUPP, Errno::NOSYS, Errno::XDEV];
        refusals.iter().any(|errno| Some(errno.raw_os_error()) == self.source.raw_os_error())
    }

    /// Whether a file has as many names as its file system gives one.
    pub fn is_out_of_names(&self) -> bool {
        self.source.raw_os_error() == Some(rustix::io::Errno::MLINK.raw_os_error())
    }

    /// Whether the disk or a quota is full.
    pub fn is_full(&self) -> bool {
        use io::ErrorKind;
        matches!(self.source.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
    }
}

/// A file system with its counters and fail points. Clones share all of it.
#[derive(Clone)]
pub struct Fs(Arc<Inner>);

struct Inner {
    backend: Box<dyn Backend>,
    gate: gate::Gate,
    is_kernel: bool,
}

impl Fs {
    /// The kernel's file systems; fails only as [`FAIL_ENV`] says.
    pub fn disk() -> Self {
        Self::new(Box::<disk::Disk>::default(), gate::Gate::from_environment(), true)
    }

    /// The kernel's file systems with a fail point of a test's own.
    pub fn disk_failing(plan: Arc<FailPlan>) -> Self {
        Self::new(Box::<disk::Disk>::default(), gate::Gate::armed(plan), true)
    }

    /// Any backend, with a fail point or without.
    pub fn with_backend(backend: Box<dyn Backend>, plan: Option<Arc<FailPlan>>) -> Self {
        Self::new(backend, plan.map_or_else(gate::Gate::default, gate::Gate::armed), false)
    }

    fn new(backend: Box<dyn Backend>, gate: gate::Gate, is_kernel: bool) -> Self {
        Self(Arc::new(Inner { backend, gate, is_kernel }))
    }

    /// Whether other processes can see this file system.
    pub fn is_kernel(&self) -> bool {
        self.0.is_kernel
    }

    /// How often each operation was asked for.
    pub fn counters(&self) -> &Counters {
        &self.0.gate.counters
    }

    /// Opens a directory that an admin configured by an absolute path; there, and only there,
    /// symlinks are followed.
    #[track_caller]
    pub fn open_root(&self, path: &Path) -> Result<Dir> {
        let handle = self.run(Op::OpenDir, || path.into(), |b| b.open_root(path))?;
        Ok(Dir::new(self.clone(), handle, path.into()))
    }

    /// Opens a configured directory, and makes it and the ones above it (mode 0755, durably) where
    /// they are missing.
    #[track_caller]
    pub fn create_root(&self, path: &Path) -> Result<Dir> {
        match self.open_root(path) {
            Err(error) if error.is_not_found() => {
                self.run(Op::MakeDir, || path.into(), |b| b.create_root(path))?;
                self.open_root(path)
            }
            other => other,
        }
    }

    #[track_caller]
    fn run<T>(
        &self,
        op: Op,
        path: impl FnOnce() -> PathBuf,
        act: impl FnOnce(&dyn Backend) -> io::Result<T>,
    ) -> Result<T> {
        self.run_shortened(op, path, |backend, _| act(backend))
    }

    /// [`Self::run`] of something that a fail point may tell to do only a part.
    #[track_caller]
    fn run_shortened<T>(
        &self,
        op: Op,
        path: impl FnOnce() -> PathBuf,
        act: impl FnOnce(&dyn Backend, bool) -> io::Result<T>,
    ) -> Result<T> {
        let done = match self.0.gate.pass(op) {
            Ok(fate) => act(&*self.0.backend, fate == gate::Fate::Short),
            Err(error) => Err(error),
        };
        done.map_err(|source| Error { op, path: path(), source })
    }
}

impl fmt::Debug for Fs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fs({:?})", self.0.backend)
    }
}

#[cfg(test)]
mod tests;
