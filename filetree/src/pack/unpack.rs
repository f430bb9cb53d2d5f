//! Applies a pack to a plain directory: for sites that are fed by disk, and for trying packs out.
//!
//! The base is only read. The result is put together beside the directory that it will be, made
//! durable, scanned and compared with the manifest that the pack leads to, and only then given its
//! name: whoever sees the directory sees all of it.

use std::{
    collections::HashMap,
    ffi::OsStr,
    io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use protocol::{
    digest::Digest,
    manifest::{Entry, EntryKind, LinkGroup, Manifest},
    pack::{Encoder, NoDelta, Op, target_manifest},
    path::TreePath,
};
use serde::Serialize;

use super::{
    DirSource, Error, nameless,
    read::{Bases, FileSink, PackFile, PackIndex, Rebuilder},
};
use crate::{
    delta::ReadAt,
    fs::{Dir, File, Fs, Kind},
    scan::{Keep, Scan, ScanOptions, ScanRecord, fill_digested, scan},
};

/// Zeros that are worth a hole.
const HOLE_BYTES: usize = 64 << 10;

/// What an unpacking did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unpacked {
    /// Digest of the manifest of the directory as it is now: of the whole generation, or of what
    /// the filter keeps.
    pub manifest: Digest,
    /// Files that were copied from the base.
    pub unchanged_files: u64,
    /// Files that were made from the pack, and their bytes, by encoder.
    pub made_files: Vec<(Encoder, u64, u64)>,
    /// Bytes of frames that were needed.
    pub frame_bytes: u64,
}

/// Makes `out` (absent or empty) what `pack` leads to from `base` (`None`: from nothing), as far
/// as `keep` keeps it.
///
/// # Errors
/// `base` must be exactly the tree that the pack leads from, or what `keep` keeps of `base` must
/// be; whatever goes wrong, `out` is as it
/// was before.
pub fn unpack(
    fs: &Fs,
    pack: &Path,
    base: Option<&Path>,
    out: &Path,
    keep: Keep<'_>,
    now: i64,
) -> Result<Unpacked, Error> {
    let (index, mut frames) = PackFile::open(pack)?;
    let base = base.map(|base| fs.open_root(base)).transpose()?;
    let mut from = match &base {
        Some(base) => scanned(base, now)?.manifest,
        None => Manifest::empty(),
    };
    if index.header().from != Some(from.digest()) {
        // The pack may have been made of just what the filter keeps.
        from = kept(&from, keep)?;
    }
    let to = target_manifest(&index, &from)?;
    let kept = kept(&to, keep)?;
    let scratch = Scratch::create(fs, out)?;
    let tree = Tree {
        kept: &kept,
        from: &from,
        base: base.map(DirSource::new),
        root: scratch.root.reopen()?,
        beside: (scratch.parent.reopen()?, [&scratch.name[..], b".plain"].concat()),
    };
    let unpacked = tree.fill(&index, &mut frames)?;
    tree.finish()?;
    let result = scanned(&scratch.root, now)?.manifest;
    if result != kept {
        let (expected, actual) = (kept.digest(), result.digest());
        return Err(protocol::pack::Error::WrongResult { expected, actual }.into());
    }
    scratch.publish()?;
    Ok(unpacked)
}

fn scanned(root: &Dir, now: i64) -> Result<Scan, Error> {
    Ok(scan(root, &ScanRecord::empty(), &ScanOptions::new(now))?)
}

/// The part of a manifest that a filter keeps; link groups are named by the first member kept.
fn kept(to: &Manifest, keep: Keep<'_>) -> Result<Manifest, Error> {
    let mut left_out: Option<&TreePath> = None;
    let mut entries = Vec::new();
    let mut groups = HashMap::<LinkGroup, (LinkGroup, u64)>::new();
    for entry in to.entries() {
        if left_out.is_some_and(|above| entry.path.is_inside(above)) {
            continue;
        }
        if !keep(&entry.path, entry.is_dir()) {
            left_out = Some(&entry.path);
            continue;
        }
        if let EntryKind::File { link_group: Some(group), .. } = entry.kind {
            let first = || (LinkGroup::of_first(&entry.path), 0);
            groups.entry(group).or_insert_with(first).1 += 1;
        }
        entries.push(entry.clone());
    }
    for entry in &mut entries {
        if let EntryKind::File { link_group: group @ Some(_), .. } = &mut entry.kind {
            let renamed = group.and_then(|group| groups.get(&group));
            *group = renamed.filter(|(_, members)| *members > 1).map(|(first, _)| *first);
        }
    }
    Ok(Manifest::new(entries).map_err(protocol::pack::Error::from)?)
}

/// The directory beside the result in which it is put together.
struct Scratch {
    parent: Dir,
    root: Dir,
    name: Vec<u8>,
    out_name: Vec<u8>,
    replaces_empty: bool,
    is_published: bool,
}

