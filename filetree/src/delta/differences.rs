//! Content as differences to old content: copies of it with a number added to some bytes, and new
//! bytes between them.
//!
//! A release that is built anew is full of numbers that all changed by the same: addresses behind a
//! function that grew, places in an archive, indexes of a table. To a compressor that looks for
//! equal bytes each of them ends a match; as a difference each is one small byte among zeros.
//!
//! The differences of a frame are a *recipe*, which is compressed in place of the content:
//!
//! | part | |
//! |---|---|
//! | copies | for each stretch the bytes that are copied, some of them changed |
//! | new | for each stretch the new bytes behind the copy |
//! | seeks | for each stretch how far its old bytes are from the end of those of the stretch before, signed |
//! | same | how many copied bytes stay as they are before the next that change, over all stretches |
//! | changed | how many change then, less one |
//! | values | what is added to each that changes, modulo 256 |
//! | bytes | the new bytes of all stretches: the rest |
//!
//! Each part but the last begins with its length; numbers are varints. Kinds of numbers lie together
//! because like next to like compresses best. A recipe is never longer than what it makes.

mod likeness;

use std::io;

use protocol::wire::{Malformed, Reader, Writer};

use super::frame;
use likeness::{Stretch, equal_run};

/// New bytes are compressed with the old content as prefix if they are more than this share: to
/// load the prefix takes time.
const NEW_SHARE: usize = 64;

/// A level that costs next to nothing.
const GLANCE_LEVEL: i32 = 3;

/// The differences of some content to old content.
pub struct Differences<'a> {
    old: &'a [u8],
    recipe: Vec<u8>,
    /// Where the new bytes begin in the recipe.
    news_at: usize,
    has_news: bool,
    /// Runs of bytes that change, all over what is copied.
    changes: usize,
    /// Bytes of content for each place that it is copied from.
    bytes_per_copy: usize,
}

impl<'a> Differences<'a> {
    /// Finds the differences of `new` to `old`; `None` where there would be more of them than content.
    pub fn find(old: &'a [u8], new: &[u8]) -> Option<Self> {
        let stretches = likeness::stretches(old, new);
        let (recipe, changes) = write(old, new, &stretches);
        if recipe.len() > new.len() {
            return None;
        }
        let news: usize = stretches.iter().map(|stretch| stretch.new).sum();
        let news_at = recipe.len() - news;
        let has_news = news > new.len() / NEW_SHARE;
        let bytes_per_copy = new.len() / stretches.len().max(1);
        Some(Self { old, recipe, news_at, has_news, changes, bytes_per_copy })
    }

    /// Whether nearly all of the content are copies.
    pub fn is_copied(&self) -> bool {
        !self.has_news
    }

    /// Bytes of content for each old place that some are copied from.
    pub fn bytes_per_copy(&self) -> usize {
        self.bytes_per_copy
    }

    /// About how many bytes they take beside the new ones, for each run of bytes that change: what ends
    /// matches without them.
    ///
    /// # Errors
    /// What compressing gives.
    pub fn bytes_per_change(&self) -> io::Result<f64> {
        let changes = frame::compress(&self.recipe[..self.news_at], 0, GLANCE_LEVEL)?;
        Ok(changes.len() as f64 / self.changes.max(1) as f64)
    }

    /// Packs them at a zstd level.
    pub fn pack(&self, level: i32) -> io::Result<Vec<u8>> {
        if self.has_news {
            let both = [self.old, &self.recipe].concat();
            return frame::compress(&both, self.old.len(), level);
        }
        self.pack_alone(level)
    }

    /// Packs them without the old content as prefix, which takes less time. Read in the same way.
    pub fn pack_alone(&self, level: i32) -> io::Result<Vec<u8>> {
        frame::compress(&self.recipe, 0, level)
    }
}

/// Unpacks packed differences: exactly `raw_len` bytes. `None` when it is damaged; another prefix
/// gives other bytes.
pub fn unpack(stored: &[u8], prefix: &[u8], raw_len: u32) -> Option<Vec<u8>> {
    let recipe = frame::decompress_at_most(stored, prefix, raw_len)?;
    make(&recipe, prefix, raw_len as usize).ok()
}

