//! Sites that are served by another site's agent, and not by the publisher while that one is up.

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use certs::{
    dial::Dialer,
    identity::directory::Identity,
    live::http_client,
    tls::{ALPN_RELAYED_RSYNC, ServerExpectation, connect},
};
use protocol::{digest::Digest, dsse::Envelope, origin, path::TreePath, statement::Statement};
use serde_json::Value;
use tests::{
    Daemon, Testbed, compare,
    fixture::{noise, prose, write},
    network::{Agent, Publisher, bytes_by},
    rsyncd::free_port,
    valve::Valve,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    runtime::Runtime,
};

/// A publisher of `tree` and `other`; the site `first`, which holds both and relays; the site `second`,
/// which holds `tree` and asks `first`.
struct Tiers {
    testbed: Testbed,
    upstream: PathBuf,
    publisher: Publisher,
    publishing: Daemon,
    first: Agent,
    second: Agent,
    relay: SocketAddr,
}

impl Tiers {
    fn start() -> Self {
        let testbed = Testbed::start();
        let upstream = testbed.make_dir("upstream");
        for tree in ["tree", "other"] {
            testbed.make_dir(&format!("upstream/{tree}"));
        }
        testbed.apply(&format!(
            r#"
[[upstream]]
name = "build"
kind = "publisher"

[[source]]
name = "source"
upstream = "build"
path = {upstream:?}

[[tree]]
name = "tree"
source = "source"
path = "tree"
interval = "1h"

[[tree]]
name = "other"
source = "source"
path = "other"
interval = "1h"

[[site]]
name = "first"

[[site]]
name = "second"
relay = "first"

[[grant]]
site = "first"
tree = "tree"

[[grant]]
site = "first"
tree = "other"

[[grant]]
site = "second"
tree = "tree"

[[assignment]]
site = "first"
tree = "tree"
filter = ["- /not-at-first/"]

[[assignment]]
site = "first"
tree = "other"

[[assignment]]
site = "second"
tree = "tree"
"#
        ));
        let publisher = testbed.enroll_publisher("build");
        let publishing = testbed.run_publisher(&publisher);
        let first = testbed.enroll_agent("first-1", "first");
        let second = testbed.enroll_agent("second-1", "second");
        let relay = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let relaying = format!("[relay]\nlisten = \"{relay}\"\n");
        let text = fs::read_to_string(&first.config).unwrap();
        fs::write(&first.config, text + &relaying).unwrap();
        Self { testbed, upstream, publisher, publishing, first, second, relay }
    }

    fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        write(&self.upstream.join(path), content);
    }

    fn publish(&self) {
        self.testbed.publish(&self.publisher, "tree");
    }

    /// Starts the relay, and waits until the second site's agent is told about it.
    fn run_relay(&self) -> Daemon {
        let mut relay = self.testbed.run_agent(&self.first);
        relay.wait_for_log("other sites are served here");
        relay
    }

    /// Has the second site's agent go through something that lets no byte come from there.
    fn shut_off(&self, from: SocketAddr) -> Valve {
        let valve = Valve::start(from, 0);
        go_through(&valve, &self.second);
        valve
    }

    fn publishers_address(&self) -> SocketAddr {
        let text = fs::read_to_string(self.publisher.data.join("listen")).unwrap();
        text.trim().parse().unwrap()
    }

    fn assert_same(&self) {
        compare::assert_same(&self.upstream.join("tree"), &self.second.published("tree"), &[]);
    }

    fn remove_packs(&self) {
        for pack in fs::read_dir(self.publisher.data.join("trees/tree/packs")).unwrap() {
            fs::remove_file(pack.unwrap().path()).unwrap();
        }
    }
}

fn go_through(valve: &Valve, agent: &Agent) {
    let text = fs::read_to_string(&agent.config).unwrap();
    fs::write(&agent.config, valve.setting() + &text).unwrap();
}

/// Names of the points that a run asked.
fn points(run: &Value) -> Vec<&str> {
    run["points"].as_array().unwrap().iter().map(|point| point["point"].as_str().unwrap()).collect()
}

