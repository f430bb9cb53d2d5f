//! Rules and rule files of any bytes: nothing may panic, and nothing may take long.
//!
//! `MIRRORNET_FUZZ_CASES` sets how many are tried (5,000 when unset; the long run takes ten
//! million). Cases are mutations of real rules, so that they get past the first byte.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use super::*;

const SEEDS: &[&[u8]] = &[
    b"- *.o",
    b"+ /a/b/",
    b"exclude,! foo",
    b"hide_x",
    b"P [a-z]*",
    b":enw .m",
    b"dir-merge,- .f",
    b"-! */",
    b"!",
    b"clear",
    b"-sp a**b/***",
    b"R [[:alpha:]-]",
    b"- \\[x]\\",
    b"# comment",
    b"- a\xff\x00b",
    b"*a*a*a*a*b",
    b"- **/?[!]-a]",
    b"merge x",
    b"-C",
    b": /x",
    b"\r\n;x\n- a\n",
];
const NAMES: &[&[u8]] = &[b"a", b"foo/bar.o", b"a/b/c/d", b"\xff\n", b"[x]/*", b".m", b"x/.m/\\"];

struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }

    fn mutated(&mut self) -> Vec<u8> {
        let mut bytes = SEEDS[self.below(SEEDS.len())].to_vec();
        for _ in 0..self.below(5) {
            let at = self.below(bytes.len() + 1);
            match self.below(5) {
                0 => bytes.insert(at, self.below(256) as u8),
                1 => bytes.insert(at, b"*?[]\\/!-_ ,:\n\r"[self.below(14)]),
                2 => bytes.truncate(at),
                3 => {
                    let other = SEEDS[self.below(SEEDS.len())];
                    bytes.splice(at..at, other.iter().copied());
                }
                _ => {
                    let again = bytes.repeat(1 + self.below(3));
                    bytes = again;
                }
            }
        }
        bytes
    }
}

/// What a rule text can reach: both grammars, files, matching, printing, handing over.
fn once(random: &mut Random) {
    let rules: Vec<Vec<u8>> = (0..1 + random.below(3)).map(|_| random.mutated()).collect();
    let _ = Filter::parse_file(&rules.concat()).map_err(|errors| errors.to_string());
    let texts = rules.iter().map(|rule| String::from_utf8_lossy(rule).into_owned());
    let _ = Filter::build(&[Level::excludes(Origin::Site, "s", texts)]);
    let Ok(filter) = Filter::parse(&rules) else { return };
    let handed = filter.rsync_rules();
    let again = Filter::parse(&handed.lines).expect("what is handed over is a filter");
    assert_eq!(again.rsync_rules(), handed, "{filter:?}");
    let file = random.mutated();
    for side in [Side::Sender, Side::Receiver] {
        let mut walk = Walk::new(&filter, side);
        let read = |_: &[u8]| Ok(Some(file.clone()));
        let entered = walk.enter(None, read).is_ok();
        for name in NAMES {
            let path = TreePath::parse(name).unwrap();
            assert_eq!(filter.decide(&path, true), filter.clone().decide(&path, true));
            let _ = (filter.keeps(&path, false), filter.protects(&path, true));
            if entered {
                let _ = walk.decide(&path, true);
            }
        }
    }
    if random.below(64) == 0 {
        let _ = (warnings(&filter, true), filter.to_string());
    }
}

#[test]
fn no_rule_panics_or_takes_long() {
    let cases: u64 = std::env::var("MIRRORNET_FUZZ_CASES").map_or(5_000, |n| n.parse().unwrap());
    let (next, slowest) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for thread in 1..=2u64 {
            let (next, slowest) = (&next, &slowest);
            scope.spawn(move || {
                let mut random = Random(thread.wrapping_mul(0x9e37_79b9_7f4a_7c15));
                while next.fetch_add(1, Ordering::Relaxed) < cases {
                    let started = Instant::now();
                    once(&mut random);
                    let took = started.elapsed().as_micros() as u64;
                    slowest.fetch_max(took, Ordering::Relaxed);
                }
            });
        }
    });
    let slowest = Duration::from_micros(slowest.into_inner());
    // Exponential time would be years; this only has to hold on a machine that is busy.
    assert!(slowest < Duration::from_secs(60), "{slowest:?}");
}
