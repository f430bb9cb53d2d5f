//! One address for several servers: each connection goes to the next of them that takes it, as behind
//! the balancer of a coordinator's replicas.

use std::{
    io,
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

/// A running balancer; its thread ends with the process.
#[derive(Debug)]
pub struct Balancer {
    address: SocketAddr,
    taken: Arc<Vec<AtomicUsize>>,
}

impl Balancer {
    /// Listens at a port for these servers, which need not run yet.
    pub fn start(port: u16, servers: Vec<SocketAddr>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let address = listener.local_addr().unwrap();
        let taken: Arc<Vec<_>> = Arc::new(servers.iter().map(|_| AtomicUsize::new(0)).collect());
        let counts = Arc::clone(&taken);
        thread::spawn(move || {
            for (turn, client) in listener.incoming().flatten().enumerate() {
                let order = (0..servers.len()).map(|at| (turn + at) % servers.len());
                let found = order
                    .into_iter()
                    .find_map(|at| TcpStream::connect(servers[at]).ok().map(|server| (at, server)));
                // Without a server the connection ends, as it would at any balancer.
                if let Some((at, server)) = found {
                    counts[at].fetch_add(1, Ordering::Relaxed);
                    join(client, server).ok();
                }
            }
        });
        Self { address, taken }
    }

    /// `https://` with its address.
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// How many connections each server took.
    pub fn taken(&self) -> Vec<usize> {
        self.taken.iter().map(|count| count.load(Ordering::Relaxed)).collect()
    }
}

/// Passes on what comes from either side until both have ended.
fn join(client: TcpStream, server: TcpStream) -> io::Result<()> {
    for (mut from, mut to) in [(client.try_clone()?, server.try_clone()?), (server, client)] {
        thread::spawn(move || {
            // A connection that breaks is the business of those at its ends.
            io::copy(&mut from, &mut to).ok();
            to.shutdown(Shutdown::Write).ok();
        });
    }
    Ok(())
}
