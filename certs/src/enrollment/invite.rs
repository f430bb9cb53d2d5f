//! The invite: one line that an admin hands to whoever installs a program.

use std::{fmt, str::FromStr};

use aws_lc_rs::hmac;
use data_encoding::BASE32_NOPAD;

use super::InviteVerifier;
use crate::{NoRandomness, authority::RootPin};

const TAG: &str = "mirrornet1";
const MAX_LEN: usize = 512;

/// An invite, written `mirrornet1.<id>.<secret>.<root pin>.<https url>`; secret and pin in base32.
///
/// `Display` is the line itself and so shows the secret; `Debug` does not.
#[derive(Clone, PartialEq, Eq)]
pub struct Invite {
    /// Which invite it is: letters, digits and hyphens.
    pub id: String,
    /// What its holder proves to know.
    pub secret: InviteSecret,
    /// The root that the coordinator's certificate must end in.
    pub pin: RootPin,
    /// The enroll port: `https://HOST:PORT`.
    pub url: String,
}

impl Invite {
    /// The host and port of the enroll port.
    pub fn address(&self) -> (&str, u16) {
        address_of(&self.url)
    }
}

/// The host and port of `https://HOST[:PORT]`.
pub(crate) fn address_of(url: &str) -> (&str, u16) {
    let authority = url.strip_prefix("https://").unwrap_or(url);
    match authority.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && !port.ends_with(']') => {
            (host, port.parse().unwrap_or(443))
        }
        _ => (authority, 443),
    }
}

impl fmt::Display for Invite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secret = base32(&self.secret.0);
        write!(f, "{TAG}.{}.{secret}.{}.{}", self.id, base32(&self.pin.0), self.url)
    }
}

impl fmt::Debug for Invite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Invite({} at {})", self.id, self.url)
    }
}

impl FromStr for Invite {
    type Err = InvalidInvite;

    fn from_str(text: &str) -> Result<Self, InvalidInvite> {
        let text = text.trim();
        if text.len() > MAX_LEN {
            return Err(InvalidInvite::Form);
        }
        // The URL is last because it has dots of its own.
        let mut parts = text.splitn(5, '.');
        let mut next = || parts.next().ok_or(InvalidInvite::Form);
        let (tag, id, secret, pin, url) = (next()?, next()?, next()?, next()?, next()?);
        match tag.strip_prefix("mirrornet") {
            Some("1") => {}
            Some(_) => return Err(InvalidInvite::Version),
            None => return Err(InvalidInvite::Form),
        }
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if id.is_empty() || id.len() > 64 || !id.bytes().all(plain) {
            return Err(InvalidInvite::Form);
        }
        Ok(Self {
            id: id.to_owned(),
            secret: InviteSecret(from_base32(secret)?),
            pin: RootPin(from_base32(pin)?),
            url: check_url(url)?.to_owned(),
        })
    }
}

/// The secret of an invite. Never shown but by [`Invite`]'s `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct InviteSecret([u8; 32]);

impl InviteSecret {
    /// A new secret.
    pub fn generate() -> Result<Self, NoRandomness> {
        Ok(Self(crate::random()?))
    }

    /// What the coordinator keeps of it.
    pub fn verifier(&self) -> InviteVerifier {
        InviteVerifier::of(&self.key())
    }

    /// The proof for `transcript`.
    pub(super) fn prove(&self, transcript: &[u8]) -> [u8; 32] {
        self.verifier().mask(transcript, self.key())
    }

    fn key(&self) -> [u8; 32] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.0);
        let mut derived = [0; 32];
        derived.copy_from_slice(hmac::sign(&key, b"mirrornet-enroll-v1 key").as_ref());
        derived
    }
}

impl fmt::Debug for InviteSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InviteSecret")
    }
}

fn base32(bytes: &[u8]) -> String {
    BASE32_NOPAD.encode(bytes).to_ascii_lowercase()
}

fn from_base32(text: &str) -> Result<[u8; 32], InvalidInvite> {
    let bytes = BASE32_NOPAD.decode(text.to_ascii_uppercase().as_bytes());
    bytes.ok().and_then(|bytes| bytes.try_into().ok()).ok_or(InvalidInvite::Form)
}

fn check_url(text: &str) -> Result<&str, InvalidInvite> {
    let text = text.strip_suffix('/').unwrap_or(text);
    let uri: http::Uri = text.parse().map_err(|_| InvalidInvite::Url)?;
    let authority = uri.authority().ok_or(InvalidInvite::Url)?;
    let plain = uri.scheme_str() == Some("https")
        && uri.path() == "/"
        && uri.query().is_none()
        && !authority.host().is_empty()
        && !authority.as_str().contains('@');
    if plain { Ok(text) } else { Err(InvalidInvite::Url) }
}

/// Text that is no invite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidInvite {
    /// Not five parts, or one of them damaged.
    #[error("not an invite: copy the whole line that 'mirrorctl invite' printed")]
    Form,
    /// Made by a later version.
    #[error("this invite was made by another version of the coordinator; upgrade this program")]
    Version,
    /// The URL is not `https://HOST:PORT`.
    #[error("the invite's URL is not https://HOST:PORT")]
    Url,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invite() -> Invite {
        Invite {
            id: "inv-1".into(),
            secret: InviteSecret([1; 32]),
            pin: RootPin([2; 32]),
            url: "https://coordinator.example.org:8444".into(),
        }
    }

    #[test]
    fn an_invite_reads_back_as_it_is_written() {
        let line = invite().to_string();
        assert_eq!(line.parse(), Ok(invite()));
        assert_eq!(format!(" {line}/\n").parse(), Ok(invite()));
        assert_eq!(invite().address(), ("coordinator.example.org", 8444));
    }

    #[test]
    fn the_secret_is_not_in_debug_output() {
        let secret = base32(&invite().secret.0);
        assert!(invite().to_string().contains(&secret));
        assert!(!format!("{:?} {:?}", invite(), invite().secret).contains(&secret));
    }

    #[test]
    fn addresses_with_and_without_port_are_understood() {
        let address = |url: &str| {
            let invite = Invite { url: url.into(), ..invite() };
            let (host, port) = invite.address();
            (host.to_owned(), port)
        };
        assert_eq!(address("https://a"), ("a".into(), 443));
        assert_eq!(address("https://[::1]:7"), ("[::1]".into(), 7));
        assert_eq!(address("https://[::1]"), ("[::1]".into(), 443));
    }

    #[test]
    fn damaged_lines_are_refused_with_the_reason() {
        let line = invite().to_string();
        let refused = |line: &str| line.parse::<Invite>().unwrap_err();
        assert_eq!(refused(""), InvalidInvite::Form);
        assert_eq!(refused(&line.replace("mirrornet1", "mirrornet2")), InvalidInvite::Version);
        assert_eq!(refused(&line.replace("https", "http")), InvalidInvite::Url);
        assert_eq!(refused(&format!("{line}/path")), InvalidInvite::Url);
        assert_eq!(refused(&line.replace("inv-1", "inv/1")), InvalidInvite::Form);
        let url_at = line.find("https").unwrap();
        for cut in 0..url_at {
            assert!(line[..cut].parse::<Invite>().is_err(), "{cut}");
        }
        assert_eq!(refused(&"x".repeat(10_000)), InvalidInvite::Form);
    }
}
