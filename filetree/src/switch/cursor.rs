//! Opens the directory of one path after another, keeping open what the next one shares.

use protocol::path::TreePath;
use rustix::io::Errno;

use crate::fs::{self, Dir};

/// A position in a tree. Paths in order cost one open per directory.
#[derive(Debug)]
pub(crate) struct Cursor {
    root: Dir,
    open: Vec<(TreePath, Dir)>,
    unlock: bool,
    /// Directories whose mode was changed to be able to work in them.
    pub(crate) unlocked: Vec<TreePath>,
}

impl Cursor {
    /// For looking.
    pub(crate) fn new(root: Dir) -> Self {
        Self { root, open: Vec::new(), unlock: false, unlocked: Vec::new() }
    }

    /// For changing: a directory that its own mode forbids us to work in is opened up, and named
    /// in `unlocked` so that its mode is set again. Makes no difference to root, which is the
    /// point: the same steps whoever runs them.
    pub(crate) fn unlocking(root: Dir) -> Self {
        Self { unlock: true, ..Self::new(root) }
    }

    pub(crate) fn root(&self) -> &Dir {
        &self.root
    }

    /// The directory that holds `path`; `None` where there is none (any more).
    pub(crate) fn parent(&mut self, path: &TreePath) -> fs::Result<Option<&Dir>> {
        match path.parent() {
            None => Ok(Some(&self.root)),
            Some(parent) => self.dir(&parent),
        }
    }

    /// The directory at `path`; `None` where there is none.
    pub(crate) fn dir(&mut self, path: &TreePath) -> fs::Result<Option<&Dir>> {
        while self.open.last().is_some_and(|(dir, _)| dir != path && !path.is_inside(dir)) {
            self.open.pop();
        }
        if self.open.last().is_none_or(|(dir, _)| dir != path) {
            let Some(dir) = self.open_below(path)? else { return Ok(None) };
            self.open.push((path.clone(), dir));
        }
        Ok(self.open.last().map(|(_, dir)| dir))
    }

    /// Forgets `path` and what is inside: it was replaced.
    pub(crate) fn forget(&mut self, path: &TreePath) {
        self.open.retain(|(dir, _)| dir != path && !dir.is_inside(path));
    }

    fn open_below(&mut self, path: &TreePath) -> fs::Result<Option<Dir>> {
        let opened = match self.open.last() {
            None => self.root.open_dir(path),
            Some((above, dir)) => {
                let below = &path.as_bytes()[above.as_bytes().len() + 1..];
                match TreePath::parse(below) {
                    Ok(below) => dir.open_dir(&below),
                    Err(_) => return Ok(None),
                }
            }
        };
        let dir = match opened {
            Ok(dir) => dir,
            Err(error) if is_no_directory(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        if self.unlock {
            let mode = dir.meta()?.mode;
            if mode & 0o700 != 0o700 {
                dir.set_mode(mode | 0o700)?;
                self.unlocked.push(path.clone());
            }
        }
        Ok(Some(dir))
    }
}

/// Whether an open failed because no directory is there, rather than because of the disk.
pub(crate) fn is_no_directory(error: &fs::Error) -> bool {
    let raw = error.source.raw_os_error();
    [Errno::NOENT, Errno::NOTDIR, Errno::LOOP].iter().any(|e| Some(e.raw_os_error()) == raw)
}
