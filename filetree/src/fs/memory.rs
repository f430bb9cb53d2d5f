//! A file system in memory that can lose power.
//!
//! It keeps what was synced apart from what was only done. A crash keeps everything synced and,
//! of the rest, any part: a beginning of it, as a journal gives, or any selection, as file systems
//! may that write what one fsync needs before what was done earlier; data may be torn or missing
//! where its name is not. A rename or an exchange is kept whole or not at all, and one between two
//! directories is durable only once both were synced: no promise of one file system is relied on.

mod backend;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustix::io::Errno;

use super::backend::{Attribute, FileId, Kind, Meta};

const ROOT: u64 = 1;

/// The disk; clones are the same disk.
#[derive(Debug, Clone)]
pub struct MemoryDisk(Arc<Mutex<State>>);

#[derive(Debug, Clone)]
struct State {
    now: Image,
    durable: Image,
    pending: Vec<Pending>,
    next: u64,
    clock: i64,
    /// Every moment at which power could be lost, while somebody wants to know them.
    moments: Option<Vec<Moment>>,
    /// How many syncs work before one fails.
    syncs: Option<u64>,
    /// Most names of one file, as file systems have them: 65,000 on ext4.
    most_links: Option<usize>,
}

/// What the disk held, and what it only promised, before one of the steps of a run.
#[derive(Debug, Clone)]
pub struct Moment {
    durable: Image,
    pending: Vec<Pending>,
    next: u64,
    clock: i64,
}

/// What a crash makes of one change that was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It never happened.
    Lost,
    /// It is there.
    Kept,
    /// Of written bytes, only so many; for any other change the same as kept.
    Torn(usize),
}

/// An object as [`MemoryDisk::list`] shows it. Times are in nanoseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// Content, mode, modification time.
    File(Vec<u8>, u32, i64),
    /// Mode, modification time.
    Dir(u32, i64),
    /// Where it points.
    Symlink(Vec<u8>),
}

/// Inodes are shared between images until one of them changes them.
#[derive(Debug, Clone, Default)]
struct Image(HashMap<u64, Arc<Inode>>);

#[derive(Debug, Clone)]
struct Inode {
    body: Body,
    mode: u32,
    mtime: i64,
    ctime: i64,
    uid: u32,
    gid: u32,
    attributes: BTreeMap<Attribute, Vec<u8>>,
}

#[derive(Debug, Clone)]
enum Body {
    File(Vec<u8>),
    Dir(BTreeMap<Vec<u8>, u64>),
    Symlink(Vec<u8>),
}

/// One step that a crash keeps or loses.
#[derive(Debug)]
enum Change {
    /// Names set or taken away together: directory, name, inode.
    Names(Vec<(u64, Vec<u8>, Option<u64>)>),
    Data(u64, usize, Vec<u8>),
    Len(u64, usize),
    Mode(u64, u32),
    Group(u64, u32),
    Owner(u64, u32),
    Attribute(u64, Attribute, Option<Vec<u8>>),
    Mtime(u64, i64),
}

/// A change that a crash may lose.
#[derive(Debug, Clone)]
struct Pending {
    change: Arc<Change>,
    /// What has to be synced before it is durable.
    unsynced: BTreeSet<u64>,
}

impl From<Change> for Pending {
    fn from(change: Change) -> Self {
        let unsynced = match &change {
            Change::Names(names) => names.iter().map(|(dir, ..)| *dir).collect(),
            Change::Data(at, ..)
            | Change::Len(at, _)
            | Change::Mode(at, _)
            | Change::Group(at, _)
            | Change::Owner(at, _)
            | Change::Attribute(at, ..)
            | Change::Mtime(at, _) => [*at].into(),
        };
        Self { change: Arc::new(change), unsynced }
    }
}

impl Inode {
    fn new(body: Body, mode: u32, clock: i64) -> Self {
        let (mtime, ctime, attributes) = (clock, clock, BTreeMap::new());
        Self { body, mode, mtime, ctime, uid: 0, gid: 0, attributes }
    }
}

