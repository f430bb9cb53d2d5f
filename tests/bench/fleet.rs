//! What one upstream costs that many sites follow: packs are made once, a filtered site takes its
//! part, and giving bytes away is cheap.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use certs::{
    dial::Dialer, identity::directory::Identity, live::http_client, tls::ServerExpectation,
};
use tests::{
    Nginx,
    fixture::{OneTree, noise, prose, write},
    network::{Agent, bytes_by},
    nginx::Scheme,
    programs::{directory, isolate, succeed},
};

use crate::{figure::Figure, line::cpu_seconds};

/// Agents on one base.
const AGENTS: usize = 20;
const FILES: u64 = 500;
/// Directories, of which the filtered site keeps one.
const PARTS: u64 = 10;
/// What is downloaded to measure serving, and how often.
const SERVED: usize = 64 << 20;
const DOWNLOADS: usize = 8;

/// Twenty agents and a filtered one on the same update.
pub(crate) fn packs() -> Vec<Figure> {
    let net = OneTree::start("", "");
    let mut definitions = fs::read_to_string(net.testbed.path("network.toml")).unwrap();
    let mut site = |name: &str, more: &str| {
        definitions.push_str(&format!(
            "\n[[site]]\nname = {name:?}\n[[grant]]\nsite = {name:?}\ntree = \"tree\"\n\
             [[assignment]]\nsite = {name:?}\ntree = \"tree\"\nkeep-withdrawn = \"0s\"\n{more}\n"
        ));
    };
    (1..AGENTS).for_each(|n| site(&format!("site{n}"), ""));
    site("tenth", "filter = [\"+ /part0/***\", \"- *\"]");
    net.testbed.apply(&definitions);
    let enroll = |n: usize| net.testbed.enroll_agent(&format!("agent{n}"), &format!("site{n}"));
    let others: Vec<Agent> = (1..AGENTS).map(enroll).collect();
    let tenth = net.testbed.enroll_agent("tenth", "tenth");

    let fill = |generation: u64| {
        for n in 0..FILES {
            let path = net.upstream.join(format!("part{}/f{n}", n % PARTS));
            let new = path.with_extension("new");
            // Something new in each, which no old content helps with.
            let news = noise(generation * FILES + n, 400);
            write(&new, [prose(n, 4_000).as_bytes(), &news].concat());
            fs::rename(new, path).unwrap();
        }
    };
    fill(1);
    net.publish_and_sync();
    others.iter().chain([&tenth]).for_each(|agent| drop(agent.sync()));
    fill(2);
    net.publish();
    net.sync();
    let made = packs_of(&net);
    for agent in others.iter().chain([&tenth]) {
        agent.sync();
    }
    let again = packs_of(&net).iter().filter(|pack| !made.contains(pack)).count();
    let pack_bytes = |assignment: &str| {
        let run = net.testbed.runs(assignment).into_iter().next().unwrap_or_default();
        assert_eq!(bytes_by(&run, "whole") + bytes_by(&run, "rsync"), 0, "{run:#}");
        bytes_by(&run, "pack")
    };
    for n in 1..AGENTS {
        assert!(pack_bytes(&format!("tree@site{n}")) > 0, "site{n} took no pack");
    }
    let (whole, part) = (pack_bytes("tree@site"), pack_bytes("tree@tenth"));
    vec![
        Figure {
            what: format!("packs made for {AGENTS} agents on one base, after the first agent's"),
            ours: again as f64,
            unit: "packs",
            peer: None,
            most: 0.0,
        },
        Figure {
            what: "bytes of a pack for a site whose filter keeps a tenth".into(),
            ours: part as f64,
            unit: "B",
            peer: Some(("a site that keeps all", whole as f64)),
            most: 0.15,
        },
    ]
}

/// Every pack file with its inode: one that was made anew is another one.
fn packs_of(net: &OneTree) -> Vec<(PathBuf, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    let dir = net.publisher.data.join("trees/tree/packs");
    let files = walkdir::WalkDir::new(dir).into_iter().filter_map(Result::ok);
    files
        .filter(|entry| entry.file_type().is_file())
        .map(|entry| (entry.path().to_owned(), entry.metadata().unwrap().ino()))
        .collect()
}