impl Scratch {
    fn create(fs: &Fs, out: &Path) -> Result<Self, Error> {
        let out_name = out.file_name().ok_or_else(|| Error::OutUnusable(out.to_path_buf()))?;
        let out_name = out_name.as_bytes().to_vec();
        let above = match out.parent() {
            Some(above) if !above.as_os_str().is_empty() => above.to_path_buf(),
            _ => PathBuf::from("."),
        };
        let parent = fs.open_root(&above)?;
        let replaces_empty = match parent.stat(&out_name)? {
            None => false,
            Some(meta) if meta.kind == Kind::Dir => {
                if !parent.open_child(&out_name)?.entries()?.is_empty() {
                    return Err(Error::OutNotEmpty(out.to_path_buf()));
                }
                true
            }
            Some(_) => return Err(Error::OutNotEmpty(out.to_path_buf())),
        };
        let name = format!(".mirrornet-unpack-{}", std::process::id()).into_bytes();
        let root = parent.make_dir(&name)?;
        Ok(Self { parent, root, name, out_name, replaces_empty, is_published: false })
    }

    fn publish(mut self) -> Result<(), Error> {
        self.root.sync_fs()?;
        if self.replaces_empty {
            self.parent.remove_dir(&self.out_name)?;
        }
        self.root.set_mode(0o755)?;
        self.parent.rename_new(&self.name, &self.parent, &self.out_name)?;
        self.is_published = true;
        self.parent.sync()?;
        Ok(())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.is_published {
            if let Err(error) = remove_inside(&self.root) {
                let at = self.parent.path().join(OsStr::from_bytes(&self.name));
                tracing::warn!(path = %at.display(), %error, "cannot clean up; remove it by hand");
            }
            let _ = self.parent.remove_dir(&self.name);
        }
    }
}

fn remove_inside(dir: &Dir) -> Result<(), Error> {
    dir.set_mode(0o700)?;
    for entry in dir.entries()? {
        let is_dir = match entry.is_dir {
            Some(is_dir) => is_dir,
            None => dir.stat(&entry.name)?.is_some_and(|meta| meta.kind == Kind::Dir),
        };
        if is_dir {
            remove_inside(&dir.open_child(&entry.name)?)?;
            dir.remove_dir(&entry.name)?;
        } else {
            dir.unlink(&entry.name)?;
        }
    }
    Ok(())
}

/// A tree that is being put together.
struct Tree<'a> {
    kept: &'a Manifest,
    from: &'a Manifest,
    base: Option<DirSource>,
    root: Dir,
    /// The directory in which it is, and a name in that for what does not fit into memory.
    beside: (Dir, Vec<u8>),
}

impl Tree<'_> {
    /// Makes everything but the final attributes of directories.
    fn fill(&self, index: &PackIndex, frames: &mut PackFile) -> Result<Unpacked, Error> {
        for entry in self.kept.entries().iter().filter(|entry| entry.is_dir()) {
            self.root.open_parent(&entry.path)?.make_dir(entry.path.name())?;
        }
        // Of linked files one is made, the others are links to it.
        let mut first_of = HashMap::<LinkGroup, &Entry>::new();
        for entry in self.kept.entries() {
            if let Some(group) = link_group(entry) {
                first_of.entry(group).or_insert(entry);
            }
        }
        let is_first = |entry: &Entry| {
            link_group(entry).is_none_or(|group| first_of[&group].path == entry.path)
        };
        let mut put = std::collections::HashSet::new();
        for op in index.ops() {
            if let (_, Op::Put { entry, content: Some(_) }) = op? {
                put.insert(entry.path);
            }
        }
        let selection = index.select(|path| self.kept.get(path).is_some_and(is_first))?;
        if selection.cost.absent_files > 0 {
            return Err(self.absent(index, &is_first)?);
        }
        let mut sink = TreeSink { tree: self, file: None };
        let rebuilt = Rebuilder::new(index, self).rebuild(&selection, frames, &mut sink)?;
        if let Some((path, reason)) = rebuilt.first_failed {
            let count = rebuilt.failed.values().sum();
            return Err(Error::Incomplete { count, path, reason });
        }
        let mut unchanged_files = 0;
        for entry in self.kept.entries() {
            match &entry.kind {
                EntryKind::Dir => {}
                EntryKind::Symlink { target } => {
                    let parent = self.root.open_parent(&entry.path)?;
                    parent.symlink(entry.path.name(), target)?;
                    parent.set_mtime_of(entry.path.name(), entry.mtime)?;
                }
                EntryKind::File { .. } if !is_first(entry) => {}
                EntryKind::File { .. } if put.contains(&entry.path) => {}
                EntryKind::File { .. } => {
                    self.copy(entry)?;
                    unchanged_files += 1;
                }
            }
        }
        self.link(&first_of)?;
        let made = rebuilt.made.iter().map(|(encoder, (files, bytes))| (*encoder, *files, *bytes));
        Ok(Unpacked {
            manifest: self.kept.digest(),
            unchanged_files,
            made_files: made.collect(),
            frame_bytes: selection.cost.frame_bytes,
        })
    }

    fn absent(
        &self,
        index: &PackIndex,
        is_wanted: &dyn Fn(&Entry) -> bool,
    ) -> Result<Error, Error> {
        let mut absent = Vec::new();
        for op in index.ops() {
            if let (_, Op::Put { entry, content: Some(protocol::pack::Content::Absent) }) = op?
                && self.kept.get(&entry.path).is_some_and(is_wanted)
            {
                absent.push(entry.path);
            }
        }
        let (count, reason) = (absent.len() as u64, NoDelta::NotPublished);
        Ok(match absent.into_iter().next() {
            Some(path) => Error::Incomplete { count, path, reason },
            None => Error::Canceled,
        })
    }

    /// Copies an unchanged file from the base, and makes sure of what was copied.
    fn copy(&self, entry: &Entry) -> Result<(), Error> {
        let wrong =
            || Error::Incomplete { count: 1, path: entry.path.clone(), reason: NoDelta::WrongBase };
        let base = self.base.as_ref().ok_or_else(wrong)?.open_path(&entry.path)?;
        let file = self.root.open_parent(&entry.path)?.create_file(entry.path.name())?;
        let (length, digest) = fill_digested(&file, &base)?;
        if length != entry.size() || Some(digest) != entry.digest() {
            return Err(wrong());
        }
        settle(&file, entry)
    }

    /// Makes the other members of each link group.
    fn link(&self, first_of: &HashMap<LinkGroup, &Entry>) -> Result<(), Error> {
        for entry in self.kept.entries() {
            let Some(first) = link_group(entry).and_then(|group| first_of.get(&group)) else {
                continue;
            };
            if first.path != entry.path {
                let parent = self.root.open_parent(&entry.path)?;
                let first_parent = self.root.open_parent(&first.path)?;
                first_parent.link(first.path.name(), &parent, entry.path.name())?;
            }
        }
        Ok(())
    }

    /// Gives directories their attributes, the innermost first: making something inside changes a
    /// directory's time, and its mode may forbid it.
    fn finish(&self) -> Result<(), Error> {
        for entry in self.kept.entries().iter().rev().filter(|entry| entry.is_dir()) {
            let dir = self.root.open_dir(&entry.path)?;
            dir.set_mtime(entry.mtime)?;
            dir.set_mode(entry.mode)?;
        }
        Ok(())
    }
}

