use std::{
    cell::Cell,
    io::{self, Read},
    ops::Range,
};

use protocol::origin::{Kind, Object};

use super::*;

fn version(generation: u64) -> Version {
    Version { epoch: Epoch(1), generation: Generation(generation) }
}

fn place(kind: Kind, name: &[u8]) -> Place {
    let tree = "fedora".parse().unwrap();
    Place::Object(Object { tree, kind, name: Digest::of(name) })
}

struct Tree {
    names: Names,
    secret: SecretKey,
}

impl Tree {
    fn new() -> Self {
        let secret = new_secret().unwrap();
        let key = tree_key(&secret, &"fedora".parse().unwrap(), version(1));
        Self { names: Names::new(key.names).unwrap(), secret }
    }

    fn key(&self, generation: u64) -> SecretKey {
        generation_key(&self.secret, &"fedora".parse().unwrap(), version(generation))
    }

    fn seal(&self, place: &Place, generation: u64, content: &[u8]) -> Vec<u8> {
        let (key, digest) = (self.key(generation), Digest::of(content));
        let sealer = Sealer::new(content, place, &self.names, (version(generation), &key), &digest);
        let mut sealed = Vec::new();
        sealer.unwrap().read_to_end(&mut sealed).unwrap();
        sealed
    }

    /// Opens in pieces of `piece` bytes, with the key of one generation.
    fn drive(
        &self,
        mut opener: Opener<'_>,
        sealed: &[u8],
        piece: usize,
        generation: u64,
    ) -> io::Result<Vec<u8>> {
        let mut opened = Vec::new();
        let known = |asked: Version| (asked == version(generation)).then(|| self.key(generation));
        for piece in sealed.chunks(piece) {
            let out = &mut |bytes: &[u8]| {
                opened.extend_from_slice(bytes);
                Ok(())
            };
            if let Pushed::NeedsKey(_) = opener.push(piece, &known, out)? {
                return Err(io::ErrorKind::PermissionDenied.into());
            }
        }
        opener.finish(&mut |bytes| {
            opened.extend_from_slice(bytes);
            Ok(())
        })?;
        Ok(opened)
    }

    fn open(&self, place: &Place, sealed: &[u8], generation: u64) -> io::Result<Vec<u8>> {
        self.drive(Opener::whole(place, 1 << 20), sealed, 1000, generation)
    }

    /// Opens a part as a client does that asks a server for ranges.
    fn part(&self, place: &Place, sealed: &[u8], wanted: Range<u64>, total: u64) -> Vec<u8> {
        let header = Header::parse(&sealed[..HEADER_LEN]).unwrap();
        let chunks = Chunks::of(&wanted, total);
        let range = |range: Range<u64>| range.start as usize..range.end as usize;
        let opener = Opener::part(place, Some(header), wanted, total);
        self.drive(opener, &sealed[range(chunks.sealed)], 777, 1).unwrap()
    }
}

fn content(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n / 7 % 251) as u8).collect()
}

const LENGTHS: [usize; 8] = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK + 5, 100_000];

#[test]
fn an_object_of_any_length_comes_back_whole_and_in_every_part() {
    let (tree, at) = (Tree::new(), place(Kind::Pack, b"pack"));
    for length in LENGTHS {
        let plain = content(length);
        let sealed = tree.seal(&at, 1, &plain);
        assert_eq!(sealed.len() as u64, sealed_len(length as u64), "{length}");
        assert_eq!(tree.open(&at, &sealed, 1).unwrap(), plain, "{length}");
        let total = length as u64;
        let edges = [0, 1, 100, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, length / 2, length];
        let edges: Vec<u64> =
            edges.iter().map(|&edge| edge as u64).filter(|&edge| edge <= total).collect();
        for &start in &edges {
            for &end in edges.iter().filter(|&&end| end > start) {
                let got = tree.part(&at, &sealed, start..end, total);
                assert!(got == plain[start as usize..end as usize], "{start}..{end} of {length}");
            }
        }
    }
}

#[test]
fn a_first_range_brings_the_header_with_it() {
    let (tree, at, plain) = (Tree::new(), place(Kind::Pack, b"pack"), content(50_000));
    let sealed = tree.seal(&at, 1, &plain);
    let end = Chunks::of(&(5..20_000), 50_000).sealed.end as usize;
    let opener = Opener::part(&at, None, 5..20_000, 50_000);
    assert!(tree.drive(opener, &sealed[..end], 333, 1).unwrap() == plain[5..20_000]);
}

