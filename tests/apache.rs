//! A real Apache with the virtual host that a test gives it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{Daemon, programs::isolate, wait_until};

/// What the virtual hosts of our documents need, besides what is built in.
const MODULES: [&str; 8] = [
    "mpm_event",
    "authn_core",
    "authz_core",
    "socache_shmcb",
    "ssl",
    "headers",
    "proxy",
    "proxy_http",
];

/// A running Apache; it ends with the value.
pub struct Apache {
    daemon: Daemon,
    port: u16,
}

impl Apache {
    /// Serves this virtual host, which names `127.0.0.1:PORT`.
    pub fn start(dir: &Path, port: u16, host: &str) -> Self {
        fs::create_dir_all(dir).unwrap();
        let shown = dir.display();
        let modules = modules();
        let load: String = MODULES
            .iter()
            // Some systems build parts in.
            .filter(|name| modules.join(format!("mod_{name}.so")).exists())
            .map(|name| format!("LoadModule {name}_module {}/mod_{name}.so\n", modules.display()))
            .collect();
        // Only root has another user to become.
        let user = match rustix::process::geteuid().is_root() {
            true => "User nobody\nGroup #65534\n",
            false => "",
        };
        let config = format!(
            "ServerRoot {shown}\nServerName localhost\nListen 127.0.0.1:{port} https\n{load}{user}\
             PidFile {shown}/apache.pid\nErrorLog {shown}/error.log\nDefaultRuntimeDir {shown}\n\
             StartServers 1\n{host}\n"
        );
        let file = dir.join("apache.conf");
        fs::write(&file, config).unwrap();
        let mut command = Command::new(program());
        isolate(&mut command);
        command.args(["-D", "FOREGROUND", "-f"]).arg(&file);
        let mut daemon = Daemon::start("apache", &mut command, &dir.join("apache.out"));
        wait_until("Apache to listen", || {
            daemon.must_run();
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        Self { daemon, port }
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Apache {
    fn drop(&mut self) {
        // Killed, it would leave its workers behind.
        self.daemon.end();
    }
}

fn program() -> PathBuf {
    let found = ["/usr/sbin/apache2", "/usr/sbin/httpd"].into_iter().map(PathBuf::from);
    found.into_iter().find(|path| path.exists()).unwrap_or_else(|| "httpd".into())
}

fn modules() -> PathBuf {
    let places = ["/usr/lib/apache2/modules", "/usr/lib64/httpd/modules", "/usr/lib/httpd/modules"];
    let found = places.into_iter().map(PathBuf::from).find(|path| path.exists());
    found.unwrap_or_else(|| panic!("the modules of Apache are in none of {places:?}"))
}
