//! Links: URLs that open something for whoever has them, for a while.
//!
//! A portal that knows its visitors by other means than certificates signs a URL with a secret that it
//! shares with the server of the files. Who has the URL reads what it names until it ends; whoever
//! changes its path or its end has another URL, which nobody has signed.
//!
//! The signature is HMAC-SHA-256 under the secret, in hex, over four lines, of which the last has no end:
//!
//! ```text
//! mirrornet-link-1
//! EXPIRES
//! file or below
//! PATH
//! ```
//! `EXPIRES` is in seconds since 1970, in decimal digits; `PATH` has no slash at its ends, and is what the
//! URL says when it is decoded. A path may hold line ends: nothing comes after it.

use std::fmt;

use aws_lc_rs::hmac;
use data_encoding::HEXLOWER;
use jiff::Timestamp;
use protocol::path::TreePath;

use crate::mac::hmac_sha256;

/// Shortest secret, in bytes: 128 bits in hex digits.
pub const MIN_SECRET_LEN: usize = 32;
/// Most secrets at once.
const MAX_SECRETS: usize = 16;

/// The secrets of one guard, the newest first.
#[derive(Clone)]
pub struct LinkSecrets(Vec<String>);

/// What a link opens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// One file.
    File(TreePath),
    /// A directory, with all that is below.
    Below(TreePath),
}

/// A link that somebody has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// What it opens.
    pub scope: Scope,
    /// Until when, in seconds since 1970.
    pub expires: i64,
    /// What should be its signature.
    pub signature: [u8; 32],
}

/// Why secrets cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadSecrets {
    /// None, or too many.
    #[error("there have to be 1 to {MAX_SECRETS} secrets, one on each line, and there are {0}")]
    Count(usize),
    /// Too short.
    #[error(
        "secret {0} is shorter than {MIN_SECRET_LEN} characters; openssl rand -hex 32 makes a good one"
    )]
    Short(usize),
}

/// Why a link opens nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadLink {
    /// Nobody signed it, or for something else.
    #[error("the URL is not signed, or was changed after it was signed")]
    Signature,
    /// It was good once.
    #[error("the URL has ended")]
    Ended,
    /// It is of another path.
    #[error("the URL is signed for another path")]
    OtherPath,
}

impl LinkSecrets {
    /// Reads secrets, one on each line. The first signs; links of all of them are good, so that the
    /// first can be exchanged while links of the last are about.
    pub fn read(text: &str) -> Result<Self, BadSecrets> {
        let secrets: Vec<String> =
            text.lines().map(str::trim).filter(|line| !line.is_empty()).map(Into::into).collect();
        if !(1..=MAX_SECRETS).contains(&secrets.len()) {
            return Err(BadSecrets::Count(secrets.len()));
        }
        if let Some(at) = secrets.iter().position(|secret| secret.len() < MIN_SECRET_LEN) {
            return Err(BadSecrets::Short(at + 1));
        }
        Ok(Self(secrets))
    }

    /// Signs what is opened until a time.
    pub fn sign(&self, scope: Scope, expires: Timestamp) -> Link {
        let expires = expires.as_second();
        let secret = self.0.first().map_or("", String::as_str);
        let signature = hmac_sha256(secret.as_bytes(), &message(&scope, expires));
        Link { scope, expires, signature }
    }

    /// Whether a link opens `path` now.
    pub fn check(&self, link: &Link, path: &TreePath, now: Timestamp) -> Result<(), BadLink> {
        let message = message(&link.scope, link.expires);
        let made_it = |secret: &String| {
            let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
            hmac::verify(&key, &message, &link.signature).is_ok()
        };
        if !self.0.iter().any(made_it) {
            return Err(BadLink::Signature);
        }
        if now.as_second() >= link.expires {
            return Err(BadLink::Ended);
        }
        let opens = match &link.scope {
            Scope::File(of) => of == path,
            Scope::Below(of) => of == path || path.is_inside(of),
        };
        if opens { Ok(()) } else { Err(BadLink::OtherPath) }
    }
}

