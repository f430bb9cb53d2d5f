//! What every publication point must do; run on each implementation.

use std::{
    io::Read,
    sync::atomic::{AtomicUsize, Ordering},
};

use protocol::digest::Digest;

use super::{Error, Kind, Object, Point, digest_of, put_verified};

/// So much of an object is sent in more than one part, where a point knows parts.
const LARGE: usize = (17 << 20) + 1;

/// Content that fails after so many bytes, as a full disk or a cut connection does.
struct Cut<'a>(&'a [u8]);

impl Read for Cut<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        match self.0.read(into) {
            Ok(0) => Err(std::io::ErrorKind::BrokenPipe.into()),
            read => read,
        }
    }
}

/// Fails where `point` does not keep the contract.
pub(crate) fn check(point: &dyn Point) {
    let tree: protocol::name::TreeName = "fedora".parse().unwrap();
    let object =
        |kind, content: &[u8]| Object { tree: tree.clone(), kind, name: Digest::of(content) };
    let put = |object: &Object, content: &[u8]| {
        point.put(object, &mut &content[..], content.len() as u64)
    };
    let first = object(Kind::Pack, b"first");

    assert_eq!(point.list(&tree, Kind::Pack).unwrap(), []);
    let missing = digest_of(point, &first).unwrap_err();
    assert_eq!(missing.kind(), std::io::ErrorKind::NotFound);

    point.put(&first, &mut Cut(b"fir"), 5).unwrap_err();
    point.put(&first, &mut &b"fir"[..], 5).unwrap_err();
    point.put(&first, &mut &b"first and more"[..], 5).unwrap_err();
    assert_eq!(point.list(&tree, Kind::Pack).unwrap(), [], "half an object is no object");

    put_verified(point, &first, &mut &b"first"[..], 5, &Digest::of(b"first")).unwrap();
    put(&first, b"other").unwrap();
    assert_eq!(digest_of(point, &first).unwrap(), first.name, "written once, never changed");

    let block = object(Kind::Block, b"first");
    assert!(point.open(&block).is_err(), "kinds are apart");
    let damaged = put_verified(point, &block, &mut &b"else"[..], 4, &block.name).unwrap_err();
    assert!(matches!(damaged, Error::Damaged { .. }), "{damaged}");
    assert_eq!(point.list(&tree, Kind::Block).unwrap(), [], "what is damaged does not stay");

    large(point, &object(Kind::Pack, &noise()));
    pointer(point, &tree);

    assert_eq!(point.list(&tree, Kind::Pack).unwrap(), [first.name]);
    point.remove(&first).unwrap();
    point.remove(&first).unwrap();
    assert_eq!(point.list(&tree, Kind::Pack).unwrap(), []);
}

fn noise() -> Vec<u8> {
    (0..LARGE).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

/// What breaks off is not there, and comes whole when it is put again.
fn large(point: &dyn Point, object: &Object) {
    let content = noise();
    for length in [LARGE / 2, LARGE - 1] {
        point.put(object, &mut Cut(&content[..length]), LARGE as u64).unwrap_err();
        assert!(digest_of(point, object).is_err(), "half an object is no object");
    }
    put_verified(point, object, &mut &content[..], LARGE as u64, &object.name).unwrap();
    point.remove(object).unwrap();
    point.put(object, &mut Cut(&content[..LARGE / 2]), LARGE as u64).unwrap_err();
    let name = object.to_string();
    point.abandon(&object.tree, &|other| other == name).unwrap();
    point.abandon(&object.tree, &|_| false).unwrap();
    assert!(digest_of(point, object).is_err());
}

/// The pointer changes in one step, and not where what is there may not go.
fn pointer(point: &dyn Point, tree: &protocol::name::TreeName) {
    assert_eq!(point.latest(tree).unwrap(), None);
    assert!(point.move_latest(tree, b"1", &|_| false).unwrap(), "there was none");
    assert!(point.move_latest(tree, b"2", &|there| there == b"1").unwrap());
    assert!(!point.move_latest(tree, b"1", &|there| there < &b"1"[..]).unwrap());
    assert_eq!(point.latest(tree).unwrap().as_deref(), Some(&b"2"[..]));
}

/// The same with several writers at once. Not every store keeps its conditions then.
pub(crate) fn check_races(point: &dyn Point) {
    let tree: protocol::name::TreeName = "raced".parse().unwrap();
    let name = Digest::of(b"one");
    one_of_many(point, &Object { tree: tree.clone(), kind: Kind::Manifest, name });
    let moving = |number: u8| point.move_latest(&tree, &[number], &|there| there < &[number][..]);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (b'3'..=b'6').map(|n| scope.spawn(move || moving(n))).collect();
        for thread in threads {
            thread.join().unwrap().unwrap();
        }
    });
    assert_eq!(point.latest(&tree).unwrap().as_deref(), Some(&b"6"[..]), "it went back");
}

/// Of several that write one object, one does, and nobody fails.
fn one_of_many(point: &dyn Point, object: &Object) {
    let done = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                put_verified(point, object, &mut &b"one"[..], 3, &object.name).unwrap();
                done.fetch_add(1, Ordering::Relaxed);
            });
        }
    });
    assert_eq!(done.into_inner(), 4);
    assert_eq!(digest_of(point, object).unwrap(), object.name);
    point.remove(object).unwrap();
}
