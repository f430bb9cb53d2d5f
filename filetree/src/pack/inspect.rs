//! What a pack consists of, for people and for tools that speak librsync.

use std::{collections::BTreeMap, path::Path};

use protocol::{
    digest::Digest,
    pack::{Codec, Content, Encoder, Op, Slice},
    path::TreePath,
    transfer::rsync_estimate,
};
use serde::Serialize;

use super::{
    Error,
    read::{FrameSource, PackFile},
};
use crate::delta::frame;

/// What a pack consists of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Inspection {
    /// Digest of the manifest it leads from.
    pub from: Option<Digest>,
    /// Digest of the manifest it leads to.
    pub to: Digest,
    /// Bytes of the whole file.
    pub length: u64,
    /// Bytes before the first frame.
    pub index_length: u64,
    /// Frames.
    pub frames: u64,
    /// Frames that need old content.
    pub frames_with_base: u64,
    /// Entries that are put.
    pub put: u64,
    /// Entries of which only attributes change.
    pub attributes: u64,
    /// Entries that are deleted, each with what is inside.
    pub deleted: u64,
    /// Files that the pack names but does not carry.
    pub absent_files: u64,
    /// Content bytes of the files that are put.
    pub content_bytes: u64,
    /// Bytes that need not travel, against whole files as they are.
    pub saved_bytes: u64,
    /// What rsync would be expected to move for the same files: an estimate.
    pub rsync_estimate_bytes: u64,
    /// Blocks of the index: what can be read of it by itself.
    pub index_blocks: u64,
    /// What each encoder made.
    pub encoders: Vec<Share>,
}

/// What one encoder made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Share {
    /// Which.
    pub encoder: Encoder,
    /// Files.
    pub files: u64,
    /// Their content bytes.
    pub content_bytes: u64,
    /// Their share of the stored bytes.
    pub stored_bytes: u64,
}

/// Reads the index of a pack's file and sums it up.
pub fn inspect(pack: &Path) -> Result<Inspection, Error> {
    let (index, _) = PackFile::open(pack)?;
    let (mut raw, mut frames_with_base) = (Vec::new(), 0);
    while (raw.len() as u32) < index.frame_count() {
        let (_, frames) = index.frames_around(raw.len() as u32)?;
        for frame in frames {
            frames_with_base += u64::from(!frame.bases().is_empty());
            raw.push(frame.raw_len);
        }
    }
    let header = index.header();
    let mut inspection = Inspection {
        from: header.from,
        to: header.to,
        length: index.pack_len(),
        index_length: index.len(),
        frames: u64::from(index.frame_count()),
        frames_with_base,
        put: 0,
        attributes: 0,
        deleted: 0,
        absent_files: 0,
        content_bytes: 0,
        saved_bytes: 0,
        rsync_estimate_bytes: 0,
        index_blocks: index.block_count(),
        encoders: Vec::new(),
    };
    let mut shares = BTreeMap::<Encoder, Share>::new();
    for op in index.ops() {
        let (_, op) = op?;
        let (entry, content) = match op {
            Op::Put { entry, content } => (entry, content),
            Op::Attributes { .. } => {
                inspection.attributes += 1;
                continue;
            }
            Op::Delete { .. } => {
                inspection.deleted += 1;
                continue;
            }
        };
        inspection.put += 1;
        inspection.content_bytes += entry.size();
        let Some(content) = content else { continue };
        let Some(encoder) = content.encoder() else {
            inspection.absent_files += 1;
            continue;
        };
        // Whatever is made from old content has an old version, as far as a pack can tell.
        let has_old = encoder != Encoder::Whole;
        inspection.rsync_estimate_bytes += rsync_estimate(entry.size(), has_old);
        let empty = Share { encoder, files: 0, content_bytes: 0, stored_bytes: 0 };
        let share = shares.entry(encoder).or_insert(empty);
        share.files += 1;
        share.content_bytes += entry.size();
        for slice in content.slices() {
            if let Slice::Frame { frame, len, .. } = *slice {
                let raw = u64::from(raw.get(frame as usize).copied().unwrap_or(1).max(1));
                let stored = u64::from(index.frame_stored_len(frame));
                share.stored_bytes += stored * u64::from(len) / raw;
            }
        }
    }
    inspection.saved_bytes = inspection.content_bytes.saturating_sub(inspection.length);
    inspection.encoders = shares.into_values().collect();
    Ok(inspection)
}

