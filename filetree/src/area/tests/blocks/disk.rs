//! A block device whose every write and flush is known, so that it can be shown again as a loss of
//! power at any moment would have left it.
//!
//! It is the file of a FUSE file system of our own, with a loop device above it: the file systems of
//! the kernel run on it unchanged. A disk that was put together from a base and some of the logged
//! writes is a plain file in memory, which the kernel reads without asking us.

use std::{
    collections::HashMap,
    ffi::OsStr,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem,
    Generation, INodeNo, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry,
    ReplyWrite, Request, TimeOrNow, WriteFlags,
};

const PAGE: usize = 4096;
/// Nothing changes behind the kernel's back: a file is never shown with two contents.
const TTL: Duration = Duration::from_secs(3600);

/// The content of a disk: pages that are not there read as zeros.
#[derive(Debug, Clone, Default)]
pub(super) struct Image(HashMap<u64, Arc<[u8; PAGE]>>);

impl Image {
    fn read(&self, offset: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let mut done = 0;
        while done < len {
            let at = offset + done as u64;
            let within = (at % PAGE as u64) as usize;
            let part = (PAGE - within).min(len - done);
            if let Some(page) = self.0.get(&(at / PAGE as u64)) {
                bytes[done..done + part].copy_from_slice(&page[within..within + part]);
            }
            done += part;
        }
        bytes
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        let mut done = 0;
        while done < bytes.len() {
            let at = offset + done as u64;
            let within = (at % PAGE as u64) as usize;
            let part = (PAGE - within).min(bytes.len() - done);
            let page = self.0.entry(at / PAGE as u64).or_insert_with(|| Arc::new([0; PAGE]));
            Arc::make_mut(page)[within..within + part].copy_from_slice(&bytes[done..done + part]);
            done += part;
        }
    }
}

/// What reached the disk.
#[derive(Debug, Clone)]
pub(super) enum Event {
    Write(u64, Arc<[u8]>),
    /// Everything before is on the medium.
    Flush,
}

#[derive(Debug, Default)]
struct State {
    size: u64,
    disk: Image,
    log: Option<Vec<Event>>,
}

#[derive(Debug, Clone)]
struct Server(Arc<Mutex<State>>);

/// A directory in which disks appear.
pub(super) struct Disks {
    state: Server,
    session: Option<BackgroundSession>,
    dir: PathBuf,
    /// Where disks are shown.
    shown: tempfile::TempDir,
}

impl Server {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn attributes(&self, inode: u64) -> Option<FileAttr> {
        let state = self.lock();
        let is_dir = inode == INodeNo::ROOT.0;
        if !is_dir && inode != Disks::INODE {
            return None;
        }
        Some(FileAttr {
            ino: INodeNo(inode),
            size: if is_dir { 0 } else { state.size },
            blocks: if is_dir { 0 } else { state.size / 512 },
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if is_dir { FileType::Directory } else { FileType::RegularFile },
            perm: 0o700,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            flags: 0,
            blksize: PAGE as u32,
        })
    }
}

impl Filesystem for Server {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.attributes(Disks::INODE).filter(|_| name == Disks::NAME) {
            Some(attributes) => reply.entry(&TTL, &attributes, Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(inode.0) {
            Some(attributes) => reply.attr(&TTL, &attributes),
            None => reply.error(Errno::ENOENT),
        }
    }

    /// A disk keeps its size, whatever a program that makes a file system tries.
    fn setattr(
        &self,
        _: &Request,
        inode: INodeNo,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        match self.attributes(inode.0) {
            Some(attributes) => reply.attr(&TTL, &attributes),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn read(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let state = self.lock();
        let len = state.size.saturating_sub(offset).min(u64::from(size)) as usize;
        match inode.0 {
            Disks::INODE => reply.data(&state.disk.read(offset, len)),
            _ => reply.error(Errno::ENOENT),
        }
    }

    fn write(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut state = self.lock();
        if inode.0 != Disks::INODE {
            return reply.error(Errno::ENOENT);
        }
        state.disk.write(offset, data);
        if let Some(log) = &mut state.log {
            log.push(Event::Write(offset, data.into()));
        }
        reply.written(data.len() as u32);
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        if let Some(log) = &mut self.lock().log {
            log.push(Event::Flush);
        }
        reply.ok();
    }
}

impl Disks {
    const INODE: u64 = 2;
    const NAME: &str = "disk";

    /// A disk of this size; an error where this machine has no FUSE for us.
    pub(super) fn new(dir: &Path, size: u64) -> io::Result<Self> {
        let state = State { size, disk: Image::default(), log: None };
        let state = Server(Arc::new(Mutex::new(state)));
        let memory = Path::new("/dev/shm");
        let shown = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let shown = tempfile::tempdir_in(shown)?;
        let session = fuser::spawn_mount(state.clone(), dir, &Config::default())?;
        Ok(Self { state, session: Some(session), dir: dir.to_owned(), shown })
    }

    /// The file of the disk that is logged.
    pub(super) fn first(&self) -> PathBuf {
        self.dir.join(Self::NAME)
    }

    /// Begins a log; gives the disk as it is now.
    pub(super) fn record(&self) -> Image {
        let mut state = self.state.lock();
        state.log = Some(Vec::new());
        state.disk.clone()
    }

    /// How long the log is.
    pub(super) fn recorded(&self) -> usize {
        self.state.lock().log.as_ref().map_or(0, Vec::len)
    }

    /// Ends the log.
    pub(super) fn events(&self) -> Vec<Event> {
        self.state.lock().log.take().unwrap_or_default()
    }

    /// Shows a disk with this content.
    pub(super) fn show(&self, image: &Image) -> io::Result<tempfile::TempPath> {
        let mut file = tempfile::NamedTempFile::new_in(self.shown.path())?;
        file.as_file_mut().set_len(self.state.lock().size)?;
        for (number, page) in &image.0 {
            file.as_file().write_all_at(&page[..], number * PAGE as u64)?;
        }
        Ok(file.into_temp_path())
    }
}

impl Drop for Disks {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            let _ = session.umount_and_join();
        }
    }
}

/// A mounted file system; it is unmounted with the value.
pub(super) struct Mounted(PathBuf);

impl Mounted {
    pub(super) fn new(file: &Path, kind: &str, at: &Path) -> Result<Self, String> {
        let options = match kind {
            // Two mounts of one file system with one identity, one after the other.
            "xfs" => "loop,nouuid",
            _ => "loop",
        };
        let made =
            Command::new("mount").args(["-t", kind, "-o", options]).arg(file).arg(at).output();
        match made {
            Ok(made) if made.status.success() => Ok(Self(at.to_owned())),
            Ok(made) => Err(String::from_utf8_lossy(&made.stderr).trim().to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        for lazy in [false, false, true] {
            let mut umount = Command::new("umount");
            if lazy {
                umount.arg("--lazy");
            }
            if umount.arg(&self.0).output().is_ok_and(|done| done.status.success()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
