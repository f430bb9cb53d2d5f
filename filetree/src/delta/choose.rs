//! Which encoder a file gets, against which old file, and how hard it is tried.

use std::{collections::HashMap, time::Duration};

use protocol::{
    manifest::{Entry, Manifest},
    path::TreePath,
};

/// Which encoders a pack may use. Copies of old content are always used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum EncoderChoice {
    /// Whatever is smallest, measured.
    #[default]
    Auto,
    /// librsync deltas wherever there is an old version.
    Rsync,
    /// Every file by itself against its old version.
    Patch,
    /// Small files together; large ones as with `Patch`.
    Group,
    /// No old content at all.
    Whole,
}

/// Text that names no choice of encoders.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a choice of encoders: use auto, rsync, patch, group or whole")]
pub struct InvalidChoice(String);

impl std::str::FromStr for EncoderChoice {
    type Err = InvalidChoice;

    fn from_str(text: &str) -> Result<Self, InvalidChoice> {
        match text {
            "auto" => Ok(Self::Auto),
            "rsync" => Ok(Self::Rsync),
            "patch" => Ok(Self::Patch),
            "group" => Ok(Self::Group),
            "whole" => Ok(Self::Whole),
            _ => Err(InvalidChoice(text.to_owned())),
        }
    }
}

/// A delta that saves less than this share of the whole file is not worth depending on a base.
pub const DELTA_WORTH_SHARE: f64 = 0.9;

/// What kind of frame a level is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameKind {
    /// Small files together.
    Small,
    /// A segment against an aligned prefix.
    Patch,
    /// A segment of a large file, by itself.
    Whole,
    /// Plain text of deflate streams, together or a segment: `total` counts it as such.
    Inside,
}

/// CPU time that the levels of [`level`] take at most for packs of a few gigabytes, on the machines
/// on which they were chosen.
pub const USUAL_CPU: Duration = Duration::from_secs(300);

/// How much work a pack is worth, 1 being usual: what its budget allows, and less if only a few of
/// `many` agents will fetch it.
pub fn effort(cpu_budget: Duration, fan_out: u64, many: u64) -> f64 {
    let share = fan_out.clamp(1, many.max(1)) as f64 / many.max(1) as f64;
    cpu_budget.as_secs_f64() / USUAL_CPU.as_secs_f64() * share
}

/// The zstd level of a frame in a pack that encodes `total` bytes: the cost is paid once and the
/// gain many times, but a first pack of hundreds of gigabytes has to be done today.
pub fn level(kind: FrameKind, total: u64, effort: f64) -> i32 {
    const MIB: f64 = (1 << 20) as f64;
    // Twice the time is twice the bytes at the same level.
    let mebibytes = total as f64 / MIB / effort.max(1e-6);
    match (kind, mebibytes as u64) {
        (FrameKind::Small | FrameKind::Patch, 0..=31) => 19,
        // What zstd calls 13 to 17 takes as long as our 18 against a prefix, and leaves more.
        (FrameKind::Small | FrameKind::Patch, 32..=1023) => 18,
        // A sixth of 19's time, for a tenth more bytes, of which there are few.
        (FrameKind::Inside, 0..=3) => 19,
        (FrameKind::Inside, 4..=1023) => 12,
        (FrameKind::Patch | FrameKind::Inside, 1024..=4095) => 9,
        (FrameKind::Whole, 0..=63) => 19,
        (FrameKind::Whole, 64..=511) => 12,
        (FrameKind::Small, _) | (FrameKind::Whole, 512..=4095) => 9,
        (FrameKind::Patch | FrameKind::Whole | FrameKind::Inside, _) => 6,
    }
}

/// Old files whose names say that they are like a new one.
///
/// A release moves `foo-1.2/src/lib.rs` to `foo-1.3/src/lib.rs`, and `foo-1.2.iso` gets a sibling.
/// So a partner is looked for first under the same path without version numbers, then among files
/// of the same name, the one with most in common at the path's end; its size is within 30 %, or
/// both are small.
#[derive(Debug, Default)]
pub struct Partners {
    by_shape: HashMap<Vec<u8>, Vec<u64>>,
    by_name: HashMap<Vec<u8>, Vec<u64>>,
}

/// Candidates kept for one key.
const CANDIDATES: usize = 64;
/// Below this, sizes need not be alike.
const SMALL_BYTES: u64 = 32 << 10;

impl Partners {
    /// Looks through `old` for whatever could be a partner of one of `new`.
    pub fn find<'a>(old: &Manifest, new: impl Iterator<Item = &'a TreePath>) -> Self {
        let mut partners = Self::default();
        for path in new {
            partners.by_shape.entry(shape(path.as_bytes())).or_default();
            partners.by_name.entry(shape(path.name())).or_default();
        }
        if partners.by_name.is_empty() {
            return partners;
        }
        for (number, entry) in old.entries().iter().enumerate() {
            if entry.size() == 0 {
                continue;
            }
            let Some(named) = partners.by_name.get_mut(&shape(entry.path.name())) else { continue };
            if named.len() < CANDIDATES {
                named.push(number as u64);
            }
            if let Some(alike) = partners.by_shape.get_mut(&shape(entry.path.as_bytes()))
                && alike.len() < CANDIDATES
            {
                alike.push(number as u64);
            }
        }
        partners
    }

    /// The best partner of `new`.
    pub fn get(&self, old: &Manifest, new: &Entry, fits: &dyn Fn(&Entry) -> bool) -> Option<u64> {
        let best = |numbers: Option<&Vec<u64>>| {
            numbers?
                .iter()
                .filter_map(|&number| Some((number, old.entries().get(number as usize)?)))
                .filter(|(_, entry)| is_like(entry.size(), new.size()) && fits(entry))
                .max_by_key(|(number, entry)| {
                    let distance = entry.size().abs_diff(new.size());
                    (likeness(&entry.path, &new.path), std::cmp::Reverse(distance), *number)
                })
                .map(|(number, _)| number)
        };
        best(self.by_shape.get(&shape(new.path.as_bytes())))
            .or_else(|| best(self.by_name.get(&shape(new.path.name()))))
    }
}

