//! Consumers who are no agents: real certificates by openssl, real requests by curl, and nginx as a
//! proxy that tells whose certificate it has seen.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use tests::{
    Apache, Nginx,
    fixture::{OneTree, prose},
    nginx::Scheme,
    programs::{isolate, program, succeed},
    rsyncd::free_port,
    wait_for, wait_until,
};

use crate::docs::blocks;

/// Where Red Hat's entitlements name a path, and an order.
const PATH_OID: &str = "1.3.6.1.4.1.2312.9.2.1001.1.6";
const ORDER_OID: &str = "1.3.6.1.4.1.2312.9.4.1";

/// An authority of consumers, in a directory.
struct Ca {
    dir: PathBuf,
}

/// A certificate and its key.
struct Shown {
    certificate: PathBuf,
    key: PathBuf,
}

fn openssl(args: &[&str]) {
    let mut command = Command::new("openssl");
    isolate(&mut command);
    succeed(command.args(args));
}

impl Ca {
    fn new(dir: &Path, name: &str) -> Self {
        let ca = Self { dir: dir.join(name) };
        fs::create_dir_all(&ca.dir).unwrap();
        let subject = format!("/CN={name}");
        openssl(&[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-keyout",
            &ca.file("ca.key"),
            "-out",
            &ca.file("ca.pem"),
            "-subj",
            &subject,
            "-days",
            "30",
        ]);
        ca
    }

    fn file(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    /// A client's certificate that lives for so many days, with further extensions.
    fn client(&self, name: &str, days: &str, extensions: &str) -> Shown {
        self.leaf(name, days, &format!("extendedKeyUsage=clientAuth\n{extensions}\n"))
    }

    fn leaf(&self, name: &str, days: &str, extensions: &str) -> Shown {
        let file = |ending: &str| self.file(&format!("{name}.{ending}"));
        openssl(&[
            "req",
            "-new",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-keyout",
            &file("key"),
            "-out",
            &file("csr"),
            "-subj",
            "/CN=admin",
        ]);
        fs::write(file("ext"), extensions).unwrap();
        openssl(&[
            "x509",
            "-req",
            "-in",
            &file("csr"),
            "-CA",
            &self.file("ca.pem"),
            "-CAkey",
            &self.file("ca.key"),
            "-CAcreateserial",
            "-days",
            days,
            "-extfile",
            &file("ext"),
            "-out",
            &file("pem"),
        ]);
        Shown { certificate: file("pem").into(), key: file("key").into() }
    }

    /// A certificate of a server on this host.
    fn server(&self, name: &str) -> Shown {
        let names = "subjectAltName=DNS:localhost,IP:127.0.0.1";
        self.leaf(name, "10", &format!("extendedKeyUsage=serverAuth\n{names}\n"))
    }

    fn entitled(&self, name: &str, path: &str) -> Shown {
        // A dollar begins a variable of openssl's files.
        let path = path.replace('$', "\\$");
        let paths = format!("{PATH_OID}=ASN1:UTF8:{path}\n{ORDER_OID}=ASN1:UTF8:order");
        self.client(name, "10", &paths)
    }

    /// Writes a revocation list with these certificates.
    fn revoke(&self, revoked: &[&Shown], list: &Path) {
        let config = self.file("ca.cnf");
        let (index, number) = (self.file("index.txt"), self.file("crlnumber"));
        fs::write(&index, "").unwrap();
        fs::write(&number, "01\n").unwrap();
        let text = format!(
            "[ca]\ndefault_ca=it\n[it]\ndatabase={index}\ncrlnumber={number}\ndefault_md=sha256\n\
             default_crl_days=30\nprivate_key={}\ncertificate={}\n",
            self.file("ca.key"),
            self.file("ca.pem")
        );
        fs::write(&config, text).unwrap();
        for shown in revoked {
            openssl(&["ca", "-config", &config, "-revoke", shown.certificate.to_str().unwrap()]);
        }
        let new = self.file("crl.new");
        openssl(&["ca", "-config", &config, "-gencrl", "-out", &new]);
        fs::rename(new, list).unwrap();
    }
}

/// A publisher with the tree `tree`, served to consumers.
struct World {
    net: OneTree,
    /// `https://127.0.0.1:PORT`
    base: String,
    /// Who has certified it.
    web: Ca,
    server: Shown,
}

fn start(consumers: &str) -> World {
    let mut net = OneTree::start("", "");
    net.write("repodata/repomd.xml", "the index\n");
    net.write("big.bin", prose(3, 400_000));
    net.write("a b%23+c", "odd");
    std::os::unix::fs::symlink("repodata", net.upstream.join("latest")).unwrap();
    let web = Ca::new(&net.testbed.path("web"), "web");
    let server = web.server("server");
    fs::set_permissions(&server.key, fs::Permissions::from_mode(0o600)).unwrap();
    let (chain, key) = (&server.certificate, &server.key);
    net.configure_publisher(&format!(
        "[consumers]\nlisten = \"127.0.0.1:0\"\ncertificate = {chain:?}\nkey = {key:?}\n{consumers}"
    ));
    net.publish();
    let address = fs::read_to_string(net.publisher.data.join("consumers-listen")).unwrap();
    let base = format!("https://{}", address.trim());
    World { net, base, web, server }
}

impl World {
    /// What curl is answered, and the content.
    fn ask(
        &self,
        base: &str,
        path: &str,
        shown: Option<&Shown>,
        more: &[&str],
    ) -> (String, Vec<u8>) {
        let body = self.net.testbed.path("body");
        let _ = fs::remove_file(&body);
        let mut curl = Command::new("curl");
        isolate(&mut curl);
        let ca = self.web.file("ca.pem");
        curl.args(["--silent", "--show-error", "--path-as-is", "--write-out", "%{http_code}"]);
        curl.arg("--cacert").arg(ca).arg("--output").arg(&body).args(more);
        if let Some(shown) = shown {
            curl.arg("--cert").arg(&shown.certificate).arg("--key").arg(&shown.key);
        }
        // Without an answer it says 000.
        let output = curl.arg(format!("{base}{path}")).output().unwrap();
        let status = String::from_utf8(output.stdout).unwrap();
        (status, fs::read(&body).unwrap_or_default())
    }

