//! The `group` encoder: small neighbors compressed together, with their old versions and old
//! siblings as one prefix.
//!
//! Files of one directory are alike. One frame for many of them saves what every single one would
//! spend on learning that, and a new file profits from siblings that were there before. Groups are
//! small enough that a filter takes few of them, and do not mix files that filters tell apart.

use std::collections::HashSet;

use protocol::{
    manifest::{Entry, Manifest},
    pack::{MAX_BASES, MAX_PREFIX_BYTES},
    path::TreePath,
};

/// Larger files are encoded by themselves.
pub const MEMBER_BYTES: u64 = 1 << 20;
/// New content of one group.
pub const CONTENT_BYTES: u64 = 4 << 20;
/// Old versions of one group's members; the rest of the prefix is for siblings.
pub const OLD_BYTES: u64 = 10 << 20;
/// Members of one group.
pub const MEMBERS: usize = 4096;
/// Old entries around a new path that are looked at.
const NEIGHBORHOOD: usize = 48;
/// Old siblings per byte of new files without an old version, and what they may always have: more
/// would cost time to load and find little.
const SIBLING_FACTOR: u64 = 6;
const SIBLING_FLOOR: u64 = 128 << 10;

/// Chooses old siblings for the members that have no old version of their own.
///
/// `bases` are the numbers of old entries that are in the prefix already, with `base_bytes`; `fits`
/// tells which old entries the group may refer to. The result ascends.
pub fn siblings(
    old: &Manifest,
    lonely: &[(&TreePath, u64)],
    bases: &HashSet<u64>,
    base_bytes: u64,
    fits: &dyn Fn(&Entry) -> bool,
) -> Vec<u64> {
    let wanted: u64 = lonely.iter().map(|(_, size)| size).sum();
    if lonely.is_empty() {
        return Vec::new();
    }
    let room = MAX_PREFIX_BYTES.saturating_sub(base_bytes);
    let mut room = room.min(wanted.saturating_mul(SIBLING_FACTOR).max(SIBLING_FLOOR));
    let mut places = MAX_BASES.saturating_sub(bases.len());
    let mut chosen = HashSet::new();
    // The nearest of every member come before the farther of any.
    for distance in 0..NEIGHBORHOOD {
        for (path, _) in lonely {
            let at = old.entries().partition_point(|entry| entry.path < **path);
            for number in [at.checked_sub(distance + 1), Some(at + distance)] {
                let Some((number, entry)) = number.and_then(|n| Some((n, old.entries().get(n)?)))
                else {
                    continue;
                };
                let number = number as u64;
                let size = entry.size();
                let known = bases.contains(&number) || chosen.contains(&number);
                if known || size == 0 || size > MEMBER_BYTES || size > room || places == 0 {
                    continue;
                }
                if extension(&entry.path) == extension(path) && fits(entry) {
                    chosen.insert(number);
                    room -= size;
                    places -= 1;
                }
            }
        }
    }
    let mut chosen: Vec<u64> = chosen.into_iter().collect();
    chosen.sort_unstable();
    chosen
}

/// What follows the last dot of the name.
fn extension(path: &TreePath) -> &[u8] {
    let name = path.name();
    name.iter().rposition(|&b| b == b'.').map_or(&[][..], |dot| &name[dot..])
}
