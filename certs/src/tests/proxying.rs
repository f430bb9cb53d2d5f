//! Every way out through a proxy, with a small one that counts and one that is installed.

use std::{
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::TcpStream,
};

use super::{Running, SOON, until};
use crate::{
    dial::{self, AddressFamily, Dialer, NoProxy, ProxySettings},
    identity::Role,
    live::http_client,
    testing::{TestNetwork, listener},
    tls::{self, ALPN_HTTP1, ServerExpectation},
};

/// A proxy for CONNECT with a password; counts its tunnels.
struct Proxy {
    port: u16,
    tunnels: Arc<AtomicUsize>,
}

impl Proxy {
    async fn start() -> Self {
        let (listener, port) = listener().await;
        let tunnels = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&tunnels);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(tunnel(stream, Arc::clone(&counter)));
            }
        });
        Self { port, tunnels }
    }

    fn dialer(&self, user: &str, except: &str) -> Dialer {
        let url = format!("http://{user}@127.0.0.1:{}", self.port);
        let proxy = ProxySettings::new(Some(url.parse().unwrap()), NoProxy::parse(except));
        Dialer { proxy, ..Dialer::default() }
    }

    fn tunnels(&self) -> usize {
        self.tunnels.load(Ordering::SeqCst)
    }
}

async fn tunnel(mut stream: TcpStream, counter: Arc<AtomicUsize>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    let target = head.strip_prefix("CONNECT ").unwrap().split(' ').next().unwrap();
    // "me:p@ss"
    if !head.to_ascii_lowercase().contains("proxy-authorization: basic bwu6cebzcw==") {
        let refusal = b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n";
        stream.write_all(refusal).await.unwrap();
        return;
    }
    let mut there = TcpStream::connect(target).await.unwrap();
    stream.write_all(b"HTTP/1.1 200 OK\r\nvia: test\r\n\r\n").await.unwrap();
    counter.fetch_add(1, Ordering::SeqCst);
    drop(copy_bidirectional(&mut stream, &mut there).await);
}

#[tokio::test]
async fn requests_and_raw_streams_go_through_the_proxy_unless_it_is_excepted() {
    let dir = tempfile::tempdir().unwrap();
    let network = TestNetwork::create(dir.path(), "net");
    let agent = network.identity(Role::Agent, "lisbon").await;
    let server = Running::start(network.server()).await;
    let proxy = Proxy::start().await;
    let expected = ServerExpectation::Coordinator;
    let both = async |dialer: &Dialer| {
        let client = http_client(&agent, &expected, dialer).unwrap();
        let answer = client.get(server.url("/whoami")).send().await.unwrap();
        assert!(answer.text().await.unwrap().contains("/lisbon "));
        let (tls, address) = (agent.client_tls(), ("127.0.0.1", server.port));
        tls::connect(dialer, &tls, address, &expected, ALPN_HTTP1, SOON).await.unwrap();
    };
    both(&proxy.dialer("me:p%40ss", "")).await;
    assert_eq!(proxy.tunnels(), 2);
    both(&proxy.dialer("me:p%40ss", "127.0.0.0/8")).await;
    assert_eq!(proxy.tunnels(), 2, "an excepted host went through the proxy");
}

#[tokio::test]
async fn a_proxy_that_refuses_is_named_with_its_answer_and_without_the_password() {
    let proxy = Proxy::start().await;
    let dialer = proxy.dialer("me:wrong", "");
    let error = dialer.connect("127.0.0.1", 9, SOON).await.unwrap_err();
    let message = error.to_string();
    assert!(message.contains("407 Proxy Authentication Required"), "{message}");
    assert!(message.contains(&proxy.port.to_string()) && !message.contains("wrong"), "{message}");
}

