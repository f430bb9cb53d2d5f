//! Where the bytes at a place occurred before.
//!
//! zlib keeps a chain of places for every hash of three bytes and walks it to its end, or as far as
//! its level allows. That is most of the time that zlib takes: in text, three bytes are nearly
//! everywhere. What it finds can be found faster. A repetition of four bytes and more lies in the
//! chain of those four, which is much shorter; and how far zlib would have walked to it is known when
//! the places of each of zlib's chains are numbered. So chains of four bytes are walked, zlib's own
//! only where nothing longer than three bytes is found, and what comes out is the same.

use super::token::{MIN_MATCH, WINDOW_BYTES};

/// As many as zlib's hash has values at most.
const BUCKETS: usize = 1 << 16;
const FOURS: usize = 1 << 16;
/// Spreads four bytes over the upper bits of a product: 2 to the 32nd by the golden ratio.
const SPREAD: u32 = 0x9e37_79b1;

/// What is kept of each place in the window, by the lowest bits of its number.
type PerPlace = Box<[u16; WINDOW_BYTES]>;

/// How far places are moved when their numbers do not fit any more. What is forgotten lies farther
/// back than zlib looks, since [`AT_ONCE`] more places fit at most.
const SHIFT: u16 = 1 << 15;
/// Places that are put into the chains before numbers are looked at again.
const AT_ONCE: usize = 250;

/// Places by what stands there. They are numbered on from one stream to the next, so that nothing has
/// to be cleared: that takes longer than most streams do.
pub(super) struct Chains {
    buckets: Box<[Bucket; BUCKETS]>,
    /// By a hash of four bytes, the last place, counted from `base`; 0 where there is none.
    fours: Box<[u16; FOURS]>,
    base: usize,
    /// How far back the place before is with the same hash of four bytes; 0 where there is none.
    before_four: PerPlace,
    /// The same for zlib's hash.
    before_three: PerPlace,
    /// Which of its bucket's places it is.
    number: PerPlace,
    hash_bits: u32,
    hash_shift: u32,
    /// The first place of the stream. It is in no chain, since zlib takes its number for none, and
    /// places up to it are of streams before.
    origin: usize,
    /// The places before this one are in the chains.
    remembered: usize,
}

/// What zlib has a chain for.
#[derive(Clone, Copy)]
struct Bucket {
    /// The last place, counted from the base; 0 where there is none.
    last: u16,
    /// Places so far; differences count, so it may overflow.
    places: u16,
}

impl Chains {
    pub(super) fn new() -> Self {
        Self {
            buckets: Box::new([Bucket { last: 0, places: 0 }; BUCKETS]),
            fours: Box::new([0; FOURS]),
            base: 0,
            before_four: Box::new([0; WINDOW_BYTES]),
            before_three: Box::new([0; WINDOW_BYTES]),
            number: Box::new([0; WINDOW_BYTES]),
            hash_bits: 0,
            hash_shift: 0,
            origin: 0,
            remembered: 0,
        }
    }

    /// Begins a stream at `origin`, which lies behind all places so far.
    pub(super) fn start(&mut self, origin: usize, hash_bits: u8) {
        self.hash_bits = u32::from(hash_bits);
        self.hash_shift = self.hash_bits.div_ceil(MIN_MATCH as u32);
        (self.origin, self.remembered) = (origin, origin);
    }

    /// Places before this one are in the chains, unless they were passed over.
    pub(super) fn remembered(&self) -> usize {
        self.remembered
    }

    /// Passes over the places before `end`.
    pub(super) fn pass_over(&mut self, end: usize) {
        self.remembered = end;
    }

    /// Puts every place up to and with `last` into the chains, where four bytes of it are at hand:
    /// `window` begins at place `begin`. (The last place with three bytes is never looked for.)
    pub(super) fn remember(&mut self, last: usize, window: &[u8], begin: usize) {
        while self.remembered <= last {
            let wanted = (last + 1 - self.remembered).min(AT_ONCE);
            let bytes = window.get(self.remembered - begin..).unwrap_or_default();
            let places = bytes.len().saturating_sub(3).min(wanted);
            if places == 0 {
                return;
            }
            self.make_room(places);
            self.add(&bytes[..places + 3]);
        }
    }

