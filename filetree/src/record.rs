//! Small files that survive power loss whole, or were never written.
//!
//! Marks, plans and lists of paths decide what a restarted agent believes. Each is written under
//! another name, synced, renamed into place, and the directory synced; its first line carries a
//! digest of the rest, so that damage is noticed and not obeyed.

mod paths;

use protocol::{
    digest::{Digest, DigestWriter},
    wire::Malformed,
};

pub(crate) use self::paths::PathList;
use crate::fs::{self, Dir};

/// Larger files than this are not ours.
const MAX_BYTES: u64 = 1 << 32;
/// Records up to this length are written at once.
const ONE_WRITE: usize = 1 << 20;

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
    save_parts(dir, name, &[body])
}

/// The same, where the record is in several pieces: a long one is not copied for it.
fn save_parts(dir: &Dir, name: &str, parts: &[&[u8]]) -> fs::Result<()> {
    let new = format!("{name}.new");
    match dir.unlink(new.as_bytes()) {
        Err(error) if !error.is_not_found() => return Err(error),
        _ => {}
    }
    let file = dir.create_file(new.as_bytes())?;
    let mut digest = DigestWriter::new();
    parts.iter().for_each(|part| digest.update(part));
    let mut front = header(digest.finish()).into_bytes();
    let mut rest = parts;
    // A short record is one write.
    while let Some((part, others)) = rest.split_first()
        && front.len() + part.len() <= ONE_WRITE
    {
        front.extend_from_slice(part);
        rest = others;
    }
    file.write_at(0, &front)?;
    let mut at = front.len() as u64;
    for part in rest {
        file.write_at(at, part)?;
        at += part.len() as u64;
    }
    file.sync()?;
    dir.rename(new.as_bytes(), dir, name.as_bytes())?;
    dir.sync()
}

fn header(digest: Digest) -> String {
    format!("mirrornet 1 {digest}\n")
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
    if bytes == header(Digest::of(&body)).as_bytes() { Ok(Some(body)) } else { Err(damaged()) }
}

/// Removes a record, durably; fine if there is none.
pub(crate) fn remove(dir: &Dir, name: &str) -> fs::Result<()> {
    match dir.unlink(name.as_bytes()) {
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error),
        Ok(()) => dir.sync(),
    }
}

/// Writes a list of paths as a record.
pub(crate) fn save_paths(dir: &Dir, name: &str, list: &PathList) -> fs::Result<()> {
    let (front, items) = list.encoded();
    save_parts(dir, name, &[&front, items])
}

/// Reads a list of paths; a list that cannot be understood is an inner error.
pub(crate) fn load_paths(
    dir: &Dir,
    name: &str,
) -> Result<Option<Result<PathList, Malformed>>, Error> {
    Ok(load(dir, name)?.map(PathList::decode))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::Fs;

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
}
