//! Proxies: which host goes through which, and asking one for a tunnel (CONNECT).

use std::{fmt, net::IpAddr, str::FromStr};

use data_encoding::BASE64;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::Error;

/// Longest head of a proxy's answer, in bytes.
const MAX_ANSWER_LEN: usize = 8 * 1024;

/// Which hosts are reached through a proxy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProxySettings {
    proxy: Option<ProxyUrl>,
    /// For `http://`, where it is another one.
    plain: Option<ProxyUrl>,
    except: NoProxy,
}

impl ProxySettings {
    /// Every host but those that `except` names goes through `proxy`.
    pub fn new(proxy: Option<ProxyUrl>, except: NoProxy) -> Self {
        Self { proxy, plain: None, except }
    }

    /// What the environment says: `HTTPS_PROXY`, else `ALL_PROXY`, and `NO_PROXY`, in capitals or
    /// not. For `http://` alone `http_proxy` comes first, in small letters only, as everywhere: in
    /// capitals a web server would set it from a request's header.
    pub fn from_env() -> Result<Self, InvalidProxy> {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    /// Like [`ProxySettings::from_env`], asking `variable` instead of the process's environment.
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Self, InvalidProxy> {
        let first = |names: &[&str]| {
            names.iter().filter_map(|name| variable(name)).find(|value| !value.is_empty())
        };
        let proxy = first(&["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]);
        let except = first(&["NO_PROXY", "no_proxy"]).unwrap_or_default();
        Ok(Self {
            proxy: proxy.map(|url| url.parse()).transpose()?,
            plain: first(&["http_proxy"]).map(|url| url.parse()).transpose()?,
            except: NoProxy::parse(&except),
        })
    }

    /// The proxy by which `host` is reached, if any.
    pub fn for_host(&self, host: &str) -> Option<&ProxyUrl> {
        self.proxy.as_ref().filter(|_| !self.except.contains(host))
    }

    /// The proxy by which `host` is asked in plain HTTP, if any.
    pub fn for_plain_host(&self, host: &str) -> Option<&ProxyUrl> {
        let plain = self.plain.as_ref().filter(|_| !self.except.contains(host));
        plain.or_else(|| self.for_host(host))
    }

    /// Whether `host` is a proxy itself.
    pub(crate) fn names(&self, host: &str) -> bool {
        [&self.proxy, &self.plain].into_iter().flatten().any(|proxy| proxy.host() == host)
    }
}

/// Hosts that are reached directly: names with all names below them, addresses, networks
/// (`10.0.0.0/8`), or `*` for all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NoProxy(Vec<Exception>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Exception {
    All,
    Domain(String),
    Network(IpAddr, u8),
}

impl NoProxy {
    /// Reads a list separated by commas or blanks, as in the variable `NO_PROXY`.
    pub fn parse(list: &str) -> Self {
        let entries = list.split([',', ' ', '\t']).filter(|entry| !entry.is_empty());
        Self(entries.map(exception).collect())
    }

    /// Whether `host` is reached directly.
    pub fn contains(&self, host: &str) -> bool {
        let host = host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        let address: Option<IpAddr> = host.parse().ok();
        self.0.iter().any(|exception| match (exception, address) {
            (Exception::All, _) => true,
            (Exception::Network(network, bits), Some(address)) => within(address, *network, *bits),
            (Exception::Domain(domain), None) => host
                .strip_suffix(domain.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.ends_with('.')),
            _ => false,
        })
    }
}

fn exception(entry: &str) -> Exception {
    if entry == "*" {
        return Exception::All;
    }
    let entry = entry.trim_start_matches('.').to_ascii_lowercase();
    let (address, bits) = match entry.split_once('/') {
        Some((address, bits)) => (address, bits.parse().ok()),
        None => (entry.as_str(), None),
    };
    match address.parse::<IpAddr>() {
        Ok(address @ IpAddr::V4(_)) => Exception::Network(address, bits.unwrap_or(32).min(32)),
        Ok(address @ IpAddr::V6(_)) => Exception::Network(address, bits.unwrap_or(128).min(128)),
        Err(_) => Exception::Domain(entry),
    }
}

pub(super) fn within(address: IpAddr, network: IpAddr, bits: u8) -> bool {
    match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) => {
            let differing = u32::from(address) ^ u32::from(network);
            differing.leading_zeros() >= u32::from(bits)
        }
        (IpAddr::V6(address), IpAddr::V6(network)) => {
            let differing = u128::from(address) ^ u128::from(network);
            differing.leading_zeros() >= u32::from(bits)
        }
        _ => false,
    }
}

/// An HTTP proxy: `http://[USER:PASSWORD@]HOST[:PORT]`. The password is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct ProxyUrl {
    host: String,
    port: u16,
    /// `USER:PASSWORD`, decoded.
    credentials: Option<Vec<u8>>,
    /// The form that it was written in.
    text: String,
}

impl ProxyUrl {
    /// The proxy's host.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The proxy's port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The whole URL, with the password.
    pub(crate) fn secret_text(&self) -> &str {
        &self.text
    }
}

impl FromStr for ProxyUrl {
    type Err = InvalidProxy;

