//! What a file system must be able to do for us.
//!
//! Two things implement it: the kernel ([`super::disk`]) and a double in memory that can lose
//! power. Names given to a backend have been checked by [`crate::safe_path`]; counting and fail
//! points happen above it.

use std::{fmt, io, ops::ControlFlow, os::fd::OwnedFd, path::Path};

/// An open directory or file of some backend.
#[derive(Debug)]
pub enum Handle {
    /// A descriptor of the kernel.
    Fd(OwnedFd),
    /// An inode number of a double.
    Inode(u64),
}

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symlink.
    Symlink,
    /// A fifo, socket or device: never part of a tree.
    Special,
}

/// What makes two names the same object: its device and inode number.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
pub struct FileId {
    /// Device number, as `st_dev`.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
}

/// The attributes of one object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    /// Which object it is.
    pub id: FileId,
    /// What it is.
    pub kind: Kind,
    /// Permission bits, set-id and sticky bits included (`07777`).
    pub mode: u32,
    /// Length in bytes.
    pub size: u64,
    /// Modification time in nanoseconds since 1970.
    pub mtime: i64,
    /// Inode change time in nanoseconds since 1970.
    pub ctime: i64,
    /// How many names it has.
    pub links: u64,
    /// Owner.
    pub uid: u32,
    /// Owning group.
    pub gid: u32,
    /// Whether a file system is mounted here.
    pub mount_root: bool,
}

/// What an object carries beside its mode: an extended attribute of the system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Attribute {
    /// The SELinux label.
    Label,
    /// Access for further users and groups.
    Acl,
    /// What new objects in a directory get of that.
    DefaultAcl,
}

impl Attribute {
    /// The name by which file systems know it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Label => "security.selinux",
            Self::Acl => "system.posix_acl_access",
            Self::DefaultAcl => "system.posix_acl_default",
        }
    }
}

/// One line of a directory listing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirEntry {
    /// The name: one component, any bytes.
    pub name: Box<[u8]>,
    /// Whether it is a directory, where the file system tells without a further question.
    pub is_dir: Option<bool>,
}

/// Free room of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Bytes that this process may still write.
    pub bytes: u64,
    /// Inodes left; `None` where the file system does not limit them.
    pub inodes: Option<u64>,
}