impl Bases for Tree<'_> {
    fn open(&self, number: u64) -> io::Result<Option<Box<dyn ReadAt>>> {
        let entry = usize::try_from(number).ok().and_then(|at| self.from.entries().get(at));
        let (Some(entry), Some(base)) = (entry, &self.base) else { return Ok(None) };
        Ok(Some(Box::new(base.open_path(&entry.path).map_err(|error| error.source)?)))
    }

    fn scratch(&self) -> io::Result<Option<File>> {
        let (dir, name) = &self.beside;
        Ok(Some(nameless(dir, name).map_err(|error| error.source)?))
    }
}

fn link_group(entry: &Entry) -> Option<LinkGroup> {
    match entry.kind {
        EntryKind::File { link_group, .. } => link_group,
        EntryKind::Dir | EntryKind::Symlink { .. } => None,
    }
}

fn settle(file: &File, entry: &Entry) -> Result<(), Error> {
    file.set_mtime(entry.mtime)?;
    Ok(file.set_mode(entry.mode)?)
}

/// Writes made files into the tree.
struct TreeSink<'a> {
    tree: &'a Tree<'a>,
    file: Option<(File, u64)>,
}

impl FileSink for TreeSink<'_> {
    fn begin(&mut self, entry: &Entry) -> io::Result<()> {
        let parent = self.tree.root.open_parent(&entry.path).map_err(|error| error.source)?;
        let file = parent.create_file(entry.path.name()).map_err(|error| error.source)?;
        self.file = Some((file, 0));
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some((file, at)) = &mut self.file {
            for piece in bytes.chunks(HOLE_BYTES) {
                // Long runs of zeros become holes.
                if piece.len() < HOLE_BYTES || piece.iter().any(|byte| *byte != 0) {
                    file.write_at(*at, piece).map_err(|error| error.source)?;
                }
                *at += piece.len() as u64;
            }
        }
        Ok(())
    }

    fn end(&mut self, entry: &Entry, made: Result<Encoder, NoDelta>) -> io::Result<()> {
        let Some((file, len)) = self.file.take() else { return Ok(()) };
        // What failed makes the whole unpacking fail; the result tells.
        if made.is_ok() {
            // Where the end is a hole; elsewhere xfs would write out the whole file, and wait for it.
            if file.meta().map_err(|error| error.source)?.size != len {
                file.set_len(len).map_err(|error| error.source)?;
            }
            file.set_mtime(entry.mtime).map_err(|error| error.source)?;
            file.set_mode(entry.mode).map_err(|error| error.source)?;
        }
        Ok(())
    }
}
