//! A real sshd, through which a stock rsync daemon is reached and nothing else.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{Daemon, programs, rsyncd::free_port, wait_until};

/// A running sshd on a loopback port, which lets one key run one rsync daemon.
pub struct Sshd {
    _daemon: Daemon,
    port: u16,
    dir: PathBuf,
}

impl Sshd {
    /// Whoever comes with the right key gets `rsync --server --daemon` with this configuration.
    pub fn start(dir: &Path, rsyncd_conf: &str) -> Self {
        fs::create_dir_all(dir).unwrap();
        fs::write(dir.join("rsyncd.conf"), rsyncd_conf).unwrap();
        for name in ["host-key", "client-key", "other-key"] {
            let mut make = Command::new("ssh-keygen");
            make.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(dir.join(name));
            assert!(make.status().unwrap().success());
        }
        let public = fs::read_to_string(dir.join("client-key.pub")).unwrap();
        let config = dir.join("rsyncd.conf");
        let forced = format!("rsync --server --daemon --config={} .", config.display());
        fs::write(dir.join("authorized-keys"), format!("restrict,command=\"{forced}\" {public}"))
            .unwrap();
        if rustix::process::geteuid().is_root() {
            // sshd wants an empty directory of root's; a system's own start makes it.
            fs::create_dir_all("/run/sshd").unwrap();
            fs::set_permissions("/run/sshd", fs::Permissions::from_mode(0o755)).unwrap();
        }
        let port = free_port();
        let settings = dir.join("sshd_config");
        let text = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {0}/host-key\nPidFile none\n\
             AuthorizedKeysFile {0}/authorized-keys\nStrictModes no\nUsePAM no\n\
             PasswordAuthentication no\nPermitRootLogin forced-commands-only\n",
            dir.display()
        );
        fs::write(&settings, text).unwrap();
        // It starts itself again for each connection, and wants its own absolute path for that.
        let program =
            ["/usr/sbin/sshd", "/usr/bin/sshd"].into_iter().find(|p| Path::new(p).exists());
        let mut command = Command::new(program.expect("sshd is installed by tests/need.sh"));
        programs::isolate(&mut command);
        command.args(["-D", "-e", "-f"]).arg(&settings);
        let daemon = Daemon::start("sshd", &mut command, &dir.join("sshd.out"));
        wait_until("sshd to listen", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        Self { _daemon: daemon, port, dir: dir.to_owned() }
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Private key `client-key`, which is let in, or `other-key`, which is not.
    pub fn key_file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// A public key as `TYPE BASE64`: `host-key`, or another.
    pub fn public_key(&self, name: &str) -> String {
        let text = fs::read_to_string(self.dir.join(format!("{name}.pub"))).unwrap();
        text.split(' ').take(2).collect::<Vec<_>>().join(" ")
    }
}
