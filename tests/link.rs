//! A thin, long line between two hosts on one machine: two network namespaces, a TUN device in
//! each, and a program between them that has a delay, a rate, a queue and a loss.
//!
//! The kernels of plain test machines lack netem, and what counts here is bytes on the wire, so the
//! line counts them itself, each way, as IP packets. Neither host reaches anything but the other:
//! cutting the line cuts everything.

mod namespace;
mod pump;

use std::{
    io,
    net::Ipv4Addr,
    sync::Arc,
    time::{Duration, Instant},
};

pub use namespace::Host;
use namespace::Namespace;
use pump::Pump;

/// What a line is like, the same both ways.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Line {
    /// From one end to the other; a round trip takes twice as long.
    pub one_way: Duration,
    /// Bits per second.
    pub bits_per_second: u64,
    /// How long a packet may wait for its turn before it is dropped.
    pub queue: Duration,
    /// Share of packets that get lost, 0 to 1.
    pub loss: f64,
}

impl Line {
    /// 100 ms for a round trip, 20 Mbit/s, nothing lost.
    pub const THIN: Self = Self {
        one_way: Duration::from_millis(50),
        bits_per_second: 20_000_000,
        queue: Duration::from_millis(200),
        loss: 0.0,
    };
}

/// Two hosts and the line between them. Dropping it takes all of it away.
pub struct Link {
    down: Arc<Pump>,
    up: Arc<Pump>,
    origin: Namespace,
    site: Namespace,
}

/// What went over a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traffic {
    /// IP bytes towards the site.
    pub down_bytes: u64,
    /// IP bytes from the site.
    pub up_bytes: u64,
    /// Packets dropped at a full queue, or lost, both ways.
    pub lost_packets: u64,
}

impl Link {
    /// Makes the hosts and joins them; `None`, with a message, where this machine forbids it, unless
    /// it is one that should test everything.
    pub fn try_new(line: Line) -> Option<Self> {
        match Self::new(line) {
            Ok(link) => Some(link),
            Err(error) => {
                assert!(std::env::var_os("CI").is_none(), "no network namespaces: {error}");
                eprintln!("*** SKIPPED: no network namespaces here: {error}");
                None
            }
        }
    }

    /// Makes the hosts and joins them.
    ///
    /// # Errors
    /// Where this machine forbids namespaces or TUN devices.
    pub fn new(line: Line) -> io::Result<Self> {
        let origin = Namespace::new(Ipv4Addr::new(10, 77, 0, 1))?;
        let site = Namespace::new(Ipv4Addr::new(10, 77, 0, 2))?;
        let ends = [origin.open_tun("line0")?, site.open_tun("line0")?].map(Arc::new);
        origin.bring_up("line0", site.host().address())?;
        site.bring_up("line0", origin.host().address())?;
        let [at_origin, at_site] = ends;
        let down = Pump::start(Arc::clone(&at_origin), Arc::clone(&at_site), line, 1);
        let up = Pump::start(at_site, at_origin, line, 2);
        Ok(Self { down, up, origin, site })
    }

    /// The host on which coordinator, publisher and their like run.
    pub fn origin(&self) -> Host {
        self.origin.host()
    }

    /// The host at the other end.
    pub fn site(&self) -> Host {
        self.site.host()
    }

    /// Cuts the line, or mends it.
    pub fn cut(&self, is_cut: bool) {
        self.down.cut(is_cut);
        self.up.cut(is_cut);
    }

    /// Changes what the line is like, for packets from now on.
    pub fn set_line(&self, line: Line) {
        self.down.set_line(line);
        self.up.set_line(line);
    }

    /// Everything that has arrived since it was made.
    pub fn traffic(&self) -> Traffic {
        let ((down_bytes, down_lost), (up_bytes, up_lost)) = (self.down.counts(), self.up.counts());
        Traffic { down_bytes, up_bytes, lost_packets: down_lost + up_lost }
    }

    /// What goes over the line while `work` is done, with the time that it takes.
    pub fn measure<T>(&self, work: impl FnOnce() -> T) -> (T, Traffic, Duration) {
        let (before, began) = (self.traffic(), Instant::now());
        let done = work();
        (done, self.traffic() - before, began.elapsed())
    }
}

impl Traffic {
    /// Both ways.
    pub fn bytes(&self) -> u64 {
        self.down_bytes + self.up_bytes
    }
}

impl std::ops::Sub for Traffic {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            down_bytes: self.down_bytes - before.down_bytes,
            up_bytes: self.up_bytes - before.up_bytes,
            lost_packets: self.lost_packets - before.lost_packets,
        }
    }
}
