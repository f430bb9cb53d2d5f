//! Stock rsync daemons that ask who comes, or that are not reached by plain TCP: real ones.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use tests::{
    Daemon, Rsyncd, Testbed, compare,
    fixture::{prose, write},
    network::Agent,
    programs::{isolate, told},
    rsyncd::free_port,
    sshd::Sshd,
};

/// A tree of ten files at an upstream that the test makes, and a site that holds it.
struct Site {
    testbed: Testbed,
    agent: Agent,
    upstream: PathBuf,
}

impl Site {
    fn new() -> Self {
        let testbed = Testbed::start();
        let upstream = testbed.make_dir("upstream");
        for n in 0..10 {
            write(&upstream.join(format!("tree/f{n}")), prose(n, 2_000));
        }
        testbed.apply("[[site]]\nname = \"site\"\n");
        let agent = testbed.enroll_agent("agent", "site");
        Self { testbed, agent, upstream }
    }

    fn rsyncd(&self, settings: &str) -> Rsyncd {
        Rsyncd::start(&self.testbed.path("rsyncd"), &[("pub", &self.upstream)], settings)
    }

    /// Defines the upstream with these keys.
    fn define(&self, port: u16, keys: &str) {
        self.testbed.apply(&format!(
            "[[upstream]]\nname = \"stock\"\nkind = \"rsyncd\"\n\
             url = \"rsync://localhost:{port}/\"\n{keys}\n\
             [[source]]\nname = \"source\"\nupstream = \"stock\"\npath = \"pub\"\n\
             [[tree]]\nname = \"tree\"\nsource = \"source\"\npath = \"tree\"\n\
             [[grant]]\nsite = \"site\"\ntree = \"tree\"\n\
             [[assignment]]\nsite = \"site\"\ntree = \"tree\"\n"
        ));
    }

    fn run(&self, environment: &[(&str, &Path)]) -> std::process::Output {
        self.agent.command(&["run", "--once"]).envs(environment.iter().copied()).output().unwrap()
    }

    fn comes(&self, environment: &[(&str, &Path)]) {
        let output = self.run(environment);
        assert!(output.status.success(), "{}", told(&output));
        compare::assert_same(&self.upstream.join("tree"), &self.agent.published("tree"), &[]);
    }

    /// The run fails with all these words, and what is published stays.
    fn is_told(&self, environment: &[(&str, &Path)], words: &[&str]) {
        let before = self.agent.published("tree").exists();
        let output = self.run(environment);
        let said = told(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        for word in words {
            assert!(said.contains(word), "{word:?} is not in: {said}");
        }
        assert_eq!(self.agent.published("tree").exists(), before);
    }

    fn secret(&self, name: &str, text: &str) -> PathBuf {
        let path = self.testbed.path(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }
}

#[test]
fn a_daemon_that_asks_for_a_password_gets_it_from_the_agents_own_file() {
    let site = Site::new();
    let secrets = site.secret("secrets", "mirror:right\n");
    let asks = format!("auth users = mirror\nsecrets file = {}\n", secrets.display());
    let rsyncd = site.rsyncd(&asks);
    let file = site.secret("password", "wrong\n");
    let keys = format!("user = \"mirror\"\npassword-file = \"{}\"", file.display());
    site.define(rsyncd.port(), &keys);
    site.is_told(&[], &["refuses access", "password file"]);
    site.secret("password", "right\n");
    site.comes(&[]);
    let stored = site.testbed.ctl(&["get", "upstream", "stock", "--output", "json"]);
    assert!(!stored.contains("right"), "{stored}");
}

#[test]
fn a_daemon_that_lets_in_one_address_is_reached_from_the_configured_one() {
    let site = Site::new();
    let rsyncd = site.rsyncd("hosts allow = 127.0.0.9\nhosts deny = *\n");
    site.define(rsyncd.port(), "");
    site.is_told(&[], &["refuses access", "hosts allow"]);
    let config = fs::read_to_string(&site.agent.config).unwrap();
    fs::write(&site.agent.config, format!("{config}bind = \"127.0.0.9\"\n")).unwrap();
    site.comes(&[]);
}

/// stunnel in front of a daemon, with a certificate for `name`, and the file that vouches for it.
fn tls_in_front(site: &Site, name: &str, daemon: u16) -> (Daemon, u16, PathBuf) {
    let dir = site.testbed.make_dir(&format!("tls-{name}"));
    let (key, certificate) = (dir.join("key.pem"), dir.join("certificate.pem"));
    let mut make = Command::new("openssl");
    make.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"])
        .args(["-days", "2", "-subj", &format!("/CN={name}")])
        .args(["-addext", &format!("subjectAltName=DNS:{name}")])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&certificate);
    assert!(make.output().unwrap().status.success());
    let port = free_port();
    let config = dir.join("stunnel.conf");
    let text = format!(
        "foreground = yes\npid =\n[rsync]\naccept = 127.0.0.1:{port}\n\
         connect = 127.0.0.1:{daemon}\ncert = {}\nkey = {}\n",
        certificate.display(),
        key.display()
    );
    fs::write(&config, text).unwrap();
    let mut command = Command::new("stunnel");
    isolate(&mut command);
    command.arg(&config);
    let daemon = Daemon::start("stunnel", &mut command, &dir.join("stunnel.out"));
    tests::wait_until("stunnel to listen", || {
        std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    (daemon, port, certificate)
}

#[test]
fn a_daemon_behind_tls_is_mirrored_and_a_wrong_name_or_an_unknown_root_is_not() {
    let site = Site::new();
    let rsyncd = site.rsyncd("");
    let (_right, port, root) = tls_in_front(&site, "localhost", rsyncd.port());
    site.define(port, "transport = \"tls\"");
    site.is_told(&[], &["certificate"]);
    site.comes(&[("SSL_CERT_FILE", &root)]);
    let (_wrong, port, root) = tls_in_front(&site, "elsewhere", rsyncd.port());
    site.define(port, "transport = \"tls\"");
    site.is_told(&[("SSL_CERT_FILE", &root)], &["certificate"]);
}

#[test]
fn a_daemon_behind_ssh_is_mirrored_under_the_pinned_host_key_and_no_other() {
    let site = Site::new();
    let conf = format!("use chroot = no\n[pub]\npath = {}\n", site.upstream.display());
    let sshd = Sshd::start(&site.testbed.path("sshd"), &conf);
    let user = String::from_utf8(Command::new("id").arg("-un").output().unwrap().stdout).unwrap();
    let define = |key: &str, host_key: &str| {
        let keys = format!(
            "transport = \"ssh\"\nuser = \"{}\"\nkey-file = \"{}\"\nhost-key = \"{}\"",
            user.trim(),
            sshd.key_file(key).display(),
            sshd.public_key(host_key)
        );
        site.define(sshd.port(), &keys);
    };
    define("client-key", "other-key");
    site.is_told(&[], &["Host key verification failed"]);
    define("other-key", "host-key");
    site.is_told(&[], &["Permission denied"]);
    define("client-key", "host-key");
    site.comes(&[]);
    write(&site.upstream.join("tree/new"), prose(77, 3_000));
    site.comes(&[]);
    let loose = sshd.key_file("client-key");
    fs::set_permissions(&loose, fs::Permissions::from_mode(0o644)).unwrap();
    site.is_told(&[], &["chmod 600"]);
}
