//! The kernel's file systems.

use std::{
    ffi::OsStr,
    io::{self, ErrorKind},
    mem::MaybeUninit,
    ops::ControlFlow,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use rustix::{
    fs::{
        self as sys, AtFlags, FileType, FlockOperation, Gid, Mode, OFlags, RawDir, RenameFlags,
        ResolveFlags, StatxAttributes, StatxFlags, Timespec, Timestamps, Uid, XattrFlags,
    },
    io::Errno,
};

use super::backend::{Attribute, Backend, DirEntry, FileId, Handle, Kind, Meta, Room};

const DIR: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);

/// The kernel's file systems. See [`Backend`] for what each operation promises.
#[derive(Debug, Default)]
pub(super) struct Disk {
    /// Set once the kernel said that it has no openat2 (before Linux 5.6, or a seccomp filter).
    stepwise: AtomicBool,
}

impl Disk {
    /// Opens component by component, each without following a link: as safe as openat2 for
    /// checked paths, which have no `..`, only slower.
    fn open_stepwise(&self, at: &Handle, path: &[u8]) -> io::Result<Handle> {
        let mut current: Option<OwnedFd> = None;
        for component in path.split(|&b| b == b'/') {
            let from = match &current {
                Some(fd) => fd.as_fd(),
                None => fd(at)?,
            };
            current = Some(sys::openat(from, component, DIR, Mode::empty())?);
        }
        current.map(Handle::Fd).ok_or_else(|| ErrorKind::InvalidInput.into())
    }
}

/// Passes every name in a directory with what it is, until `take` has had enough.
fn list(at: &Handle, take: &mut dyn FnMut(&[u8], FileType) -> ControlFlow<()>) -> io::Result<()> {
    // A fresh description: the offset of a shared one would be shared as well.
    let listed = sys::openat(fd(at)?, c".", DIR, Mode::empty())?;
    let mut buffer = vec![MaybeUninit::uninit(); 32 * 1024];
    let mut lines = RawDir::new(listed, &mut buffer);
    while let Some(line) = lines.next() {
        let line = line?;
        let name = line.file_name().to_bytes();
        if name != b"." && name != b".." && take(name, line.file_type()).is_break() {
            break;
        }
    }
    Ok(())
}

impl Backend for Disk {
    fn open_root(&self, path: &Path) -> io::Result<Handle> {
        let flags = DIR.difference(OFlags::NOFOLLOW);
        Ok(Handle::Fd(sys::openat(sys::CWD, path, flags, Mode::empty())?))
    }