    fn status(&self, path: &str, shown: Option<&Shown>) -> String {
        self.ask(&self.base, path, shown, &[]).0
    }
}

#[test]
fn a_tree_is_open_to_certificates_of_its_guard_and_to_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let (ca, foreign) = (Ca::new(dir.path(), "ca"), Ca::new(dir.path(), "foreign"));
    let list = dir.path().join("crl.pem");
    ca.revoke(&[], &list);
    let bundle = dir.path().join("bundle.pem");
    let all =
        [&foreign_of(dir.path()), &ca].map(|ca| fs::read_to_string(ca.file("ca.pem")).unwrap());
    fs::write(&bundle, format!("some text\n{}and more\n{}", all[0], all[1])).unwrap();
    let world = start(&format!(
        "[[consumers.guards]]\nname = \"subscribers\"\nauthorities = {bundle:?}\nrevoked = {list:?}\n\
         [[consumers.trees]]\ntree = \"tree\"\npath = \"content/tree\"\nguards = [\"subscribers\"]\n"
    ));
    let index = "/content/tree/repodata/repomd.xml";
    let trusted = ca.client("trusted", "10", "");
    let (status, content) = world.ask(&world.base, index, Some(&trusted), &[]);
    assert_eq!((status.as_str(), &content[..]), ("200", &b"the index\n"[..]));
    let untrusted = foreign.client("untrusted", "10", "");
    let expired = ca.client("expired", "-1", "");
    for shown in [None, Some(&untrusted), Some(&expired)] {
        let (status, content) = world.ask(&world.base, index, shown, &[]);
        assert_eq!(status, "403", "{:?}", shown.map(|shown| &shown.certificate));
        assert!(!String::from_utf8_lossy(&content).contains("the index"));
    }
    // An agent's certificate is of another world.
    let identity = world.net.agent.data.join("identity");
    let agent =
        Shown { certificate: identity.join("client.pem"), key: identity.join("client-key.pem") };
    if agent.certificate.exists() {
        assert_eq!(world.status(index, Some(&agent)), "403");
    }
    // Whoever asks without being a proxy is not believed about anybody's certificate.
    let pem = fs::read_to_string(&trusted.certificate).unwrap();
    let header = format!("X-CLIENT-CERT: {}", escaped(&pem));
    for shown in [None, Some(&untrusted)] {
        assert_eq!(world.ask(&world.base, index, shown, &["-H", &header]).0, "403");
    }
    // Ranges, links, and what is not there.
    let part = world.ask(&world.base, "/content/tree/big.bin", Some(&trusted), &["-r", "100-199"]);
    assert_eq!((part.0.as_str(), part.1.len()), ("206", 100));
    assert_eq!(world.status("/content//tree/latest/repomd.xml", Some(&trusted)), "200");
    for path in
        ["/content/tree", "/content/tree/none", "/content/other/f", "/", "/trees/tree/latest"]
    {
        let status = world.status(path, Some(&trusted));
        assert!(status == "404" || status == "400", "{path}: {status}");
    }
    assert_eq!(world.status("/content/tree/../tree/big.bin", Some(&trusted)), "400");
    // What is taken back is refused a few seconds later, without a restart.
    ca.revoke(&[&trusted], &list);
    wait_until("the revocation to count", || world.status(index, Some(&trusted)) == "403");
}

