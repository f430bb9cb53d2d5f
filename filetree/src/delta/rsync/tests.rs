use std::{fs, process::Command as Process};

use proptest::prelude::*;

use super::*;
use crate::delta::librsync::Applier;

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let step = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    (0..len).map(step).collect()
}

/// An old and a new version with insertions, changes, moves and cuts.
fn versions(seed: u64, len: usize) -> (Vec<u8>, Vec<u8>) {
    let old = noise(seed, len);
    let mut new = old.clone();
    let third = len / 3;
    new[third] ^= 1;
    new.splice(third..third, noise(seed + 1, 777));
    let moved: Vec<u8> = new.drain(2 * third..2 * third + third / 2).collect();
    new.extend(moved);
    new.extend(noise(seed + 2, 3000));
    (old, new)
}

fn delta_of(old: &[u8], new: &[u8], block: u32, window: usize) -> Delta {
    let (old, new) = (old.to_vec(), new.to_vec());
    let (signature, _) = Signature::calculate_with(&old, old.len() as u64, block).unwrap();
    Delta::with_window(&signature, &new, new.len() as u64, &|| true, window).unwrap()
}

fn bytes_of(delta: &Delta, new: &[u8], step: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut at = 0;
    while at < delta.len() {
        let end = (at + step).min(delta.len());
        let (piece, literals) = delta.range(&new.to_vec(), at..end).unwrap();
        assert_eq!(piece.len() as u64, end - at);
        assert!(literals.iter().all(|range| range.end <= piece.len()));
        bytes.extend(piece);
        at = end;
    }
    bytes
}

fn apply(base: &[u8], delta: &[u8], limit: u64, step: usize) -> Result<Vec<u8>, librsync::Error> {
    let base = base.to_vec();
    let mut applier = Applier::new(&base, limit);
    let mut out = Vec::new();
    for piece in delta.chunks(step) {
        applier.feed(piece, &mut |bytes| {
            out.extend_from_slice(bytes);
            Ok(())
        })?;
    }
    applier.finish()?;
    Ok(out)
}

#[test]
fn windows_lose_nothing_against_the_whole_buffer() {
    let (old, new) = versions(1, 3 << 20);
    let whole = delta_of(&old, &new, 2048, usize::MAX >> 1);
    for window in [64 << 10, 100_001, 1 << 20] {
        let windowed = delta_of(&old, &new, 2048, window);
        // fast_rsync gives up on nothing here, so the commands are the very same.
        assert_eq!(windowed.commands(), whole.commands(), "window {window}");
        assert_eq!(windowed.new_digest, Digest::of(&new));
        assert_eq!(windowed.literal_digest, whole.literal_digest);
    }
    assert!(whole.literal_bytes < 20_000, "{} literal bytes", whole.literal_bytes);
    let bytes = bytes_of(&whole, &new, 1 << 20);
    assert_eq!(apply(&old, &bytes, new.len() as u64, 4096).unwrap(), new);
}

#[test]
fn a_file_larger_than_every_window_is_compared_in_bounded_memory() {
    struct Synthetic {
        len: u64,
        shift: u64,
    }
    impl ReadAt for Synthetic {
        fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
            assert!(buffer.len() <= WINDOW_BYTES, "a read of {} bytes", buffer.len());
            let len = (self.len - offset).min(buffer.len() as u64) as usize;
            for (n, byte) in buffer[..len].iter_mut().enumerate() {
                let at = (offset + n as u64 + self.shift) >> 3;
                let word = at.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ at;
                *byte = (word >> (8 + (n as u64 & 3))) as u8 ^ (at >> 5) as u8;
            }
            Ok(len)
        }
    }
    let len = 64 << 20;
    let (old, new) = (Synthetic { len, shift: 0 }, Synthetic { len, shift: 8192 });
    let (signature, _) = Signature::calculate(&old, len).unwrap();
    let delta = Delta::new(&signature, &new, len, &|| true).unwrap();
    assert!(delta.literal_bytes < 64 << 10, "{} literal bytes", delta.literal_bytes);
    assert!(delta.commands().len() < 100, "{} commands", delta.commands().len());
    let stopped = Delta::new(&signature, &new, len, &|| false);
    assert!(matches!(stopped, Err(Error::Canceled)));
}

#[test]
fn rdiff_and_the_library_apply_our_deltas_to_the_same_result() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = versions(7, 700_000);
    let delta = bytes_of(&delta_of(&old, &new, 2048, 100_000), &new, 12_345);
    let file = |name: &str| dir.path().join(name);
    fs::write(file("old"), &old).unwrap();
    fs::write(file("delta"), &delta).unwrap();
    let rdiff =
        Process::new("rdiff").arg("patch").args([file("old"), file("delta"), file("new")]).status();
    assert!(rdiff.unwrap().success());
    assert_eq!(fs::read(file("new")).unwrap(), new);
    let mut theirs = Vec::new();
    fast_rsync::apply_limited(&old, &delta, &mut theirs, new.len()).unwrap();
    assert_eq!(theirs, new);
    assert_eq!(apply(&old, &delta, new.len() as u64, 1).unwrap(), new);
}

