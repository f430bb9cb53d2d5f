use super::*;
use crate::mutate::{Random, try_many};

/// Bytes as of a program: `functions` of a few hundred bytes, which refer to each other by their
/// distance, and so change where another one grew.
fn program(functions: usize, grown: Option<usize>) -> Vec<u8> {
    let mut random = Random::new(7);
    let mut code: Vec<Vec<u8>> = Vec::new();
    for _ in 0..functions {
        code.push((0..100 + random.below(300)).map(|_| random.below(256) as u8).collect());
    }
    if let Some(number) = grown {
        code[number].splice(50..50, (0..24).map(|n| n * 7));
    }
    let begins: Vec<usize> = code
        .iter()
        .scan(0, |end, function| {
            let begin = *end;
            *end += function.len();
            Some(begin)
        })
        .collect();
    let mut bytes = code.concat();
    let mut random = Random::new(8);
    for begin in &begins {
        for call in 0..4 {
            let at = begin + 20 * call + usize::from(call > 2) * 30;
            let distance = begins[random.below(functions)] as i32 - at as i32;
            bytes[at..at + 4].copy_from_slice(&distance.to_le_bytes());
        }
    }
    bytes
}

fn survives(old: &[u8], new: &[u8]) -> Option<usize> {
    let differences = Differences::find(old, new)?;
    let [packed, alone] = [differences.pack(9), differences.pack_alone(9)].map(Result::unwrap);
    for packed in [&packed, &alone] {
        assert!(unpack(packed, old, new.len() as u32).as_deref() == Some(new));
    }
    Some(packed.len())
}

#[test]
fn numbers_that_all_grew_take_far_less_than_where_they_end_matches() {
    let (old, new) = (program(2_000, None), program(2_000, Some(999)));
    let packed = survives(&old, &new).unwrap();
    let matched = frame::compress(&[&old[..], &new].concat(), old.len(), 19).unwrap().len();
    assert!(packed * 5 < matched * 3, "{packed} B against {matched} B");
}

#[test]
fn stretches_are_found_wherever_they_moved() {
    let parts: Vec<Vec<u8>> = (0..6)
        .map(|n| {
            let mut random = Random::new(n);
            (0..5_000).map(|_| random.below(256) as u8).collect()
        })
        .collect();
    let old = parts[..5].concat();
    let new = [&parts[3][..], &parts[0], &parts[5], &parts[0], &parts[4]].concat();
    let mut found = Vec::new();
    for stretch in likeness::stretches(&old, &new) {
        found.push((stretch.old_at, stretch.copied, stretch.new));
    }
    assert_eq!(found.iter().map(|(_, copied, new)| copied + new).sum::<usize>(), new.len());
    let whole = |at, copied: usize, new: usize| {
        // Bytes at an edge may be alike by chance.
        found.iter().any(|one| {
            one.0.abs_diff(at) < 8 && one.1.abs_diff(copied) < 8 && one.2.abs_diff(new) < 16
        })
    };
    assert!(whole(15_000, 5_000, 0) && whole(0, 5_000, 5_000), "{found:?}");
    assert!(whole(0, 5_000, 0) && whole(20_000, 5_000, 0), "{found:?}");
    assert!(survives(&old, &new).unwrap() < 5_200);
}

#[test]
fn any_content_survives() {
    let old = program(40, None);
    for (old, new) in [
        (&old[..], &[][..]),
        (&old, &old),
        (&old, &old[1..]),
        (&old[3..], &old),
        (&[], &old),
        (&old[..7], &old),
        (&old, &old[old.len() - 100..]),
        (&[0; 4000], &[0; 9000]),
        (&[0; 4000], &[1; 9000]),
    ] {
        let _ = survives(old, new);
    }
    try_many("differences", 300, |random| {
        let mut new = old.clone();
        for _ in 0..random.below(6) {
            let at = random.below(new.len());
            let to = (at + random.below(3_000)).min(new.len());
            match random.below(4) {
                0 => new[at..to].iter_mut().for_each(|byte| *byte = byte.wrapping_add(3)),
                1 => new[at..to].reverse(),
                2 => drop(new.splice(at..at, old[..to - at].iter().copied())),
                _ => drop(new.drain(at..to)),
            }
        }
        let _ = survives(&old, &new);
    });
}