/// A third authority, whose place in the bundle is the first.
fn foreign_of(dir: &Path) -> Ca {
    Ca::new(dir, "other")
}

#[test]
fn an_entitlement_opens_the_paths_that_it_names() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Ca::new(dir.path(), "ca");
    let bundle = PathBuf::from(ca.file("ca.pem"));
    let world = start(&format!(
        "[[consumers.guards]]\nname = \"paths\"\nauthorities = {bundle:?}\nentitlement = true\n\
         strip = \"/content\"\n\
         [[consumers.guards]]\nname = \"any\"\nauthorities = {bundle:?}\n\
         [[consumers.trees]]\ntree = \"tree\"\npath = \"content/dist/tree\"\nguards = [\"paths\"]\n"
    ));
    let index = "/content/dist/tree/repodata/repomd.xml";
    let status = |shown: &Shown| world.status(index, Some(shown));
    for path in ["/dist/tree", "/dist", "//dist//tree/", "/dist/$name/repodata"] {
        assert_eq!(status(&ca.entitled("good", path)), "200", "{path}");
    }
    for path in ["/content/dist/tree", "/dist/tree2", "/tree", "/dist/$a/$b/$c/d"] {
        assert_eq!(status(&ca.entitled("bad", path)), "403", "{path}");
    }
    assert_eq!(status(&ca.client("none", "10", "")), "403", "it names no path");
    let later = format!(
        "{PATH_OID}=ASN1:UTF8:/dist\n{ORDER_OID}=ASN1:UTF8:order\n1.3.6.1.4.1.2312.9.6=ASN1:UTF8:3.4"
    );
    assert_eq!(status(&ca.client("later", "10", &later)), "403");
    let junk = format!("{PATH_OID}=DER:30:80:ff\n{ORDER_OID}=ASN1:UTF8:order");
    assert_eq!(status(&ca.client("junk", "10", &junk)), "403");
}

