//! The address of a stock rsync daemon: `rsync://HOST[:PORT]/`.
//!
//! The host becomes an argument of a program, so what is accepted is a host and nothing that could
//! be read as an option, a command or a secret.

use std::{net::Ipv6Addr, str::FromStr};

/// Where a stock rsync daemon listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RsyncUrl {
    /// Host name or address; IPv6 without brackets.
    pub host: String,
    /// TCP port, where it is named; else it follows from the transport.
    pub port: Option<u16>,
}

/// Why a text is not the URL of a stock daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRsyncUrl {
    /// Another scheme, or none.
    #[error("it does not begin with rsync://; write rsync://HOST/ or rsync://HOST:PORT/")]
    Scheme,
    /// `user@` or `user:password@`.
    #[error(
        "it carries a user or a password; set `user` and `password-file` (a file on the agent's host) instead"
    )]
    UserInfo,
    /// More than `/` after the host.
    #[error("it has a path; the URL names only the host, and module and path belong to the source")]
    Path,
    /// No host, or one with characters that no host has.
    #[error("its host is not a host name or an address (IPv6 in brackets)")]
    Host,
    /// `-` in front.
    #[error("its host begins with '-', which a program would take for an option")]
    Option,
    /// Not 1 to 65535.
    #[error("its port is not a number from 1 to 65535")]
    Port,
}

impl FromStr for RsyncUrl {
    type Err = InvalidRsyncUrl;

    fn from_str(text: &str) -> Result<Self, InvalidRsyncUrl> {
        let rest = text.strip_prefix("rsync://").ok_or(InvalidRsyncUrl::Scheme)?;
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if authority.contains('@') {
            return Err(InvalidRsyncUrl::UserInfo);
        }
        let (host, port) = split_port(authority)?;
        let port = match port {
            None => None,
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
                let port = digits.parse().ok().filter(|&port| port > 0);
                Some(port.ok_or(InvalidRsyncUrl::Port)?)
            }
            Some(_) => return Err(InvalidRsyncUrl::Port),
        };
        if !path.is_empty() {
            return Err(InvalidRsyncUrl::Path);
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

fn split_port(authority: &str) -> Result<(&str, Option<&str>), InvalidRsyncUrl> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or(InvalidRsyncUrl::Host)?;
        let _: Ipv6Addr = host.parse().map_err(|_| InvalidRsyncUrl::Host)?;
        return match rest.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if rest.is_empty() => Ok((host, None)),
            None => Err(InvalidRsyncUrl::Host),
        };
    }
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    };
    if host.starts_with('-') {
        return Err(InvalidRsyncUrl::Option);
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    if host.is_empty() || host.len() > 253 || !host.bytes().all(plain) {
        return Err(InvalidRsyncUrl::Host);
    }
    Ok((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read_with_the_port_where_one_is_named() {
        let cases = [
            ("rsync://mirror.example.org/", "mirror.example.org", None),
            ("rsync://mirror.example.org", "mirror.example.org", None),
            ("rsync://192.0.2.7:8873/", "192.0.2.7", Some(8873)),
            ("rsync://[2001:db8::1]:8873/", "2001:db8::1", Some(8873)),
            ("rsync://[::1]/", "::1", None),
        ];
        for (text, host, port) in cases {
            assert_eq!(text.parse(), Ok(RsyncUrl { host: host.into(), port }), "{text}");
        }
    }

    #[test]
    fn what_could_be_an_option_a_secret_or_another_place_is_refused() {
        use InvalidRsyncUrl::*;
        let cases = [
            ("http://a/", Scheme),
            ("a::module", Scheme),
            ("RSYNC://a/", Scheme),
            ("rsync://user@a/", UserInfo),
            ("rsync://user:secret@a/", UserInfo),
            ("rsync://a/module", Path),
            ("rsync://a//", Path),
            ("rsync:///", Host),
            ("rsync://a b/", Host),
            ("rsync://a\n/", Host),
            ("rsync://[::1/", Host),
            ("rsync://[::1]x/", Host),
            ("rsync://[-e]/", Host),
            ("rsync://-e/", Option),
            ("rsync://a:0/", Port),
            ("rsync://a:65536/", Port),
            ("rsync://a:/", Port),
            ("rsync://a:+1/", Port),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse::<RsyncUrl>(), Err(expected), "{text:?}");
        }
    }
}