#[tokio::test]
async fn a_host_that_would_break_out_of_the_request_line_is_refused() {
    let proxy = Proxy::start().await;
    let dialer = proxy.dialer("me:p%40ss", "");
    for host in ["a b", "a\r\nx: y", ""] {
        let error = dialer.connect(host, 9, SOON).await.unwrap_err();
        assert!(matches!(error, dial::Error::InvalidHost { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_proxy_that_says_nothing_is_given_up_on() {
    let (_silent, port) = listener().await;
    let proxy = Some(format!("127.0.0.1:{port}").parse().unwrap());
    let proxy = ProxySettings::new(proxy, NoProxy::default());
    let dialer = Dialer { proxy, ..Dialer::default() };
    let error = dialer.connect("127.0.0.1", 9, Duration::from_millis(200)).await.unwrap_err();
    assert!(matches!(error, dial::Error::Deadline { .. }), "{error:?}");
}

#[tokio::test]
async fn what_is_no_proxy_is_said_to_be_none() {
    let (wrong, port) = listener().await;
    tokio::spawn(async move {
        let (mut stream, _) = wrong.accept().await.unwrap();
        stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n\r\n").await.unwrap();
        drop(stream.read(&mut [0; 512]).await);
    });
    let proxy = Some(format!("127.0.0.1:{port}").parse().unwrap());
    let proxy = ProxySettings::new(proxy, NoProxy::default());
    let dialer = Dialer { proxy, ..Dialer::default() };
    let error = dialer.connect("127.0.0.1", 9, SOON).await.unwrap_err();
    assert!(matches!(error, dial::Error::NotAProxy { .. }), "{error:?}");
}

#[tokio::test]
async fn the_configured_local_address_and_family_are_used() {
    let (listener, port) = listener().await;
    let local = "127.0.0.7".parse().unwrap();
    let dialer = Dialer { bind: Some(local), ..Dialer::default() };
    let _stream = dialer.connect("127.0.0.1", port, SOON).await.unwrap();
    assert_eq!(listener.accept().await.unwrap().1.ip(), local);
    let dialer = Dialer { family: AddressFamily::Inet6, ..Dialer::default() };
    let error = dialer.connect("127.0.0.1", port, SOON).await.unwrap_err();
    assert!(matches!(error, dial::Error::NoAddress { .. }), "{error:?}");
}

struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[tokio::test]
async fn a_stock_proxy_tunnels_both_ways() {
    let dir = tempfile::tempdir().unwrap();
    let network = TestNetwork::create(dir.path(), "net");
    let agent = network.identity(Role::Agent, "lisbon").await;
    let server = Running::start(network.server()).await;
    // Free a moment ago; tinyproxy cannot tell which port it took.
    let (free, port) = listener().await;
    drop(free);
    let config = dir.path().join("tinyproxy.conf");
    let log = dir.path().join("log");
    let text =
        format!("Port {port}\nListen 127.0.0.1\nTimeout 60\nLogFile {log:?}\nLogLevel Info\n");
    std::fs::write(&config, text).unwrap();
    let started = Command::new("tinyproxy")
        .arg("-d")
        .arg("-c")
        .arg(&config)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let _proxy = match started {
        Ok(child) => Ended(child),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
        Err(error) => panic!("{error}"),
    };
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    until("tinyproxy listens", || std::net::TcpStream::connect(address).is_ok()).await;

    let url = format!("http://127.0.0.1:{port}").parse().unwrap();
    let proxy = ProxySettings::new(Some(url), NoProxy::default());
    let dialer = Dialer { proxy, ..Dialer::default() };
    let expected = ServerExpectation::Coordinator;
    let client = http_client(&agent, &expected, &dialer).unwrap();
    let answer = client.get(server.url("/whoami")).send().await.unwrap();
    assert!(answer.text().await.unwrap().contains("/lisbon "));
    let (tls, target) = (agent.client_tls(), ("127.0.0.1", server.port));
    tls::connect(&dialer, &tls, target, &expected, ALPN_HTTP1, SOON).await.unwrap();
    let tunnels = || {
        let log = std::fs::read_to_string(&log).unwrap_or_default();
        log.matches("CONNECT 127.0.0.1:").count()
    };
    until("both tunnels are in the proxy's log", || tunnels() >= 2).await;
}