#[test]
fn whatever_is_changed_left_out_exchanged_or_cut_is_noticed_before_a_byte_of_it_is_given_out() {
    let (tree, at, plain) = (Tree::new(), place(Kind::Block, b"block"), content(50_000));
    let good = tree.seal(&at, 1, &plain);
    for bit in (0..HEADER_LEN * 8).chain((HEADER_LEN * 8..good.len() * 8).step_by(7_919)) {
        let mut changed = good.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(tree.open(&at, &changed, 1).is_err(), "bit {bit}");
    }
    let chunk = |number: usize| {
        let at = HEADER_LEN + number * (CHUNK + TAG);
        at..at + CHUNK + TAG
    };
    let mut exchanged = good.clone();
    exchanged[chunk(0)].copy_from_slice(&good[chunk(1)]);
    assert!(tree.open(&at, &exchanged, 1).is_err());
    let without = [&good[..chunk(1).start], &good[chunk(1).end..]].concat();
    assert!(tree.open(&at, &without, 1).is_err());
    assert!(tree.open(&at, &[&good[..], &[0]].concat(), 1).is_err());
    for end in [0, 5, HEADER_LEN, chunk(0).end, chunk(1).end, good.len() - 1] {
        assert!(tree.open(&at, &good[..end], 1).is_err(), "cut at {end}");
    }
    // What was good before the damage is given out; the damage is not.
    let mut late = good.clone();
    *late.last_mut().unwrap() ^= 1;
    let given = Cell::new(0);
    let mut opener = Opener::part(&at, None, 0..50_000, 50_000);
    let key = |_| Some(tree.key(1));
    let failed = opener.push(&late, &key, &mut |bytes| {
        given.set(given.get() + bytes.len());
        Ok(())
    });
    assert_eq!(failed.unwrap_err().kind(), io::ErrorKind::InvalidData);
    assert_eq!(given.get(), 50_000 / CHUNK * CHUNK);
}

#[test]
fn a_key_opens_one_generation_of_one_tree_and_one_place() {
    let (tree, at, plain) = (Tree::new(), place(Kind::Pack, b"pack"), content(1000));
    let sealed = tree.seal(&at, 1, &plain);
    let missing = tree.open(&at, &sealed, 2).unwrap_err();
    assert_eq!(missing.kind(), io::ErrorKind::PermissionDenied, "it asks for the right one");
    let other_tree = Tree::new().open(&at, &sealed, 1).unwrap_err();
    assert_eq!(other_tree.kind(), io::ErrorKind::InvalidData);
    for elsewhere in [place(Kind::Object, b"pack"), place(Kind::Pack, b"other")] {
        assert!(tree.open(&elsewhere, &sealed, 1).is_err(), "{elsewhere:?}");
    }
    let ((none, key), pointer) = (tree.names.pointer(), Place::Latest("fedora".parse().unwrap()));
    assert_eq!(tree.names.own_key(&pointer, none), Some(key));
    assert_eq!(tree.names.own_key(&pointer, version(1)), None);
    assert_eq!(tree.names.own_key(&at, none), None);
}

#[test]
fn names_and_bytes_of_equal_content_have_nothing_in_common_between_trees_or_generations() {
    let (one, two) = (Tree::new(), Tree::new());
    let (at, plain) = (place(Kind::Pack, b"pack"), content(40_000));
    let public = |tree: &Tree| tree.names.place(&at);
    assert_ne!(public(&one), public(&two));
    assert_ne!(one.names.alias(), two.names.alias());
    assert!(!public(&one).path().contains("fedora"));
    assert_ne!(public(&one), one.names.place(&place(Kind::Object, b"pack")));
    let first = one.seal(&at, 1, &plain);
    assert_eq!(first, one.seal(&at, 1, &plain), "an upload goes on where it was");
    let windows = |bytes: &[u8]| -> std::collections::HashSet<Vec<u8>> {
        bytes[HEADER_LEN..].chunks(16).map(<[u8]>::to_vec).collect()
    };
    let seen = windows(&first);
    for other in [one.seal(&at, 2, &plain), two.seal(&at, 1, &plain), plain.clone()] {
        assert!(seen.is_disjoint(&windows(&other)));
    }
    // Other bytes under the same name, as of a release that compresses otherwise.
    assert!(seen.is_disjoint(&windows(&one.seal(&at, 1, &content(39_999)))));
}

#[test]
fn no_header_of_any_form_is_a_fault() {
    let (tree, at) = (Tree::new(), place(Kind::Manifest, b"m"));
    let good = tree.seal(&at, 1, b"list");
    let header = Header::parse(&good[..HEADER_LEN]).unwrap();
    assert_eq!(header.encode()[..], good[..HEADER_LEN]);
    for length in 0..HEADER_LEN {
        assert!(Header::parse(&good[..length]).is_err(), "{length}");
    }
    assert!(Header::parse(&[0xff; HEADER_LEN]).is_err());
    // Numbers at their end, and a wish for endless content.
    let mut last = good.clone();
    last[8..24].fill(0xff);
    assert!(tree.open(&at, &last, 1).is_err());
    let small = Opener::whole(&at, 3);
    assert!(tree.drive(small, &good, 7, 1).is_err(), "longer than was signed");
}
