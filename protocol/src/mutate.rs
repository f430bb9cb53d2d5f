//! Bytes that went wrong, in an order that can be repeated: for the tests of parsers.
//!
//! `MIRRORNET_FUZZ_CASES` sets how many are tried; long runs take ten million of each target.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// Numbers that look random.
pub(crate) struct Random(u64);

impl Random {
    /// The numbers of a seed, which is not zero.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end.max(1) as u64) as usize
    }

    /// Changes some bytes, cuts, repeats or inserts: what breaks parsers.
    pub(crate) fn damage(&mut self, bytes: &mut Vec<u8>) {
        const TELLING: [u8; 8] = [0, 1, 0x7f, 0x80, 0xff, 0xfe, 0x40, 0x3f];
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len() + 1);
            let end = (at + 1 + self.below(8)).min(bytes.len()).max(at);
            match self.below(8) {
                0 | 1 if at < bytes.len() => bytes[at] = self.below(256) as u8,
                2 if at < bytes.len() => bytes[at] = TELLING[self.below(TELLING.len())],
                3 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                4 => bytes.insert(at, TELLING[self.below(TELLING.len())]),
                5 => drop(bytes.drain(at..end)),
                6 => {
                    let again = bytes[at..end].to_vec();
                    bytes.splice(at..at, again);
                }
                7 if self.below(4) == 0 => bytes.truncate(at),
                _ => {}
            }
        }
    }
}

/// Tries `once` so often as is wanted, `usual` times by default, on two threads; fails if one try
/// takes long.
pub(crate) fn try_many(what: &str, usual: u64, once: impl Fn(&mut Random) + Sync) {
    let wanted = std::env::var("MIRRORNET_FUZZ_CASES");
    let cases = wanted.map_or(usual, |cases| cases.parse().expect("a number of cases"));
    let (tried, slowest) = (AtomicU64::new(0), AtomicU64::new(0));
    let start = Instant::now();
    std::thread::scope(|scope| {
        for thread in 1..=2u64 {
            let (tried, slowest, once) = (&tried, &slowest, &once);
            scope.spawn(move || {
                let mut random = Random::new(thread);
                while tried.fetch_add(1, Ordering::Relaxed) < cases {
                    let start = Instant::now();
                    once(&mut random);
                    slowest.fetch_max(start.elapsed().as_micros() as u64, Ordering::Relaxed);
                }
            });
        }
    });
    let slowest = Duration::from_micros(slowest.into_inner());
    eprintln!(
        "{what}: {cases} cases in {:.1} s, slowest {slowest:?}",
        start.elapsed().as_secs_f64()
    );
    // Only what never ends has to be told from a machine that is busy.
    assert!(slowest < Duration::from_secs(60), "{what}: {slowest:?}");
}
