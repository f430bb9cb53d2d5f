//! Large payloads that packs of one tree share: found again, or written as objects of their own.
//!
//! What such an object is, and why, is told in [`protocol::pack::SharedPart`]. An object that leads
//! from the same old content to the same new content is used again without reading either, so a
//! large file is encoded once for all packs that carry it.

use std::{
    io,
    path::{Path, PathBuf},
};

use protocol::{
    digest::Digest,
    manifest::{Entry, Manifest},
    pack::{
        BaseRange, Codec, Content, Encoder, Frame, Header, IndexBuilder, Op, SHARED_FROM_BYTES,
        Slice, one_file,
    },
};
use serde::{Deserialize, Serialize};

use super::output::Scratch;
use crate::{
    delta::choose::EncoderChoice,
    pack::{
        Error,
        read::{PackFile, PackIndex},
    },
};

/// An object that packs share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SharedObject {
    /// Digest of its bytes, and its name.
    pub name: Digest,
    /// The content that it leads from; `None` where it needs nothing old.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Digest>,
    /// The content that it leads to.
    pub to: Digest,
    /// Its length, in bytes.
    pub length: u64,
    /// Bytes of it that packs refer to: its frames.
    pub frame_bytes: u64,
}

/// Where shared objects are kept.
pub trait Shared: Sync {
    /// The object that leads from one content (nothing, if there is none) to another, and its file,
    /// where there is one.
    fn find(&self, from: Option<Digest>, to: Digest) -> Option<(SharedObject, PathBuf)>;

    /// A path for an object that is being written, on the file system on which it is kept.
    fn unfinished(&self) -> io::Result<PathBuf>;

    /// Takes an object that is complete and durable at `unfinished`.
    fn keep(&self, object: SharedObject, unfinished: &Path) -> io::Result<()>;
}

/// What one operation takes from an object. Numbers of frames count from the object's first.
pub(super) struct Part {
    pub(super) object: SharedObject,
    pub(super) frames: Vec<Frame>,
    pub(super) content: Content,
}

impl Part {
    /// Looks for what leads from the entry `old`, with its number, to `new`.
    pub(super) fn find(
        shared: &dyn Shared,
        old: Option<(u64, &Entry)>,
        new: &Entry,
        encoders: EncoderChoice,
    ) -> Option<Self> {
        let to = new.digest().filter(|_| new.size() >= SHARED_FROM_BYTES)?;
        let from = match old {
            Some((_, old)) => Some(old.digest()?),
            None => None,
        };
        let (object, file) = shared.find(from, to)?;
        // What is no such object is made anew.
        let (index, _) = PackFile::open(&file).ok()?;
        let header = index.header();
        let leads = header.from == old.and_then(|(_, old)| alone(old)).map(|m| m.digest())
            && Some(header.to) == alone(new).map(|m| m.digest());
        let fits = leads && index.pack_len() == object.length && index.shared().is_empty();
        let (_, op) = index.ops().next()?.ok()?;
        let content = op.content().filter(|content| fits && suits(content, encoders))?;
        let number = old.map_or(0, |(number, _)| number);
        let content = rebased(content.clone(), number);
        let frames = frames(&index)?.into_iter().map(|frame| frame_rebased(frame, number));
        Some(Self { object, frames: frames.collect(), content })
    }

    /// Writes an object that has these frames, whose stored bytes `copy` writes to where it is told.
    pub(super) fn write(
        shared: &dyn Shared,
        old: Option<&Entry>,
        new: &Entry,
        frames: Vec<Frame>,
        content: Content,
        copy: impl FnOnce(&mut Scratch, &[u8]) -> Result<Digest, Error>,
    ) -> Result<Self, Error> {
        let no_path = || protocol::pack::Error::TooLarge("a file by itself");
        let from = match old {
            Some(old) => Some(alone(old).ok_or_else(no_path)?),
            None => None,
        };
        let to = alone(new).ok_or_else(no_path)?;
        let mut index = IndexBuilder::new();
        for frame in &frames {
            index.push_frame(&frame_rebased(frame.clone(), 0))?;
        }
        let entry = to.entries().first().cloned().ok_or_else(no_path)?;
        index.push_op(&Op::Put { entry, content: Some(rebased(content.clone(), 0)) })?;
        let index = index.finish(&Header {
            from: from.as_ref().map(Manifest::digest),
            from_entries: from.as_ref().map_or(0, |from| from.entries().len() as u64),
            to: to.digest(),
            to_entries: to.entries().len() as u64,
        })?;
        let unfinished = shared.unfinished();
        let unfinished = unfinished.map_err(|source| kept(Path::new("objects"), source))?;
        let mut file = Scratch::create(&unfinished, "object")?;
        let name = copy(&mut file, &index)?;
        file.publish(&unfinished)?;
        let frame_bytes = frames.iter().map(|frame| u64::from(frame.stored_len)).sum();
        let object = SharedObject {
            name,
            from: old.and_then(Entry::digest),
            to: new.digest().ok_or_else(no_path)?,
            length: index.len() as u64 + frame_bytes,
            frame_bytes,
        };
        shared.keep(object, &unfinished).map_err(|source| kept(&unfinished, source))?;
        Ok(Self { object, frames, content })
    }