/// The operations of a file system. `name` is always one checked component.
pub trait Backend: fmt::Debug + Send + Sync {
    /// Opens a directory by an absolute path that an admin configured; symlinks are followed.
    fn open_root(&self, path: &Path) -> io::Result<Handle>;
    /// Makes the directories of `path` that are missing (mode 0755).
    fn create_root(&self, path: &Path) -> io::Result<()>;
    /// Opens the directory `path` (components joined by `/`) below `at`, never through a symlink.
    fn open_dir(&self, at: &Handle, path: &[u8]) -> io::Result<Handle>;
    /// Opens a regular file for reading; a symlink or anything else is refused.
    fn open_file(&self, at: &Handle, name: &[u8]) -> io::Result<Handle>;
    /// Makes a file (mode 0600) that must not exist, open for reading and writing.
    fn create_file(&self, at: &Handle, name: &[u8]) -> io::Result<Handle>;
    /// Lists a directory, without `.` and `..`, in no order.
    fn entries(&self, at: &Handle) -> io::Result<Vec<DirEntry>>;
    /// Passes the names in a directory, in no order, until `take` has had enough.
    fn names(&self, at: &Handle, take: &mut dyn FnMut(&[u8]) -> ControlFlow<()>) -> io::Result<()> {
        for entry in self.entries(at)? {
            if take(&entry.name).is_break() {
                break;
            }
        }
        Ok(())
    }
    /// Attributes of an open object.
    fn stat(&self, at: &Handle) -> io::Result<Meta>;
    /// Attributes of a name; a symlink is not followed.
    fn stat_at(&self, at: &Handle, name: &[u8]) -> io::Result<Meta>;
    /// The text of a symlink.
    fn read_link(&self, at: &Handle, name: &[u8]) -> io::Result<Vec<u8>>;
    /// Makes another name for a file or symlink.
    fn link(&self, at: &Handle, name: &[u8], to: &Handle, to_name: &[u8]) -> io::Result<()>;
    /// Moves a name, replacing a non-directory.
    fn rename(&self, at: &Handle, name: &[u8], to: &Handle, to_name: &[u8]) -> io::Result<()>;
    /// Moves a name to where nothing may be.
    fn rename_new(&self, at: &Handle, name: &[u8], to: &Handle, to_name: &[u8]) -> io::Result<()>;
    /// Swaps two names, atomically.
    fn exchange(&self, at: &Handle, name: &[u8], to: &Handle, to_name: &[u8]) -> io::Result<()>;
    /// Removes a non-directory.
    fn unlink(&self, at: &Handle, name: &[u8]) -> io::Result<()>;
    /// Removes an empty directory.
    fn remove_dir(&self, at: &Handle, name: &[u8]) -> io::Result<()>;
    /// Makes a directory (mode 0700).
    fn make_dir(&self, at: &Handle, name: &[u8]) -> io::Result<()>;
    /// Makes a symlink.
    fn symlink(&self, at: &Handle, name: &[u8], target: &[u8]) -> io::Result<()>;
    /// Sets the modification time of a name; a symlink's own.
    fn set_mtime_at(&self, at: &Handle, name: &[u8], mtime: i64) -> io::Result<()>;
    /// Sets the modification time of an open object.
    fn set_mtime(&self, at: &Handle, mtime: i64) -> io::Result<()>;
    /// Sets the permission bits of an open object; the umask does not apply.
    fn set_mode(&self, at: &Handle, mode: u32) -> io::Result<()>;
    /// Sets the owning group of a name; a symlink's own.
    fn set_group_at(&self, at: &Handle, name: &[u8], gid: u32) -> io::Result<()>;
    /// Sets the owner of a name; a symlink's own.
    fn set_owner_at(&self, at: &Handle, name: &[u8], uid: u32) -> io::Result<()>;
    /// An attribute of an open object; `None` where it has none, or the file system knows none.
    fn attribute(&self, at: &Handle, which: Attribute) -> io::Result<Option<Vec<u8>>>;
    /// An attribute of a name; a symlink's own.
    fn attribute_at(
        &self,
        at: &Handle,
        name: &[u8],
        which: Attribute,
    ) -> io::Result<Option<Vec<u8>>>;
    /// Sets an attribute of an open object, or takes it away.
    fn set_attribute(&self, at: &Handle, which: Attribute, value: Option<&[u8]>) -> io::Result<()>;
    /// Sets an attribute of a name; a symlink's own.
    fn set_attribute_at(
        &self,
        at: &Handle,
        name: &[u8],
        which: Attribute,
        value: &[u8],
    ) -> io::Result<()>;
    /// Reads bytes at an offset; 0 is the end.
    fn read_at(&self, file: &Handle, offset: u64, into: &mut [u8]) -> io::Result<usize>;
    /// Writes some of the bytes at an offset and says how many.
    fn write_at(&self, file: &Handle, offset: u64, bytes: &[u8]) -> io::Result<usize>;
    /// Sets the length.
    fn set_len(&self, file: &Handle, len: u64) -> io::Result<()>;
    /// Makes the empty file `to` share all blocks of `from`.
    fn clone_file(&self, from: &Handle, to: &Handle) -> io::Result<()>;
    /// Makes a file's content and attributes, or a directory's names, durable.
    fn sync(&self, at: &Handle) -> io::Result<()>;
    /// Makes everything on the handle's file system durable, and reports write errors.
    fn sync_fs(&self, at: &Handle) -> io::Result<()>;
    /// Takes an exclusive lock on an open file for as long as the handle lives; `false` when
    /// another process has it.
    fn try_lock(&self, file: &Handle) -> io::Result<bool>;
    /// Free room of the handle's file system.
    fn room(&self, at: &Handle) -> io::Result<Room>;
}