    fn from_str(text: &str) -> Result<Self, InvalidProxy> {
        // A bare HOST:PORT is what people write.
        let text = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let uri: http::Uri = text.parse().map_err(|_| InvalidProxy::NotAUrl)?;
        if uri.scheme_str() != Some("http") {
            return Err(InvalidProxy::Scheme);
        }
        let authority = uri.authority().ok_or(InvalidProxy::NotAUrl)?;
        if authority.host().is_empty() || uri.path() != "/" || uri.query().is_some() {
            return Err(InvalidProxy::NotAUrl);
        }
        let credentials = authority.as_str().rsplit_once('@').map(|(user, _)| decode(user));
        Ok(Self {
            host: authority.host().to_owned(),
            port: authority.port_u16().unwrap_or(80),
            credentials: credentials.transpose()?,
            text,
        })
    }
}

impl fmt::Display for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}:{}", self.host, self.port)
    }
}

impl fmt::Debug for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Undoes percent encoding.
fn decode(text: &str) -> Result<Vec<u8>, InvalidProxy> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let digits = [bytes.next(), bytes.next()].map(|digit| digit.unwrap_or(b' '));
        let value = data_encoding::HEXLOWER_PERMISSIVE.decode(&digits);
        decoded.extend(value.map_err(|_| InvalidProxy::NotAUrl)?);
    }
    Ok(decoded)
}

/// Asks `proxy`, at the other end of `stream`, for a tunnel to `host`.
pub(super) async fn request_tunnel(
    stream: &mut TcpStream,
    proxy: &ProxyUrl,
    host: &str,
    port: u16,
) -> Result<(), Error> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
    if host.is_empty() || !host.bytes().all(plain) {
        return Err(Error::InvalidHost { host: host.chars().take(300).collect() });
    }
    let bare_v6 = host.contains(':') && !host.starts_with('[');
    let target = if bare_v6 { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n");
    if let Some(credentials) = &proxy.credentials {
        let encoded = BASE64.encode(credentials);
        request.push_str(&format!("Proxy-Authorization: Basic {encoded}\r\n"));
    }
    request.push_str("\r\n");
    let broke = |source| Error::ProxyBroke { proxy: proxy.to_string(), source };
    stream.write_all(request.as_bytes()).await.map_err(broke)?;

    let not_a_proxy = || Error::NotAProxy { proxy: proxy.to_string() };
    let mut answer = Vec::new();
    // Byte by byte: what follows the answer's head belongs to the tunnel.
    while !answer.ends_with(b"\r\n\r\n") {
        if answer.len() == MAX_ANSWER_LEN {
            return Err(not_a_proxy());
        }
        answer.push(stream.read_u8().await.map_err(broke)?);
    }
    let line = answer.split(|&byte| byte == b'\r').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let status = line.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5));
    match status {
        Some(status) if status.starts_with('2') => Ok(()),
        Some(_) => Err(Error::ProxyRefused {
            proxy: proxy.to_string(),
            target,
            answer: line.chars().take(200).collect(),
        }),
        None => Err(not_a_proxy()),
    }
}

/// Text that names no proxy that can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidProxy {
    /// Not a URL of a host and a port.
    #[error("not a proxy: expected http://[USER:PASSWORD@]HOST[:PORT]")]
    NotAUrl,
    /// SOCKS, or TLS to the proxy.
    #[error("only http:// proxies can be used; what passes through them is encrypted anyway")]
    Scheme,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_decides_as_it_does_for_other_programs() {
        let settings = ProxySettings::from_variables(|name| match name {
            "https_proxy" => Some("proxy.example.org:3128".into()),
            "NO_PROXY" => Some("localhost, .example.net,10.0.0.0/8,::1".into()),
            _ => None,
        })
        .unwrap();
        for direct in ["localhost", "example.net", "a.EXAMPLE.net", "10.200.1.2", "[::1]", "::1"] {
            assert_eq!(settings.for_host(direct), None, "{direct}");
        }
        for proxied in ["example.org", "badexample.net", "11.0.0.1", "::2"] {
            assert_eq!(settings.for_host(proxied).unwrap().port(), 3128, "{proxied}");
        }
        assert!(NoProxy::parse("*").contains("anything"));
    }

    #[test]
    fn a_password_is_decoded_and_never_shown() {
        let proxy: ProxyUrl = "http://me:p%40ss@proxy:8080".parse().unwrap();
        assert_eq!((proxy.host(), proxy.port()), ("proxy", 8080));
        assert_eq!(proxy.credentials.as_deref(), Some(&b"me:p@ss"[..]));
        assert_eq!(format!("{proxy} {proxy:?}"), "http://proxy:8080 http://proxy:8080");
    }

    #[test]
    fn what_is_no_http_proxy_is_refused() {
        for text in ["", "http://", "http://a/b", "http://%zz@a", "http://a b"] {
            assert_eq!(text.parse::<ProxyUrl>(), Err(InvalidProxy::NotAUrl), "{text}");
        }
        for text in ["https://a", "socks5://a"] {
            assert_eq!(text.parse::<ProxyUrl>(), Err(InvalidProxy::Scheme), "{text}");
        }
    }
}