    /// Bytes of the object before its first frame.
    pub(super) fn start(&self) -> u64 {
        self.object.length - self.object.frame_bytes
    }
}

fn kept(file: &Path, source: io::Error) -> Error {
    Error::File { file: file.to_path_buf(), what: "written", source }
}

fn alone(entry: &Entry) -> Option<Manifest> {
    one_file(entry.size(), entry.digest()?)
}

/// Whether a content that was made earlier is one that these encoders would make.
fn suits(content: &Content, encoders: EncoderChoice) -> bool {
    match (content, encoders) {
        (Content::Slices { encoder: Encoder::Whole, .. }, _) => true,
        (Content::Slices { .. }, EncoderChoice::Rsync | EncoderChoice::Whole) => false,
        (Content::Slices { .. }, _) => true,
        (Content::RsyncDelta { .. }, EncoderChoice::Rsync | EncoderChoice::Auto) => true,
        (Content::Inside { .. }, EncoderChoice::Auto) => true,
        _ => false,
    }
}

fn frames(index: &PackIndex) -> Option<Vec<Frame>> {
    let mut frames = Vec::new();
    while (frames.len() as u32) < index.frame_count() {
        frames.extend(index.frames_around(frames.len() as u32).ok()?.1);
    }
    Some(frames)
}

/// The same, made from the old entry `number` instead of the one that it was made from.
fn frame_rebased(frame: Frame, number: u64) -> Frame {
    let rebased = |bases: Vec<BaseRange>| {
        bases.into_iter().map(|base| BaseRange { entry: number, ..base }).collect()
    };
    let codec = match frame.codec {
        Codec::ZstdPrefix { bases } => Codec::ZstdPrefix { bases: rebased(bases) },
        Codec::Differences { bases } => Codec::Differences { bases: rebased(bases) },
        codec @ (Codec::Raw | Codec::Zstd) => codec,
    };
    Frame { codec, ..frame }
}

fn rebased(content: Content, number: u64) -> Content {
    let rebase = |slice: Slice| match slice {
        Slice::Base { offset, len, .. } => Slice::Base { entry: number, offset, len },
        Slice::Inside { stream, offset, len, .. } => {
            Slice::Inside { entry: number, stream, offset, len }
        }
        slice => slice,
    };
    match content {
        Content::Slices { encoder, slices } => {
            Content::Slices { encoder, slices: slices.into_iter().map(rebase).collect() }
        }
        Content::RsyncDelta { slices, .. } => Content::RsyncDelta { base_entry: number, slices },
        Content::Inside { recipe_len, slices } => {
            Content::Inside { recipe_len, slices: slices.into_iter().map(rebase).collect() }
        }
        content => content,
    }
}

/// The same with every number of a frame `by` larger.
pub(super) fn shifted(content: Content, by: u32) -> Content {
    let shift = |slice: Slice| match slice {
        Slice::Frame { frame, offset, len } => Slice::Frame { frame: frame + by, offset, len },
        slice => slice,
    };
    match content {
        Content::Slices { encoder, slices } => {
            Content::Slices { encoder, slices: slices.into_iter().map(shift).collect() }
        }
        Content::RsyncDelta { base_entry, slices } => {
            let slices = slices.into_iter().map(shift).collect();
            Content::RsyncDelta { base_entry, slices }
        }
        Content::Inside { recipe_len, slices } => {
            Content::Inside { recipe_len, slices: slices.into_iter().map(shift).collect() }
        }
        content => content,
    }
}
