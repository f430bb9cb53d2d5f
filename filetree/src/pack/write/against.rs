//! Compressing what is new against what is old.

use std::ops::Range;

use protocol::pack::{BaseRange, Codec, MAX_BASES};

use super::{encode::Packed, inside::OldContent};
use crate::{
    delta::{
        ReadAt,
        choose::DELTA_WORTH_SHARE,
        differences::Differences,
        frame,
        inside::{Part, View},
        whole,
    },
    pack::Error,
};

/// Old content that a frame is compressed against.
#[derive(Default)]
pub(super) struct Prefix {
    pub(super) bytes: Vec<u8>,
    pub(super) bases: Vec<BaseRange>,
}

impl Prefix {
    pub(super) fn push(&mut self, old: &OldContent) {
        self.bytes.extend_from_slice(&old.content);
        let content: &dyn ReadAt = &old.content;
        let described = Old { content, number: old.number, view: old.view.as_ref() };
        self.bases.extend(described.bases(&(0..old.content.len() as u64)));
    }
}

pub(super) fn is_worth_a_base(with: usize, without: usize) -> bool {
    (with as f64) < without as f64 * DELTA_WORTH_SHARE
}

/// Roughly what bytes take by themselves.
pub(super) fn measure(bytes: &[u8]) -> Result<usize, Error> {
    Ok(frame::compress(bytes, 0, 3).map_err(Error::Compress)?.len())
}

/// An old file, or its view.
pub(super) struct Old<'a> {
    pub(super) content: &'a dyn ReadAt,
    /// Number of its entry.
    pub(super) number: u64,
    pub(super) view: Option<&'a View>,
}

impl Old<'_> {
    /// Where the bytes of a range are.
    pub(super) fn bases(&self, range: &Range<u64>) -> Vec<BaseRange> {
        let entry = self.number;
        let Some(view) = self.view else {
            let len = (range.end - range.start) as u32;
            return vec![BaseRange { entry, offset: range.start, len, stream: None }];
        };
        let base = |part| match part {
            Part::File { offset, len } => {
                BaseRange { entry, offset, len: len as u32, stream: None }
            }
            Part::Inside { stream, offset, len } => {
                BaseRange { entry, offset, len: len as u32, stream: Some(stream) }
            }
        };
        view.parts(range.clone()).map(base).collect()
    }
}

/// Compresses `new` with ranges of the old file as prefix.
pub(super) fn against(
    ranges: &[Range<u64>],
    old: &Old<'_>,
    new: &[u8],
    level: i32,
) -> Result<Packed, Error> {
    let (mut bytes, mut bases) = (Vec::new(), Vec::new());
    for range in ranges {
        let len = (range.end - range.start) as usize;
        let parts = old.bases(range);
        if bases.len() + parts.len() > MAX_BASES {
            break;
        }
        // An old file that cannot be read any more just does not help.
        if let Ok(old) = old.content.range(range.start, len) {
            bytes.extend_from_slice(&old);
            bases.extend(parts);
        }
    }
    let prefix_len = bytes.len();
    bytes.extend_from_slice(new);
    best(&bytes, prefix_len, bases, level)
}

/// Compresses what follows the prefix, with it or, where that is about as good, without it: fewer
/// mirrors hold every base than hold none.
pub(super) fn best(
    bytes: &[u8],
    prefix_len: usize,
    bases: Vec<BaseRange>,
    level: i32,
) -> Result<Packed, Error> {
    let content = &bytes[prefix_len..];
    let raw_len = content.len() as u32;
    if prefix_len > 0 {
        let (stored, is_differences) = with_prefix(bytes, prefix_len, level)?;
        // Content that shrinks to a tenth against its old version would not do so by itself.
        let is_obvious = stored.len() * 10 < content.len();
        if is_obvious || {
            let (_, alone) = whole::pack(content, level.min(9)).map_err(Error::Compress)?;
            is_worth_a_base(stored.len(), alone.len())
        } {
            let codec = match is_differences {
                true => Codec::Differences { bases },
                false => Codec::ZstdPrefix { bases },
            };
            return Ok(Packed { stored, raw_len, codec });
        }
    }
    let (codec, stored) = whole::pack(content, level).map_err(Error::Compress)?;
    Ok(Packed { stored, raw_len, codec })
}

/// A level that costs little.
const QUICK_LEVEL: i32 = 6;
/// Up to this level it is the prefix that costs, which every level loads alike.
const PREFIX_LEVEL: i32 = 12;
/// The highest level takes hardly less of what that one gives: 0.63 of it at least, in what was measured.
const REACHED_SHARE: f64 = 0.7;

/// Compresses what follows the prefix with it, or its differences to it, whichever is smaller; whether
/// it is differences. The highest levels are tried only where they may win.
fn with_prefix(bytes: &[u8], prefix_len: usize, level: i32) -> Result<(Vec<u8>, bool), Error> {
    let matched = |level| frame::compress(bytes, prefix_len, level).map_err(Error::Compress);
    let (old, new) = bytes.split_at(prefix_len);
    let Some(differences) = Differences::find(old, new) else {
        return Ok((matched(level)?, false));
    };
    let quick_level = if level > PREFIX_LEVEL { QUICK_LEVEL } else { level };
    let quick = matched(quick_level)?;
    let alone = differences.pack_alone(quick_level).map_err(Error::Compress)?;
    if alone.len() > quick.len() {
        let packed = if level > quick_level { matched(level)? } else { quick };
        return Ok((packed, false));
    }
    let differences = differences.pack(level).map_err(Error::Compress)?;
    if (differences.len() as f64) < quick.len() as f64 * REACHED_SHARE {
        return Ok((differences, true));
    }
    let packed = if level > quick_level { matched(level)? } else { quick };
    match differences.len() < packed.len() {
        true => Ok((differences, true)),
        false => Ok((packed, false)),
    }
}