    /// Puts as many places into the chains as there are four bytes.
    fn add(&mut self, bytes: &[u8]) {
        // What lies before was of other streams.
        let oldest = self.origin.saturating_sub(self.base) as u16;
        let mut place = (self.remembered - self.base) as u16;
        let mut at = self.remembered;
        for four in bytes.windows(4) {
            let slot = at % WINDOW_BYTES;
            let bucket = &mut self.buckets[hash(four, self.hash_bits, self.hash_shift)];
            bucket.places = bucket.places.wrapping_add(1);
            self.number[slot] = bucket.places;
            self.before_three[slot] = back(place, bucket.last, oldest);
            bucket.last = place;
            let word = u32::from_le_bytes([four[0], four[1], four[2], four[3]]);
            let last = &mut self.fours[(word.wrapping_mul(SPREAD) >> 16) as usize];
            self.before_four[slot] = back(place, *last, oldest);
            *last = place;
            place = place.wrapping_add(1);
            at += 1;
        }
        self.remembered = at;
    }

    /// Sees to it that so many places fit into 16 bits.
    fn make_room(&mut self, places: usize) {
        const LIMIT: usize = 1 << 16;
        let end = self.remembered - self.base + places;
        if end <= LIMIT {
            return;
        }
        if end - usize::from(SHIFT) <= LIMIT {
            self.buckets
                .iter_mut()
                .for_each(|bucket| bucket.last = bucket.last.saturating_sub(SHIFT));
            self.fours.iter_mut().for_each(|last| *last = last.saturating_sub(SHIFT));
            self.base += usize::from(SHIFT);
        } else {
            // Much was passed over: all is too far back.
            self.buckets.iter_mut().for_each(|bucket| bucket.last = 0);
            self.fours.fill(0);
            self.base = self.remembered - 1;
        }
    }

    /// The place before `place` with the same hash of four bytes.
    #[inline]
    pub(super) fn four_before(&self, place: usize) -> Option<usize> {
        step(place, self.before_four[place % WINDOW_BYTES])
    }

    /// The place before `place` in zlib's chain.
    #[inline]
    pub(super) fn three_before(&self, place: usize) -> Option<usize> {
        step(place, self.before_three[place % WINDOW_BYTES])
    }

    /// The last place in zlib's chain of these bytes, for the place that is not in it and comes next.
    pub(super) fn last_three(&self, place: usize, bytes: &[u8]) -> Option<usize> {
        let last = self.buckets[hash(bytes, self.hash_bits, self.hash_shift)].last;
        let old = self.base + usize::from(last);
        let is_near = last > 0 && old > self.origin && place - old < WINDOW_BYTES;
        is_near.then_some(old)
    }

    /// How many steps of zlib's chain lead from `place` to `old`, which is in the same one.
    #[inline]
    pub(super) fn steps(&self, place: usize, old: usize) -> usize {
        let number = |place| self.number[place % WINDOW_BYTES];
        usize::from(number(place).wrapping_sub(number(old)))
    }
}

/// zlib's hash of three bytes.
#[inline]
fn hash(bytes: &[u8], bits: u32, shift: u32) -> usize {
    let hash =
        u32::from(bytes[0]) << (2 * shift) ^ u32::from(bytes[1]) << shift ^ u32::from(bytes[2]);
    (hash & ((1 << bits) - 1)) as usize % BUCKETS
}

/// How far back `last` is from `place`: 0 where it is of another stream, none, or outside of the window.
#[inline]
fn back(place: u16, last: u16, oldest: u16) -> u16 {
    let back = place.wrapping_sub(last);
    if last > oldest && usize::from(back) < WINDOW_BYTES { back } else { 0 }
}

#[inline]
fn step(place: usize, back: u16) -> Option<usize> {
    (back > 0).then(|| place - usize::from(back))
}