    fn create_root(&self, path: &Path) -> io::Result<()> {
        use std::os::unix::fs::PermissionsExt;
        let mut missing = path;
        let mut made = Vec::new();
        while !missing.exists() {
            made.push(missing);
            missing = missing.parent().ok_or(ErrorKind::NotFound)?;
        }
        for dir in made.into_iter().rev() {
            match std::fs::create_dir(dir) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
                Err(_) => {}
                Ok(()) => {
                    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755))?;
                    if let Some(parent) = dir.parent() {
                        std::fs::File::open(parent)?.sync_all()?;
                    }
                }
            }
        }
        Ok(())
    }

    fn open_dir(&self, at: &Handle, path: &[u8]) -> io::Result<Handle> {
        if self.stepwise.load(Ordering::Relaxed) {
            return self.open_stepwise(at, path);
        }
        let resolve =
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        match sys::openat2(fd(at)?, path, DIR, Mode::empty(), resolve) {
            Ok(fd) => Ok(Handle::Fd(fd)),
            Err(Errno::NOSYS | Errno::PERM) => {
                self.stepwise.store(true, Ordering::Relaxed);
                self.open_stepwise(at, path)
            }
            // The kernel could not rule out a racing rename; walking is slower but always decides.
            Err(Errno::AGAIN) => self.open_stepwise(at, path),
            Err(errno) => Err(errno.into()),
        }
    }

    fn open_file(&self, at: &Handle, name: &[u8]) -> io::Result<Handle> {
        // Without NONBLOCK, opening a fifo that took the file's place would wait forever.
        let flags =
            OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = sys::openat(fd(at)?, name, flags, Mode::empty())?;
        if FileType::from_raw_mode(sys::fstat(&file)?.st_mode) != FileType::RegularFile {
            return Err(io::Error::new(ErrorKind::InvalidInput, "not a regular file"));
        }
        Ok(Handle::Fd(file))
    }

    fn create_file(&self, at: &Handle, name: &[u8]) -> io::Result<Handle> {
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = sys::openat(fd(at)?, name, flags, Mode::from_raw_mode(0o600))?;
        Ok(Handle::Fd(file))
    }

    fn entries(&self, at: &Handle) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        list(at, &mut |name, kind| {
            let is_dir = match kind {
                FileType::Unknown => None,
                kind => Some(kind == FileType::Directory),
            };
            entries.push(DirEntry { name: name.into(), is_dir });
            ControlFlow::Continue(())
        })?;
        Ok(entries)
    }

    fn names(&self, at: &Handle, take: &mut dyn FnMut(&[u8]) -> ControlFlow<()>) -> io::Result<()> {
        list(at, &mut |name, _| take(name))
    }

    fn stat(&self, at: &Handle) -> io::Result<Meta> {
        statx(fd(at)?, b"", AtFlags::EMPTY_PATH)
    }

    fn stat_at(&self, at: &Handle, name: &[u8]) -> io::Result<Meta> {
        statx(fd(at)?, name, AtFlags::SYMLINK_NOFOLLOW)
    }

    fn read_link(&self, at: &Handle, name: &[u8]) -> io::Result<Vec<u8>> {
        Ok(sys::readlinkat(fd(at)?, name, Vec::new())?.into_bytes())
    }

    fn link(&self, at: &Handle, name: &[u8], to: &Handle, to_name: &[u8]) -> io::Result<()> {
        Ok(sys::linkat(fd(at)?, name, fd(to)?, to_name, AtFlags::empty())?)
    }

    fn rename(&self, at: &Handle, name: &[u8], to: &Handle, to_name: &[u8]) -> io::Result<()> {
        Ok(sys::renameat(fd(at)?, name, fd(to)?, to_name)?)
    }

    fn rename_new(&self, at: &Handle, name: &[u8], to: &Handle, to_name: &[u8]) -> io::Result<()> {
        Ok(sys::renameat_with(fd(at)?, name, fd(to)?, to_name, RenameFlags::NOREPLACE)?)
    }

    fn exchange(&self, at: &Handle, name: &[u8], to: &Handle, to_name: &[u8]) -> io::Result<()> {
        Ok(sys::renameat_with(fd(at)?, name, fd(to)?, to_name, RenameFlags::EXCHANGE)?)
    }

    fn unlink(&self, at: &Handle, name: &[u8]) -> io::Result<()> {
        Ok(sys::unlinkat(fd(at)?, name, AtFlags::empty())?)
    }

    fn remove_dir(&self, at: &Handle, name: &[u8]) -> io::Result<()> {
        Ok(sys::unlinkat(fd(at)?, name, AtFlags::REMOVEDIR)?)
    }

    fn make_dir(&self, at: &Handle, name: &[u8]) -> io::Result<()> {
        Ok(sys::mkdirat(fd(at)?, name, Mode::from_raw_mode(0o700))?)
    }

    fn symlink(&self, at: &Handle, name: &[u8], target: &[u8]) -> io::Result<()> {
        Ok(sys::symlinkat(OsStr::from_bytes(target), fd(at)?, name)?)
    }

    fn set_mtime_at(&self, at: &Handle, name: &[u8], mtime: i64) -> io::Result<()> {
        Ok(sys::utimensat(fd(at)?, name, &times(mtime), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    fn set_mtime(&self, at: &Handle, mtime: i64) -> io::Result<()> {
        Ok(sys::futimens(fd(at)?, &times(mtime))?)
    }

    fn set_mode(&self, at: &Handle, mode: u32) -> io::Result<()> {
        Ok(sys::fchmod(fd(at)?, Mode::from_raw_mode(mode & 0o7777))?)
    }

    fn set_group_at(&self, at: &Handle, name: &[u8], gid: u32) -> io::Result<()> {
        let gid = Some(Gid::from_raw(gid));
        Ok(sys::chownat(fd(at)?, name, None, gid, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    fn set_owner_at(&self, at: &Handle, name: &[u8], uid: u32) -> io::Result<()> {
        let uid = Some(Uid::from_raw(uid));
        Ok(sys::chownat(fd(at)?, name, uid, None, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    fn attribute(&self, at: &Handle, which: Attribute) -> io::Result<Option<Vec<u8>>> {
        let mut value = vec![0; MOST_ATTRIBUTE];
        let read = sys::fgetxattr(fd(at)?, which.name(), &mut value);
        had(read, value)
    }

    fn attribute_at(
        &self,
        at: &Handle,
        name: &[u8],
        which: Attribute,
    ) -> io::Result<Option<Vec<u8>>> {
        let mut value = vec![0; MOST_ATTRIBUTE];
        let read = sys::lgetxattr(path_of(at, name)?, which.name(), &mut value);
        had(read, value)
    }

    fn set_attribute(&self, at: &Handle, which: Attribute, value: Option<&[u8]>) -> io::Result<()> {
        match value {
            Some(value) => Ok(sys::fsetxattr(fd(at)?, which.name(), value, XattrFlags::empty())?),
            None => match sys::fremovexattr(fd(at)?, which.name()) {
                Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
                other => Ok(other?),
            },
        }
    }

    fn set_attribute_at(
        &self,
        at: &Handle,
        name: &[u8],
        which: Attribute,
        value: &[u8],
    ) -> io::Result<()> {
        let path = path_of(at, name)?;
        Ok(sys::lsetxattr(path, which.name(), value, XattrFlags::empty())?)
    }

    fn read_at(&self, file: &Handle, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        loop {
            match rustix::io::pread(fd(file)?, &mut *into, offset) {
                Err(Errno::INTR) => {}
                other => return Ok(other?),
            }
        }
    }

    fn write_at(&self, file: &Handle, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match rustix::io::pwrite(fd(file)?, bytes, offset) {
                Err(Errno::INTR) => {}
                other => return Ok(other?),
            }
        }
    }

    fn set_len(&self, file: &Handle, len: u64) -> io::Result<()> {
        Ok(sys::ftruncate(fd(file)?, len)?)
    }

    fn clone_file(&self, from: &Handle, to: &Handle) -> io::Result<()> {
        Ok(sys::ioctl_ficlone(fd(to)?, fd(from)?)?)
    }

    fn sync(&self, at: &Handle) -> io::Result<()> {
        Ok(sys::fsync(fd(at)?)?)
    }

    fn sync_fs(&self, at: &Handle) -> io::Result<()> {
        Ok(sys::syncfs(fd(at)?)?)
    }

    fn try_lock(&self, file: &Handle) -> io::Result<bool> {
        match sys::flock(fd(file)?, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(true),
            Err(Errno::WOULDBLOCK) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    fn room(&self, at: &Handle) -> io::Result<Room> {
        let stat = sys::fstatvfs(fd(at)?)?;
        let inodes = (stat.f_files > 0).then_some(stat.f_favail);
        Ok(Room { bytes: stat.f_bavail.saturating_mul(stat.f_frsize), inodes })
    }
}

/// More than labels and access lists take.
const MOST_ATTRIBUTE: usize = 64 * 1024;

/// A name in an open directory as a path: there are no calls for attributes that take both. The
/// first part leads to the directory itself, wherever it lies by now, and nothing follows the name.
fn path_of(at: &Handle, name: &[u8]) -> io::Result<PathBuf> {
    let dir = format!("/proc/self/fd/{}", fd(at)?.as_raw_fd());
    Ok(Path::new(&dir).join(OsStr::from_bytes(name)))
}

fn had(read: rustix::io::Result<usize>, mut value: Vec<u8>) -> io::Result<Option<Vec<u8>>> {
    match read {
        Ok(len) => {
            value.truncate(len);
            Ok(Some(value))
        }
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

fn fd(handle: &Handle) -> io::Result<BorrowedFd<'_>> {
    match handle {
        Handle::Fd(fd) => Ok(fd.as_fd()),
        Handle::Inode(_) => Err(Errno::BADF.into()),
    }
}

fn statx(at: BorrowedFd<'_>, name: &[u8], flags: AtFlags) -> io::Result<Meta> {
    let flags = flags | AtFlags::NO_AUTOMOUNT;
    let stat = sys::statx(at, name, flags, StatxFlags::BASIC_STATS)?;
    let mode = u32::from(stat.stx_mode);
    let kind = match FileType::from_raw_mode(mode) {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Dir,
        FileType::Symlink => Kind::Symlink,
        _ => Kind::Special,
    };
    let nanoseconds = |time: sys::StatxTimestamp| {
        time.tv_sec.saturating_mul(1_000_000_000).saturating_add(i64::from(time.tv_nsec))
    };
    Ok(Meta {
        id: FileId { dev: sys::makedev(stat.stx_dev_major, stat.stx_dev_minor), ino: stat.stx_ino },
        kind,
        mode: mode & 0o7777,
        size: stat.stx_size,
        mtime: nanoseconds(stat.stx_mtime),
        ctime: nanoseconds(stat.stx_ctime),
        links: u64::from(stat.stx_nlink),
        uid: stat.stx_uid,
        gid: stat.stx_gid,
        mount_root: stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT),
    })
}

fn times(mtime: i64) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: sys::UTIME_OMIT },
        last_modification: Timespec {
            tv_sec: mtime.div_euclid(1_000_000_000),
            tv_nsec: mtime.rem_euclid(1_000_000_000),
        },
    }
}
