//! Files that only the holder of a secret can read: backups.
//!
//! ```text
//! magic "MNSEAL" version 1 (7 bytes), rounds (u32), salt (32 bytes)          43 bytes
//! segments: 64 KiB of the content each, the last one shorter or empty, each followed by its tag
//! ```
//! The key of a file is drawn from the secret and the file's own salt by PBKDF2-HMAC-SHA-256, slowly
//! enough for a passphrase that a person can type. Each segment is AES-256-GCM under that key, with its
//! number and whether it is the last one as nonce, and the header as additional data: the
//! construction called STREAM (Hoang, Reyhanitabar, Rogaway, Vizár 2015). Segments that are changed,
//! left out, doubled, exchanged or cut off at the end are noticed before a byte of them is given out.

use std::io::{self, Read, Write};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    pbkdf2,
};

use crate::{NoRandomness, random};

const MAGIC: &[u8; 7] = b"MNSEAL\x01";
const SALT_LEN: usize = 32;
const HEADER_LEN: usize = MAGIC.len() + 4 + SALT_LEN;
const SEGMENT: usize = 64 * 1024;
const TAG: usize = 16;
/// Work of a guess at the secret.
const ROUNDS: u32 = 600_000;
/// A file that asks for more work than this is not opened: it would only keep us busy.
const MAX_ROUNDS: u32 = 20_000_000;
/// Shortest secret, in bytes.
pub const MIN_SECRET: usize = 16;

/// What a file is sealed with: a passphrase, or random bytes as text.
#[derive(Clone)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// A new random one, as the text that [`Secret::parse`] reads.
    pub fn generate() -> Result<String, NoRandomness> {
        let bytes: [u8; 32] = random()?;
        Ok(data_encoding::BASE32_NOPAD.encode(&bytes).to_ascii_lowercase())
    }

    /// The first line of `text`, without white space around it.
    ///
    /// # Errors
    /// [`Error::ShortSecret`] when it has fewer than [`MIN_SECRET`] bytes.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let line = text.lines().next().unwrap_or_default().trim();
        if line.len() < MIN_SECRET {
            return Err(Error::ShortSecret);
        }
        Ok(Self(line.as_bytes().to_vec()))
    }

    fn key(&self, salt: &[u8], rounds: u32) -> Result<LessSafeKey, Error> {
        let rounds = std::num::NonZeroU32::new(rounds).ok_or(Error::NotSealed)?;
        let mut key = [0; 32];
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, salt, &self.0, &mut key);
        let key = UnboundKey::new(&AES_256_GCM, &key).map_err(|_| Error::NotSealed)?;
        Ok(LessSafeKey::new(key))
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

/// Writes all of `content` to `sealed`, readable with `secret` only.
pub fn seal(content: impl Read, sealed: impl Write, secret: &Secret) -> Result<(), Error> {
    seal_with(content, sealed, secret, ROUNDS)
}

fn seal_with(
    mut content: impl Read,
    mut sealed: impl Write,
    secret: &Secret,
    rounds: u32,
) -> Result<(), Error> {
    let salt: [u8; SALT_LEN] = random()?;
    let header = [&MAGIC[..], &rounds.to_be_bytes(), &salt].concat();
    let key = secret.key(&salt, rounds)?;
    sealed.write_all(&header)?;
    let mut segment = Vec::with_capacity(SEGMENT + TAG);
    for number in 0..=u32::MAX {
        segment.clear();
        // One byte more than a segment would tell whether it is the last; a full one that is
        // followed by nothing is followed by an empty one instead.
        let length = (&mut content).take(SEGMENT as u64).read_to_end(&mut segment)?;
        let last = length < SEGMENT;
        key.seal_in_place_append_tag(nonce(number, last), Aad::from(&header), &mut segment)
            .map_err(|_| Error::TooLong)?;
        sealed.write_all(&segment)?;
        if last {
            return Ok(sealed.flush()?);
        }
    }
    Err(Error::TooLong)
}

/// Writes what was sealed to `content`. What was written before an error is only a beginning.
///
/// # Errors
/// [`Error::NotSealed`] for any other file, [`Error::Damaged`] for another secret or a changed file.
pub fn open(mut sealed: impl Read, mut content: impl Write, secret: &Secret) -> Result<(), Error> {
    let mut header = [0; HEADER_LEN];
    sealed.read_exact(&mut header).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => Error::NotSealed,
        _ => Error::Io(error),
    })?;
    let (magic, rest) = header.split_at(MAGIC.len());
    let (rounds, salt) = rest.split_at(4);
    let rounds = u32::from_be_bytes(rounds.try_into().map_err(|_| Error::NotSealed)?);
    if magic != MAGIC || rounds > MAX_ROUNDS {
        return Err(Error::NotSealed);
    }
    let key = secret.key(salt, rounds)?;
    let mut segment = Vec::with_capacity(SEGMENT + TAG);
    for number in 0..=u32::MAX {
        segment.clear();
        let length = (&mut sealed).take((SEGMENT + TAG) as u64).read_to_end(&mut segment)?;
        let last = length < SEGMENT + TAG;
        let opened = key
            .open_in_place(nonce(number, last), Aad::from(&header), &mut segment)
            .map_err(|_| Error::Damaged)?;
        content.write_all(opened)?;
        if last {
            return Ok(content.flush()?);
        }
    }
    Err(Error::TooLong)
}

