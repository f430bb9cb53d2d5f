//! Entitlements: certificates that name the paths which they open.
//!
//! The form is that of Red Hat's subscriptions, version 1: each content has a number `N` and, under
//! `1.3.6.1.4.1.2312.9.2.N.1.6`, a path; `1.3.6.1.4.1.2312.9.4.1` names the order. Later versions pack
//! their paths otherwise and are not read.

use x509_parser::prelude::{FromDer, X509Certificate};

/// Where all of it stands.
const ARC: &str = "1.3.6.1.4.1.2312.9.";
/// Most paths of one certificate.
const MAX_PATHS: usize = 4_096;
/// Longest path, in bytes.
const MAX_PATH: usize = 4_096;

/// The paths that a certificate opens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entitlement {
    paths: Vec<Vec<Part>>,
}

/// One component of a path in a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    /// Exactly this.
    Is(String),
    /// `$name`: any one component.
    Any,
}

/// Why a certificate opens no path, or not this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotEntitled {
    /// It cannot be read.
    #[error("the client certificate cannot be read")]
    Malformed,
    /// No order, or no path.
    #[error("the client certificate is no entitlement: it names no order, or no path")]
    NoEntitlement,
    /// A version that is not read.
    #[error("the client certificate is an entitlement of version {0}; only version 1 is read here")]
    Version(u8),
    /// More than anybody has.
    #[error("the client certificate names more than {MAX_PATHS} paths, or one that is too long")]
    TooMany,
    /// Other paths.
    #[error("the client certificate names no path at or above the one that was asked for")]
    OtherPath,
}

impl Entitlement {
    /// Reads the paths of a certificate (DER).
    pub fn read(der: &[u8]) -> Result<Self, NotEntitled> {
        let (rest, certificate) =
            X509Certificate::from_der(der).map_err(|_| NotEntitled::Malformed)?;
        if !rest.is_empty() {
            return Err(NotEntitled::Malformed);
        }
        let (mut paths, mut has_order) = (Vec::new(), false);
        for extension in certificate.extensions() {
            let oid = extension.oid.to_id_string();
            let Some(below) = oid.strip_prefix(ARC) else { continue };
            match below.split('.').collect::<Vec<_>>()[..] {
                ["6"] => {
                    // A text such as "3.4"; the part before the dot decides.
                    let version = text(extension.value).ok_or(NotEntitled::Malformed)?;
                    let major = version.split('.').next().and_then(|n| n.trim().parse().ok());
                    match major.ok_or(NotEntitled::Malformed)? {
                        0..=2 => {}
                        later => return Err(NotEntitled::Version(later)),
                    }
                }
                ["4", "1"] => has_order = text(extension.value).is_some_and(|t| !t.is_empty()),
                ["2", _, "1", "6"] => {
                    let path = text(extension.value).ok_or(NotEntitled::Malformed)?;
                    if paths.len() >= MAX_PATHS || path.len() > MAX_PATH {
                        return Err(NotEntitled::TooMany);
                    }
                    // The root would open everything, and so would nothing.
                    let parts: Vec<Part> = components(path).map(Part::read).collect();
                    paths.extend(Some(parts).filter(|parts| !parts.is_empty()));
                }
                _ => {}
            }
        }
        if !has_order || paths.is_empty() {
            return Err(NotEntitled::NoEntitlement);
        }
        Ok(Self { paths })
    }

    /// Whether it opens `path`, which lies at or below one of its own. Slashes that follow on each
    /// other count as one, and those at the ends for nothing.
    pub fn opens(&self, path: &str) -> bool {
        let asked: Vec<&str> = components(path).collect();
        let matches = |own: &Vec<Part>| {
            own.len() <= asked.len()
                && own.iter().zip(&asked).all(|(part, asked)| part.takes(asked))
        };
        self.paths.iter().any(matches)
    }
}

impl Part {
    fn read(text: &str) -> Self {
        match text.strip_prefix('$') {
            Some(name) if !name.is_empty() => Self::Any,
            _ => Self::Is(text.to_owned()),
        }
    }

    fn takes(&self, asked: &str) -> bool {
        match self {
            Self::Any => !asked.is_empty(),
            Self::Is(text) => text == asked,
        }
    }
}

fn components(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|part| !part.is_empty())
}

/// A UTF8String (or an older kind of text), and nothing behind it; of at most 64 KiB, as short
/// lengths and those of one or two bytes say.
fn text(der: &[u8]) -> Option<&str> {
    let (&tag, rest) = der.split_first()?;
    if !matches!(tag, 0x0c | 0x13 | 0x16) {
        return None;
    }
    let (&first, rest) = rest.split_first()?;
    let (length, content) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81 => {
            let (&length, content) = rest.split_first()?;
            (usize::from(length), content)
        }
        0x82 => {
            let (length, content) = rest.split_first_chunk::<2>()?;
            (usize::from(u16::from_be_bytes(*length)), content)
        }
        _ => return None,
    };
    if content.len() != length {
        return None;
    }
    std::str::from_utf8(content).ok()
}