#[test]
fn a_site_behind_a_relay_never_asks_the_publisher_while_the_relay_is_up() {
    let net = Tiers::start();
    for n in 0..40 {
        net.write(&format!("tree/d{}/f{n}", n % 4), prose(n, 20_000));
    }
    net.write("tree/not-at-first/f", prose(99, 20_000));
    net.write("tree/big", noise(1, 3 << 20));
    net.publish();
    let _relay = net.run_relay();
    net.testbed.wait_for_generation("tree@first", 1);
    // Whatever the second site would get from the publisher would have to pass here.
    let valve = net.shut_off(net.publishers_address());
    let _second = net.testbed.run_agent(&net.second);
    let run = net.testbed.wait_for_generation("tree@second", 1);
    net.assert_same();
    assert_eq!(points(&run), ["relay first-1"], "{run:#}");

    // An update by pack: both sites hear of it at once, and the relay fetches what it does not have.
    for n in 0..20 {
        net.write(&format!("tree/d{}/f{n}", n % 4), format!("{}edited\n", prose(n, 20_000)));
    }
    net.write("tree/not-at-first/f", format!("{}edited\n", prose(99, 20_000)));
    net.publish();
    let run = net.testbed.wait_for_generation("tree@second", 2);
    net.assert_same();
    assert_eq!(points(&run), ["relay first-1"], "{run:#}");
    let pack = bytes_by(&run, "pack");
    assert!(pack > 0 && pack < 40_000, "21 files of 20 kB with a line more: {run:#}");

    // One whose pack is gone: what differs comes by rsync, through the relay too.
    let mut big = noise(1, 3 << 20);
    big[1 << 20] ^= 1;
    net.write("tree/big", big);
    net.testbed.ctl(&["disable", "tree@second"]);
    net.publish();
    net.testbed.wait_for_generation("tree@first", 3);
    net.remove_packs();
    net.testbed.ctl(&["enable", "tree@second"]);
    let run = net.testbed.wait_for_generation("tree@second", 3);
    net.assert_same();
    let rsync = bytes_by(&run, "rsync");
    assert!(rsync > 0 && rsync < 1 << 20, "a byte of 3 MiB differs: {run:#}");
    assert_eq!(points(&run), ["relay first-1"], "{run:#}");
    assert_eq!(valve.passed(), 0, "nothing came from the publisher");
}

#[test]
fn a_relay_that_dies_in_the_middle_of_a_transfer_is_replaced_by_the_publisher() {
    let net = Tiers::start();
    net.write("tree/f", prose(1, 20_000));
    net.publish();
    let relay = net.run_relay();
    net.testbed.wait_for_generation("tree@first", 1);
    let valve = net.shut_off(net.relay);
    valve.open_up_to(6 << 20);
    let second = net.testbed.run_agent(&net.second);
    net.testbed.wait_for_generation("tree@second", 1);
    for n in 0..8 {
        net.write(&format!("tree/noise{n}"), noise(10 + n, 2 << 20));
    }
    net.publish();
    valve.wait_until_shut();
    relay.kill();
    valve.open();
    let run = net.testbed.wait_for_generation("tree@second", 2);
    net.assert_same();
    assert_eq!(points(&run), ["relay first-1", "origin"], "{run:#}");
    let came = |point: &str| {
        let points = run["points"].as_array().unwrap().iter();
        points.filter(|p| p["point"] == point).map(|p| p["received-bytes"].as_u64().unwrap()).sum()
    };
    let (by_relay, by_origin): (u64, u64) = (came("relay first-1"), came("origin"));
    assert!(by_relay > 1 << 20 && by_origin > 1 << 20, "{by_relay} and {by_origin}: {run:#}");
    assert!(by_relay + by_origin < 26 << 20, "only what was on its way came again: {run:#}");

    // It is back, and asked first by whoever has not just seen it fail.
    drop(second);
    let _relay = net.run_relay();
    net.write("tree/f", prose(2, 20_000));
    net.publish();
    net.testbed.wait_for_generation("tree@first", 3);
    net.second.sync();
    assert_eq!(points(&net.testbed.runs("tree@second")[0]), ["relay first-1"]);
    net.assert_same();
}

/// Somebody with the identity of the second site's agent.
struct Reader {
    runtime: Runtime,
    identity: Arc<Identity>,
    http: reqwest::Client,
    relay: SocketAddr,
}

impl Reader {
    fn of(agent: &Agent, relay: SocketAddr) -> Self {
        certs::install_provider();
        let identity = Identity::load(&agent.data).unwrap();
        let expected = ServerExpectation::relay("first-1".parse().unwrap());
        let http = http_client(&identity, &expected, &Dialer::default()).unwrap();
        Self { runtime: Runtime::new().unwrap(), identity, http, relay }
    }

