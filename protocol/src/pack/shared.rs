//! Frames that lie in objects of their own, shared by the packs of a tree.
//!
//! Several packs lead to one generation, and a large file that changed is in each of them: from the
//! generation before, from an older one that has the same version of it, from nothing. Its frames
//! are made, stored, carried to the points and cached once: as an object that every pack names.
//!
//! The object is a pack itself, of a tree that has nothing but the one file ([`one_file`]), so it
//! needs no format of its own, and whoever has it can tell what it leads from and to. The pack that
//! names it describes its frames like its own, so that an agent needs nothing of the object but
//! the frames, which it verifies as all others.
//!
//! Offsets of such frames lie behind the pack, as if the parts followed it, so far apart that no
//! range joins two of them.

use super::{Frame, JOINED_GAP_BYTES, header::Directory};
use crate::{
    digest::Digest,
    manifest::{Entry, EntryKind, Manifest},
    path::TreePath,
};

/// Encoded files from so many stored bytes on are worth an object, and a request, of their own.
pub const SHARED_FROM_BYTES: u64 = 1 << 20;

/// A part of another object: the frames that a pack takes from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SharedPart {
    /// Digest of the object, and its name.
    pub name: Digest,
    /// Where the part begins in the object.
    pub start: u64,
    /// Bytes of the part; the object ends with it.
    pub bytes: u64,
    /// Where it begins in the offsets of the pack's frames.
    pub offset: u64,
}

impl SharedPart {
    /// The one of `parts`, by offset, that has a frame; `None` for a frame of the pack itself.
    pub fn of<'a>(parts: &'a [Self], frame: &Frame) -> Option<&'a Self> {
        let after = parts.partition_point(|part| part.offset <= frame.offset);
        parts.get(after.checked_sub(1)?)
    }

    /// Where in the object lies what has this offset among the pack's frames.
    pub fn within(&self, offset: u64) -> u64 {
        self.start + offset.saturating_sub(self.offset)
    }

    /// Length of the whole object.
    pub fn object_len(&self) -> u64 {
        self.start + self.bytes
    }
}

/// Where the frames of every block begin, and the shared parts, for an index of that length.
pub(super) fn place(directory: &Directory, index_len: u64) -> (Vec<u64>, Vec<SharedPart>) {
    let mut blocks = directory.frames.iter().map(|(bytes, _)| *bytes);
    let mut offsets = Vec::with_capacity(directory.frames.len());
    let mut offset = index_len;
    for bytes in blocks.by_ref().take(directory.own_blocks()) {
        offsets.push(offset);
        offset += bytes;
    }
    let mut parts = Vec::with_capacity(directory.shared.len());
    for shared in &directory.shared {
        offset += JOINED_GAP_BYTES + 1;
        let begin = offset;
        for bytes in blocks.by_ref().take(usize::try_from(shared.blocks).unwrap_or(usize::MAX)) {
            offsets.push(offset);
            offset += bytes;
        }
        let (name, start) = (shared.name, shared.start);
        parts.push(SharedPart { name, start, bytes: offset - begin, offset: begin });
    }
    (offsets, parts)
}

/// The manifest of a tree that has just one file with this content: what a shared object leads from
/// and to. `None` where no path could be named so, which does not happen.
pub fn one_file(size: u64, digest: Digest) -> Option<Manifest> {
    let path = TreePath::parse(b"content").ok()?;
    let kind = EntryKind::File { size, digest, link_group: None };
    Manifest::new(vec![Entry { path, mode: 0, mtime: 0, kind }]).ok()
}
