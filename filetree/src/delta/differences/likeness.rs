//! Finds where in old content the parts of new content come from, equal or nearly so.

/// A run of new content: bytes that are like old ones, then bytes that are like none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stretch {
    /// Where the old bytes begin.
    pub(super) old_at: usize,
    /// Bytes that are like them; at most half of them differ.
    pub(super) copied: usize,
    /// Bytes behind those that are like none.
    pub(super) new: usize,
}

/// Places are found by so many equal bytes.
const ANCHOR_BYTES: usize = 16;
/// Old places that are remembered lie so far apart: a run of equal bytes that is this much longer
/// than an anchor is always found.
const STEP: usize = 4;
/// Old places that are looked at for one new place.
const MOST_TRIED: usize = 16;
/// Places are compared by so many bytes.
const COMPARED_BYTES: usize = 256;
/// Another old place is taken up if it has so many equal bytes more than where the copy goes on:
/// what a stretch costs.
const BETTER_BYTES: usize = 8;
/// A copy goes no farther once so many more bytes differ than are equal behind its best end: without that,
/// each place that is found would be compared back over all of a long copy before it.
const PATIENCE: i64 = 256;

/// Describes `new` by stretches, the first one from its beginning. Takes time in proportion to the
/// lengths, whatever is in them.
pub(super) fn stretches(old: &[u8], new: &[u8]) -> Vec<Stretch> {
    let places = Places::of(old);
    let mut stretches = Vec::new();
    // The copy that is under way.
    let mut copy = Copy { old_at: 0, new_at: 0 };
    let mut at = 0;
    loop {
        let better = places.next_better(new, &mut at, copy);
        let mut end = copy.forward(old, &new[..at]);
        let mut begin = better.map_or(at, |next| next.backward(old, new, copy.new_at));
        if let Some(next) = better.filter(|_| end > begin) {
            // What both could have goes to one of them.
            end = parting(old, new, (copy, next), begin..end);
            begin = end;
        }
        if begin > copy.new_at {
            let copied = end - copy.new_at;
            stretches.push(Stretch { old_at: copy.old_at, copied, new: begin - end });
        }
        let Some(next) = better else { return stretches };
        copy = Copy { old_at: next.old_at - (at - begin), new_at: begin };
        at += ANCHOR_BYTES;
    }
}

/// A place in new content and the old place that it is copied from.
#[derive(Debug, Clone, Copy)]
struct Copy {
    old_at: usize,
    new_at: usize,
}

impl Copy {
    /// Old bytes from where those for `at` are.
    fn source<'a>(&self, old: &'a [u8], at: usize) -> &'a [u8] {
        old.get(self.old_at + (at - self.new_at)..).unwrap_or_default()
    }

    /// Where in `new`, which ends where another copy begins, it is no longer worth going on: the place
    /// up to which equal bytes outnumber those that differ by most.
    fn forward(&self, old: &[u8], new: &[u8]) -> usize {
        let (old, new) = (self.source(old, self.new_at), &new[self.new_at..]);
        let most = old.len().min(new.len());
        self.new_at + best_length(most, |at| equal_run(&old[at..], &new[at..]))
    }

    /// The same in the other direction, to `least` at most.
    fn backward(&self, old: &[u8], new: &[u8], least: usize) -> usize {
        let (old, new) = (&old[..self.old_at], &new[least..self.new_at]);
        let most = old.len().min(new.len());
        let run = |at| equal_run_back(&old[..old.len() - at], &new[..new.len() - at]);
        self.new_at - best_length(most, run)
    }
}

/// The length, at most this, at which equal bytes outnumber those that differ by most, as far as
/// patience goes; `equal` tells how many are equal from a length on.
fn best_length(most: usize, equal: impl Fn(usize) -> usize) -> usize {
    let (mut surplus, mut highest, mut best) = (0i64, 0, 0);
    let mut at = 0;
    while at < most && highest - surplus < PATIENCE {
        let run = equal(at);
        at += run;
        surplus += run as i64;
        if surplus > highest {
            (highest, best) = (surplus, at);
        }
        // The one behind differs.
        surplus -= 1;
        at += 1;
    }
    best
}

