//! How this machine reaches another: address family, local address, proxy.
//!
//! Every way out goes through one [`Dialer`], the HTTP clients and the raw streams of the rsync
//! pipe alike, so that a site behind a proxy has one setting and no way is forgotten.

mod proxy;
mod reach;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{
    net::{TcpSocket, TcpStream},
    time::{Instant, timeout_at},
};

pub(crate) use self::reach::Resolver;
pub use self::{
    proxy::{InvalidProxy, NoProxy, ProxySettings, ProxyUrl},
    reach::{InvalidNetwork, Network, Reach},
};

/// Most addresses of one host that are tried.
const MAX_ADDRESSES: usize = 8;
/// How long one address of several is given.
const PER_ADDRESS: Duration = Duration::from_secs(5);

/// Which addresses are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AddressFamily {
    /// Whatever the name has.
    #[default]
    Any,
    /// IPv4 only.
    Inet,
    /// IPv6 only.
    Inet6,
}

impl AddressFamily {
    fn admits(self, address: &SocketAddr) -> bool {
        match self {
            Self::Any => true,
            Self::Inet => address.is_ipv4(),
            Self::Inet6 => address.is_ipv6(),
        }
    }
}

/// How connections are opened.
#[derive(Debug, Clone, Default)]
pub struct Dialer {
    /// Which hosts are reached through which proxy.
    pub proxy: ProxySettings,
    /// The local address that connections come from.
    pub bind: Option<IpAddr>,
    /// Which addresses are used.
    pub family: AddressFamily,
}

impl Dialer {
    /// Opens a TCP connection to `host`, through the proxy if there is one for it.
    pub async fn connect(
        &self,
        host: &str,
        port: u16,
        deadline: Duration,
    ) -> Result<TcpStream, Error> {
        let until = Instant::now() + deadline;
        let late = || Error::Deadline { host: host.into(), port, seconds: deadline.as_secs() };
        let connected = match self.proxy.for_host(host) {
            None => timeout_at(until, self.connect_directly(host, port)).await,
            Some(proxy) => timeout_at(until, self.connect_through(proxy, host, port)).await,
        };
        connected.map_err(|_| late())?
    }

    /// The local address to bind so that both settings are obeyed by a client that knows only one.
    pub(crate) fn local_address(&self) -> Option<IpAddr> {
        self.bind.or(match self.family {
            AddressFamily::Any => None,
            AddressFamily::Inet => Some(Ipv4Addr::UNSPECIFIED.into()),
            AddressFamily::Inet6 => Some(Ipv6Addr::UNSPECIFIED.into()),
        })
    }

    async fn connect_directly(&self, host: &str, port: u16) -> Result<TcpStream, Error> {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let found = tokio::net::lookup_host((bare, port))
            .await
            .map_err(|source| Error::Resolve { host: host.into(), source })?;
        let usable = |address: &SocketAddr| {
            self.family.admits(address)
                && self.bind.is_none_or(|local| local.is_ipv4() == address.is_ipv4())
        };
        let addresses: Vec<SocketAddr> = found.filter(usable).take(MAX_ADDRESSES).collect();
        let mut failure = None;
        for address in addresses {
            match self.connect_address(address).await {
                Ok(stream) => return Ok(stream),
                Err(source) => failure = Some(source),
            }
        }
        Err(match failure {
            Some(source) => Error::Connect { host: host.into(), port, source },
            None => Error::NoAddress { host: host.into() },
        })
    }

    async fn connect_address(&self, address: SocketAddr) -> std::io::Result<TcpStream> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if let Some(local) = self.bind {
            socket.bind(SocketAddr::new(local, 0))?;
        }
        let stream = tokio::time::timeout(PER_ADDRESS, socket.connect(address))
            .await
            .map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))??;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    async fn connect_through(
        &self,
        proxy: &ProxyUrl,
        host: &str,
        port: u16,
    ) -> Result<TcpStream, Error> {
        let mut stream = self.connect_directly(proxy.host(), proxy.port()).await?;
        proxy::request_tunnel(&mut stream, proxy, host, port).await?;
        Ok(stream)
    }
}

/// Why no connection was opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name has no address that could be found.
    #[error("the host name {host} could not be looked up")]
    Resolve {
        /// The host.
        host: String,
        /// What the resolver said.
        source: std::io::Error,
    },
    /// The name has addresses, but none of the wanted family.
    #[error("{host} has no address of the family that is configured (address-family, bind)")]
    NoAddress {
        /// The host.
        host: String,
    },
    /// No address answered.
    #[error("cannot connect to {host}:{port}")]
    Connect {
        /// The host.
        host: String,
        /// Its port.
        port: u16,
        /// What the system said about the last address.
        source: std::io::Error,
    },
    /// The proxy does not connect us.
    #[error("the proxy {proxy} refused to connect to {target}: {answer:?}")]
    ProxyRefused {
        /// The proxy.
        proxy: String,
        /// Where we wanted to go.
        target: String,
        /// The first line of its answer.
        answer: String,
    },
    /// The proxy does not speak HTTP.
    #[error("the proxy {proxy} did not answer as an HTTP proxy does")]
    NotAProxy {
        /// The proxy.
        proxy: String,
    },
    /// The connection to the proxy broke.
    #[error("the connection to the proxy {proxy} broke")]
    ProxyBroke {
        /// The proxy.
        proxy: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A host that could break out of a request line.
    #[error("{host:?} is not a host")]
    InvalidHost {
        /// What was given.
        host: String,
    },
    /// It took too long.
    #[error("no connection to {host}:{port} within {seconds} s")]
    Deadline {
        /// The host.
        host: String,
        /// Its port.
        port: u16,
        /// How long it was given.
        seconds: u64,
    },
}