impl Image {
    fn apply(&mut self, change: &Change, clock: i64) {
        match change {
            Change::Names(names) => {
                for (dir, name, inode) in names {
                    let Some(Inode { body: Body::Dir(entries), mtime, .. }) = self.inode(*dir)
                    else {
                        continue;
                    };
                    *mtime = clock;
                    match inode {
                        Some(inode) => entries.insert(name.clone(), *inode),
                        None => entries.remove(name),
                    };
                }
            }
            Change::Data(at, offset, bytes) => {
                if let Some(Inode { body: Body::File(data), mtime, .. }) = self.inode(*at) {
                    let end = offset + bytes.len();
                    if data.len() < end {
                        data.resize(end, 0);
                    }
                    data[*offset..end].copy_from_slice(bytes);
                    *mtime = clock;
                }
            }
            Change::Len(at, len) => {
                if let Some(Inode { body: Body::File(data), mtime, .. }) = self.inode(*at) {
                    data.resize(*len, 0);
                    *mtime = clock;
                }
            }
            Change::Mode(at, mode) => self.with(*at, |inode| inode.mode = *mode),
            Change::Group(at, gid) => self.with(*at, |inode| inode.gid = *gid),
            Change::Owner(at, uid) => self.with(*at, |inode| inode.uid = *uid),
            Change::Attribute(at, which, value) => self.with(*at, |inode| {
                match value {
                    Some(value) => inode.attributes.insert(*which, value.clone()),
                    None => inode.attributes.remove(which),
                };
            }),
            Change::Mtime(at, mtime) => self.with(*at, |inode| inode.mtime = *mtime),
        }
        if let Change::Data(at, ..) | Change::Len(at, _) | Change::Mode(at, _) = change {
            self.with(*at, |inode| inode.ctime = clock);
        }
    }

    fn inode(&mut self, at: u64) -> Option<&mut Inode> {
        self.0.get_mut(&at).map(Arc::make_mut)
    }

    fn with(&mut self, at: u64, act: impl FnOnce(&mut Inode)) {
        if let Some(inode) = self.inode(at) {
            act(inode);
        }
    }

    fn dir(&self, at: u64) -> io::Result<&BTreeMap<Vec<u8>, u64>> {
        match self.0.get(&at).map(|inode| &inode.body) {
            Some(Body::Dir(entries)) => Ok(entries),
            Some(Body::File(_)) => Err(Errno::NOTDIR.into()),
            Some(Body::Symlink(_)) => Err(Errno::LOOP.into()),
            None => Err(Errno::NOENT.into()),
        }
    }

    fn lookup(&self, dir: u64, name: &[u8]) -> io::Result<u64> {
        self.dir(dir)?.get(name).copied().ok_or_else(|| Errno::NOENT.into())
    }

    fn names_of(&self, inode: u64) -> usize {
        let dirs = self.0.values().filter_map(|inode| match &inode.body {
            Body::Dir(entries) => Some(entries.values()),
            _ => None,
        });
        dirs.flatten().filter(|named| **named == inode).count()
    }

    fn is_dir(&self, at: u64) -> bool {
        self.dir(at).is_ok()
    }
}

/// Numbers that look random and are the same for the same seed.
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    /// Dice that always fall the same for one seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound.max(1)
    }
}

impl Default for MemoryDisk {
    fn default() -> Self {
        let root = Inode::new(Body::Dir(BTreeMap::new()), 0o755, 0);
        let image = Image(HashMap::from([(ROOT, Arc::new(root))]));
        Moment { durable: image, pending: Vec::new(), next: ROOT + 1, clock: 1 }.disk()
    }
}

impl MemoryDisk {
    /// An independent disk with the same content and the same unsynced changes.
    pub fn fork(&self) -> Self {
        Self(Arc::new(Mutex::new(self.state().clone())))
    }

    /// From now on remembers every moment at which power could be lost.
    pub fn record(&self) {
        self.state().moments = Some(Vec::new());
    }

