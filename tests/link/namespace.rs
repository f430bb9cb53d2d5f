//! A host of its own: a network namespace that lives as long as the process that holds it.

use std::{
    fs::File,
    io,
    net::Ipv4Addr,
    os::fd::AsFd,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tun_rs::{DeviceBuilder, SyncDevice};

use crate::programs::told;

/// A network namespace, held open by a process that ends with it (or with this one).
pub(super) struct Namespace {
    holder: Child,
    host: Host,
}

/// Where a program is run, and under which address others find it there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    address: Ipv4Addr,
    /// None for the machine itself.
    namespace: Option<PathBuf>,
}

impl Host {
    /// This machine, by its loopback address.
    pub const LOOPBACK: Self = Self { address: Ipv4Addr::LOCALHOST, namespace: None };

    /// The address under which it is reached.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// The same program, started on this host. It keeps its process id, arguments, environment and
    /// directory; it reads nothing.
    pub fn run(&self, command: &Command) -> Command {
        let mut there = match &self.namespace {
            None => Command::new(command.get_program()),
            Some(namespace) => {
                let mut entering = Command::new("nsenter");
                entering.arg(format!("--net={}", namespace.display()));
                entering.arg("--").arg(command.get_program());
                entering
            }
        };
        there.args(command.get_args()).stdin(Stdio::null());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => there.env(key, value),
                None => there.env_remove(key),
            };
        }
        if let Some(dir) = command.get_current_dir() {
            there.current_dir(dir);
        }
        there
    }
}

impl Namespace {
    pub(super) fn new(address: Ipv4Addr) -> io::Result<Self> {
        // It reads its input to the end: when this process is gone, so is the namespace.
        let mut holder = Command::new("unshare")
            .args(["--net", "--", "cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()?;
        let path = PathBuf::from(format!("/proc/{}/ns/net", holder.id()));
        let own = std::fs::read_link("/proc/self/ns/net")?;
        for _ in 0..500 {
            if let Some(status) = holder.try_wait()? {
                return Err(io::Error::other(format!("unshare --net ended: {status}")));
            }
            if std::fs::read_link(&path).is_ok_and(|there| there != own) {
                let host = Host { address, namespace: Some(path) };
                return Ok(Self { holder, host });
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Err(io::Error::other("unshare --net made no namespace within 5 s"))
    }

    pub(super) fn host(&self) -> Host {
        self.host.clone()
    }

    /// Opens a TUN device in the namespace.
    pub(super) fn open_tun(&self, name: &str) -> io::Result<SyncDevice> {
        let path = self.host.namespace.clone().unwrap_or_default();
        let name = name.to_owned();
        // A thread of its own enters: this one stays where it is.
        let opening = std::thread::spawn(move || {
            let namespace = File::open(path)?;
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            DeviceBuilder::new().name(name).enable(false).build_sync()
        });
        opening.join().unwrap_or_else(|_| Err(io::Error::other("the thread that opens it died")))
    }

    /// Gives the device its address and lets packets for `peer` out through it.
    pub(super) fn bring_up(&self, device: &str, peer: Ipv4Addr) -> io::Result<()> {
        let address = format!("{}/32", self.host.address);
        let peer = format!("{peer}/32");
        self.ip(&["link", "set", "lo", "up"])?;
        self.ip(&["addr", "add", &address, "peer", &peer, "dev", device])?;
        self.ip(&["link", "set", device, "mtu", "1500", "up"])
    }

    fn ip(&self, args: &[&str]) -> io::Result<()> {
        let mut ip = Command::new("ip");
        ip.args(args);
        let output = self.host.run(&ip).output()?;
        if output.status.success() { Ok(()) } else { Err(io::Error::other(told(&output))) }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