impl fmt::Debug for LinkSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LinkSecrets({})", self.0.len())
    }
}

impl Link {
    /// The signature in hex digits.
    pub fn signature_hex(&self) -> String {
        HEXLOWER.encode(&self.signature)
    }

    /// Reads the text of a signature.
    pub fn parse_signature(hex: &str) -> Option<[u8; 32]> {
        HEXLOWER.decode(hex.as_bytes()).ok()?.try_into().ok()
    }
}

fn message(scope: &Scope, expires: i64) -> Vec<u8> {
    let (kind, path) = match scope {
        Scope::File(path) => ("file", path),
        Scope::Below(path) => ("below", path),
    };
    let mut message = format!("mirrornet-link-1\n{expires}\n{kind}\n").into_bytes();
    message.extend_from_slice(path.as_bytes());
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> TreePath {
        TreePath::parse(text.as_bytes()).unwrap()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn secrets(text: &str) -> LinkSecrets {
        LinkSecrets::read(text).unwrap()
    }

    const OLD: &str = "0123456789abcdef0123456789abcdef";
    const NEW: &str = "fedcba9876543210fedcba9876543210";

    #[test]
    fn a_link_opens_its_path_until_its_end_and_nothing_else() {
        let own = secrets(OLD);
        let file = own.sign(Scope::File(path("a/b")), at(100));
        let below = own.sign(Scope::Below(path("a/b")), at(100));
        let check = |link: &Link, to: &str, now| own.check(link, &path(to), at(now));
        assert_eq!(check(&file, "a/b", 99), Ok(()));
        assert_eq!(check(&file, "a/b", 100), Err(BadLink::Ended));
        assert_eq!(check(&file, "a/b/c", 0), Err(BadLink::OtherPath));
        assert_eq!(check(&below, "a/b", 0), Ok(()));
        assert_eq!(check(&below, "a/b/c/d", 0), Ok(()));
        for other in ["a", "a/bc", "b", "a/b2/c"] {
            assert_eq!(check(&below, other, 0), Err(BadLink::OtherPath), "{other}");
        }
        // Each part of it is bound.
        let changed = [
            Link { expires: 101, ..file.clone() },
            Link { scope: Scope::File(path("a/c")), ..file.clone() },
            Link { scope: Scope::Below(path("a/b")), ..file.clone() },
            Link { scope: Scope::File(path("a/b")), ..below },
            Link { signature: [0; 32], ..file.clone() },
        ];
        for link in changed {
            for to in ["a/b", "a/c"] {
                assert_eq!(check(&link, to, 0), Err(BadLink::Signature), "{link:?}");
            }
        }
        // Nor does a path with line ends stand for another end.
        let odd = own.sign(Scope::File(path("x\n200\nfile\na/b")), at(100));
        let as_other = Link { scope: Scope::File(path("a/b")), expires: 200, ..odd };
        assert_eq!(check(&as_other, "a/b", 0), Err(BadLink::Signature));
    }

    #[test]
    fn secrets_are_exchanged_while_links_of_the_old_one_are_about() {
        let (old, both, new) = (secrets(OLD), secrets(&format!("{NEW}\n\n{OLD}\n")), secrets(NEW));
        let link = |of: &LinkSecrets| of.sign(Scope::File(path("f")), at(10));
        let good = |own: &LinkSecrets, link: Link| own.check(&link, &path("f"), at(0)).is_ok();
        assert_eq!(link(&both), link(&new), "the first signs");
        assert!(good(&both, link(&old)) && good(&both, link(&new)));
        assert!(!good(&new, link(&old)), "and is gone when it is taken out");
        assert_eq!(LinkSecrets::read("\n \n").unwrap_err(), BadSecrets::Count(0));
        assert_eq!(LinkSecrets::read(&format!("{OLD}\nshort")).unwrap_err(), BadSecrets::Short(2));
        assert_eq!(
            LinkSecrets::read(&format!("{OLD}\n").repeat(17)).unwrap_err(),
            BadSecrets::Count(17)
        );
        assert!(!format!("{old:?}").contains(OLD));
    }
}
