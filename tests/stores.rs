//! Real object stores for tests: s3s-fs, which checks signatures, moto, which keeps conditions, and
//! Azurite, which speaks Azure's language.
//!
//! They are installed by `tests/need.sh test` into `target/tools`. This file names no crate of ours,
//! so that the publisher's own tests use it too.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// Who may write to a store.
pub const ACCESS_KEY: &str = "mirrornet-test";
/// The same one's secret.
pub const SECRET_KEY: &str = "only-for-tests-0123456789";
/// The account of an Azure store, with [`AZURE_KEY`].
pub const AZURE_ACCOUNT: &str = "mirrornettest";
/// Its key, in base64 as all are.
pub const AZURE_KEY: &str = "b25seS1mb3ItdGVzdHMtMDEyMzQ1Njc4OQ==";
/// The one bucket.
pub const BUCKET: &str = "trees";

/// Which program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Checks signatures; its conditions can be raced.
    S3s,
    /// Keeps conditions; takes any signature.
    Moto,
    /// Azure's: checks signatures and keeps conditions.
    Azurite,
}

/// A running object store with the bucket [`BUCKET`]; it ends with the value.
#[derive(Debug)]
pub struct Store {
    child: Child,
    port: u16,
}

impl Store {
    /// Starts one that keeps its files in `dir`, on loopback.
    ///
    /// `None`, said aloud, where the program is not installed.
    ///
    /// # Panics
    /// When it is not installed where that must not be (`CI` is set), or does not start.
    pub fn start(kind: Kind, dir: &Path) -> Option<Self> {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut store = Self::start_by(kind, dir, port, true, &|command| command)?;
        let deadline = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(store.child.try_wait().unwrap().is_none(), "{kind:?} ended");
            assert!(Instant::now() < deadline, "{kind:?} does not listen");
            std::thread::sleep(Duration::from_millis(50));
        }
        if kind == Kind::Moto {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
            let create = format!(
                "PUT /{BUCKET} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            );
            stream.write_all(create.as_bytes()).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        }
        if kind == Kind::Azurite {
            let mut python = Command::new("python3");
            python.args(["-c", CREATE_CONTAINER, &store.endpoint(), AZURE_ACCOUNT, AZURE_KEY]);
            assert!(python.arg(BUCKET).status().unwrap().success(), "there is no container");
        }
        Some(store)
    }

    /// [`Store::start`] on a port, by the command that `wrap` makes of the plain one, as one that
    /// enters a network namespace. It may not listen yet, and a moto has no bucket yet. Without
    /// `checks` an s3s-fs takes requests without a signature, as of a public bucket.
    pub fn start_by(
        kind: Kind,
        dir: &Path,
        port: u16,
        checks: bool,
        wrap: &dyn Fn(Command) -> Command,
    ) -> Option<Self> {
        let program = match kind {
            Kind::S3s => tools().join("bin/s3s-fs"),
            Kind::Moto => tools().join("moto/bin/moto_server"),
            Kind::Azurite => tools().join("azurite/node_modules/.bin/azurite-blob"),
        };
        if !program.exists() {
            let text = format!("{} is not installed; run tests/need.sh test", program.display());
            assert!(std::env::var_os("CI").is_none(), "{text}");
            eprintln!("*** SKIPPED: {text}");
            return None;
        }
        fs::create_dir_all(dir.join(BUCKET)).unwrap();
        let mut command = Command::new(program);
        let (address, port_text) = ("127.0.0.1", port.to_string());
        match kind {
            Kind::S3s => {
                command.args(["--host", address, "--port", &port_text]);
                if checks {
                    command.args(["--access-key", ACCESS_KEY, "--secret-key", SECRET_KEY]);
                }
                command.arg(dir)
            }
            Kind::Moto => command.args(["-H", address, "-p", &port_text]),
            Kind::Azurite => {
                command.env("AZURITE_ACCOUNTS", format!("{AZURE_ACCOUNT}:{AZURE_KEY}"));
                command.args(["--blobHost", address, "--blobPort", &port_text, "--silent"]);
                command.args(["--disableTelemetry", "--skipApiVersionCheck", "--location"]).arg(dir)
            }
        };
        let mut command = wrap(command);
        let log = fs::File::create(dir.join(format!("log-{port}"))).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let child = command.spawn().unwrap();
        Some(Self { child, port })
    }

    /// `http://127.0.0.1:PORT`
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

/// Makes a container (`ENDPOINT ACCOUNT KEY NAME`), which takes a signed request of its own kind.
const CREATE_CONTAINER: &str = r#"
import base64, email.utils, hashlib, hmac, sys, urllib.request
endpoint, account, key, name = sys.argv[1:]
headers = {"x-ms-date": email.utils.formatdate(usegmt=True), "x-ms-version": "2023-11-03"}
signed = "".join(f"{k}:{v}\n" for k, v in sorted(headers.items()))
resource = f"/{account}/{account}/{name}\nrestype:container"
text = "PUT" + "\n" * 12 + signed + resource
mac = hmac.new(base64.b64decode(key), text.encode(), hashlib.sha256).digest()
headers["Authorization"] = f"SharedKey {account}:{base64.b64encode(mac).decode()}"
url = f"{endpoint}/{account}/{name}?restype=container"
request = urllib.request.Request(url, method="PUT", headers=headers)
urllib.request.urlopen(request, timeout=30)
"#;

/// Writes credentials of an Azure store, readable by their owner alone.
pub fn write_azure_credentials(file: &Path, key: &str) {
    write_private(file, &format!("account = \"{AZURE_ACCOUNT}\"\naccess-key = \"{key}\"\n"));
}

/// Writes credentials as a publisher wants them, readable by their owner alone.
pub fn write_credentials(file: &Path, secret: &str) {
    let text = format!("access-key-id = \"{ACCESS_KEY}\"\nsecret-access-key = \"{secret}\"\n");
    write_private(file, &text);
}

fn write_private(file: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt as _;

    fs::write(file, text).unwrap();
    fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
}

impl Drop for Store {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where `tests/need.sh` installs programs that no package has.
fn tools() -> PathBuf {
    let target = match std::env::var_os("CARGO_TARGET_DIR") {
        Some(target) => PathBuf::from(target),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"),
    };
    target.join("tools")
}