    fn get(&self, path: &str) -> Result<(u16, Vec<u8>), reqwest::Error> {
        let url = format!("https://{}{path}", self.relay);
        self.runtime.block_on(async {
            let answer = self.http.get(url).timeout(Duration::from_secs(30)).send().await?;
            let status = answer.status().as_u16();
            Ok((status, answer.bytes().await?.to_vec()))
        })
    }

    /// What the relay says to an rsync that asks for `asked` after `named`.
    fn rsync(&self, named: &str, asked: &str) -> String {
        self.runtime.block_on(async {
            let (host, expected) =
                (self.relay.ip().to_string(), ServerExpectation::relay("first-1".parse().unwrap()));
            let mut stream = connect(
                &Dialer::default(),
                &self.identity.client_tls(),
                (&host, self.relay.port()),
                &expected,
                ALPN_RELAYED_RSYNC,
                Duration::from_secs(30),
            )
            .await
            .unwrap();
            let said = format!("{named}\n@RSYNCD: 32.0 sha512 sha256 sha1 md5 md4\n{asked}\n");
            stream.write_all(said.as_bytes()).await.unwrap();
            stream.flush().await.unwrap();
            let (mut heard, mut buffer) = (Vec::new(), [0; 4096]);
            let until = tokio::time::Instant::now() + Duration::from_secs(30);
            // It ends by itself, or waits for what an rsync would say next.
            while !String::from_utf8_lossy(&heard).contains("RSYNCD: OK") {
                match tokio::time::timeout_at(until, stream.read(&mut buffer)).await.unwrap() {
                    Ok(0) | Err(_) => break,
                    Ok(read) => heard.extend_from_slice(&buffer[..read]),
                }
            }
            String::from_utf8_lossy(&heard).into_owned()
        })
    }
}

#[test]
fn a_relay_gives_nobody_what_it_may_not_read_nor_what_is_not_of_the_tree() {
    let net = Tiers::start();
    net.write("tree/f", "content of the tree");
    net.write("other/f", "content of the other tree");
    net.publish();
    net.testbed.publish(&net.publisher, "other");
    let _relay = net.run_relay();
    net.testbed.wait_for_generation("tree@first", 1);
    net.testbed.wait_for_generation("other@first", 1);
    // The site's own files beside the tree's.
    write(&net.first.published("tree/private"), "the site's own");
    let reader = Reader::of(&net.second, net.relay);
    let get = |path: &str| reader.get(path).unwrap();

    let (status, latest) = get("/trees/tree/latest");
    assert_eq!(status, 200);
    let envelope: Envelope = serde_json::from_slice(&latest).unwrap();
    let statement: Statement = serde_json::from_slice(&envelope.payload.0).unwrap();
    let content = |path: &str| {
        let path = TreePath::parse(path.as_bytes()).unwrap();
        origin::content_path(&"tree".parse().unwrap(), &statement.manifest, &path)
    };
    assert_eq!(get(&content("f")), (200, b"content of the tree".to_vec()));
    assert_eq!(get(&content("private")).0, 404, "no file of the tree's");
    let unknown = Digest::of(b"unknown");
    assert_eq!(get(&origin::pack_path(&"tree".parse().unwrap(), &unknown)).0, 404);
    assert_eq!(get("/trees/other/latest").0, 403, "held here, but not granted to that site");
    assert_eq!(get("/trees/none/latest").0, 403);
    assert_eq!(get("/etc/passwd").0, 404);

    // Nobody borrows the relay's right: the module that was named is the one that is asked for.
    assert!(reader.rsync("tree@1", "tree@1").contains("@RSYNCD: OK"));
    assert!(!reader.rsync("tree@1", "other@1").contains("@RSYNCD: OK"));
    assert!(reader.rsync("other@1", "other@1").contains("@ERROR: agent/second-1 may not read"));

    // An agent of a site that has another relay, or none.
    let stranger = net.testbed.enroll_agent("stranger", "first");
    assert_eq!(Reader::of(&stranger, net.relay).get("/trees/tree/latest").unwrap().0, 403);

    let revoked = Instant::now();
    net.testbed.ctl(&["revoke", "agent/second-1", "--reason", "test"]);
    loop {
        let asked = Instant::now();
        if !reader.get("/trees/tree/latest").is_ok_and(|(status, _)| status == 200) {
            break;
        }
        let late = asked.duration_since(revoked);
        assert!(late < Duration::from_secs(60), "it is served {late:?} after its revocation");
    }
    // On a new connection; the first try may still be made on the one that was closed.
    let again = || reader.get("/trees/tree/latest");
    assert_eq!(again().or_else(|_| again()).unwrap().0, 403);
    assert!(reader.rsync("tree@1", "tree@1").contains("@ERROR"));
    drop(net.publishing);
}

