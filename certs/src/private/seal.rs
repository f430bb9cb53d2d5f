//! Sealing an object as it is read.

use std::io::{self, Read};

use aws_lc_rs::aead::Aad;
use protocol::{digest::Digest, generation::Version, origin::Place, v1::keys::SecretKey};

use super::{CHUNK, Header, Names, ObjectKey, TAG, nonce};

/// Reads as the sealed form of what `content` reads.
pub struct Sealer<R> {
    content: R,
    key: ObjectKey,
    /// Sealed bytes that were not read yet, from `at`.
    ready: Vec<u8>,
    at: usize,
    number: u64,
    ended: bool,
}

impl<R: Read> Sealer<R> {
    /// `bytes` is the digest of all that `content` reads; `key` that of generation `version`.
    pub fn new(
        content: R,
        place: &Place,
        names: &Names,
        (version, key): (Version, &SecretKey),
        bytes: &Digest,
    ) -> io::Result<Self> {
        let header = Header::new(version, names, bytes);
        let key = ObjectKey::new(key, place, &header).ok_or_else(refused)?;
        Ok(Self { content, ready: key.header.to_vec(), key, at: 0, number: 0, ended: false })
    }

    fn seal_next(&mut self) -> io::Result<()> {
        self.ready.clear();
        self.at = 0;
        self.ready.reserve(CHUNK + TAG);
        let length = (&mut self.content).take(CHUNK as u64).read_to_end(&mut self.ready)?;
        // A full chunk that nothing follows is followed by an empty one.
        self.ended = length < CHUNK;
        let (nonce, aad) = (nonce(self.number, self.ended), Aad::from(&self.key.header));
        let sealed = self.key.key.seal_in_place_append_tag(nonce, aad, &mut self.ready);
        self.number += 1;
        sealed.map_err(|_| refused())
    }
}

impl<R: Read> Read for Sealer<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.at == self.ready.len() {
            if self.ended {
                return Ok(0);
            }
            self.seal_next()?;
        }
        let length = into.len().min(self.ready.len() - self.at);
        into[..length].copy_from_slice(&self.ready[self.at..self.at + length]);
        self.at += length;
        Ok(length)
    }
}

fn refused() -> io::Error {
    io::Error::other("the cipher refuses its key or its content")
}
