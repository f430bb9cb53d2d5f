//! Which addresses a server outside of the network may have.
//!
//! Whoever can name a server to a program that fetches can make it ask machines that only it can
//! reach: a cloud's metadata service, a printer, a database. So what is named from outside has a
//! public address, unless an admin of this machine allowed the network that it is in; and the name
//! is looked up and judged in one step, so that it cannot change its meaning in between.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Dialer, MAX_ADDRESSES, proxy::within};

/// A network: `10.0.0.0/8`, `fd00::/8`, or a single address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

/// Text that is no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a network such as 10.0.0.0/8, fd00::/8 or 192.0.2.7")]
pub struct InvalidNetwork(String);

impl Network {
    /// Whether the address is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        within(address, self.address, self.bits)
    }
}

impl FromStr for Network {
    type Err = InvalidNetwork;

    fn from_str(text: &str) -> Result<Self, InvalidNetwork> {
        let invalid = || InvalidNetwork(text.chars().take(64).collect());
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse().map_err(|_| invalid())?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| invalid())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(most);
        if bits <= most { Ok(Self { address, bits }) } else { Err(invalid()) }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl Serialize for Network {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Which servers outside of the network may be asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reach {
    /// Networks that are allowed although they are not public.
    pub private: Vec<Network>,
    /// Whether `http://` is allowed beside `https://`.
    pub plain_http: bool,
}

impl Reach {
    /// Any address: for servers that this machine's own admin named.
    pub fn everywhere() -> Self {
        let network = |address| Network { address, bits: 0 };
        let all = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()].map(network);
        Self { private: all.to_vec(), plain_http: true }
    }

    /// Whether a server may have this address.
    pub fn admits(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        is_public(address) || self.private.iter().any(|network| network.contains(address))
    }

    /// Whether a host may be asked, as far as that is known without looking it up: an address is
    /// judged, a name is judged when it is looked up.
    pub fn admits_host(&self, host: &str) -> bool {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        bare.parse().map_or(true, |address| self.admits(address))
    }
}

/// Whether an address belongs to the public internet. What is embedded in an address is judged too.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = matches!(
        (a, b, c),
        // This network, carrier-grade NAT, protocol assignments, benchmarks, reserved.
        (0, ..) | (100, 64..=127, _) | (192, 0, 0) | (198, 18..=19, _) | (240..=255, ..)
    );
    !(special
        || address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_documentation())
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let s = address.segments();
    let embedded = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match s {
        // Translated (NAT64) and 6to4 addresses lead to an IPv4 address.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => embedded(high, low),
        [0x2002, high, low, ..] => embedded(high, low),
        // Local use of NAT64, documentation, Teredo.
        [0x64, 0xff9b, 1, ..] | [0x2001, 0xdb8, ..] | [0x2001, 0, ..] => false,
        // Nothing else is routed outside of 2000::/3.
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

/// Looks names up and gives only addresses that may be asked.
pub(crate) struct Resolver {
    reach: Reach,
    dialer: Dialer,
}

impl Resolver {
    pub(crate) fn new(reach: Reach, dialer: Dialer) -> Self {
        Self { reach, dialer }
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (reach, dialer) = (self.reach.clone(), self.dialer.clone());
        Box::pin(async move {
            let host = name.as_str();
            let found: Vec<SocketAddr> = tokio::net::lookup_host((host, 0)).await?.collect();
            // A proxy is this machine's own choice, and lies where it lies.
            let trusted = dialer.proxy.names(host);
            let family = found.iter().filter(|address| dialer.family.admits(address));
            let admitted = family.filter(|address| trusted || reach.admits(address.ip()));
            let admitted: Vec<SocketAddr> = admitted.take(MAX_ADDRESSES).copied().collect();
            if admitted.is_empty() {
                return Err(NotAdmitted { host: host.to_owned(), found }.into());
            }
            Ok(Box::new(admitted.into_iter()) as Addrs)
        })
    }
}

/// A name leads nowhere that may be asked.
#[derive(Debug, thiserror::Error)]
#[error(
    "{host} has only addresses that may not be asked ({}); if they are meant, allow their network (points.private) or family (address-family)",
    found.iter().map(|address| address.ip().to_string()).collect::<Vec<_>>().join(", ")
)]
struct NotAdmitted {
    host: String,
    found: Vec<SocketAddr>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admits(reach: &Reach, address: &str) -> bool {
        reach.admits(address.parse().unwrap())
    }

    #[test]
    fn only_public_addresses_are_asked_unless_their_network_is_allowed() {
        let none = Reach::default();
        for public in ["1.1.1.1", "100.63.0.1", "172.32.0.1", "2606:4700::1", "64:ff9b::101:101"] {
            assert!(admits(&none, public), "{public}");
        }
        let inner = [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "192.0.0.8",
            "192.0.2.1",
            "192.168.1.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:10.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::a00:1",
            "64:ff9b:1::1",
            "2001::1",
            "2001:db8::1",
            "2002:a00:1::1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ];
        for private in inner {
            assert!(!admits(&none, private), "{private}");
        }
        let networks = ["10.0.0.0/8", "::1", "fd00::/8"].map(|text| text.parse().unwrap());
        let some = Reach { private: networks.to_vec(), plain_http: false };
        for allowed in ["10.255.0.1", "::ffff:10.0.0.1", "::1", "fd12::1"] {
            assert!(admits(&some, allowed), "{allowed}");
        }
        for other in ["127.0.0.1", "192.168.1.1", "fe80::1"] {
            assert!(!admits(&some, other), "{other}");
        }
        assert!(!none.admits_host("[::1]") && !none.admits_host("127.0.0.1"));
        assert!(none.admits_host("cdn.example.org") && some.admits_host("[::1]"));
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in ["", "10.0.0.0/33", "::/129", "10.0.0.0/", "10/8", "host", "1.2.3.4/-1"] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn a_name_that_leads_inside_is_not_followed_but_a_proxys_name_is() {
        let resolve = async |dialer: Dialer, reach: Reach| {
            let resolver = Resolver::new(reach, dialer);
            resolver.resolve("localhost".parse().unwrap()).await.map(Iterator::count)
        };
        let error = resolve(Dialer::default(), Reach::default()).await.unwrap_err();
        assert!(error.to_string().contains("localhost has only addresses"), "{error}");
        let private = vec!["127.0.0.0/8".parse().unwrap(), "::1".parse().unwrap()];
        let reach = Reach { private, plain_http: false };
        assert!(resolve(Dialer::default(), reach).await.unwrap() > 0);
        let proxy = super::super::ProxySettings::new(
            Some("http://localhost:3128".parse().unwrap()),
            super::super::NoProxy::default(),
        );
        let dialer = Dialer { proxy, ..Dialer::default() };
        assert!(resolve(dialer, Reach::default()).await.unwrap() > 0);
    }
}
