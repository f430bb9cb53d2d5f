//! Deltas, signatures and frames of any bytes.

use super::{
    frame,
    librsync::{self, Applier},
    rsync,
};
use crate::{
    mutate::try_many,
    signature::{Signature, StoredSignature},
};

fn old() -> Vec<u8> {
    (0..3_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

fn new() -> Vec<u8> {
    let mut new = old();
    new.splice(700..710, *b"something else");
    new.extend_from_slice(b"and more at the end");
    new
}

#[test]
fn no_delta_gives_more_than_its_limit_or_panics() {
    let (old, new) = (old(), new());
    let len = old.len() as u64;
    let signature = StoredSignature::calculate(&old, len).unwrap().signature;
    let sound = rsync::small_delta(&signature, len, &new).unwrap();
    try_many("delta", 50_000, |random| {
        let mut delta = sound.clone();
        random.damage(&mut delta);
        let _ = librsync::commands(&delta);
        let limit = random.below(2 * new.len()) as u64;
        let mut applier = Applier::new(&old, limit);
        let (mut made, mut rest) = (0u64, &delta[..]);
        let mut fed = Ok(());
        while !rest.is_empty() && fed.is_ok() {
            // In pieces, as frames bring it.
            let (piece, more) = rest.split_at(1 + random.below(rest.len()));
            rest = more;
            fed = applier.feed(piece, &mut |bytes| {
                made += bytes.len() as u64;
                Ok(())
            });
        }
        let _ = applier.finish();
        assert!(made <= limit, "{made} bytes of at most {limit}");
    });
}

#[test]
fn no_signature_brings_the_comparison_down() {
    let (old, new) = (old(), new());
    let len = old.len() as u64;
    let stored = StoredSignature::calculate(&old, len).unwrap();
    let (sound, kept) = (stored.signature.as_bytes().to_vec(), stored.encode());
    try_many("signature", 10_000, |random| {
        let mut bytes = sound.clone();
        random.damage(&mut bytes);
        let claimed = if random.below(2) == 0 { len } else { random.below(10_000) as u64 };
        if let Ok(signature) = Signature::parse(bytes, claimed) {
            let delta = rsync::small_delta(&signature, claimed, &new).unwrap();
            assert!(librsync::commands(&delta).is_ok());
        }
        let mut bytes = kept.clone();
        random.damage(&mut bytes);
        assert!(StoredSignature::parse(&bytes).is_err() || bytes == kept);
    });
}

#[test]
fn no_frame_unpacks_to_more_than_it_declares() {
    let (old, new) = (old(), new());
    let packed = frame::compress(&[&old[..], &new].concat(), old.len(), 3).unwrap();
    try_many("frame", 20_000, |random| {
        let mut stored = packed.clone();
        random.damage(&mut stored);
        let declared = if random.below(2) == 0 { new.len() } else { random.below(10_000) };
        let prefix = if random.below(8) == 0 { &old[1..] } else { &old[..] };
        if let Some(raw) = frame::decompress(&stored, prefix, declared as u32) {
            assert_eq!(raw.len(), declared);
        }
    });
}
