//! Stock rsync daemons that do not let everybody in: users, addresses, TLS.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command};

use tests::{
    Daemon, Rsyncd, Testbed, compare,
    fixture::{prose, write},
    network::Agent,
    programs::{isolate, succeed, told},
    rsyncd::free_port,
    wait_until,
};

/// A network whose one upstream is a stock daemon with these settings; `upstream` are further lines
/// for its definition, in which `@DIR@` is the network's directory.
struct Stock {
    testbed: Testbed,
    agent: Agent,
    rsyncd: Rsyncd,
}

impl Stock {
    /// `port` is where the agent connects, where that is not the daemon's own port.
    fn start(settings: &str, upstream: &str, port: Option<u16>) -> Self {
        let testbed = Testbed::start();
        let dir = testbed.path("").display().to_string();
        let local = |text: &str| text.replace("@DIR@", dir.trim_end_matches('/'));
        let tree = testbed.make_dir("upstream/tree");
        for n in 0..5 {
            write(&tree.join(format!("f{n}")), prose(n, 5_000));
        }
        secret(&testbed.path("secrets"), "mirror:right\n");
        secret(&testbed.path("password"), "right\n");
        let module = [("pub", testbed.path("upstream"))];
        let modules: Vec<(&str, &Path)> =
            module.iter().map(|(name, path)| (*name, path.as_path())).collect();
        let rsyncd = Rsyncd::start(&testbed.path("rsyncd"), &modules, &local(settings));
        let port = port.unwrap_or(rsyncd.port());
        testbed.apply(&format!(
            r#"
[[upstream]]
name = "stock"
kind = "rsyncd"
url = "rsync://127.0.0.1:{port}/"
{}

[[source]]
name = "source"
upstream = "stock"
path = "pub"

[[tree]]
name = "tree"
source = "source"
path = "tree"

[[site]]
name = "site"

[[grant]]
site = "site"
tree = "tree"

[[assignment]]
site = "site"
tree = "tree"
"#,
            local(upstream)
        ));
        let agent = testbed.enroll_agent("agent", "site");
        Self { testbed, agent, rsyncd }
    }

    fn port(&self) -> u16 {
        self.rsyncd.port()
    }

    fn assert_same(&self) {
        let upstream = self.testbed.path("upstream/tree");
        compare::assert_same(&upstream, &self.agent.published("tree"), &[]);
    }

    fn configure_agent(&self, line: &str) {
        let text = fs::read_to_string(&self.agent.config).unwrap();
        fs::write(&self.agent.config, format!("{text}{line}\n")).unwrap();
    }

    /// One run that has to fail; what it says.
    fn fails(&self) -> String {
        let output = self.agent.run_once();
        assert_eq!(output.status.code(), Some(1), "{}", told(&output));
        String::from_utf8_lossy(&output.stderr).into_owned()
    }
}

fn secret(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn a_daemon_that_asks_for_a_user_gets_it_from_a_file_of_the_site() {
    let net = Stock::start(
        "auth users = mirror\nsecrets file = @DIR@/secrets\n",
        "user = \"mirror\"\npassword-file = \"@DIR@/password\"",
        None,
    );
    secret(&net.testbed.path("password"), "wrong\n");
    let said = net.fails().to_lowercase();
    assert!(said.contains("auth") && said.contains("pub"), "{said}");
    assert!(!said.contains("wrong"), "{said}");
    secret(&net.testbed.path("password"), "right\n");
    net.agent.sync();
    net.assert_same();
    let everything = net.testbed.ctl(&["describe", "assignment", "tree@site"])
        + &net.testbed.ctl(&["log", "tree@site"]);
    assert!(!everything.contains("right"), "{everything}");
}

#[test]
fn a_daemon_that_lets_one_address_in_is_asked_from_the_bound_one() {
    let net = Stock::start("hosts allow = 127.0.0.2\nhosts deny = *\n", "", None);
    let said = net.fails().to_lowercase();
    assert!(said.contains("denied") || said.contains("access"), "{said}");
    net.configure_agent("bind = \"127.0.0.2\"");
    net.agent.sync();
    net.assert_same();
}

#[test]
fn a_daemon_behind_tls_is_asked_only_if_its_certificate_is_good() {
    let port = free_port();
    let net = Stock::start("", "transport = \"tls\"", Some(port));
    let (pem, config) = (net.testbed.path("tls.pem"), net.testbed.path("stunnel.conf"));
    let certificate = net.testbed.path("certificate.pem");
    let mut openssl = Command::new("openssl");
    isolate(&mut openssl);
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]);
    openssl.args(["-nodes", "-days", "2", "-subj", "/CN=rsync", "-addext"]);
    openssl.args(["subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"]);
    openssl.arg("-keyout").arg(&pem).arg("-out").arg(&certificate);
    succeed(&mut openssl);
    let both = fs::read_to_string(&pem).unwrap() + &fs::read_to_string(&certificate).unwrap();
    secret(&pem, &both);
    fs::write(
        &config,
        format!(
            "foreground = yes\npid =\n[rsync]\naccept = 127.0.0.1:{port}\nconnect = 127.0.0.1:{}\ncert = {}\n",
            net.port(),
            pem.display()
        ),
    )
    .unwrap();
    let mut stunnel = Command::new("stunnel");
    isolate(&mut stunnel);
    let _stunnel = Daemon::start("stunnel", stunnel.arg(&config), &net.testbed.path("stunnel.log"));
    wait_until("stunnel to listen", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());

    let said = net.fails().to_lowercase();
    assert!(said.contains("certificate") || said.contains("issuer"), "{said}");
    assert!(!net.agent.published("tree").exists());
    let trusting = || {
        let mut run = net.agent.command(&["run", "--once"]);
        run.env("SSL_CERT_FILE", &certificate);
        run
    };
    succeed(&mut trusting());
    net.assert_same();
}
