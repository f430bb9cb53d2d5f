//! Small files that survive power loss whole, or were never written.
//!
//! Marks, plans and lists of paths decide what a restarted agent believes. Each is written under
//! another name, synced, renamed into place, and the directory synced; its first line carries a
//! digest of the rest, so that damage is noticed and not obeyed.

use protocol::{
    digest::Digest,
    path::TreePath,
    wire::{Malformed, Reader, Writer},
};

use crate::fs::{self, Dir};

/// Larger files than this are not ours.
const MAX_BYTES: u64 = 1 << 32;

/// A record that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Fs(#[from] fs::Error),
    #[error("{path} was cut short or altered")]
    Damaged { path: String },
}

/// Writes a record; when this returns, it is durable.
pub(crate) fn save(dir: &Dir, name: &str, body: &[u8]) -> fs::Result<()> {
    let new = format!("{name}.new");
    match dir.unlink(new.as_bytes()) {
        Err(error) if !error.is_not_found() => return Err(error),
        _ => {}
    }
    let file = dir.create_file(new.as_bytes())?;
    let mut bytes = format!("mirrornet 1 {}\n", Digest::of(body)).into_bytes();
    bytes.extend_from_slice(body);
    file.write_at(0, &bytes)?;
    file.sync()?;
    dir.rename(new.as_bytes(), dir, name.as_bytes())?;
    dir.sync()
}

/// Reads a record; `None` where there is none.
pub(crate) fn load(dir: &Dir, name: &str) -> Result<Option<Vec<u8>>, Error> {
    let file = match dir.open_file(name.as_bytes()) {
        Err(error) if error.is_not_found() => return Ok(None),
        other => other?,
    };
    let damaged = || Error::Damaged { path: file.path().display().to_string() };
    let size = file.meta()?.size;
    if size > MAX_BYTES {
        return Err(damaged());
    }
    let mut bytes = vec![0; usize::try_from(size).map_err(|_| damaged())?];
    let read = file.read_at(0, &mut bytes)?;
    bytes.truncate(read);
    let end = bytes.iter().position(|&b| b == b'\n').ok_or_else(damaged)?;
    let body = bytes.split_off(end + 1);
    let header = format!("mirrornet 1 {}\n", Digest::of(&body));
    if bytes == header.as_bytes() { Ok(Some(body)) } else { Err(damaged()) }
}

/// Removes a record, durably; fine if there is none.
pub(crate) fn remove(dir: &Dir, name: &str) -> fs::Result<()> {
    match dir.unlink(name.as_bytes()) {
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error),
        Ok(()) => dir.sync(),
    }
}

/// Paths in which two trees may differ, in order. `had` says whether the older of the two held
/// something of ours there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PathList(pub(crate) Vec<(TreePath, bool)>);

impl PathList {
    const MAGIC: &[u8] = b"MNPATHS\x01";

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.raw(Self::MAGIC).varint(self.0.len() as u64);
        let mut previous: &[u8] = b"";
        for (path, had) in &self.0 {
            out.path_after(previous, path).byte(u8::from(*had));
            previous = path.as_bytes();
        }
        out.into_bytes()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        reader.magic(Self::MAGIC, "a list of paths")?;
        let count = reader.varint_up_to("paths", protocol::manifest::MAX_ENTRIES)?;
        let mut paths: Vec<(TreePath, bool)> = Vec::new();
        for _ in 0..count {
            let previous = paths.last().map_or(&b""[..], |(path, _)| path.as_bytes());
            let path = reader.path_after(previous)?;
            if paths.last().is_some_and(|(last, _)| *last >= path) {
                return Err(reader.invalid("order of paths"));
            }
            paths.push((path, reader.byte()? != 0));
        }
        reader.finish()?;
        Ok(Self(paths))
    }

    /// Whether the older tree held something of ours at `path`; `None` if the list does not name
    /// it.
    pub(crate) fn had(&self, path: &TreePath) -> Option<bool> {
        let at = self.0.binary_search_by(|(listed, _)| listed.cmp(path)).ok()?;
        Some(self.0[at].1)
    }

    /// Both lists in one; what either had, it has.
    pub(crate) fn union(&self, other: &Self) -> Self {
        let mut all: Vec<_> = self.0.iter().chain(&other.0).cloned().collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all.dedup_by(|next, kept| {
            let same = next.0 == kept.0;
            kept.1 |= same && next.1;
            same
        });
        Self(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::Fs;

    fn list(items: &[(&str, bool)]) -> PathList {
        let path = |text: &str| TreePath::parse(text.as_bytes()).unwrap();
        PathList(items.iter().map(|(text, had)| (path(text), *had)).collect())
    }

    #[test]
    fn a_record_comes_back_whole_or_not_at_all() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Fs::disk().open_root(temp.path()).unwrap();
        assert!(load(&dir, "marks").unwrap().is_none());
        save(&dir, "marks", b"one").unwrap();
        save(&dir, "marks", b"two").unwrap();
        assert_eq!(load(&dir, "marks").unwrap().unwrap(), b"two");
        let bytes = std::fs::read(temp.path().join("marks")).unwrap();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            std::fs::write(temp.path().join("marks"), &damaged).unwrap();
            assert!(load(&dir, "marks").is_err(), "byte {at}");
            std::fs::write(temp.path().join("marks"), &bytes[..at]).unwrap();
            assert!(load(&dir, "marks").is_err(), "cut at {at}");
        }
    }

    #[test]
    fn lists_of_paths_unite_and_come_back() {
        let one = list(&[("a", false), ("a/b", true), ("c", false)]);
        let two = list(&[("a", true), ("b", false)]);
        let both = one.union(&two);
        assert_eq!(both, list(&[("a", true), ("a/b", true), ("b", false), ("c", false)]));
        assert_eq!(PathList::decode(&both.encode()), Ok(both));
    }
}