fn is_like(old: u64, new: u64) -> bool {
    let (less, more) = (old.min(new), old.max(new));
    more <= SMALL_BYTES || less as f64 >= more as f64 * 0.7
}

/// Bytes in common at both ends of the paths.
fn likeness(a: &TreePath, b: &TreePath) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let front = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let back = a.iter().rev().zip(b.iter().rev()).take_while(|(a, b)| a == b).count();
    2 * back + front
}

/// The bytes with version numbers and digests replaced by `#`, all letters small.
fn shape(bytes: &[u8]) -> Vec<u8> {
    let mut shape = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(&first) = rest.first() {
        let hex = rest.iter().take_while(|b| b.is_ascii_hexdigit()).count();
        let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
        if hex >= 8 && rest[..hex].iter().any(u8::is_ascii_digit) {
            shape.push(b'#');
            rest = &rest[hex..];
        } else if digits > 0 {
            // Runs of digits that dots join are one version.
            let mut len = digits;
            while rest.get(len) == Some(&b'.') && rest.get(len + 1).is_some_and(u8::is_ascii_digit)
            {
                len += 1;
                len += rest[len..].iter().take_while(|b| b.is_ascii_digit()).count();
            }
            shape.push(b'#');
            rest = &rest[len..];
        } else {
            // `Babel-2.15.0.whl` and `babel-2.16.0.whl` are one project's.
            shape.push(first.to_ascii_lowercase());
            rest = &rest[1..];
        }
    }
    shape
}

#[cfg(test)]
mod tests {
    use protocol::{digest::Digest, manifest::EntryKind};

    use super::*;

    #[test]
    fn levels_follow_from_amount_budget_and_who_will_fetch() {
        const GIB: u64 = 1 << 30;
        let level = |total, seconds, agents| {
            let effort = effort(Duration::from_secs(seconds), agents, 4);
            FRAME_KINDS.map(|kind| super::level(kind, total, effort))
        };
        assert_eq!(level(3 << 20, 300, 4), [19, 19, 19, 19]);
        assert_eq!(level(10 << 20, 300, 4), [19, 19, 19, 12]);
        assert_eq!(level(GIB, 300, 4), [9, 9, 9, 9]);
        assert_eq!(level(100 * GIB, 300, 4), [9, 6, 6, 6]);
        assert_eq!(level(GIB, 3000, 1000), [18, 18, 12, 12]);
        assert_eq!(level(300 << 20, 300, 1), level(1200 << 20, 300, 4));
        assert_eq!(level(GIB, 0, 0), [9, 6, 6, 6]);
    }

    const FRAME_KINDS: [FrameKind; 4] =
        [FrameKind::Small, FrameKind::Patch, FrameKind::Whole, FrameKind::Inside];

    fn tree(files: &[(&str, u64)]) -> Manifest {
        let mut entries = Vec::new();
        for (path, size) in files {
            let path = TreePath::parse(path.as_bytes()).unwrap();
            for above in path.ancestors() {
                entries.push(Entry { path: above, mode: 0o755, mtime: 0, kind: EntryKind::Dir });
            }
            let digest = Digest::of(path.as_bytes());
            let kind = EntryKind::File { size: *size, digest, link_group: None };
            entries.push(Entry { path, mode: 0o644, mtime: 0, kind });
        }
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        entries.dedup_by(|a, b| a.path == b.path);
        Manifest::new(entries).unwrap()
    }

    fn partner(old: &[(&str, u64)], new: (&str, u64)) -> Option<String> {
        let (old, new) = (tree(old), tree(&[new]));
        let new = new.entries().last().unwrap();
        let partners = Partners::find(&old, std::iter::once(&new.path));
        let number = partners.get(&old, new, &|_| true)?;
        Some(old.entries()[number as usize].path.to_string())
    }

    #[test]
    fn new_files_find_the_version_before_them() {
        const MB: u64 = 1 << 20;
        let old = [
            ("pool/foo-1.1.iso", 100 * MB),
            ("pool/foo-1.2.iso", 100 * MB),
            ("pool/foo-1.2.iso.sig", 100),
            ("pool/bar-1.2.iso", 100 * MB),
            ("pool/Babel-2.15.0.whl", 9 * MB),
            ("tokio-1.40.0/src/lib.rs", 9000),
            ("tokio-1.40.0/src/net/lib.rs", 9000),
            ("repodata/0a1b2c3d4e-primary.xml.gz", 5 * MB),
        ];
        let found = |new, size| partner(&old, (new, size));
        assert_eq!(found("pool/foo-1.3.iso", 101 * MB).unwrap(), "pool/foo-1.2.iso");
        assert_eq!(found("tokio-1.41.0/src/lib.rs", 9500).unwrap(), "tokio-1.40.0/src/lib.rs");
        assert_eq!(
            found("repodata/99887766aa-primary.xml.gz", 5 * MB).unwrap(),
            "repodata/0a1b2c3d4e-primary.xml.gz"
        );
        assert_eq!(found("pool/babel-2.16.0.whl", 9 * MB).unwrap(), "pool/Babel-2.15.0.whl");
        assert_eq!(found("elsewhere/foo-2.iso", 90 * MB).unwrap(), "pool/foo-1.2.iso");
        assert_eq!(found("pool/foo-1.3.iso", 300 * MB), None);
        assert_eq!(found("pool/other-1.3.iso", 100 * MB), None);
    }
}