/// One line of what a pack does to a tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    /// What becomes of the path.
    pub does: Does,
    /// Which path; bytes that are no UTF-8 are escaped.
    pub path: String,
    /// Content bytes of a file that is put.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// What makes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encoder: Option<Encoder>,
}

/// What becomes of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Does {
    /// It is new or has other content.
    Put,
    /// Only its attributes change.
    Attributes,
    /// It goes, with everything inside.
    Delete,
}

/// What a pack does to the paths that `keep` keeps, in path order; without any old content.
pub fn list(pack: &Path, keep: &dyn Fn(&TreePath, bool) -> bool) -> Result<Vec<Line>, Error> {
    let (index, _) = PackFile::open(pack)?;
    let mut lines = Vec::new();
    for op in index.ops() {
        let (_, op) = op?;
        // What a path was that only goes or changes its mode, the pack does not say.
        let is_dir = matches!(&op, Op::Put { entry, .. } if entry.is_dir());
        if !keep(op.path(), is_dir) {
            continue;
        }
        let (does, size) = match &op {
            Op::Put { entry, .. } => (Does::Put, entry.is_file().then(|| entry.size())),
            Op::Attributes { .. } => (Does::Attributes, None),
            Op::Delete { .. } => (Does::Delete, None),
        };
        let encoder = op.content().and_then(Content::encoder);
        lines.push(Line { does, path: op.path().to_string(), size, encoder });
    }
    Ok(lines)
}

/// The librsync delta by which a pack makes `path`, and the number of the old entry that it
/// applies to: what `rdiff patch` takes.
pub fn extract_delta(pack: &Path, path: &TreePath) -> Result<(Vec<u8>, u64), Error> {
    let (index, mut file) = PackFile::open(pack)?;
    let not_a_delta = |hint: &str| Error::NotADelta { path: path.clone(), hint: hint.to_owned() };
    let mut found = None;
    for op in index.ops() {
        let (_, op) = op?;
        if op.path() == path {
            found = Some(op);
            break;
        }
    }
    let found = found.ok_or_else(|| not_a_delta(": the pack does not change it"))?;
    let Some(Content::RsyncDelta { base_entry, slices }) = found.content() else {
        return Err(match found.content().and_then(Content::encoder) {
            Some(encoder) => not_a_delta(&format!(
                ": it was made by the encoder {encoder}; pack with the encoder rsync"
            )),
            None => not_a_delta(""),
        });
    };
    let mut delta = Vec::new();
    for slice in slices {
        let Slice::Frame { frame: number, offset, len } = *slice else { continue };
        let (first, frames) = index.frames_around(number)?;
        let damaged = || not_a_delta(": the pack is damaged");
        let frame = frames.get((number - first) as usize).ok_or_else(damaged)?;
        let stored = file.frame(number, frame).map_err(|source| Error::File {
            file: pack.to_path_buf(),
            what: "read",
            source,
        })?;
        let actual = Digest::of(&stored);
        if actual != frame.digest {
            let expected = frame.digest;
            return Err(protocol::pack::Error::WrongDigest { expected, actual }.into());
        }
        let raw = match frame.codec {
            Codec::Raw => Some(stored),
            Codec::Zstd => frame::decompress(&stored, &[], frame.raw_len),
            // Deltas share a frame with files that have a prefix only if both were chosen by size.
            Codec::ZstdPrefix { .. } | Codec::Differences { .. } => None,
        };
        let raw =
            raw.ok_or_else(|| not_a_delta(": it shares a frame with deltas of other kinds"))?;
        let end = offset as usize + len as usize;
        delta.extend_from_slice(raw.get(offset as usize..end).ok_or_else(damaged)?);
    }
    Ok((delta, *base_entry))
}