#[test]
fn behind_a_proxy_that_shows_its_own_certificate_the_consumers_certificate_counts() {
    let dir = tempfile::tempdir().unwrap();
    let (ca, foreign) = (Ca::new(dir.path(), "ca"), Ca::new(dir.path(), "foreign"));
    let bundle = PathBuf::from(ca.file("ca.pem"));
    let (proxy, other) = (foreign.client("proxy", "10", ""), foreign.client("other", "10", ""));
    let mut print = Command::new("openssl");
    isolate(&mut print);
    print.args(["x509", "-noout", "-fingerprint", "-sha256", "-in"]).arg(&proxy.certificate);
    let print = succeed(&mut print);
    let print = print.trim().rsplit('=').next().unwrap().replace(':', "").to_lowercase();
    let world = start(&format!(
        "proxies = [\"{print}\"]\n\
         [[consumers.guards]]\nname = \"any\"\nauthorities = {bundle:?}\n\
         [[consumers.trees]]\ntree = \"tree\"\npath = \"tree\"\nguards = [\"any\"]\n"
    ));
    let by = |kind: &str, name: &str, shown: &Shown| {
        let port = free_port();
        let host = world.documented(kind, port, shown);
        let dir = world.net.testbed.path(name);
        match kind {
            "nginx" => Proxy::Nginx { _it: Nginx::start(&dir, Scheme::Plain, &host, ""), port },
            _ => Proxy::Apache(Apache::start(&dir, port, &host)),
        }
    };
    let trusted = ca.client("trusted", "10", "");
    let expired = ca.client("expired", "-1", "");
    let pem = fs::read_to_string(&trusted.certificate).unwrap();
    let header = format!("X-CLIENT-CERT: {}", escaped(&pem));
    let forged = ["-H", header.as_str()];
    let junk = ["-H", "X-CLIENT-CERT: junk"];
    for kind in ["nginx", "apache"] {
        let good = by(kind, &format!("{kind}-good"), &proxy);
        let bad = by(kind, &format!("{kind}-other"), &other);
        // Apache ends the connection of who shows a certificate that has ended.
        let ended = if kind == "apache" { "000" } else { "403" };
        let cases: [(&Proxy, Option<&Shown>, &[&str], &str); 9] = [
            (&good, Some(&trusted), &[], "200"),
            (&good, None, &[], "403"),
            (&good, Some(&other), &[], "403"),
            (&good, Some(&expired), &[], ended),
            // What the proxy itself shows opens nothing.
            (&good, Some(&proxy), &[], "403"),
            (&bad, Some(&trusted), &[], "403"),
            // A header that the client wrote itself is replaced, by nothing as well.
            (&good, None, &forged, "403"),
            (&good, Some(&other), &forged, "403"),
            (&good, Some(&trusted), &junk, "200"),
        ];
        for (at, (proxy, shown, more, wanted)) in cases.into_iter().enumerate() {
            let (status, content) = world.ask(&proxy.base(), "/tree/big.bin", shown, more);
            assert_eq!(status, wanted, "{kind}, case {at}");
            assert_eq!(content == prose(3, 400_000).as_bytes(), wanted == "200", "{kind}, {at}");
        }
        let range = ["-r", "100-199"];
        let (status, part) = world.ask(&good.base(), "/tree/big.bin", Some(&trusted), &range);
        assert_eq!((status.as_str(), part.len()), ("206", 100), "{kind}");
        let odd = world.ask(&good.base(), "/tree/a%20b%2523%2bc", Some(&trusted), &[]);
        assert_eq!((odd.0.as_str(), &odd.1[..]), ("200", &b"odd"[..]), "{kind}");
    }
    // Two of them, as by a proxy that adds instead of replacing, count for none.
    let (status, _) = world.ask(&world.base, "/tree/big.bin", Some(&proxy), &["-H", &header]);
    assert_eq!(status, "200", "the proxy is believed");
    let twice = ["-H", &header, "-H", &header];
    let (status, _) = world.ask(&world.base, "/tree/big.bin", Some(&proxy), &twice);
    assert_eq!(status, "403");
    for bad in ["%2d%2d%zz", "junk", ""] {
        let header = format!("X-CLIENT-CERT:{}{bad}", if bad.is_empty() { "" } else { " " });
        // curl sends a header without content only when it ends so.
        let header = if bad.is_empty() { header.replace(':', ";") } else { header };
        let (status, _) = world.ask(&world.base, "/tree/big.bin", Some(&proxy), &["-H", &header]);
        assert_eq!(status, "403", "{bad:?}");
    }
    // An old Apache's, and one that is longer than other servers take.
    let spaces = format!("X-CLIENT-CERT: {}", pem.trim_end().replace('\n', " "));
    let large = format!("1.2.3.4=ASN1:UTF8:{}", "x".repeat(12_000));
    let large = ca.client("large", "10", &large);
    let large = escaped(&fs::read_to_string(&large.certificate).unwrap());
    let plain = large.replace("%2B", "+");
    for header in [spaces, format!("X-CLIENT-CERT: {plain}")] {
        let file = world.net.testbed.path("header");
        fs::write(&file, header).unwrap();
        let by_file = format!("@{}", file.display());
        let more = ["-H", by_file.as_str(), "--http1.1"];
        let (status, _) = world.ask(&world.base, "/tree/big.bin", Some(&proxy), &more);
        assert_eq!(status, "200");
    }
}

