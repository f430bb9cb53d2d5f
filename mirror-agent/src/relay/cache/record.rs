//! Which pieces of an object are on the disk, written down so that the next process can tell.
//!
//! Beside the bytes of an object lies a record: what the object is, and for each piece that came a
//! *seal*, the digest of what the object is, of the piece's number, and of its bytes. Whoever takes a
//! piece from the disk looks whether the seal still fits, so nothing has to be durable or in order: what
//! a crash, a bad disk or a mixed-up file made of it is a piece that is missing.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use protocol::digest::{Digest, DigestWriter};

/// First bytes of a record; another form has others.
const MAGIC: &[u8; 8] = b"mnrelay1";
/// Magic, name, digest, and length in bytes.
const HEAD: usize = 8 + Digest::LEN + Digest::LEN + 8;
/// Number and seal of a piece.
const ROW: usize = 4 + Digest::LEN;

/// An object of which pieces are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct About {
    /// Under which name it is asked for.
    pub(super) name: Digest,
    /// What its bytes have to have.
    pub(super) digest: Digest,
    /// How many there are.
    pub(super) length: u64,
}

/// The record of one object.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) about: About,
    path: PathBuf,
}

impl About {
    /// The seal of a piece.
    pub(super) fn seal(&self, number: u32, bytes: &[u8]) -> Digest {
        let mut writer = DigestWriter::new();
        writer.update(&self.head());
        writer.update(&number.to_le_bytes());
        writer.update(bytes);
        writer.finish()
    }

    fn head(&self) -> Vec<u8> {
        let Self { name, digest, length } = self;
        [&MAGIC[..], name.as_bytes(), digest.as_bytes(), &length.to_le_bytes()].concat()
    }
}

impl Record {
    /// A record that has nothing yet.
    pub(super) fn create(path: PathBuf, about: About) -> io::Result<Self> {
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&path)?;
        file.write_all(&about.head())?;
        Ok(Self { about, path })
    }

    /// Reads what an earlier process left: the seals by number, at most `most(length)` of them. Whatever
    /// is no record is an error.
    pub(super) fn open(
        path: PathBuf,
        most: impl FnOnce(u64) -> Option<usize>,
    ) -> io::Result<(Self, Vec<(usize, Digest)>)> {
        let wrong = |what| io::Error::new(io::ErrorKind::InvalidData, what);
        let mut file = File::options().read(true).write(true).open(&path)?;
        let mut head = [0; HEAD];
        file.read_exact(&mut head)?;
        let (magic, rest) = head.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err(wrong("it is no record of this form"));
        }
        let digest = |at: usize| {
            let mut bytes = [0; Digest::LEN];
            bytes.copy_from_slice(&rest[at..at + Digest::LEN]);
            Digest::from_bytes(bytes)
        };
        let mut length = [0; 8];
        length.copy_from_slice(&rest[2 * Digest::LEN..]);
        let length = u64::from_le_bytes(length);
        let about = About { name: digest(0), digest: digest(Digest::LEN), length };
        let count = most(length).ok_or_else(|| wrong("the object is too large"))?;
        // A piece that was found damaged came once more, and has another row.
        let most = 2 * (count + 1) * ROW;
        let mut rows = Vec::new();
        (&mut file).take(most as u64).read_to_end(&mut rows)?;
        let whole = rows.len() / ROW * ROW;
        // What was torn would shift all that follow.
        file.set_len((HEAD + whole) as u64)?;
        let mut seals = Vec::with_capacity(whole / ROW);
        for row in rows[..whole].chunks_exact(ROW) {
            let (mut number, mut seal) = ([0; 4], [0; Digest::LEN]);
            number.copy_from_slice(&row[..4]);
            seal.copy_from_slice(&row[4..]);
            let number = u32::from_le_bytes(number) as usize;
            if number < count {
                seals.push((number, Digest::from_bytes(seal)));
            }
        }
        Ok((Self { about, path }, seals))
    }

    /// Notes pieces that are there now.
    pub(super) fn add(&self, seals: &[(u32, Digest)]) -> io::Result<()> {
        let rows: Vec<u8> = seals
            .iter()
            .flat_map(|(number, seal)| [&number.to_le_bytes()[..], &seal.as_bytes()[..]].concat())
            .collect();
        File::options().append(true).open(&self.path)?.write_all(&rows)
    }

    /// When a piece came last.
    pub(super) fn used(&self) -> Option<std::time::SystemTime> {
        fs::metadata(&self.path).and_then(|meta| meta.modified()).ok()
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about() -> About {
        About { name: Digest::of(b"name"), digest: Digest::of(b"content"), length: 1_000 }
    }

    #[test]
    fn what_was_noted_is_read_back_and_a_torn_row_shifts_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r");
        let record = Record::create(path.clone(), about()).unwrap();
        let seal = |number| about().seal(number, b"bytes");
        record.add(&[(3, seal(3)), (0, seal(0))]).unwrap();
        let torn = [&fs::read(&path).unwrap()[..], b"torn"].concat();
        fs::write(&path, torn).unwrap();
        let (read, seals) = Record::open(path.clone(), |_| Some(4)).unwrap();
        assert_eq!((read.about, seals.len()), (about(), 2));
        read.add(&[(9, seal(9)), (1, seal(1))]).unwrap();
        let (_, seals) = Record::open(path, |_| Some(4)).unwrap();
        assert_eq!(seals, [(3, seal(3)), (0, seal(0)), (1, seal(1))], "9 is behind the end");
    }

    #[test]
    fn a_seal_is_of_one_piece_of_one_object() {
        let seal = about().seal(1, b"bytes");
        assert_ne!(seal, about().seal(2, b"bytes"));
        assert_ne!(seal, about().seal(1, b"bites"));
        let other = About { length: 1_001, ..about() };
        assert_ne!(seal, other.seal(1, b"bytes"));
    }

    #[test]
    fn what_is_no_record_is_an_error_and_no_panic() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r");
        let record = Record::create(path.clone(), about()).unwrap();
        record.add(&[(0, Digest::of(b"x"))]).unwrap();
        let good = fs::read(&path).unwrap();
        for len in 0..HEAD {
            fs::write(&path, &good[..len]).unwrap();
            assert!(Record::open(path.clone(), |_| Some(4)).is_err(), "{len} bytes");
        }
        fs::write(&path, [b"mnrelay9", &good[8..]].concat()).unwrap();
        assert!(Record::open(path.clone(), |_| Some(4)).is_err());
        fs::write(&path, &good).unwrap();
        assert!(Record::open(path.clone(), |_| None).is_err(), "too large");
        // However long it is, no more is read than there can be.
        let endless = [&good[..], &[0xff; 100 * ROW]].concat();
        fs::write(&path, endless).unwrap();
        assert_eq!(Record::open(path, |_| Some(4)).unwrap().1.len(), 1);
    }
}