/// The recipe, and how many runs of bytes change in what is copied.
fn write(old: &[u8], new: &[u8], stretches: &[Stretch]) -> (Vec<u8>, usize) {
    let [mut copies, mut news, mut seeks, mut same, mut changed]: [Writer; 5] = Default::default();
    let (mut values, mut bytes) = (Vec::new(), Vec::new());
    let (mut at, mut old_end) = (0, 0);
    // Runs go on over stretches.
    let (mut same_run, mut changed_run) = (0u64, 0u64);
    let mut runs = 0;
    for stretch in stretches {
        copies.varint(stretch.copied as u64);
        news.varint(stretch.new as u64);
        seeks.signed(stretch.old_at as i64 - old_end as i64);
        old_end = stretch.old_at + stretch.copied;
        let copied_to = at + stretch.copied;
        let (mut source, mut made) = (&old[stretch.old_at..old_end], &new[at..copied_to]);
        while !made.is_empty() {
            let equal = equal_run(source, made);
            if equal > 0 && changed_run > 0 {
                changed.varint(changed_run - 1);
                (same_run, changed_run) = (0, 0);
            }
            same_run += equal as u64;
            if let (Some(old), Some(new)) = (source.get(equal), made.get(equal)) {
                if changed_run == 0 {
                    runs += 1;
                    same.varint(same_run);
                }
                changed_run += 1;
                values.push(new.wrapping_sub(*old));
            }
            let passed = made.len().min(equal + 1);
            (source, made) = (&source[passed..], &made[passed..]);
        }
        at = copied_to + stretch.new;
        bytes.extend_from_slice(&new[copied_to..at]);
    }
    if changed_run > 0 {
        changed.varint(changed_run - 1);
    }
    let mut recipe = Writer::new();
    for part in [copies, news, seeks, same, changed] {
        recipe.bytes(part.as_slice());
    }
    recipe.bytes(&values).raw(&bytes);
    (recipe.into_bytes(), runs)
}

/// Makes content of a recipe, which may say anything.
fn make(recipe: &[u8], old: &[u8], raw_len: usize) -> Result<Vec<u8>, Malformed> {
    let mut recipe = Reader::new(recipe);
    let limit = raw_len as u64;
    let mut part = |what| Ok::<_, Malformed>(Reader::new(recipe.bytes(what, limit)?));
    let mut copies = part("copies")?;
    let mut news = part("new bytes")?;
    let mut seeks = part("seeks")?;
    let mut changes = Changes {
        same: part("same bytes")?,
        changed: part("changed bytes")?,
        values: part("values")?,
        same_left: 0,
        changed_left: 0,
    };
    let mut made = Vec::with_capacity(raw_len);
    let mut old_end = 0i64;
    while made.len() < raw_len {
        let left = (raw_len - made.len()) as u64;
        let copied = copies.varint_up_to("copied bytes", left)?;
        let new = news.varint_up_to("new bytes", left - copied)?;
        if copied + new == 0 {
            return Err(copies.invalid("stretch"));
        }
        let place = old_end.checked_add(seeks.signed()?);
        let source =
            place.and_then(|at| old.get(usize::try_from(at).ok()?..)?.get(..copied as usize));
        let (Some(place), Some(source)) = (place, source) else {
            return Err(seeks.invalid("old bytes"));
        };
        old_end = place + copied as i64;
        let from = made.len();
        made.extend_from_slice(source);
        changes.apply(&mut made[from..])?;
        made.extend_from_slice(recipe.take(new as usize)?);
    }
    for part in [copies, news, seeks, changes.same, changes.changed, changes.values, recipe] {
        part.finish()?;
    }
    match changes.changed_left {
        0 => Ok(made),
        _ => Err(Malformed::Truncated { at: raw_len }),
    }
}

/// What changes in the bytes that are copied.
struct Changes<'a> {
    same: Reader<'a>,
    changed: Reader<'a>,
    values: Reader<'a>,
    same_left: u64,
    changed_left: u64,
}

impl Changes<'_> {
    /// Goes on with the next bytes.
    fn apply(&mut self, mut bytes: &mut [u8]) -> Result<(), Malformed> {
        while !bytes.is_empty() {
            if self.same_left == 0 && self.changed_left == 0 {
                if self.same.is_empty() {
                    return Ok(());
                }
                self.same_left = self.same.varint()?;
                self.changed_left = self.changed.varint()?.saturating_add(1);
            }
            let stay = (bytes.len() as u64).min(self.same_left);
            self.same_left -= stay;
            let (change, rest) = {
                let rest = &mut bytes[stay as usize..];
                let change = (rest.len() as u64).min(self.changed_left);
                self.changed_left -= change;
                rest.split_at_mut(change as usize)
            };
            let values = self.values.take(change.len())?;
            for (byte, value) in change.iter_mut().zip(values) {
                *byte = byte.wrapping_add(*value);
            }
            bytes = rest;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