    /// Has the `nth` sync from now on (from 1) fail as real ones do: what it should have written is
    /// still read back from memory, is called clean, and never reaches the disk.
    pub fn fail_sync(&self, nth: u64) {
        self.state().syncs = Some(nth);
    }

    /// From now on gives no file more names than that.
    pub fn limit_links(&self, most: usize) {
        self.state().most_links = Some(most);
    }

    /// Whether that sync is still to come.
    pub fn is_sync_failing(&self) -> bool {
        self.state().syncs.is_some()
    }

    /// How many moments were remembered so far.
    pub fn recorded(&self) -> usize {
        self.state().moments.as_ref().map_or(0, Vec::len)
    }

    /// The moments since [`MemoryDisk::record`], and the present one.
    pub fn moments(&self) -> Vec<Moment> {
        let mut state = self.state();
        let mut moments = state.moments.take().unwrap_or_default();
        moments.push(state.moment());
        moments
    }

    /// The disk after a loss of power: everything synced, and some of the rest.
    pub fn crash(&self, dice: &mut Dice) -> Self {
        self.state().moment().crash(dice)
    }

    /// Everything below `path`, by path; `None` where there is no such directory. Reads the disk
    /// itself, not through the layer that is tested.
    pub fn list(&self, path: &Path) -> Option<BTreeMap<Vec<u8>, Seen>> {
        let state = self.state();
        let root = components(path).try_fold(ROOT, |at, name| state.now.lookup(at, name)).ok()?;
        let mut seen = BTreeMap::new();
        let mut open = vec![(root, Vec::new())];
        while let Some((dir, above)) = open.pop() {
            for (name, at) in state.now.dir(dir).ok()? {
                let mut path = above.clone();
                if !path.is_empty() {
                    path.push(b'/');
                }
                path.extend_from_slice(name);
                // A name whose inode never reached the disk: file systems do not show such.
                let Some(inode) = state.now.0.get(at) else { continue };
                let what = match &inode.body {
                    Body::File(data) => Seen::File(data.clone(), inode.mode, inode.mtime),
                    Body::Symlink(target) => Seen::Symlink(target.clone()),
                    Body::Dir(_) => {
                        open.push((*at, path.clone()));
                        Seen::Dir(inode.mode, inode.mtime)
                    }
                };
                seen.insert(path, what);
            }
        }
        Some(seen)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Moment {
    /// How many changes a crash decides about.
    pub fn unsynced(&self) -> usize {
        self.pending.len()
    }

    /// For a change of data, which may also be torn: how many bytes it writes.
    pub fn data_len(&self, index: usize) -> Option<usize> {
        match &*self.pending.get(index)?.change {
            Change::Data(_, _, bytes) => Some(bytes.len()),
            Change::Len(..) => Some(0),
            _ => None,
        }
    }

    /// The disk after a loss of power that treats each unsynced change so.
    pub fn crash_with(&self, mut fate: impl FnMut(usize) -> Fate) -> MemoryDisk {
        let mut durable = self.durable.clone();
        for (index, Pending { change, .. }) in self.pending.iter().enumerate() {
            match (fate(index), &**change) {
                (Fate::Lost, _) => {}
                (Fate::Torn(len), Change::Data(inode, offset, bytes)) => {
                    let torn = bytes[..len.min(bytes.len())].to_vec();
                    durable.apply(&Change::Data(*inode, *offset, torn), self.clock);
                }
                (_, change) => durable.apply(change, self.clock),
            }
        }
        Self { durable, pending: Vec::new(), next: self.next, clock: self.clock }.disk()
    }

    /// The disk after a loss of power: everything synced, and some of the rest.
    pub fn crash(&self, dice: &mut Dice) -> MemoryDisk {
        let keep_of_eight = [0, 1, 4, 7, 8][dice.below(5) as usize];
        let beginning = dice.below(2) == 0;
        let cut = dice.below(self.pending.len() as u64 + 1) as usize;
        self.crash_with(|index| {
            let data = self.data_len(index);
            // A journal keeps the order of names and attributes; data goes its own way.
            let kept = match beginning && data.is_none() {
                true => index < cut,
                false => dice.below(8) < keep_of_eight,
            };
            match (kept, data) {
                (false, _) => Fate::Lost,
                (true, Some(len)) if dice.below(4) == 0 => {
                    Fate::Torn(dice.below(len as u64) as usize)
                }
                (true, _) => Fate::Kept,
            }
        })
    }

    fn disk(self) -> MemoryDisk {
        let Self { durable, pending, next, clock } = self;
        let now = durable.clone();
        let (moments, syncs, most_links) = (None, None, None);
        let state = State { now, durable, pending, next, clock, moments, syncs, most_links };
        MemoryDisk(Arc::new(Mutex::new(state)))
    }
}

impl State {
    fn moment(&self) -> Moment {
        let Self { durable, pending, next, clock, .. } = self;
        Moment { durable: durable.clone(), pending: pending.clone(), next: *next, clock: *clock }
    }

    fn remember(&mut self) {
        if self.moments.is_some() {
            let moment = self.moment();
            self.moments.get_or_insert_default().push(moment);
        }
    }

    fn act(&mut self, change: Change) {
        self.remember();
        self.clock += 1;
        self.now.apply(&change, self.clock);
        self.pending.push(change.into());
    }

    /// A new inode: it takes no part in a crash until a name leads to it.
    fn make(&mut self, body: Body, mode: u32) -> u64 {
        self.clock += 1;
        let at = self.next;
        self.next += 1;
        let inode = Arc::new(Inode::new(body, mode, self.clock));
        self.durable.0.insert(at, inode.clone());
        self.now.0.insert(at, inode);
        at
    }

    /// Counts a sync, and fails the one that is to fail: data that it was asked for is forgotten.
    fn sync(&mut self, inode: Option<u64>) -> io::Result<()> {
        self.syncs = self.syncs.map(|left| left - 1);
        if self.syncs != Some(0) {
            self.flush(inode);
            return Ok(());
        }
        self.syncs = None;
        self.pending.retain(|Pending { change, .. }| match &**change {
            Change::Data(at, ..) => inode.is_some_and(|inode| inode != *at),
            _ => true,
        });
        Err(Errno::IO.into())
    }

    /// Makes what concerns `inode` durable (everything for `None`), in the order it was done.
    fn flush(&mut self, inode: Option<u64>) {
        self.remember();
        let clock = self.clock;
        let mut pending = std::mem::take(&mut self.pending);
        pending.retain_mut(|Pending { change, unsynced }| {
            match inode {
                Some(inode) => unsynced.remove(&inode),
                None => {
                    unsynced.clear();
                    true
                }
            };
            if unsynced.is_empty() {
                self.durable.apply(change, clock);
            }
            !unsynced.is_empty()
        });
        self.pending = pending;
    }

    fn free(&self, dir: u64, name: &[u8]) -> io::Result<()> {
        match self.now.lookup(dir, name) {
            Ok(_) => Err(Errno::EXIST.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn meta(&self, at: u64) -> io::Result<Meta> {
        let inode = self.now.0.get(&at).ok_or(Errno::NOENT)?;
        let (kind, size) = match &inode.body {
            Body::File(data) => (Kind::File, data.len()),
            Body::Dir(_) => (Kind::Dir, 0),
            Body::Symlink(target) => (Kind::Symlink, target.len()),
        };
        Ok(Meta {
            id: FileId { dev: 1, ino: at },
            kind,
            mode: inode.mode,
            size: size as u64,
            mtime: inode.mtime,
            ctime: inode.ctime,
            links: 2,
            uid: inode.uid,
            gid: inode.gid,
            mount_root: false,
        })
    }
}

fn components(path: &Path) -> impl Iterator<Item = &[u8]> {
    path.as_os_str().as_encoded_bytes().split(|&b| b == b'/').filter(|name| !name.is_empty())
}