/// Where in `range`, to which both copies reach, the second one is to take over.
fn parting(old: &[u8], new: &[u8], copies: (Copy, Copy), range: std::ops::Range<usize>) -> usize {
    let (first, second) = copies;
    // The second one's place for the range's beginning lies before its own.
    let second_at = second.old_at - (second.new_at - range.start);
    let (mut surplus, mut most, mut best) = (0i64, 0, range.start);
    let pairs = first.source(old, range.start).iter().zip(&old[second_at..]);
    for ((at, new), (first, second)) in range.clone().zip(&new[range]).zip(pairs) {
        surplus += i64::from(first == new) - i64::from(second == new);
        if surplus > most {
            (most, best) = (surplus, at + 1);
        }
    }
    best
}

/// Old places by what is there: the latest of each kind, and for each place the one before.
struct Places<'a> {
    old: &'a [u8],
    /// For each kind which of eight shades of it there are, a bit each. Most of what is looked for is
    /// nowhere, and this is a quarter of what `latest` is: more of it is near.
    shades: Vec<u8>,
    latest: Vec<u32>,
    before: Vec<u32>,
    shift: u32,
}

impl<'a> Places<'a> {
    fn of(old: &'a [u8]) -> Self {
        let count = (old.len() / STEP + 1).next_power_of_two().clamp(1 << 10, 1 << 22);
        let mut places = Self {
            old,
            shades: vec![0; count],
            latest: vec![0; count],
            before: vec![0; old.len() / STEP + 1],
            shift: u64::BITS - count.ilog2(),
        };
        for (number, anchor) in old.windows(ANCHOR_BYTES).step_by(STEP).enumerate() {
            let (kind, shade) = places.kind(anchor);
            places.shades[kind] |= shade;
            places.before[number] = places.latest[kind];
            // 0 is none.
            places.latest[kind] = number as u32 + 1;
        }
        places
    }

    /// The kind of 16 bytes, and the bit of their shade.
    fn kind(&self, anchor: &[u8]) -> (usize, u8) {
        const MIX: u64 = 0x9E37_79B9_7F4A_7C15;
        let (front, back) = (word(anchor), word(&anchor[8..]));
        let mixed = front.wrapping_mul(MIX) ^ back.rotate_left(29);
        let mixed = mixed.wrapping_mul(MIX);
        ((mixed >> self.shift) as usize, 1 << (mixed >> (self.shift - 3) & 7))
    }

    /// The next place of `new` from `at` on, where `at` is then, for which there is a better old place
    /// than where `copy` goes on.
    fn next_better(&self, new: &[u8], at: &mut usize, copy: Copy) -> Option<Copy> {
        while let Some(anchor) = new.get(*at..*at + ANCHOR_BYTES) {
            let rest = &new[*at..];
            let source = copy.source(self.old, *at);
            let run = equal_run(source, rest);
            if run >= ANCHOR_BYTES {
                *at += run;
                continue;
            }
            if let Some((old_at, run)) = self.longest(anchor, rest) {
                let here = source.iter().zip(&rest[..run]).filter(|(old, new)| old == new).count();
                if run > here + BETTER_BYTES {
                    return Some(Copy { old_at, new_at: *at });
                }
            }
            *at += 1;
        }
        *at = new.len();
        None
    }

    /// The old place with the longest run of bytes equal to `rest`, and that run, up to what is compared.
    fn longest(&self, anchor: &[u8], rest: &[u8]) -> Option<(usize, usize)> {
        let (kind, shade) = self.kind(anchor);
        if self.shades[kind] & shade == 0 {
            return None;
        }
        let rest = &rest[..rest.len().min(COMPARED_BYTES)];
        let mut place = self.latest[kind];
        let mut best = None;
        let mut most = ANCHOR_BYTES - 1;
        for _ in 0..MOST_TRIED {
            let Some(number) = place.checked_sub(1) else { break };
            let old_at = number as usize * STEP;
            let run = equal_run(&self.old[old_at..], rest);
            if run > most {
                (best, most) = (Some((old_at, run)), run);
            }
            place = self.before[number as usize];
        }
        best
    }
}

