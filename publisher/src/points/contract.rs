//! What every publication point must do; run on each implementation.

use std::io::Read;

use protocol::digest::Digest;

use super::{Error, Kind, Object, Point, digest_of, put_verified};

/// Content that fails in the middle, as a full disk or a cut connection does.
struct Cut(bool);

impl Read for Cut {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        if self.0 {
            return Err(std::io::ErrorKind::BrokenPipe.into());
        }
        self.0 = true;
        into.fill(b'x');
        Ok(into.len())
    }
}

/// Fails where `point` does not keep the contract.
pub(crate) fn check(point: &dyn Point) {
    let tree: protocol::name::TreeName = "fedora".parse().unwrap();
    let object =
        |kind, content: &[u8]| Object { tree: tree.clone(), kind, name: Digest::of(content) };
    let first = object(Kind::Pack, b"first");

    assert_eq!(point.list(&tree, Kind::Pack).unwrap(), []);
    let missing = digest_of(point, &first).unwrap_err();
    assert_eq!(missing.kind(), std::io::ErrorKind::NotFound);

    point.put(&first, &mut Cut(false)).unwrap_err();
    assert_eq!(point.list(&tree, Kind::Pack).unwrap(), [], "half an object is no object");

    put_verified(point, &first, &mut &b"first"[..], &Digest::of(b"first")).unwrap();
    point.put(&first, &mut &b"other"[..]).unwrap();
    assert_eq!(digest_of(point, &first).unwrap(), first.name, "written once, never changed");

    let block = object(Kind::Block, b"first");
    assert!(point.open(&block).is_err(), "kinds are apart");
    let damaged = put_verified(point, &block, &mut &b"else"[..], &block.name).unwrap_err();
    assert!(matches!(damaged, Error::Damaged { .. }), "{damaged}");
    assert_eq!(point.list(&tree, Kind::Block).unwrap(), [], "what is damaged does not stay");

    point.set_latest(&tree, b"first").unwrap();
    point.set_latest(&tree, b"second").unwrap();

    assert_eq!(point.list(&tree, Kind::Pack).unwrap(), [first.name]);
    point.remove(&first).unwrap();
    point.remove(&first).unwrap();
    assert_eq!(point.list(&tree, Kind::Pack).unwrap(), []);
}