/// A server that ends TLS before the publisher.
enum Proxy {
    Nginx { _it: Nginx, port: u16 },
    Apache(Apache),
}

impl Proxy {
    fn base(&self) -> String {
        let port = match self {
            Self::Nginx { port, .. } => *port,
            Self::Apache(apache) => apache.port(),
        };
        format!("https://127.0.0.1:{port}")
    }
}

impl World {
    /// The server as the document shows it, with the names and files of this test.
    fn documented(&self, kind: &str, port: u16, proxy: &Shown) -> String {
        let document =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/how-to/serve-consumers.md");
        let found = blocks(&document).into_iter().find(|(found, _)| found == kind);
        let mut text = found.unwrap().1;
        let both = proxy.certificate.with_extension("both");
        let read = |path| fs::read_to_string(path).unwrap();
        fs::write(&both, read(&proxy.certificate) + &read(&proxy.key)).unwrap();
        let shown = |path: &Path| path.display().to_string();
        let mut replace = |from: &str, to: String| {
            assert!(text.contains(from), "the document's {kind} has no {from}");
            text = text.replace(from, &to);
        };
        match kind {
            "nginx" => {
                replace("listen 443", format!("listen 127.0.0.1:{port}"));
                replace("/etc/ssl/proxy.pem", shown(&proxy.certificate));
                replace("/etc/ssl/proxy.key", shown(&proxy.key));
            }
            _ => {
                replace("*:443", format!("127.0.0.1:{port}"));
                replace("/etc/ssl/proxy-with-key.pem", shown(&both));
            }
        }
        replace("/etc/ssl/web.pem", shown(&self.server.certificate));
        replace("/etc/ssl/web.key", shown(&self.server.key));
        replace("/etc/ssl/certs/ca-certificates.crt", self.web.file("ca.pem"));
        let port = self.base.rsplit(':').next().unwrap();
        replace("files.example.org:8447", format!("localhost:{port}"));
        text
    }
}

