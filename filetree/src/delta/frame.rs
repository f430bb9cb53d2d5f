//! Packing and unpacking the bytes of one frame.
//!
//! A frame is unpacked in one step into a buffer of its declared length, which is at most 8 MiB:
//! no window is allocated, whatever the data asks for.

use std::io;

use protocol::{pack::MAX_FRAME_RAW_BYTES, wire::MAX_WINDOW_LOG};
use zstd::zstd_safe::{CCtx, CParameter, DCtx, Strategy, get_error_name};

/// Most bytes of content that a writer puts into one frame.
pub const FRAME_BYTES: usize = 4 << 20;

/// Logarithm of the places of each table, at most, where long runs have a table of their own.
const COPIED_TABLE_LOG: u32 = 20;

/// Compresses what follows the first `prefix_len` bytes of `bytes`, with those as prefix.
///
/// Prefix and content come in one buffer because zstd's result depends on whether they lie next to
/// each other in memory, and equal packs should have equal bytes.
pub fn compress(bytes: &[u8], prefix_len: usize, level: i32) -> io::Result<Vec<u8>> {
    compress_with(bytes, prefix_len, level, false)
}

/// The same for content of which nearly all is copied from the prefix, in long runs. Those are found by
/// a table of their own, so that the others need not hold all of the prefix: half of the time for
/// fewer bytes. Other content would take more bytes.
pub fn compress_copied(bytes: &[u8], prefix_len: usize, level: i32) -> io::Result<Vec<u8>> {
    compress_with(bytes, prefix_len, level, true)
}

fn compress_with(
    bytes: &[u8],
    prefix_len: usize,
    level: i32,
    is_copied: bool,
) -> io::Result<Vec<u8>> {
    let (prefix, content) = bytes.split_at(prefix_len);
    let mut context = CCtx::try_create().ok_or(io::ErrorKind::OutOfMemory)?;
    let mut set = |parameter| context.set_parameter(parameter).map_err(zstd_error);
    set(CParameter::CompressionLevel(level))?;
    set(CParameter::ChecksumFlag(true))?;
    if prefix_len > 0 {
        let window = usize::BITS - (bytes.len() - 1).max(1).leading_zeros();
        let window = window.clamp(17, MAX_WINDOW_LOG);
        set(CParameter::WindowLog(window))?;
        // Levels size their tables for the content alone; a prefix that they do not cover is
        // carried in vain.
        let (chain, hash) = match level {
            _ if is_copied => (COPIED_TABLE_LOG, window.min(COPIED_TABLE_LOG)),
            16.. => ((window + 1).min(24), window.min(22)),
            5.. => (window.min(23), window.min(22)),
            _ => (window.min(22), window.min(22)),
        };
        set(CParameter::ChainLog(chain))?;
        set(CParameter::HashLog(hash))?;
        set(CParameter::EnableLongDistanceMatching(is_copied))?;
        if level >= 18 {
            set(CParameter::Strategy(Strategy::ZSTD_btultra2))?;
        }
        // Half of level 19's time, for 2 to 5 % more bytes with libraries and data (with source
        // text 18 %): most time goes into loading a prefix that is mostly matched at length.
        if level == 18 {
            set(CParameter::SearchLog(2))?;
            set(CParameter::MinMatch(5))?;
        }
    }
    context.ref_prefix(prefix).map_err(zstd_error)?;
    #[cfg(test)]
    LOADED_PREFIXES.with(|loaded| loaded.set(loaded.get() + u32::from(prefix_len > 0)));
    let mut packed = Vec::with_capacity(zstd::zstd_safe::compress_bound(content.len()));
    context.compress2(&mut packed, content).map_err(zstd_error)?;
    packed.shrink_to_fit();
    Ok(packed)
}

#[cfg(test)]
thread_local! {
    /// How often this thread compressed with a prefix.
    pub(crate) static LOADED_PREFIXES: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
}

/// Unpacks one frame against `prefix`; `None` when it is damaged, was made with another prefix, or
/// does not give exactly `raw_len` bytes.
pub fn decompress(stored: &[u8], prefix: &[u8], raw_len: u32) -> Option<Vec<u8>> {
    decompress_at_most(stored, prefix, raw_len).filter(|raw| raw.len() == raw_len as usize)
}

/// The same for a frame that may give less.
pub fn decompress_at_most(stored: &[u8], prefix: &[u8], most: u32) -> Option<Vec<u8>> {
    if u64::from(most) > MAX_FRAME_RAW_BYTES {
        return None;
    }
    let mut context = DCtx::try_create()?;
    if !prefix.is_empty() {
        context.ref_prefix(prefix).ok()?;
    }
    let mut raw = Vec::with_capacity(most as usize);
    context.decompress(&mut raw, stored).ok()?;
    Some(raw)
}

fn zstd_error(code: usize) -> io::Error {
    io::Error::other(format!("zstd: {}", get_error_name(code)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_survives_and_a_wrong_prefix_is_noticed() {
        let old: Vec<u8> =
            (0..200_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        let mut new = old.clone();
        new[77_777] ^= 1;
        for level in [1, 3, 9, 15, 19] {
            let both = [&old[..], &new].concat();
            let packed = compress(&both, old.len(), level).unwrap();
            assert!(packed.len() < 1000, "{} bytes at level {level}", packed.len());
            assert_eq!(decompress(&packed, &old, new.len() as u32).as_ref(), Some(&new));
            let mut wrong = old.clone();
            wrong[99] ^= 1;
            assert_eq!(decompress(&packed, &wrong, new.len() as u32), None);
            assert_eq!(decompress(&packed, &old, new.len() as u32 + 1), None);
            assert_eq!(decompress(&packed, &old, new.len() as u32 - 1), None);
        }
    }

    #[test]
    fn long_runs_are_found_all_over_a_prefix_that_is_larger_than_the_tables() {
        let mut random = crate::mutate::Random::new(5);
        let old: Vec<u8> = (0..6 << 20).map(|_| random.below(256) as u8).collect();
        // From the end of the prefix to its beginning: the tables have forgotten the latter.
        let new: Vec<u8> = old.rchunks(8 << 10).flatten().copied().take(5 << 20).collect();
        let both = [&old[..], &new].concat();
        let packed = compress_copied(&both, old.len(), 12).unwrap();
        assert!(packed.len() < 20_000, "{} bytes", packed.len());
        assert_eq!(decompress(&packed, &old, new.len() as u32), Some(new));
    }

    #[test]
    fn a_bomb_is_stopped_at_its_declared_length() {
        let bomb = compress(&vec![0; 64 << 20], 0, 3).unwrap();
        assert_eq!(decompress(&bomb, &[], 1000), None);
        assert_eq!(decompress(&bomb, &[], u32::MAX), None);
    }
}