#[test]
fn what_a_relay_keeps_outlives_it_and_what_was_damaged_meanwhile_comes_again() {
    const PIECE: u64 = 256 << 10;
    let net = Tiers::start();
    net.write("tree/f", "small");
    net.publish();
    // Whatever the relay gets from the publisher is counted here.
    let valve = Valve::start(net.publishers_address(), u64::MAX);
    go_through(&valve, &net.first);
    let relay = net.run_relay();
    net.testbed.wait_for_generation("tree@first", 1);
    net.second.sync();
    for n in 0..3 {
        net.write(&format!("tree/noise{n}"), noise(20 + n, 1 << 20));
    }
    net.publish();
    net.testbed.wait_for_generation("tree@first", 2);
    net.second.sync();
    net.assert_same();
    let run = &net.testbed.runs("tree@second")[0];
    assert_eq!(points(run), ["relay first-1"], "{run:#}");
    assert!(bytes_by(run, "pack") > 3_000_000, "{run:#}");

    // The same pack, as another site would ask for it, of a relay that was killed and started again.
    let packs = fs::read_dir(net.publisher.data.join("trees/tree/packs")).unwrap();
    let packs = packs.map(|pack| pack.unwrap().path()).filter(|pack| pack.is_file());
    let (pack, content) = packs
        .map(|pack| (pack.clone(), fs::read(pack).unwrap()))
        .max_by_key(|(_, content)| content.len())
        .unwrap();
    let name = Digest::from_hex(pack.file_name().unwrap().to_str().unwrap()).unwrap();
    let path = origin::pack_path(&"tree".parse().unwrap(), &name);
    let kept = net.first.storage.join("work/relay");
    let restarted = |relay: Daemon, change: &dyn Fn()| {
        relay.kill();
        change();
        let relay = net.run_relay();
        let before = valve.passed();
        let (status, got) = Reader::of(&net.second, net.relay).get(&path).unwrap();
        assert_eq!(status, 200);
        assert!(got == content, "{} bytes of {}", got.len(), content.len());
        (relay, valve.passed() - before)
    };
    let (relay, came) = restarted(relay, &|| {});
    assert!(came < PIECE, "{came} bytes came from the publisher again");
    let damage = || {
        let object = fs::read_dir(&kept).unwrap().map(|entry| entry.unwrap().path());
        let object = object.max_by_key(|path| path.metadata().unwrap().len()).unwrap();
        let mut bytes = fs::read(&object).unwrap();
        bytes[PIECE as usize + 7] ^= 1;
        fs::write(&object, bytes).unwrap();
    };
    let (relay, came) = restarted(relay, &damage);
    assert!((PIECE..3 * PIECE).contains(&came), "{came} bytes for one damaged piece");
    let (_relay, came) = restarted(relay, &|| {});
    assert!(came < PIECE, "{came} bytes came from the publisher again");
}

#[test]
fn relays_that_lead_back_to_where_they_begin_are_refused() {
    let testbed = Testbed::start();
    let sites = |relays: [&str; 3]| {
        let site = |(name, relay): (&str, &str)| {
            let relay = match relay {
                "" => String::new(),
                relay => format!("relay = \"{relay}\"\n"),
            };
            format!("[[site]]\nname = \"{name}\"\n{relay}")
        };
        let text: String = ["a", "b", "c"].into_iter().zip(relays).map(site).collect();
        let file = testbed.path("sites.toml");
        fs::write(&file, text).unwrap();
        file.to_str().unwrap().to_owned()
    };
    for (relays, part) in [
        (["a", "", ""], "circle"),
        (["b", "a", ""], "circle"),
        (["b", "c", "a"], "circle"),
        (["nowhere", "", ""], "not defined"),
    ] {
        let said = testbed.ctl_fails(&["apply", "-f", &sites(relays)]);
        assert!(said.contains(part) && said.contains("sites.toml"), "{relays:?}: {said}");
    }
    testbed.ctl(&["apply", "-f", &sites(["", "a", "b"])]);
    let said = testbed.ctl_fails(&["delete", "site", "a"]);
    assert!(said.contains("site b"), "{said}");
}
