//! A real nginx: a plain web server in front of a directory, or a cache in front of a server.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{Daemon, Host, programs::isolate, rsyncd::free_port, wait_until};

/// A running nginx; it ends with the value.
pub struct Nginx {
    daemon: Daemon,
    dir: PathBuf,
    port: u16,
}

/// How the port is listened on.
#[derive(Debug, Clone, Copy)]
pub enum Scheme<'a> {
    /// `http`.
    Plain,
    /// `https` and HTTP/2, with a certificate chain and its key.
    Tls(&'a Path, &'a Path),
}

impl Nginx {
    /// Serves with these directives in its `http` block and these in its one server, on
    /// 127.0.0.1. `@DIR@` in them is a directory of its own.
    pub fn start(dir: &Path, scheme: Scheme<'_>, http: &str, server: &str) -> Self {
        Self::start_at(dir, ("127.0.0.1", free_port()), scheme, http, server)
    }

    /// [`Nginx::start`] at another address of this machine.
    pub fn start_at(
        dir: &Path,
        (address, port): (&str, u16),
        scheme: Scheme<'_>,
        http: &str,
        server: &str,
    ) -> Self {
        Self::start_on(&Host::LOOPBACK, dir, (address, port), scheme, http, server)
    }

    /// [`Nginx::start_at`] on another host.
    pub fn start_on(
        host: &Host,
        dir: &Path,
        (address, port): (&str, u16),
        scheme: Scheme<'_>,
        http: &str,
        server: &str,
    ) -> Self {
        fs::create_dir_all(dir).unwrap();
        let shown = dir.display();
        let (listen, tls) = match scheme {
            Scheme::Plain => ("", String::new()),
            Scheme::Tls(chain, key) => (
                " ssl http2",
                format!(
                    "ssl_certificate {};\nssl_certificate_key {};\n",
                    chain.display(),
                    key.display()
                ),
            ),
        };
        let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
        let config = format!(
            r#"{user}
worker_processes 1;
pid {shown}/nginx.pid;
error_log {shown}/error.log notice;
events {{ worker_connections 256; }}
http {{
    log_format seen '$request_method $uri $status range="$http_range" sent=$body_bytes_sent cache=$upstream_cache_status protocol=$server_protocol encoding="$http_accept_encoding" if-range="$http_if_range" connection=$connection';
    access_log {shown}/access.log seen;
    client_body_temp_path {shown}/tmp-body;
    proxy_temp_path {shown}/tmp-proxy;
    fastcgi_temp_path {shown}/tmp-fastcgi;
    uwsgi_temp_path {shown}/tmp-uwsgi;
    scgi_temp_path {shown}/tmp-scgi;
    {http}
    server {{
        listen {address}:{port}{listen};
        {tls}
        {server}
    }}
}}
"#
        )
        .replace("@DIR@", &shown.to_string());
        let file = dir.join("nginx.conf");
        fs::write(&file, config).unwrap();
        let mut command = Command::new(program());
        isolate(&mut command);
        command.args(["-g", "daemon off;", "-c"]).arg(&file);
        let mut daemon = Daemon::start("nginx", &mut host.run(&command), &dir.join("nginx.out"));
        // It writes its number once it listens.
        wait_until("nginx to listen", || {
            daemon.must_run();
            fs::read_to_string(dir.join("nginx.pid")).is_ok_and(|pid| pid.ends_with('\n'))
        });
        Self { daemon, dir: dir.to_owned(), port }
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its process id; its worker is a child of it.
    pub fn pid(&self) -> u32 {
        self.daemon.pid()
    }

    /// Its log of requests, one on each line.
    pub fn requests(&self) -> Vec<String> {
        let log = fs::read_to_string(self.dir.join("access.log")).unwrap_or_default();
        log.lines().map(str::to_owned).collect()
    }

    /// Ends it, as a server that is gone.
    pub fn stop(self) {
        self.daemon.stop();
    }
}

/// The program, which lies where only root looks.
pub fn program() -> PathBuf {
    let sbin = Path::new("/usr/sbin/nginx");
    if sbin.exists() { sbin.into() } else { "nginx".into() }
}