/// Never used twice with a key, because a key is of one file and each segment has its number.
fn nonce(number: u32, last: bool) -> Nonce {
    let mut bytes = [0; 12];
    bytes[7..11].copy_from_slice(&number.to_be_bytes());
    bytes[11] = u8::from(last);
    Nonce::assume_unique_for_key(bytes)
}

/// Why a file was not sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Reading or writing.
    #[error("cannot read or write")]
    Io(#[from] io::Error),
    /// Too easily guessed.
    #[error("the secret is shorter than {MIN_SECRET} bytes; use a longer one")]
    ShortSecret,
    /// Another kind of file.
    #[error("this is not a file that was sealed, or one of a later version")]
    NotSealed,
    /// Another secret, or the file was changed or cut.
    #[error("the secret is another one, or the file was damaged")]
    Damaged,
    /// Longer than 2^32 segments.
    #[error("the content is too long")]
    TooLong,
    /// Nothing random.
    #[error(transparent)]
    Random(#[from] NoRandomness),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret() -> Secret {
        Secret::parse("correct horse battery staple\nand a note").unwrap()
    }

    /// Few rounds: what is tested here is the form.
    fn sealed(content: &[u8]) -> Vec<u8> {
        let mut sealed = Vec::new();
        seal_with(content, &mut sealed, &secret(), 10).unwrap();
        sealed
    }

    fn opened(sealed: &[u8]) -> Result<Vec<u8>, Error> {
        let mut content = Vec::new();
        open(sealed, &mut content, &secret())?;
        Ok(content)
    }

    #[test]
    fn content_of_any_length_comes_back_and_does_not_show() {
        for length in [0, 1, SEGMENT - 1, SEGMENT, SEGMENT + 1, 3 * SEGMENT, 200_000] {
            let content: Vec<u8> = b"the root key ".iter().copied().cycle().take(length).collect();
            let sealed = sealed(&content);
            let segments = length / SEGMENT + 1;
            assert_eq!(sealed.len(), HEADER_LEN + length + segments * TAG);
            assert!(!sealed.windows(12).any(|window| window == b"the root key"));
            assert_eq!(opened(&sealed).unwrap(), content);
        }
        assert_ne!(sealed(b"same"), sealed(b"same"), "each file has its own key");
    }

    #[test]
    fn whatever_is_changed_left_out_or_exchanged_is_noticed() {
        let content = vec![7; 3 * SEGMENT + 100];
        let good = sealed(&content);
        for at in (0..HEADER_LEN).chain((HEADER_LEN..good.len()).step_by(4_999)) {
            let mut changed = good.clone();
            changed[at] ^= 1;
            // The number of rounds may become one that is refused before it is tried.
            assert!(opened(&changed).is_err(), "byte {at}");
        }
        let stored = SEGMENT + TAG;
        let segment =
            |number: usize| HEADER_LEN + number * stored..HEADER_LEN + (number + 1) * stored;
        let cut = |end: usize| opened(&good[..end]).is_err();
        assert!((0..=3).all(|number| cut(HEADER_LEN + number * stored)), "cut between segments");
        assert!(cut(good.len() - 1) && cut(HEADER_LEN - 1) && cut(0));
        let mut exchanged = good.clone();
        exchanged[segment(0)].copy_from_slice(&good[segment(1)]);
        assert!(opened(&exchanged).is_err());
        let without = [&good[..segment(1).start], &good[segment(1).end..]].concat();
        assert!(opened(&without).is_err());
        let longer = [&good[..], &[0]].concat();
        assert!(opened(&longer).is_err());
        assert!(matches!(
            opened(b"SQLite format 3\0 and more of that, which is no seal").unwrap_err(),
            Error::NotSealed
        ));
    }

    #[test]
    fn another_secret_opens_nothing_and_a_short_one_is_refused() {
        let file = sealed(b"content");
        let other = Secret::parse(&Secret::generate().unwrap()).unwrap();
        let error = open(&file[..], io::sink(), &other).unwrap_err();
        assert!(matches!(error, Error::Damaged));
        assert!(matches!(Secret::parse("short"), Err(Error::ShortSecret)));
        assert!(matches!(Secret::parse("\nsecond line of enough length"), Err(Error::ShortSecret)));
    }
}
