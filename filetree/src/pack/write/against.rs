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
        let is_obvious = stored.len() * 10 < content.len()
            || (stored.len() as f64) < measure(content)? as f64 * ALONE_SHARE;
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

/// What takes less than that of what [`measure`] gives is worth its base without a trial at a higher level,
/// which would have to take a third less.
const ALONE_SHARE: f64 = 0.6;
/// A level that costs little.
const QUICK_LEVEL: i32 = 6;
/// Up to this level it is the prefix that costs, which every level loads alike.
const PREFIX_LEVEL: i32 = 12;
/// The highest level takes hardly less of what that one gives: 0.63 of it at least, in what was measured.
const REACHED_SHARE: f64 = 0.7;

/// Bytes that a match takes which a change ends, at least and at most. In what was measured, where there
/// were many changes and hardly anything new, levels that cost little took 1.7 to 2.7, and the highest
/// ones 1.6 to 2.1; differences were smaller wherever they took less than 2.2, and larger from 3.5 on.
const LEAST_PER_MATCH: f64 = 2.0;
const LEAST_AT_HIGH_LEVELS: f64 = 1.0;
const MOST_PER_MATCH: f64 = 3.0;
/// Where every few bytes are copied from elsewhere, as in the lines of a log, old content is not what
/// became new but what it looks like. So many bytes of it that are near say nearly all: all of it takes
/// half as long again at the highest levels, for 7 % fewer bytes of the log that was measured.
const SHORT_COPIES: usize = 128;
const NEAR_BYTES: usize = 1 << 20;
/// Of more bytes than this, which take a while, so many are not compressed for each byte that is left.
const FEW_BYTES: usize = 1 << 20;
const WORTH_A_BYTE: usize = 1024;