/// CPU of giving one file away by TLS, beside nginx with the same certificate and client.
pub(crate) fn serving() -> Vec<Figure> {
    let net = OneTree::start("", "");
    net.write("big", noise(1, SERVED));
    net.publish();
    let latest = net.publisher.data.join("trees/tree/manifests");
    let manifest = fs::read_dir(latest).unwrap().next().unwrap().unwrap().file_name();
    let manifest = manifest.to_string_lossy().into_owned();
    let identity = net.publisher.data.join("identity");
    let nginx = Nginx::start(
        &net.testbed.path("nginx"),
        Scheme::Tls(&identity.join("server.pem"), &identity.join("server-key.pem")),
        "sendfile on;",
        &format!("location / {{ root {}; }}", net.upstream.display()),
    );
    let origin = fs::read_to_string(net.publisher.data.join("listen")).unwrap();
    let ours = format!("https://{}/trees/tree/content/{manifest}/big", origin.trim());
    let theirs = format!("https://127.0.0.1:{}/big", nginx.port());
    let workers = children(nginx.pid());
    let megabytes = (SERVED * DOWNLOADS) as f64 / 1e6;
    let cost = |url: &str, pids: &[u32]| {
        let spent = || pids.iter().map(|pid| cpu_seconds(*pid)).sum::<f64>();
        let before = spent();
        download(&net.agent.data, url);
        (spent() - before) / megabytes * 1_000.0
    };
    let publisher = cost(&ours, &[net.publishing.pid()]);
    let peer = cost(&theirs, &[&workers[..], &[nginx.pid()]].concat());
    vec![Figure {
        what: "CPU of serving, per MB over TLS".into(),
        ours: publisher,
        unit: "ms",
        peer: Some(("nginx", peer)),
        most: 2.0,
    }]
}

fn download(data: &Path, url: &str) {
    certs::install_provider();
    let expected = ServerExpectation::publisher("build".parse().unwrap());
    let http = http_client(&Identity::load(data).unwrap(), &expected, &Dialer::default()).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        for _ in 0..DOWNLOADS {
            let mut answer = http.get(url).send().await.unwrap().error_for_status().unwrap();
            let mut length = 0;
            while let Some(piece) = answer.chunk().await.unwrap() {
                length += piece.len();
            }
            assert_eq!(length, SERVED);
        }
    });
}

fn children(pid: u32) -> Vec<u32> {
    let listed = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    listed.split_whitespace().map(|child| child.parse().unwrap()).collect()
}

/// How fast one core makes files from a pack of deltas.
pub(crate) fn apply() -> Vec<Figure> {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (dir.path().join("old"), dir.path().join("new"));
    let mut bytes = 0;
    for n in 0..300 {
        let text = prose(n, 1_000_000);
        let half = text.len() / 2;
        let edited = format!("{}one line that was added\n{}", &text[..half], &text[half..]);
        bytes += edited.len();
        write(&old.join(format!("d{}/f{n}", n % 10)), &text);
        write(&new.join(format!("d{}/f{n}", n % 10)), &edited);
    }
    let pack = dir.path().join("pack");
    let mut make = tests::programs::program("publisher");
    make.arg("pack").arg("--from").arg(&old).arg("--to").arg(&new).arg("--out").arg(&pack);
    succeed(&mut make);
    // The shell's own clock of its children: CPU, not the time that a busy machine took.
    let mut unpack = Command::new("bash");
    isolate(&mut unpack);
    unpack.args(["-c", "TIMEFORMAT='%U %S'; time \"$@\" > /dev/null", "bash"]);
    unpack.arg(directory().join("mirror-agent")).arg("unpack").arg("--pack").arg(&pack);
    unpack.arg("--base").arg(&old).arg("--out").arg(dir.path().join("out"));
    let output = unpack.output().unwrap();
    assert!(output.status.success(), "{}", tests::programs::told(&output));
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    let times = told.lines().last().unwrap_or_default();
    let seconds: f64 = times.split_whitespace().map(|time| time.parse::<f64>().unwrap()).sum();
    tests::compare::assert_same(&new, &dir.path().join("out"), &[]);
    vec![Figure {
        what: "CPU of applying deltas, for 200 MB of result".into(),
        ours: seconds / (bytes as f64 / 200e6),
        unit: "s",
        peer: None,
        most: 1.0,
    }]
}
