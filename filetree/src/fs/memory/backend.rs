//! The disk as the layer above uses it: every change is remembered until it is synced.

use std::{collections::BTreeMap, io, path::Path};

use rustix::io::Errno;

use super::{Body, Change, MemoryDisk, ROOT, components};
use crate::fs::backend::{Attribute, Backend, DirEntry, Handle, Kind, Meta, Room};

impl Backend for MemoryDisk {
    fn open_root(&self, path: &Path) -> io::Result<Handle> {
        let state = self.state();
        let mut at = ROOT;
        let mut names: Vec<Vec<u8>> = components(path).map(<[u8]>::to_vec).collect();
        names.reverse();
        let mut links = 0;
        while let Some(name) = names.pop() {
            let next = state.now.lookup(at, &name)?;
            match state.now.0.get(&next).map(|inode| &inode.body) {
                Some(Body::Symlink(target)) if links < 40 => {
                    links += 1;
                    let target = target.split(|&b| b == b'/').rev().filter(|name| !name.is_empty());
                    names.extend(target.map(<[u8]>::to_vec));
                }
                _ => at = next,
            }
        }
        Ok(Handle::Inode(at))
    }

    fn create_root(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        let mut at = ROOT;
        for name in components(path) {
            at = match state.now.lookup(at, name) {
                Ok(below) => below,
                Err(_) => {
                    let made = state.make(Body::Dir(BTreeMap::new()), 0o755);
                    state.act(Change::Names(vec![(at, name.to_vec(), Some(made))]));
                    made
                }
            };
        }
        state.flush(None);
        Ok(())
    }

    fn open_dir(&self, at: &Handle, path: &[u8]) -> io::Result<Handle> {
        let state = self.state();
        let mut at = id(at)?;
        for name in path.split(|&b| b == b'/').filter(|name| *name != b".") {
            at = state.now.lookup(at, name)?;
        }
        state.now.dir(at)?;
        Ok(Handle::Inode(at))
    }

    fn open_file(&self, at: &Handle, name: &[u8]) -> io::Result<Handle> {
        let state = self.state();
        let at = state.now.lookup(id(at)?, name)?;
        match state.meta(at)?.kind {
            Kind::File => Ok(Handle::Inode(at)),
            _ => Err(Errno::INVAL.into()),
        }
    }

    fn create_file(&self, at: &Handle, name: &[u8]) -> io::Result<Handle> {
        let mut state = self.state();
        let dir = id(at)?;
        state.free(dir, name)?;
        let made = state.make(Body::File(Vec::new()), 0o600);
        state.act(Change::Names(vec![(dir, name.to_vec(), Some(made))]));
        Ok(Handle::Inode(made))
    }

    fn entries(&self, at: &Handle) -> io::Result<Vec<DirEntry>> {
        let state = self.state();
        let entry = |(name, at): (&Vec<u8>, &u64)| DirEntry {
            name: name.as_slice().into(),
            is_dir: Some(state.now.is_dir(*at)),
        };
        Ok(state.now.dir(id(at)?)?.iter().map(entry).collect())
    }

    fn stat(&self, at: &Handle) -> io::Result<Meta> {
        self.state().meta(id(at)?)
    }

    fn stat_at(&self, at: &Handle, name: &[u8]) -> io::Result<Meta> {
        let state = self.state();
        state.meta(state.now.lookup(id(at)?, name)?)
    }

    fn read_link(&self, at: &Handle, name: &[u8]) -> io::Result<Vec<u8>> {
        let state = self.state();
        match &state.now.0.get(&state.now.lookup(id(at)?, name)?).map(|inode| &inode.body) {
            Some(Body::Symlink(target)) => Ok(target.clone()),
            _ => Err(Errno::INVAL.into()),
        }
    }

    fn link(&self, at: &Handle, name: &[u8], to: &Handle, to_name: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        let linked = state.now.lookup(id(at)?, name)?;
        state.free(id(to)?, to_name)?;
        if state.most_links.is_some_and(|most| state.now.names_of(linked) >= most) {
            return Err(Errno::MLINK.into());
        }
        state.act(Change::Names(vec![(id(to)?, to_name.to_vec(), Some(linked))]));
        Ok(())
    }

    fn rename(&self, at: &Handle, name: &[u8], to: &Handle, to_name: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        let moved = state.now.lookup(id(at)?, name)?;
        match state.now.lookup(id(to)?, to_name) {
            // As the kernel does: two names of one file, nothing happens.
            Ok(there) if there == moved => return Ok(()),
            Ok(there) if state.now.is_dir(there) => return Err(Errno::ISDIR.into()),
            _ => {}
        }
        state.act(Change::Names(vec![
            (id(at)?, name.to_vec(), None),
            (id(to)?, to_name.to_vec(), Some(moved)),
        ]));
        Ok(())
    }

    fn rename_new(&self, at: &Handle, name: &[u8], to: &Handle, to_name: &[u8]) -> io::Result<()> {
        self.state().free(id(to)?, to_name)?;
        self.rename(at, name, to, to_name)
    }

    fn exchange(&self, at: &Handle, name: &[u8], to: &Handle, to_name: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        let (one, two) = (state.now.lookup(id(at)?, name)?, state.now.lookup(id(to)?, to_name)?);
        state.act(Change::Names(vec![
            (id(at)?, name.to_vec(), Some(two)),
            (id(to)?, to_name.to_vec(), Some(one)),
        ]));
        Ok(())
    }

