//! Publication points as definitions name them: the publisher itself, its private buckets, or a base
//! URL.
//!
//! A base URL decides where an agent connects, so what is accepted is a scheme, a host and a plain
//! path, and nothing that could carry a secret, be read in two ways, or name another host than it
//! seems to.

use std::{fmt, net::Ipv6Addr, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How the publisher itself is written in a list of points.
pub const ORIGIN: &str = "origin";
/// How the publisher's private buckets are written in a list of points.
pub const SIGNED: &str = "signed";
/// Longest base URL, in bytes.
const MAX_LEN: usize = 1024;

/// One publication point of a tree, in the order in which agents prefer them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PointRef {
    /// The publisher, over mutual TLS.
    Origin,
    /// Buckets of the publisher that are not public: it signs, for each object and for a short while,
    /// a URL of the bucket, and gives it to those who may read the tree.
    Signed,
    /// A server that has the same objects below this URL: a CDN, an object store, any web server.
    At(BaseUrl),
}

/// `https://HOST[:PORT][/PATH]`, or the same with `http`, without a slash at the end.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BaseUrl {
    text: String,
    host: String,
}

/// Why a text is no publication point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPoint {
    /// Another scheme, or none.
    #[error(
        "it is neither \"origin\" nor \"signed\" nor a URL that begins with https:// (or http://)"
    )]
    Scheme,
    /// `user@` or `user:password@`.
    #[error("it carries a user or a password, which every agent would be told; remove it")]
    UserInfo,
    /// Characters that no host has, or none at all.
    #[error("its host is not a host name in lower case or an address (IPv6 in brackets)")]
    Host,
    /// Not 1 to 65535.
    #[error("its port is not a number from 1 to 65535")]
    Port,
    /// A query, a fragment, an escape, a `.` or `..`.
    #[error(
        "its path may have letters, digits, '-', '.', '_', '~' and '/', no '.' or '..' component and no query"
    )]
    Path,
    /// Too long.
    #[error("it is longer than 1024 bytes")]
    Long,
}

impl BaseUrl {
    /// The URL, without a slash at the end.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Host name or address, in lower case; IPv6 without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Whether the server shows a certificate.
    pub fn is_https(&self) -> bool {
        self.text.starts_with("https:")
    }
}

impl FromStr for BaseUrl {
    type Err = InvalidPoint;

    fn from_str(text: &str) -> Result<Self, InvalidPoint> {
        if text.len() > MAX_LEN {
            return Err(InvalidPoint::Long);
        }
        let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
        let rest = rest.ok_or(InvalidPoint::Scheme)?;
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if authority.contains('@') {
            return Err(InvalidPoint::UserInfo);
        }
        let (host, port) = split_port(authority)?;
        if let Some(port) = port {
            let digits = port.bytes().all(|b| b.is_ascii_digit());
            let number = port.parse::<u16>().ok().filter(|&number| digits && number > 0);
            number.ok_or(InvalidPoint::Port)?;
        }
        let path = path.trim_end_matches('/');
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~');
        let component = |c: &str| !c.is_empty() && c != "." && c != ".." && c.bytes().all(plain);
        if !path.is_empty() && !path.split('/').all(component) {
            return Err(InvalidPoint::Path);
        }
        Ok(Self { text: text.trim_end_matches('/').to_owned(), host: host.to_owned() })
    }
}

/// Host and port of an authority; an IPv6 host loses its brackets.
fn split_port(authority: &str) -> Result<(&str, Option<&str>), InvalidPoint> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or(InvalidPoint::Host)?;
        let _: Ipv6Addr = host.parse().map_err(|_| InvalidPoint::Host)?;
        return match rest.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if rest.is_empty() => Ok((host, None)),
            None => Err(InvalidPoint::Host),
        };
    }
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    };
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(plain)
    };
    let valid = host.len() <= 253 && host.split('.').all(label);
    // `0x7f.1` and `2130706433` are addresses to some libraries and names to others.
    let last = host.rsplit('.').next().unwrap_or_default();
    let numeric = last.starts_with("0x") || last.bytes().all(|b| b.is_ascii_digit());
    if !valid || (numeric && host.parse::<std::net::Ipv4Addr>().is_err()) {
        return Err(InvalidPoint::Host);
    }
    Ok((host, port))
}

impl FromStr for PointRef {
    type Err = InvalidPoint;

    fn from_str(text: &str) -> Result<Self, InvalidPoint> {
        match text {
            ORIGIN => Ok(Self::Origin),
            SIGNED => Ok(Self::Signed),
            _ => text.parse().map(Self::At),
        }
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for PointRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Origin => f.write_str(ORIGIN),
            Self::Signed => f.write_str(SIGNED),
            Self::At(url) => url.fmt(f),
        }
    }
}

impl Serialize for PointRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PointRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|error| {
            // The text is not repeated where it may hold a password.
            let shown = if error == InvalidPoint::UserInfo { "a point" } else { text.as_str() };
            serde::de::Error::custom(format_args!("{shown} is not a publication point: {error}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_the_origin_or_a_plain_url() {
        assert_eq!("origin".parse(), Ok(PointRef::Origin));
        assert_eq!("signed".parse(), Ok(PointRef::Signed));
        let url: BaseUrl = "https://cdn.example.org:8443/mirror/a//".parse().unwrap();
        assert_eq!(
            (url.as_str(), url.host()),
            ("https://cdn.example.org:8443/mirror/a", "cdn.example.org")
        );
        assert!(url.is_https());
        let url: BaseUrl = "http://[2001:db8::1]:81".parse().unwrap();
        assert_eq!((url.host(), url.is_https()), ("2001:db8::1", false));
        assert!("https://192.0.2.1/x".parse::<BaseUrl>().is_ok());
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        use InvalidPoint::{Host, Path, Port, Scheme, UserInfo};
        let table = [
            ("", Scheme),
            ("ftp://host/", Scheme),
            ("file:///etc/passwd", Scheme),
            ("//host", Scheme),
            ("https://", Host),
            ("https://user:secret@host/", UserInfo),
            ("https://good.example@evil.example/", UserInfo),
            ("https://HOST/", Host),
            ("https://ho st/", Host),
            ("https://host\\evil/", Host),
            ("https://-host/", Host),
            ("https://a..b/", Host),
            ("https://2130706433/", Host),
            ("https://0x7f.0.0.1/", Host),
            ("https://127.1/", Host),
            ("https://[::1/", Host),
            ("https://[::1]x/", Host),
            ("https://host:0/", Port),
            ("https://host:65536/", Port),
            ("https://host:+1/", Port),
            ("https://host:/", Port),
            ("https://host/a/../b", Path),
            ("https://host/a//b", Path),
            ("https://host/%2e%2e", Path),
            ("https://host/?x=1", Path),
            ("https://host/#x", Path),
        ];
        for (text, expected) in table {
            assert_eq!(text.parse::<PointRef>(), Err(expected), "{text}");
        }
        let long = format!("https://host/{}", "a".repeat(MAX_LEN));
        assert_eq!(long.parse::<PointRef>(), Err(InvalidPoint::Long));
    }

    #[test]
    fn a_password_is_not_repeated() {
        let error = serde_json::from_str::<PointRef>("\"https://user:secret@host/\"").unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}
