//! A publisher with trees, and readers of it that are no agents of ours.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use certs::{
    dial::Dialer,
    enrollment::{EnrollOptions, Invite, enroll},
    identity::directory::Identity,
    live::http_client,
    tls::{ALPN_RSYNC, ServerExpectation, connect},
};
use protocol::{
    digest::Digest,
    dsse::Envelope,
    manifest::{Block, BlockList, Manifest},
    name::TreeName,
    origin,
    path::TreePath,
    statement::Statement,
    wire,
};
use reqwest::{Method, StatusCode, header::HeaderMap};
use tests::{Daemon, Testbed, network::Publisher};
use tokio::{net::TcpListener, runtime::Runtime};

/// A publisher `build` of the trees `one` and `two`, and a site that may read `one`.
pub(crate) struct Served {
    pub(crate) testbed: Testbed,
    pub(crate) publisher: Publisher,
    pub(crate) publishing: Option<Daemon>,
    pub(crate) upstream: PathBuf,
}

/// What a server answered.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

/// An identity that asks the publisher.
pub(crate) struct Reader {
    runtime: Runtime,
    identity: Arc<Identity>,
    http: reqwest::Client,
    address: SocketAddr,
}

impl Served {
    /// Starts it; `tree` are further lines for the definition of the tree `one`, `config` of the
    /// publisher's configuration.
    pub(crate) fn start(tree: &str, config: &str) -> Self {
        let mut served = Self::prepare(tree, config);
        served.start_again();
        served
    }

    /// Like [`Served::start`], with a publisher that does not run yet.
    pub(crate) fn prepare(tree: &str, config: &str) -> Self {
        let testbed = Testbed::start();
        let upstream = testbed.make_dir("upstream");
        testbed.make_dir("upstream/one");
        testbed.make_dir("upstream/two");
        testbed.apply(&format!(
            "[[upstream]]\nname = \"build\"\nkind = \"publisher\"\n\
             [[source]]\nname = \"source\"\nupstream = \"build\"\npath = {upstream:?}\n\
             [[tree]]\nname = \"one\"\nsource = \"source\"\npath = \"one\"\ninterval = \"1h\"\n\
             {tree}\n\
             [[tree]]\nname = \"two\"\nsource = \"source\"\npath = \"two\"\ninterval = \"1h\"\n\
             [[site]]\nname = \"site\"\n\
             [[grant]]\nsite = \"site\"\ntree = \"one\"\n\
             [[assignment]]\nsite = \"site\"\ntree = \"one\"\n"
        ));
        let publisher = testbed.enroll_publisher("build");
        let text = std::fs::read_to_string(&publisher.config).unwrap();
        std::fs::write(&publisher.config, format!("settle = \"0s\"\n{config}\n{text}")).unwrap();
        Self { testbed, publisher, publishing: None, upstream }
    }

    /// Replaces a file of an upstream directory, by rename.
    pub(crate) fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.upstream.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let beside = path.with_file_name(".beside");
        std::fs::write(&beside, content).unwrap();
        std::fs::rename(beside, path).unwrap();
    }

    /// Has a tree taken now, and takes what `publisher publish` says.
    pub(crate) fn publish(&self, tree: &str) -> String {
        self.testbed.publish(&self.publisher, tree)
    }

    /// Ends the publisher in order.
    pub(crate) fn stop(&mut self) {
        assert!(self.publishing.take().unwrap().stop().success());
    }

    /// Starts the publisher again.
    pub(crate) fn start_again(&mut self) {
        self.publishing = Some(self.testbed.run_publisher(&self.publisher));
    }

    /// Where the publisher listens.
    pub(crate) fn address(&self) -> SocketAddr {
        let text = std::fs::read_to_string(self.publisher.data.join("listen")).unwrap();
        text.trim().parse().unwrap()
    }

    /// A new identity, which the publisher has heard of.
    pub(crate) fn reader(&self, role: &str, name: &str) -> Reader {
        let mut args = vec!["--role", role, "--name", name];
        if role == "agent" {
            args.extend(["--site", "site"]);
        }
        let invite: Invite = self.testbed.invite(&args).parse().unwrap();
        let data = self.testbed.make_dir(&format!("reader-{name}"));
        certs::install_provider();
        let runtime = Runtime::new().unwrap();
        let works = |_| async { Ok::<(), std::io::Error>(()) };
        let options = EnrollOptions::default();
        let enrolled = enroll(&invite, &data, &options, works);
        let identity = runtime.block_on(enrolled).unwrap();
        let expected = ServerExpectation::publisher("build".parse().unwrap());
        let http = http_client(&identity, &expected, &Dialer::default()).unwrap();
        let reader = Reader { runtime, identity, http, address: self.address() };
        if role == "agent" {
            tests::wait_until("the publisher to hear of its reader", || {
                reader.get("/trees/one/latest", &[]).status != StatusCode::FORBIDDEN
            });
        }
        reader
    }
}

