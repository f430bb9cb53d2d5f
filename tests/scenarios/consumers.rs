//! Consumers who are no agents: real certificates by openssl, real requests by curl, and nginx as a
//! proxy that tells whose certificate it has seen.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use tests::{
    Nginx,
    fixture::{OneTree, prose},
    nginx::Scheme,
    programs::{isolate, succeed},
    wait_until,
};

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
        fs::write(file("ext"), format!("extendedKeyUsage=clientAuth\n{extensions}\n")).unwrap();
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
}

fn start(consumers: &str) -> World {
    let mut net = OneTree::start("", "");
    net.write("repodata/repomd.xml", "the index\n");
    net.write("big.bin", prose(3, 400_000));
    std::os::unix::fs::symlink("repodata", net.upstream.join("latest")).unwrap();
    let identity = net.publisher.data.join("identity");
    let (chain, key) = (identity.join("server.pem"), identity.join("server-key.pem"));
    net.configure_publisher(&format!(
        "[consumers]\nlisten = \"127.0.0.1:0\"\ncertificate = {chain:?}\nkey = {key:?}\n{consumers}"
    ));
    net.publish();
    let address = fs::read_to_string(net.publisher.data.join("consumers-listen")).unwrap();
    let base = format!("https://{}", address.trim());
    World { net, base }
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
        let ca = self.net.publisher.data.join("identity/ca.pem");
        curl.args(["--silent", "--show-error", "--path-as-is", "--write-out", "%{http_code}"]);
        curl.arg("--cacert").arg(ca).arg("--output").arg(&body).args(more);
        if let Some(shown) = shown {
            curl.arg("--cert").arg(&shown.certificate).arg("--key").arg(&shown.key);
        }
        let status = succeed(curl.arg(format!("{base}{path}")));
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
    let identity = world.net.publisher.data.join("identity");
    let (chain, key) = (identity.join("server.pem"), identity.join("server-key.pem"));
    let by = |name: &str, shown: &Shown| {
        let server = format!(
            "ssl_verify_client optional_no_ca;
             location / {{
                 proxy_set_header X-CLIENT-CERT $ssl_client_escaped_cert;
                 proxy_ssl_certificate {};
                 proxy_ssl_certificate_key {};
                 proxy_http_version 1.1;
                 proxy_pass {};
             }}",
            shown.certificate.display(),
            shown.key.display(),
            world.base
        );
        let dir = world.net.testbed.path(name);
        Nginx::start(&dir, Scheme::Tls(&chain, &key), "", &server)
    };
    let (good, bad) = (by("nginx-good", &proxy), by("nginx-other", &other));
    let base = |nginx: &Nginx| format!("https://127.0.0.1:{}", nginx.port());
    let trusted = ca.client("trusted", "10", "");
    let cases = [
        (&good, Some(&trusted), "200"),
        (&good, None, "403"),
        (&good, Some(&other), "403"),
        // What the proxy itself shows opens nothing.
        (&good, Some(&proxy), "403"),
        (&bad, Some(&trusted), "403"),
    ];
    for (nginx, shown, wanted) in cases {
        let (status, _) = world.ask(&base(nginx), "/tree/big.bin", shown, &[]);
        assert_eq!(status, wanted, "{:?}", shown.map(|shown| &shown.certificate));
    }
    // A header that the client wrote itself is replaced.
    let header =
        format!("X-CLIENT-CERT: {}", escaped(&fs::read_to_string(&trusted.certificate).unwrap()));
    let (status, _) = world.ask(&base(&good), "/tree/big.bin", None, &["-H", &header]);
    assert_eq!(status, "403");
    // Two of them, as by a proxy that adds instead of replacing, count for none.
    let (status, _) = world.ask(&world.base, "/tree/big.bin", Some(&proxy), &["-H", &header]);
    assert_eq!(status, "200", "the proxy is believed");
    let twice = ["-H", &header, "-H", &header];
    let (status, _) = world.ask(&world.base, "/tree/big.bin", Some(&proxy), &twice);
    assert_eq!(status, "403");
    let junk = ["-H", "X-CLIENT-CERT: %2d%2d%zz"];
    assert_eq!(world.ask(&world.base, "/tree/big.bin", Some(&proxy), &junk).0, "403");
}

fn escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}