fn escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[test]
fn a_signed_url_opens_its_path_until_its_end_and_nothing_that_was_changed() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Ca::new(dir.path(), "ca");
    let authorities = ca.file("ca.pem");
    let file = dir.path().join("links.secret");
    let secret = "0123456789abcdef0123456789abcdef";
    let write = |text: String| {
        let new = dir.path().join("new.secret");
        fs::write(&new, text).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o600)).unwrap();
        fs::rename(new, &file).unwrap();
    };
    write(format!("{secret}\n"));
    let mut world = start(&format!(
        "[[consumers.guards]]\nname = \"links\"\nsecrets = {file:?}\n\
         [[consumers.trees]]\ntree = \"tree\"\npath = \"images\"\nguards = [\"links\"]\n"
    ));
    let sign = |world: &World, args: &[&str]| {
        let mut command = program("publisher");
        command.arg("sign-url").args(args).arg("--config").arg(&world.net.publisher.config);
        succeed(&mut command).trim().to_owned()
    };
    let get = |world: &World, path: &str| world.status(path, None);
    let one = sign(&world, &["images/repodata/repomd.xml"]);
    let (_, query) = one.split_once('?').unwrap();
    assert_eq!(get(&world, &one), "200");
    assert_eq!(world.ask(&world.base, &one, None, &["--head"]).0, "200");
    // Nothing that was changed, or is of another time or path.
    let later = one.replace("expires=", "expires=9");
    let junk = format!("{}0", &one[..one.len() - 1]);
    let other = format!("/images/big.bin?{query}");
    let below = format!("{one}&below=images");
    let twice = format!("{one}&expires=1");
    for bad in ["/images/repodata/repomd.xml", &later, &junk, &other, &below, &twice] {
        if bad != one {
            assert_eq!(get(&world, bad), "403", "{bad}");
        }
    }
    let all = sign(&world, &["images/repodata", "--below", "--valid", "15m"]);
    let (_, query) = all.split_once('?').unwrap();
    assert_eq!(get(&world, &format!("/images/repodata/repomd.xml?{query}")), "200");
    assert_eq!(get(&world, &format!("/images/latest/repomd.xml?{query}")), "403", "by its name");
    assert_eq!(get(&world, &format!("/images/big.bin?{query}")), "403");
    let odd = sign(&world, &["images/a b%23+c"]);
    assert_eq!(world.ask(&world.base, &odd, None, &[]).1, b"odd");
    let short = sign(&world, &["images/big.bin", "--valid", "1s"]);
    wait_until("the URL to end", || get(&world, &short) == "403");

    // As the document signs, without our program.
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/how-to/serve-consumers.md");
    let found = blocks(&document).into_iter().find(|(_, text)| text.contains("openssl dgst"));
    let script = found.unwrap().1.replace("/etc/mirrornet/links.secret", file.to_str().unwrap());
    let script = script.replace("images/disc.iso", "images/big.bin");
    let mut shell = Command::new("sh");
    isolate(&mut shell);
    let own = succeed(shell.args(["-e", "-c", &script]));
    assert_eq!(get(&world, own.trim()), "200", "{own}");

    // A new secret above the old one signs; without the old one, what that signed has ended.
    let new = "fedcba9876543210fedcba9876543210";
    write(format!("{new}\n{secret}\n"));
    let with_new = sign(&world, &["images/big.bin"]);
    wait_until("the new secret to count", || get(&world, &with_new) == "200");
    assert_eq!(get(&world, &one), "200");
    write(format!("{new}\n"));
    wait_until("the old secret to end", || get(&world, &one) == "403");
    assert_eq!(get(&world, &with_new), "200");

    // A certificate and a URL, for those of whom both is asked.
    world.net.configure_publisher(&format!(
        "[[consumers.guards]]\nname = \"any\"\nauthorities = {authorities:?}\n\
         [[consumers.guards]]\nname = \"both\"\nall = [\"any\", \"links\"]\n"
    ));
    let text = fs::read_to_string(&world.net.publisher.config).unwrap();
    let text = text.replace("guards = [\"links\"]", "guards = [\"both\"]");
    fs::write(&world.net.publisher.config, text).unwrap();
    world.net.configure_publisher("");
    world.find();
    let trusted = ca.client("trusted", "10", "");
    let signed = sign(&world, &["images/big.bin"]);
    assert_eq!(world.status(&signed, Some(&trusted)), "200");
    assert_eq!(world.status(&signed, None), "403");
    assert_eq!(world.status("/images/big.bin", Some(&trusted)), "403");
}