impl Reader {
    pub(crate) fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answered {
        self.ask(Method::GET, path, headers)
    }

    pub(crate) fn ask(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> Answered {
        self.try_ask(method, path, headers).unwrap()
    }

    /// Like [`Reader::ask`]; fails when the connection is closed before the answer is there.
    pub(crate) fn try_ask(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<Answered, reqwest::Error> {
        let url = format!("https://{}{path}", self.address);
        let mut request = self.http.request(method, url).timeout(Duration::from_secs(30));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.runtime.block_on(async {
            let response = request.send().await?;
            let (status, headers) = (response.status(), response.headers().clone());
            Ok(Answered { status, headers, body: response.bytes().await?.to_vec() })
        })
    }

    /// Begins a download, of which nothing more is read than the connection brings by itself.
    pub(crate) fn begin(&self, path: &str) -> reqwest::Response {
        let request = self.http.get(format!("https://{}{path}", self.address));
        self.runtime.block_on(async { request.send().await.unwrap() })
    }

    /// The next piece of a download; `None` at its end.
    pub(crate) fn piece(
        &self,
        download: &mut reqwest::Response,
    ) -> Result<Option<usize>, reqwest::Error> {
        let piece = self.runtime.block_on(download.chunk())?;
        Ok(piece.map(|piece| piece.len()))
    }

    /// The statement that the pointer of a tree holds.
    pub(crate) fn latest(&self, tree: &str) -> Statement {
        let answered = self.get(&format!("/trees/{tree}/latest"), &[]);
        assert_eq!(answered.status, 200, "{}", String::from_utf8_lossy(&answered.body));
        let envelope: Envelope = serde_json::from_slice(&answered.body).unwrap();
        serde_json::from_slice(&envelope.payload.0).unwrap()
    }

    /// A generation's manifest, put together from what is served and checked by its digest.
    pub(crate) fn manifest(&self, tree: &str, statement: &Statement) -> Manifest {
        let tree: TreeName = tree.parse().unwrap();
        let fetch = |path: String, length| {
            let answered = self.get(&path, &[]);
            assert_eq!(answered.status, 200, "{path}");
            wire::decompress(&answered.body, length).unwrap()
        };
        let path = origin::manifest_path(&tree, &statement.manifest);
        let list = BlockList::parse(&fetch(path, statement.manifest_length)).unwrap();
        assert_eq!(list.digest(), statement.manifest);
        let block = |named: &protocol::manifest::BlockRef| {
            Block::parse(fetch(origin::block_path(&tree, &named.digest), named.bytes)).unwrap()
        };
        let blocks: Vec<Block> = list.blocks().iter().map(block).collect();
        Manifest::from_blocks(&list, &blocks).unwrap()
    }

    /// The URL path of a file's whole content.
    pub(crate) fn content_path(tree: &str, manifest: &Digest, path: &[u8]) -> String {
        origin::content_path(&tree.parse().unwrap(), manifest, &TreePath::parse(path).unwrap())
    }

    /// A port on loopback whose connections are carried to the publisher's rsync.
    pub(crate) fn rsync_port(&self) -> u16 {
        let listener = self.runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (tls, address) = (self.identity.client_tls(), self.address);
        self.runtime.spawn(async move {
            while let Ok((mut local, _)) = listener.accept().await {
                let tls = tls.clone();
                tokio::spawn(async move {
                    let expected = ServerExpectation::publisher("build".parse().unwrap());
                    let host = address.ip().to_string();
                    let mut remote = connect(
                        &Dialer::default(),
                        &tls,
                        (&host, address.port()),
                        &expected,
                        ALPN_RSYNC,
                        Duration::from_secs(10),
                    )
                    .await
                    .unwrap();
                    tokio::io::copy_bidirectional(&mut local, &mut remote).await.ok();
                });
            }
        });
        port
    }
}