#[test]
fn content_that_repeats_itself_takes_no_longer_than_other() {
    // Every place has thousands of others that are as good, and none is better by enough.
    let old: Vec<u8> = (0..1 << 20).map(|n: u32| (n % 24) as u8).collect();
    let new: Vec<u8> =
        (0..1 << 20).map(|n: u32| if n.is_multiple_of(23) { 99 } else { (n % 24) as u8 }).collect();
    assert!(survives(&old, &new).is_some());
}

#[test]
fn what_a_recipe_must_not_say_is_refused() {
    let recipe =
        |copies: &[u64], news: &[u64], seeks: &[i64], runs: &[(u64, u64)], values: &[u8]| {
            let mut parts: [Writer; 5] = Default::default();
            for n in copies {
                parts[0].varint(*n);
            }
            for n in news {
                parts[1].varint(*n);
            }
            for n in seeks {
                parts[2].signed(*n);
            }
            runs.iter().for_each(|(same, changed)| {
                parts[3].varint(*same);
                parts[4].varint(*changed);
            });
            let mut recipe = Writer::new();
            for part in parts {
                recipe.bytes(part.as_slice());
            }
            recipe.bytes(values).raw(b"new");
            make(recipe.as_slice(), b"old content", 8).ok()
        };
    assert_eq!(recipe(&[5], &[3], &[4], &[], &[]).unwrap(), b"contenew"[..]);
    assert_eq!(
        recipe(&[5], &[3], &[4], &[(1, 0), (1, 1)], &[1, 1, 1]).unwrap(),
        b"cpnuf"[..].iter().chain(b"new").copied().collect::<Vec<_>>()
    );
    for (what, made) in [
        ("before the beginning", recipe(&[5], &[3], &[-1], &[], &[])),
        ("beyond the end", recipe(&[5], &[3], &[7], &[], &[])),
        ("too far to count", recipe(&[1, 4], &[0, 3], &[1, i64::MAX], &[], &[])),
        ("more than declared", recipe(&[6], &[3], &[0], &[], &[])),
        ("less than declared", recipe(&[4], &[3], &[0], &[], &[])),
        ("an empty stretch", recipe(&[0, 5], &[0, 3], &[0, 0], &[], &[])),
        ("a stretch too many", recipe(&[5, 0], &[3, 0], &[0, 0], &[], &[])),
        ("a value too many", recipe(&[5], &[3], &[0], &[(1, 0)], &[1, 1])),
        ("a value too few", recipe(&[5], &[3], &[0], &[(1, 1)], &[1])),
        ("a change behind the end", recipe(&[5], &[3], &[0], &[(4, 1)], &[1, 1])),
        ("no end of changes", recipe(&[5], &[3], &[0], &[(u64::MAX, u64::MAX)], &[])),
    ] {
        assert_eq!(made, None, "{what}");
    }
}

mod fuzz {
    use super::*;

    #[test]
    fn no_recipe_makes_more_than_it_declares_or_panics() {
        let (old, new) = (program(12, None), program(12, Some(5)));
        let (recipe, _) = write(&old, &new, &likeness::stretches(&old, &new));
        assert_eq!(make(&recipe, &old, new.len()).as_ref(), Ok(&new));
        try_many("recipe of differences", 20_000, |random| {
            let mut recipe = recipe.clone();
            random.damage(&mut recipe);
            let declared = if random.below(2) == 0 { new.len() } else { random.below(10_000) };
            let old = if random.below(8) == 0 { &old[1..] } else { &old[..] };
            if let Ok(made) = make(&recipe, old, declared) {
                assert_eq!(made.len(), declared);
            }
        });
    }
}