/// Runs are mostly long: bytes that are compared at once.
const BLOCK_BYTES: usize = 32;

/// How many bytes are equal at the front.
pub(super) fn equal_run(a: &[u8], b: &[u8]) -> usize {
    let blocks = a.as_chunks::<BLOCK_BYTES>().0.iter().zip(b.as_chunks::<BLOCK_BYTES>().0);
    let mut run = blocks.take_while(|(a, b)| a == b).count() * BLOCK_BYTES;
    for (a, b) in a[run..].as_chunks().0.iter().zip(b[run..].as_chunks().0) {
        let differing = u64::from_le_bytes(*a) ^ u64::from_le_bytes(*b);
        if differing != 0 {
            return run + differing.trailing_zeros() as usize / 8;
        }
        run += 8;
    }
    let rest = a[run..].iter().zip(&b[run..]);
    run + rest.take_while(|(a, b)| a == b).count()
}

/// How many bytes are equal at the end.
fn equal_run_back(a: &[u8], b: &[u8]) -> usize {
    let blocks = a.as_rchunks::<BLOCK_BYTES>().1.iter().rev();
    let blocks = blocks.zip(b.as_rchunks::<BLOCK_BYTES>().1.iter().rev());
    let mut run = blocks.take_while(|(a, b)| a == b).count() * BLOCK_BYTES;
    let words = a[..a.len() - run].as_rchunks().1.iter().rev();
    for (a, b) in words.zip(b[..b.len() - run].as_rchunks().1.iter().rev()) {
        let differing = u64::from_le_bytes(*a) ^ u64::from_le_bytes(*b);
        if differing != 0 {
            return run + differing.leading_zeros() as usize / 8;
        }
        run += 8;
    }
    let rest = a[..a.len() - run].iter().rev().zip(b[..b.len() - run].iter().rev());
    run + rest.take_while(|(a, b)| a == b).count()
}

/// The first eight bytes.
fn word(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[..8]);
    u64::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutate::Random;

    /// As plain as can be.
    fn plain_length<'a>(pairs: impl Iterator<Item = (&'a u8, &'a u8)>) -> usize {
        let (mut surplus, mut most, mut best) = (0, 0, 0);
        for (index, (old, new)) in pairs.enumerate() {
            if most - surplus >= PATIENCE {
                break;
            }
            surplus += if old == new { 1 } else { -1 };
            if surplus > most {
                (most, best) = (surplus, index + 1);
            }
        }
        best
    }

    #[test]
    fn a_copy_is_not_followed_where_nothing_is_equal_any_more() {
        let calls = std::cell::Cell::new(0);
        // A thousand equal bytes, and then a million of which every third is equal.
        let length = best_length(1 << 20, |at| {
            calls.set(calls.get() + 1);
            if at == 0 { 1_000 } else { at % 3 / 2 }
        });
        assert_eq!(length, 1_000);
        assert!(calls.get() < 1_000, "looked {} times", calls.get());
    }

    #[test]
    fn copies_end_where_they_would_if_every_byte_were_looked_at() {
        let mut random = Random::new(3);
        for _ in 0..2_000 {
            let len = random.below(1_500);
            let old: Vec<u8> = (0..len).map(|_| random.below(256) as u8).collect();
            let mut new = old.clone();
            new.truncate(len - random.below(len + 1).min(40));
            let often = 1 + random.below(40);
            for byte in &mut new {
                *byte ^= u8::from(random.below(often) == 0);
            }
            let copy = Copy { old_at: 0, new_at: 0 };
            assert_eq!(copy.forward(&old, &new), plain_length(old.iter().zip(&new)));
            let end = Copy { old_at: old.len(), new_at: new.len() };
            let back = plain_length(old.iter().rev().zip(new.iter().rev()));
            assert_eq!(end.backward(&old, &new, 0), new.len() - back);
        }
    }
}