#[test]
fn trees_have_guards_of_their_own_or_those_of_all_and_are_named_to_who_may_read_them() {
    let dir = tempfile::tempdir().unwrap();
    let (all, own) = (Ca::new(dir.path(), "all"), Ca::new(dir.path(), "own"));
    let guards = format!(
        "[[consumers.guards]]\nname = \"all\"\nauthorities = {:?}\n\
         [[consumers.guards]]\nname = \"own\"\nauthorities = {:?}\n\
         [[consumers.guards]]\nname = \"own-path\"\nauthorities = {:?}\nentitlement = true\n\
         [[consumers.guards]]\nname = \"each\"\nall = [\"all\", \"own\"]\n\
         [[consumers.trees]]\ntree = \"tree\"\npath = \"plain\"\n\
         [[consumers.trees]]\ntree = \"tree\"\npath = \"open\"\nopen = true\n\
         [[consumers.trees]]\ntree = \"tree\"\npath = \"own\"\nguards = [\"own\"]\n\
         [[consumers.trees]]\ntree = \"tree\"\npath = \"path\"\nguards = [\"own-path\"]\n\
         [[consumers.trees]]\ntree = \"tree\"\npath = \"either\"\nguards = [\"own\", \"all\"]\n\
         [[consumers.trees]]\ntree = \"tree\"\npath = \"each\"\nguards = [\"each\"]\n\
         [[consumers.trees]]\ntree = \"tree\"\npath = \"nobody\"\nguards = []\n",
        all.file("ca.pem"),
        own.file("ca.pem"),
        own.file("ca.pem"),
    );
    let of_all = all.client("client", "10", "");
    let of_own = own.client("client", "10", "");
    let entitled = own.entitled("entitled", "/path");
    let elsewhere = own.entitled("elsewhere", "/own");
    let askers = [None, Some(&of_all), Some(&of_own), Some(&entitled), Some(&elsewhere)];
    // Who may read which, where there are guards for all trees, and where there are none.
    let table = [
        ("plain", [false, true, false, false, false]),
        ("open", [true; 5]),
        ("own", [false, false, true, true, true]),
        ("path", [false, false, false, true, false]),
        ("either", [false, true, true, true, true]),
        ("each", [false; 5]),
        ("nobody", [false; 5]),
    ];
    let mut world = start(&format!("default-guards = [\"all\"]\nlisting = \"open\"\n{guards}"));
    let listed = |world: &World, shown| {
        let (status, text) = world.ask(&world.base, "/", shown, &[]);
        (status, String::from_utf8(text).unwrap())
    };
    for (at, shown) in askers.into_iter().enumerate() {
        let mut open = Vec::new();
        for (tree, who) in table {
            let wanted = if who[at] { "200" } else { "403" };
            assert_eq!(world.status(&format!("/{tree}/big.bin"), shown), wanted, "{tree}, {at}");
            open.extend(who[at].then(|| format!("/{tree}/\n")));
        }
        // What somebody may not read is not named to them.
        open.sort();
        assert_eq!(listed(&world, shown), ("200".into(), open.concat()), "{at}");
    }
    let text = fs::read_to_string(&world.net.publisher.config).unwrap();
    let text = text.replace("default-guards = [\"all\"]\n", "").replace("\"open\"", "\"all\"");
    fs::write(&world.net.publisher.config, &text).unwrap();
    world.net.configure_publisher("");
    world.find();
    assert_eq!(world.status("/plain/big.bin", None), "200", "neither has guards");
    assert_eq!(world.status("/own/big.bin", Some(&of_all)), "403");
    assert_eq!(listed(&world, None).1.lines().count(), table.len());
    fs::write(&world.net.publisher.config, text.replace("listing = \"all\"\n", "")).unwrap();
    world.net.configure_publisher("");
    world.find();
    assert_eq!(listed(&world, Some(&of_all)).0, "404");
}

impl World {
    /// Where the publisher listens now, once it does.
    fn find(&mut self) {
        let file = self.net.publisher.data.join("consumers-listen");
        self.base = wait_for("the publisher to serve consumers", || {
            let base = format!("https://{}", fs::read_to_string(&file).unwrap().trim());
            (self.ask(&base, "/", None, &[]).0 != "000").then_some(base)
        });
    }
}