    fn unlink(&self, at: &Handle, name: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        if state.now.is_dir(state.now.lookup(id(at)?, name)?) {
            return Err(Errno::ISDIR.into());
        }
        state.act(Change::Names(vec![(id(at)?, name.to_vec(), None)]));
        Ok(())
    }

    fn remove_dir(&self, at: &Handle, name: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        let there = state.now.lookup(id(at)?, name)?;
        if !state.now.dir(there)?.is_empty() {
            return Err(Errno::NOTEMPTY.into());
        }
        state.act(Change::Names(vec![(id(at)?, name.to_vec(), None)]));
        Ok(())
    }

    fn make_dir(&self, at: &Handle, name: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        let dir = id(at)?;
        state.free(dir, name)?;
        let made = state.make(Body::Dir(BTreeMap::new()), 0o700);
        state.act(Change::Names(vec![(dir, name.to_vec(), Some(made))]));
        Ok(())
    }

    fn symlink(&self, at: &Handle, name: &[u8], target: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        let dir = id(at)?;
        state.free(dir, name)?;
        let made = state.make(Body::Symlink(target.to_vec()), 0o777);
        state.act(Change::Names(vec![(dir, name.to_vec(), Some(made))]));
        Ok(())
    }

    fn set_mtime_at(&self, at: &Handle, name: &[u8], mtime: i64) -> io::Result<()> {
        let mut state = self.state();
        let there = state.now.lookup(id(at)?, name)?;
        state.act(Change::Mtime(there, mtime));
        Ok(())
    }

    fn set_mtime(&self, at: &Handle, mtime: i64) -> io::Result<()> {
        self.state().act(Change::Mtime(id(at)?, mtime));
        Ok(())
    }

    fn set_mode(&self, at: &Handle, mode: u32) -> io::Result<()> {
        self.state().act(Change::Mode(id(at)?, mode));
        Ok(())
    }

    fn set_group_at(&self, at: &Handle, name: &[u8], gid: u32) -> io::Result<()> {
        let mut state = self.state();
        let there = state.now.lookup(id(at)?, name)?;
        state.act(Change::Group(there, gid));
        Ok(())
    }

    fn set_owner_at(&self, at: &Handle, name: &[u8], uid: u32) -> io::Result<()> {
        let mut state = self.state();
        let there = state.now.lookup(id(at)?, name)?;
        state.act(Change::Owner(there, uid));
        Ok(())
    }

    fn attribute(&self, at: &Handle, which: Attribute) -> io::Result<Option<Vec<u8>>> {
        let inode = self.state().now.0.get(&id(at)?).cloned().ok_or(Errno::NOENT)?;
        Ok(inode.attributes.get(&which).cloned())
    }

    fn attribute_at(
        &self,
        at: &Handle,
        name: &[u8],
        which: Attribute,
    ) -> io::Result<Option<Vec<u8>>> {
        let there = self.state().now.lookup(id(at)?, name)?;
        self.attribute(&Handle::Inode(there), which)
    }

    fn set_attribute(&self, at: &Handle, which: Attribute, value: Option<&[u8]>) -> io::Result<()> {
        self.state().act(Change::Attribute(id(at)?, which, value.map(<[u8]>::to_vec)));
        Ok(())
    }

    fn set_attribute_at(
        &self,
        at: &Handle,
        name: &[u8],
        which: Attribute,
        value: &[u8],
    ) -> io::Result<()> {
        let there = self.state().now.lookup(id(at)?, name)?;
        self.set_attribute(&Handle::Inode(there), which, Some(value))
    }

    fn read_at(&self, file: &Handle, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let state = self.state();
        let Some(Body::File(data)) = state.now.0.get(&id(file)?).map(|inode| &inode.body) else {
            return Err(Errno::INVAL.into());
        };
        let rest = data.get(offset as usize..).unwrap_or_default();
        let read = rest.len().min(into.len());
        into[..read].copy_from_slice(&rest[..read]);
        Ok(read)
    }

    fn write_at(&self, file: &Handle, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        self.state().act(Change::Data(id(file)?, offset as usize, bytes.to_vec()));
        Ok(bytes.len())
    }

    fn set_len(&self, file: &Handle, len: u64) -> io::Result<()> {
        self.state().act(Change::Len(id(file)?, len as usize));
        Ok(())
    }

    fn clone_file(&self, _from: &Handle, _to: &Handle) -> io::Result<()> {
        Err(Errno::OPNOTSUPP.into())
    }

    fn sync(&self, at: &Handle) -> io::Result<()> {
        let at = id(at)?;
        self.state().sync(Some(at))
    }

    fn sync_fs(&self, _at: &Handle) -> io::Result<()> {
        self.state().sync(None)
    }

    fn try_lock(&self, _file: &Handle) -> io::Result<bool> {
        Ok(true)
    }

    fn room(&self, _at: &Handle) -> io::Result<Room> {
        Ok(Room { bytes: u64::MAX, inodes: None })
    }
}

fn id(handle: &Handle) -> io::Result<u64> {
    match handle {
        Handle::Inode(at) => Ok(*at),
        Handle::Fd(_) => Err(Errno::BADF.into()),
    }
}