#[test]
fn our_applier_takes_what_rdiff_makes() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = versions(9, 500_000);
    let file = |name: &str| dir.path().join(name);
    fs::write(file("old"), &old).unwrap();
    fs::write(file("new"), &new).unwrap();
    for args in [["signature", "old", "sig"], ["delta", "sig", "new"]] {
        let mut rdiff = Process::new("rdiff");
        rdiff.current_dir(dir.path()).args(args);
        if args[0] == "delta" {
            rdiff.arg("delta");
        }
        assert!(rdiff.status().unwrap().success(), "{args:?}");
    }
    let delta = fs::read(file("delta")).unwrap();
    assert_eq!(apply(&old, &delta, new.len() as u64, 1000).unwrap(), new);
}

#[test]
fn hostile_deltas_are_refused() {
    let base = vec![7; 100];
    let head = librsync::HEAD;
    let cases: [(&str, &[u8]); 9] = [
        ("nothing", &[]),
        ("no end", &[1, 9]),
        ("trailing bytes", &[0, 0]),
        ("unknown command", &[0x55, 0]),
        ("copy of nothing", &[0x45, 0, 0, 0]),
        ("copy outside", &[0x45, 99, 2, 0]),
        (
            "offset overflow",
            &[0x54, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 9, 0],
        ),
        ("endless literal", &[0x44, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
        ("too long", &[0x45, 0, 60, 0x45, 0, 60, 0]),
    ];
    for (what, commands) in cases {
        let delta = if what == "nothing" { Vec::new() } else { [&head[..], commands].concat() };
        assert!(apply(&base, &delta, 110, 3).is_err(), "{what}");
    }
    assert!(apply(&base, b"rs\x02\x37\0", 10, 9).is_err());
}

proptest! {
    #[test]
    fn our_applier_agrees_with_the_library_on_any_bytes(
        edits in proptest::collection::vec((any::<usize>(), any::<u8>()), 0..4),
        cut in any::<usize>(),
        step in 1usize..40,
    ) {
        let (old, new) = versions(3, 6000);
        let mut delta = bytes_of(&delta_of(&old, &new, 256, 2000), &new, 999);
        for (at, byte) in edits {
            let at = at % delta.len();
            delta[at] = byte;
        }
        if cut % 3 == 0 {
            delta.truncate(cut % delta.len());
        }
        let mut theirs = Vec::new();
        let limit = 20_000;
        let their_result = fast_rsync::apply_limited(&old, &delta, &mut theirs, limit);
        match apply(&old, &delta, limit as u64, step) {
            Ok(ours) => {
                prop_assert!(their_result.is_ok());
                prop_assert_eq!(ours, theirs);
            }
            Err(_) => prop_assert!(their_result.is_err()),
        }
    }

    #[test]
    fn every_pair_of_versions_survives(
        old in proptest::collection::vec(0u8..3, 0..3000),
        new in proptest::collection::vec(0u8..3, 0..3000),
        window in 512usize..2000,
    ) {
        let delta = delta_of(&old, &new, 256, window);
        let bytes = bytes_of(&delta, &new, 100);
        prop_assert_eq!(apply(&old, &bytes, new.len() as u64, 7).unwrap(), new.clone());
        prop_assert_eq!(delta.new_digest, Digest::of(&new));
    }
}

#[test]
fn a_line_more_in_a_small_file_costs_little_more_than_a_block() {
    for len in [1000, 4000, 4096, 30_001] {
        let old = noise(len as u64, len);
        let mut new = old.clone();
        new.splice(len / 2..len / 2, noise(99, 25));
        let stored = signature::StoredSignature::calculate(&old, len as u64).unwrap();
        let delta = small_delta(&stored.signature, len as u64, &new).unwrap();
        assert!(delta.len() < 128 + 25 + 24, "{} bytes for {len}", delta.len());
        assert_eq!(apply(&old, &delta, new.len() as u64, 7).unwrap(), new);
        let same = small_delta(&stored.signature, len as u64, &old).unwrap();
        assert!(same.len() < 16, "{} bytes where nothing changed", same.len());
    }
}

#[test]
fn what_repeats_itself_is_one_long_run_and_not_block_after_block_from_one_place() {
    const BLOCK: u32 = 2048;
    let mut old = vec![0; 16 << 20];
    for island in 0..64 {
        let at = island * (256 << 10) + 70_000;
        old[at..at + 10_000].copy_from_slice(&noise(island as u64, 10_000));
    }
    // Something changes in its place, and something comes in that shifts the rest.
    let mut new = old.clone();
    new[70_100..70_200].fill(7);
    let middle = 8 << 20;
    new.splice(middle..middle, noise(99, 777));
    let delta = delta_of(&old, &new, BLOCK, WINDOW_BYTES);
    assert!(delta.literal_bytes < 3 * u64::from(BLOCK) + 777, "{} literals", delta.literal_bytes);
    let bytes = bytes_of(&delta, &new, 1 << 20);
    assert_eq!(apply(&old, &bytes, new.len() as u64, 4096).unwrap(), new);
    // Behind the shift each run of zeros begins within a block, and each island where it lies.
    let commands = delta.commands().len();
    assert!(commands < 2 * 64 + 16, "{commands} commands for {} blocks", old.len() / 2048);
    let in_place = delta.commands().first().unwrap();
    assert!(matches!(in_place, Command::Copy { offset: 0, len: 60_000.. }), "{in_place:?}");
}
