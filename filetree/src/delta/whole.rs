//! The `whole` encoder: content by itself, compressed where that helps.

use std::io;

use protocol::pack::Codec;

use super::{ReadAt, frame};

/// Compressed content is kept only if it is smaller than this share of the raw bytes: below that,
/// unpacking costs every mirror more than the bytes save.
const WORTH_SHARE: f64 = 0.97;
const SAMPLE_BYTES: u64 = 64 << 10;
const SAMPLES: u64 = 4;

/// Packs content as a frame without a prefix.
pub fn pack(content: &[u8], level: i32) -> io::Result<(Codec, Vec<u8>)> {
    let packed = frame::compress(content, 0, level)?;
    if is_worth(packed.len(), content.len()) {
        Ok((Codec::Zstd, packed))
    } else {
        Ok((Codec::Raw, content.to_vec()))
    }
}

/// Whether `packed` bytes instead of `raw` bytes are worth unpacking.
pub fn is_worth(packed: usize, raw: usize) -> bool {
    (packed as f64) < raw as f64 * WORTH_SHARE
}

/// Whether content is compressed already, by one cheap trial on samples: its names may say so, but
/// names lie.
pub fn is_incompressible(content: &dyn ReadAt, len: u64) -> io::Result<bool> {
    let step = (len / SAMPLES).max(1);
    let (mut raw, mut packed) = (0, 0);
    for at in (0..len).step_by(step as usize).take(SAMPLES as usize) {
        let sample = content.range(at, SAMPLE_BYTES.min(step).min(len - at) as usize)?;
        raw += sample.len();
        packed += frame::compress(&sample, 0, 1)?.len();
    }
    Ok(raw > 0 && !is_worth(packed, raw))
}
