//! Open directories and files.

use std::{
    ffi::OsStr,
    io::{self, ErrorKind},
    ops::ControlFlow,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use protocol::path::TreePath;

use super::{Attribute, DirEntry, Error, Fs, Handle, Meta, Op, Result, Room};
use crate::safe_path;

/// How much a plain copy moves at once.
const COPY_BYTES: usize = 256 * 1024;
/// So much of each file is copied first.
const FIRST_COPY_BYTES: usize = 16 * 1024;

/// An open directory: the only place from which names are reached.
///
/// Every `name` is one component ([`safe_path::is_component`]); anything else is an error, never
/// a path.
#[derive(Debug)]
pub struct Dir {
    fs: Fs,
    handle: Handle,
    path: Arc<Path>,
}

impl Dir {
    pub(super) fn new(fs: Fs, handle: Handle, path: Arc<Path>) -> Self {
        Self { fs, handle, path }
    }

    /// Where the directory was when it was opened; for messages only.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file system it lies on.
    pub fn fs(&self) -> &Fs {
        &self.fs
    }

    /// Opens a directory below this one; a symlink on the way is an error.
    #[track_caller]
    pub fn open_dir(&self, path: &TreePath) -> Result<Dir> {
        self.open(path.as_bytes())
    }

    /// Opens the directory `name` in this one; a symlink is an error.
    #[track_caller]
    pub fn open_child(&self, name: &[u8]) -> Result<Dir> {
        self.named(Op::OpenDir, name, |_| Ok(()))?;
        self.open(name)
    }

    /// Opens the directory that holds `path`: this one, or one below it.
    #[track_caller]
    pub fn open_parent(&self, path: &TreePath) -> Result<Dir> {
        match path.parent() {
            Some(parent) => self.open_dir(&parent),
            None => self.open(b"."),
        }
    }

    /// Opens this directory once more.
    #[track_caller]
    pub fn reopen(&self) -> Result<Dir> {
        self.open(b".")
    }

    #[track_caller]
    fn open(&self, path: &[u8]) -> Result<Dir> {
        let at = || self.join(path);
        let handle = self.fs.run(Op::OpenDir, at, |b| b.open_dir(&self.handle, path))?;
        Ok(Dir::new(self.fs.clone(), handle, at().into()))
    }

    /// Opens a regular file for reading. A symlink, and anything that is not a file, is an error.
    #[track_caller]
    pub fn open_file(&self, name: &[u8]) -> Result<File> {
        let handle = self.named(Op::OpenFile, name, |b| b.open_file(&self.handle, name))?;
        Ok(File { fs: self.fs.clone(), handle, path: self.join(name) })
    }

    /// Makes a file (mode 0600) where nothing is, open for reading and writing.
    #[track_caller]
    pub fn create_file(&self, name: &[u8]) -> Result<File> {
        let handle = self.named(Op::Create, name, |b| b.create_file(&self.handle, name))?;
        Ok(File { fs: self.fs.clone(), handle, path: self.join(name) })
    }

    /// Every name in this directory, sorted as [`TreePath`]s are.
    #[track_caller]
    pub fn entries(&self) -> Result<Vec<DirEntry>> {
        let at = || self.path.to_path_buf();
        let mut entries = self.fs.run(Op::ReadDir, at, |b| b.entries(&self.handle))?;
        entries.sort_unstable();
        Ok(entries)
    }

    /// Passes every name in this directory, in no order, until `take` has had enough: for directories
    /// that may have more names than are well held in memory.
    #[track_caller]
    pub fn names(&self, mut take: impl FnMut(&[u8]) -> ControlFlow<()>) -> Result<()> {
        let at = || self.path.to_path_buf();
        self.fs.run(Op::ReadDir, at, |b| b.names(&self.handle, &mut take))
    }

    /// The attributes of this directory.
    #[track_caller]
    pub fn meta(&self) -> Result<Meta> {
        self.fs.run(Op::Stat, || self.path.to_path_buf(), |b| b.stat(&self.handle))
    }

    /// The attributes of `name` (of a symlink itself); `None` where nothing has that name.
    #[track_caller]
    pub fn stat(&self, name: &[u8]) -> Result<Option<Meta>> {
        match self.named(Op::Stat, name, |b| b.stat_at(&self.handle, name)) {
            Ok(meta) => Ok(Some(meta)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Where the symlink `name` points, as bytes.
    #[track_caller]
    pub fn read_link(&self, name: &[u8]) -> Result<Vec<u8>> {
        self.named(Op::ReadLink, name, |b| b.read_link(&self.handle, name))
    }

    /// Gives the file `name` another name; nothing may have that yet.
    #[track_caller]
    pub fn link(&self, name: &[u8], to: &Dir, to_name: &[u8]) -> Result<()> {
        self.named_two(Op::Link, name, to, to_name, |b| {
            b.link(&self.handle, name, &to.handle, to_name)
        })
    }

    /// Moves `name`, replacing a non-directory that is there.
    #[track_caller]
    pub fn rename(&self, name: &[u8], to: &Dir, to_name: &[u8]) -> Result<()> {
        self.named_two(Op::Rename, name, to, to_name, |b| {
            b.rename(&self.handle, name, &to.handle, to_name)
        })
    }

    /// Moves `name` to where nothing is.
    #[track_caller]
    pub fn rename_new(&self, name: &[u8], to: &Dir, to_name: &[u8]) -> Result<()> {
        self.named_two(Op::RenameNew, name, to, to_name, |b| {
            b.rename_new(&self.handle, name, &to.handle, to_name)
        })
    }

    /// Swaps two names in one step that no reader can see half of.
    #[track_caller]
    pub fn exchange(&self, name: &[u8], with: &Dir, with_name: &[u8]) -> Result<()> {
        self.named_two(Op::Exchange, name, with, with_name, |b| {
            b.exchange(&self.handle, name, &with.handle, with_name)
        })
    }

    /// Removes a name that is not a directory's.
    #[track_caller]
    pub fn unlink(&self, name: &[u8]) -> Result<()> {
        self.named(Op::Unlink, name, |b| b.unlink(&self.handle, name))
    }

    /// Removes an empty directory.
    #[track_caller]
    pub fn remove_dir(&self, name: &[u8]) -> Result<()> {
        self.named(Op::RemoveDir, name, |b| b.remove_dir(&self.handle, name))
    }

    /// Makes a directory that only its owner may use, until [`Dir::set_mode`] says otherwise.
    #[track_caller]
    pub fn make_dir(&self, name: &[u8]) -> Result<Dir> {
        self.named(Op::MakeDir, name, |b| b.make_dir(&self.handle, name))?;
        let dir = self.open(name)?;
        // An umask that takes the owner's own bits away would lock us out.
        if dir.meta()?.mode & 0o777 != 0o700 {
            dir.set_mode(0o700)?;
        }
        Ok(dir)
    }

    /// Opens the directory `name`, and makes it first where it is missing.
    #[track_caller]
    pub fn ensure_dir(&self, name: &[u8], mode: u32) -> Result<Dir> {
        match self.open_child(name) {
            Err(error) if error.is_not_found() => match self.make_dir(name) {
                Ok(dir) => {
                    dir.set_mode(mode)?;
                    self.sync()?;
                    Ok(dir)
                }
                // Another was faster: the directory is there, which is all that was wanted.
                Err(error) if error.is_already_there() => self.open_child(name),
                Err(error) => Err(error),
            },
            other => other,
        }
    }

    /// Makes a symlink; the target is any bytes, nothing is resolved.
    #[track_caller]
    pub fn symlink(&self, name: &[u8], target: &[u8]) -> Result<()> {
        self.named(Op::Symlink, name, |b| b.symlink(&self.handle, name, target))
    }

    /// Sets the modification time (ns since 1970) of `name`; a symlink's own.
    #[track_caller]
    pub fn set_mtime_of(&self, name: &[u8], mtime: i64) -> Result<()> {
        self.named(Op::SetMtime, name, |b| b.set_mtime_at(&self.handle, name, mtime))
    }

    /// Sets the group of `name`; a symlink's own.
    #[track_caller]
    pub fn set_group_of(&self, name: &[u8], gid: u32) -> Result<()> {
        self.named(Op::SetGroup, name, |b| b.set_group_at(&self.handle, name, gid))
    }

    /// Sets the owner of `name`; a symlink's own.
    #[track_caller]
    pub fn set_owner_of(&self, name: &[u8], uid: u32) -> Result<()> {
        self.named(Op::SetOwner, name, |b| b.set_owner_at(&self.handle, name, uid))
    }

    /// An attribute of this directory, as the file system keeps it.
    #[track_caller]
    pub fn attribute(&self, which: Attribute) -> Result<Option<Vec<u8>>> {
        let at = || self.path.to_path_buf();
        self.fs.run(Op::GetAttribute, at, |b| b.attribute(&self.handle, which))
    }

    /// An attribute of `name`; a symlink's own.
    #[track_caller]
    pub fn attribute_of(&self, name: &[u8], which: Attribute) -> Result<Option<Vec<u8>>> {
        self.named(Op::GetAttribute, name, |b| b.attribute_at(&self.handle, name, which))
    }

    /// Sets an attribute of this directory, or takes it away.
    #[track_caller]
    pub fn set_attribute(&self, which: Attribute, value: Option<&[u8]>) -> Result<()> {
        let at = || self.path.to_path_buf();
        self.fs.run(Op::SetAttribute, at, |b| b.set_attribute(&self.handle, which, value))
    }

    /// Sets an attribute of `name`; a symlink's own.
    #[track_caller]
    pub fn set_attribute_of(&self, name: &[u8], which: Attribute, value: &[u8]) -> Result<()> {
        self.named(Op::SetAttribute, name, |b| b.set_attribute_at(&self.handle, name, which, value))
    }

    /// Sets this directory's modification time (ns since 1970).
    #[track_caller]
    pub fn set_mtime(&self, mtime: i64) -> Result<()> {
        let at = || self.path.to_path_buf();
        self.fs.run(Op::SetMtime, at, |b| b.set_mtime(&self.handle, mtime))
    }

    /// Sets this directory's permission bits.
    #[track_caller]
    pub fn set_mode(&self, mode: u32) -> Result<()> {
        let at = || self.path.to_path_buf();
        self.fs.run(Op::SetMode, at, |b| b.set_mode(&self.handle, mode))
    }

    /// Makes the names in this directory durable.
    #[track_caller]
    pub fn sync(&self) -> Result<()> {
        self.fs.run(Op::SyncDir, || self.path.to_path_buf(), |b| b.sync(&self.handle))
    }

    /// Makes everything on this file system durable; reports write errors since it was opened.
    #[track_caller]
    pub fn sync_fs(&self) -> Result<()> {
        self.fs.run(Op::SyncFs, || self.path.to_path_buf(), |b| b.sync_fs(&self.handle))
    }

    /// Free room of this file system.
    #[track_caller]
    pub fn room(&self) -> Result<Room> {
        self.fs.run(Op::Stat, || self.path.to_path_buf(), |b| b.room(&self.handle))
    }

    fn join(&self, name: &[u8]) -> PathBuf {
        match name {
            b"." => self.path.to_path_buf(),
            _ => self.path.join(OsStr::from_bytes(name)),
        }
    }

    #[track_caller]
    fn named<T>(
        &self,
        op: Op,
        name: &[u8],
        act: impl FnOnce(&dyn super::Backend) -> io::Result<T>,
    ) -> Result<T> {
        let path = || self.join(name);
        if !safe_path::is_component(name) {
            let source = io::Error::new(ErrorKind::InvalidInput, "not the name of one entry");
            return Err(Error { op, path: path(), source });
        }
        self.fs.run(op, path, act)
    }

    #[track_caller]
    fn named_two(
        &self,
        op: Op,
        name: &[u8],
        to: &Dir,
        to_name: &[u8],
        act: impl FnOnce(&dyn super::Backend) -> io::Result<()>,
    ) -> Result<()> {
        if !safe_path::is_component(name) {
            return self.named(op, name, |_| Ok(()));
        }
        to.named(op, to_name, act)
    }
}

/// An open regular file.
#[derive(Debug)]
pub struct File {
    fs: Fs,
    handle: Handle,
    path: PathBuf,
}

impl File {
    /// Where the file was when it was opened; for messages only.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its attributes.
    #[track_caller]
    pub fn meta(&self) -> Result<Meta> {
        self.run(Op::Stat, |b, h| b.stat(h))
    }

    /// Fills as much of `into` as there is from `offset` on, and says how much that was.
    #[track_caller]
    pub fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<usize> {
        let mut done = 0;
        while done < into.len() {
            let rest = &mut into[done..];
            match self.run(Op::Read, |b, h| b.read_at(h, offset + done as u64, rest))? {
                0 => break,
                read => done += read,
            }
        }
        Ok(done)
    }

    /// Reads everything from the start on, as [`io::Read`].
    pub fn reader(&self) -> Reader<'_> {
        Reader { file: self, offset: 0 }
    }

    /// Writes all of `bytes` at `offset`.
    #[track_caller]
    pub fn write_at(&self, mut offset: u64, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let written = self.fs.run_shortened(
                Op::Write,
                || self.path.clone(),
                |b, short| {
                    let most = if short { bytes.len().div_ceil(2) } else { bytes.len() };
                    b.write_at(&self.handle, offset, &bytes[..most])
                },
            )?;
            if written == 0 {
                let source = ErrorKind::WriteZero.into();
                return Err(Error { op: Op::Write, path: self.path.clone(), source });
            }
            bytes = &bytes[written..];
            offset += written as u64;
        }
        Ok(())
    }

    /// Sets the length; what is added reads as zeros and takes no room.
    #[track_caller]
    pub fn set_len(&self, len: u64) -> Result<()> {
        self.run(Op::SetLen, |b, h| b.set_len(h, len))
    }

    /// Makes this empty file hold what `from` holds: by sharing its blocks where the file system
    /// can, else by copying. `copied` is shown the bytes that are copied, in order.
    ///
    /// # Returns
    /// Whether blocks are shared, so that nothing was shown.
    #[track_caller]
    pub fn fill_from(&self, from: &File, copied: &mut dyn FnMut(&[u8])) -> Result<bool> {
        if self.run(Op::Clone, |b, h| b.clone_file(&from.handle, h)).is_ok() {
            return Ok(true);
        }
        // Most files are small, and there may be a million.
        let mut buffer = vec![0; FIRST_COPY_BYTES];
        let mut offset = 0;
        loop {
            let read = from.read_at(offset, &mut buffer)?;
            if read == 0 {
                return Ok(false);
            }
            copied(&buffer[..read]);
            self.write_at(offset, &buffer[..read])?;
            offset += read as u64;
            if read == buffer.len() {
                buffer.resize(COPY_BYTES, 0);
            }
        }
    }

    /// Sets the permission bits.
    #[track_caller]
    pub fn set_mode(&self, mode: u32) -> Result<()> {
        self.run(Op::SetMode, |b, h| b.set_mode(h, mode))
    }

    /// Sets the modification time (ns since 1970).
    #[track_caller]
    pub fn set_mtime(&self, mtime: i64) -> Result<()> {
        self.run(Op::SetMtime, |b, h| b.set_mtime(h, mtime))
    }

    /// Makes content and attributes durable (not the name: that is its directory's).
    #[track_caller]
    pub fn sync(&self) -> Result<()> {
        self.run(Op::SyncFile, |b, h| b.sync(h))
    }

    /// Takes an exclusive lock that lives as long as this file is open; `false` when someone else
    /// has it.
    #[track_caller]
    pub fn try_lock(&self) -> Result<bool> {
        self.run(Op::OpenFile, |b, h| b.try_lock(h))
    }

    /// The descriptor as the standard library's file; `None` for a double.
    pub fn into_std(self) -> Option<std::fs::File> {
        match self.handle {
            Handle::Fd(fd) => Some(fd.into()),
            Handle::Inode(_) => None,
        }
    }

    #[track_caller]
    fn run<T>(
        &self,
        op: Op,
        act: impl FnOnce(&dyn super::Backend, &Handle) -> io::Result<T>,
    ) -> Result<T> {
        self.fs.run(op, || self.path.clone(), |b| act(b, &self.handle))
    }
}

/// Reads a [`File`] from its start; made by [`File::reader`].
#[derive(Debug)]
pub struct Reader<'a> {
    file: &'a File,
    offset: u64,
}

impl io::Read for Reader<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.file.run(Op::Read, |b, h| b.read_at(h, self.offset, into));
        let read = read.map_err(|error| error.source)?;
        self.offset += read as u64;
        Ok(read)
    }
}