/// Compresses what follows the prefix with it, or its differences to it, whichever is smaller; whether
/// it is differences. To load a prefix takes most of the time, so what a glance at the differences
/// decides is not tried, and the highest levels only where they may win.
fn with_prefix(bytes: &[u8], prefix_len: usize, level: i32) -> Result<(Vec<u8>, bool), Error> {
    let matched = |level| frame::compress(bytes, prefix_len, level).map_err(Error::Compress);
    let (old, new) = bytes.split_at(prefix_len);
    let Some(differences) = Differences::find(old, new) else {
        return Ok((matched(level)?, false));
    };
    let packed = |level| differences.pack(level).map_err(Error::Compress);
    let is_high = level > PREFIX_LEVEL;
    let per_change = differences.bytes_per_change().map_err(Error::Compress)?;
    if per_change < if is_high { LEAST_AT_HIGH_LEVELS } else { LEAST_PER_MATCH } {
        return Ok((packed(level)?, true));
    }
    let quick_level = if is_high { QUICK_LEVEL } else { level };
    let alone = differences.pack_alone(quick_level).map_err(Error::Compress)?;
    if bytes.len() > FEW_BYTES && alone.len() * WORTH_A_BYTE < bytes.len() {
        return Ok((packed(level)?, true));
    }
    if is_high && differences.is_copied() && per_change > MOST_PER_MATCH {
        let near = match differences.bytes_per_copy() < SHORT_COPIES {
            true => prefix_len.min(NEAR_BYTES),
            false => prefix_len,
        };
        let packed = frame::compress(&bytes[prefix_len - near..], near, level);
        return Ok((packed.map_err(Error::Compress)?, false));
    }
    let quick = match !is_high && differences.is_copied() {
        true => frame::compress_copied(bytes, prefix_len, level).map_err(Error::Compress)?,
        false => matched(quick_level)?,
    };
    if alone.len() > quick.len() {
        let packed = if level > quick_level { matched(level)? } else { quick };
        return Ok((packed, false));
    }
    let differences = packed(level)?;
    if (differences.len() as f64) < quick.len() as f64 * REACHED_SHARE {
        return Ok((differences, true));
    }
    let packed = if level > quick_level { matched(level)? } else { quick };
    match differences.len() < packed.len() {
        true => Ok((differences, true)),
        false => Ok((packed, false)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{delta::differences, mutate::Random};

    /// Records of 24 bytes, each with a number of its own.
    fn records(first: u32) -> Vec<u8> {
        let mut random = Random::new(9);
        let record = |n: u32| {
            let mut record: Vec<u8> = (0..24).map(|_| random.below(256) as u8).collect();
            record[..4].copy_from_slice(&(first + 24 * n).to_le_bytes());
            record
        };
        (0..50_000).flat_map(record).collect()
    }

    /// Lines of a log, in which numbers differ from those of another seed, but not what is around them.
    fn log(seed: u64) -> Vec<u8> {
        let mut random = Random::new(seed);
        let line = |n: u32| {
            let (client, file, agent) = (random.below(5_000), random.below(3_000), random.below(4));
            let agent =
                ["curl/8.5.0", "Wget/1.21", "Debian APT-HTTP/1.3", "libdnf (Fedora)"][agent];
            let status = [200, 200, 200, 206, 304, 404][random.below(6)];
            format!(
                "10.{}.{}.{} - - [27/Nov/2026:{:02}:{:02}:{:02} +0000] \
                 \"GET /pub/package-{file:x}.tar.xz HTTP/1.1\" {status} {} \"-\" \"{agent}\"\n",
                client / 250,
                client % 250,
                client % 7,
                n / 600,
                n / 10 % 60,
                n / 4 % 60,
                file * 7_919 + 1_000,
            )
            .into_bytes()
        };
        (0..12_000).flat_map(line).collect()
    }

    /// Rows of a table, each with a name of its own that stays and a number that does not.
    fn table(seed: u64) -> Vec<u8> {
        let (mut names, mut numbers) = (Random::new(7), Random::new(seed));
        let row = |_| {
            let name: String = (0..24).map(|_| char::from(b'a' + names.below(26) as u8)).collect();
            format!("{name},{:08}\n", numbers.below(100_000_000)).into_bytes()
        };
        (0..80_000).flat_map(row).collect()
    }

    /// How often a prefix was loaded, and whether differences came of it.
    fn loaded(old: &[u8], new: &[u8], level: i32) -> (u32, bool) {
        let both = [old, new].concat();
        let before = frame::LOADED_PREFIXES.get();
        let (packed, is_differences) = with_prefix(&both, old.len(), level).unwrap();
        let loaded = frame::LOADED_PREFIXES.get() - before;
        let unpacked = match is_differences {
            true => differences::unpack(&packed, old, new.len() as u32),
            false => frame::decompress(&packed, old, new.len() as u32),
        };
        assert!(unpacked.as_deref() == Some(new));
        (loaded, is_differences)
    }

    #[test]
    fn a_prefix_is_not_loaded_for_what_a_glance_at_the_differences_decides() {
        let (old, new) = (records(1_000_000), records(1_000_024));
        for level in [9, 12, 19] {
            // Each record has another number, and nothing is new.
            assert_eq!(loaded(&old, &new, level), (0, true));
            // Next to nothing is different.
            let mut touched = old.clone();
            touched[777_777] ^= 1;
            assert_eq!(loaded(&old, &touched, level), (0, true));
        }
        // Matches take less: at the highest level that is known without a trial at a low one.
        let (old, new) = (log(1), log(2));
        assert_eq!(loaded(&old, &new, 12), (1, false));
        assert_eq!(loaded(&old, &new, 19), (1, false));
    }

    #[test]
    fn of_old_content_that_only_looks_like_the_new_one_the_near_part_is_enough() {
        let (old, new) = (log(1), log(2));
        let far = old.len() - NEAR_BYTES;
        let near_alone = [&old[far..], &new].concat();
        let all = [&old[..], &new].concat();
        let packed = |bytes: &[u8], level| with_prefix(bytes, bytes.len() - new.len(), level);
        assert!(packed(&all, 19).unwrap() == packed(&near_alone, 19).unwrap());
        // Levels that cost little take what there is.
        assert!(packed(&all, 12).unwrap() != packed(&near_alone, 12).unwrap());
        // What became the new content is looked at as a whole, though it changed all over.
        let (old, new) = (table(1), table(2));
        let all = [&old[..], &new].concat();
        let (whole, _) = with_prefix(&all, old.len(), 19).unwrap();
        let far = old.len() - NEAR_BYTES;
        let near = frame::compress(&all[far..], NEAR_BYTES, 19).unwrap();
        assert!(whole.len() < near.len() * 3 / 4, "{} and {} bytes", whole.len(), near.len());
    }
}
