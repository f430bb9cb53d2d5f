//! Which certificates hold a connection open, and which may not.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::{identity::Serial, revocation::RevokedSerials};

/// The open connections of one or more servers by serial, and the serials that get none.
///
/// A revocation is effective at once: a new connection of the serial only hears that it is revoked,
/// and what is open is closed in the middle of whatever it does. A connection whose handshake was
/// under way is caught by looking again once it is registered.
#[derive(Default)]
pub struct ConnectionRegistry {
    revoked: RwLock<RevokedSerials>,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    next_id: u64,
    by_serial: HashMap<Serial, HashMap<u64, CancellationToken>>,
}

impl ConnectionRegistry {
    /// A registry of no connections in which no serial is revoked.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Refuses `serial` from now on and closes its connections. Returns how many were closed.
    pub fn revoke(&self, serial: Serial, revoked_at: Timestamp) -> usize {
        let mut revoked = self.revoked.write().unwrap_or_else(PoisonError::into_inner);
        revoked.insert(serial.clone(), revoked_at);
        drop(revoked);
        self.close(&serial)
    }

    /// Takes a new whole set of revoked serials and closes the connections of every one of them.
    /// Returns how many were closed.
    pub fn set_revoked(&self, revoked: RevokedSerials) -> usize {
        let serials: Vec<Serial> = revoked.iter().map(|(serial, _)| serial.clone()).collect();
        *self.revoked.write().unwrap_or_else(PoisonError::into_inner) = revoked;
        serials.iter().map(|serial| self.close(serial)).sum()
    }

    /// Whether `serial` is refused.
    pub fn is_revoked(&self, serial: &Serial) -> bool {
        self.revoked.read().unwrap_or_else(PoisonError::into_inner).contains(serial)
    }

    /// Closes the open connections of `serial`, which may connect again. Returns how many.
    pub fn close(&self, serial: &Serial) -> usize {
        let connections = self.lock().by_serial.remove(serial).unwrap_or_default();
        for token in connections.values() {
            token.cancel();
        }
        connections.len()
    }

    /// How many connections `serial` holds open.
    pub fn open_connections(&self, serial: &Serial) -> usize {
        self.lock().by_serial.get(serial).map_or(0, HashMap::len)
    }

    /// How many connections are open in all.
    pub fn total_connections(&self) -> usize {
        self.lock().by_serial.values().map(HashMap::len).sum()
    }

    /// Registers a connection for as long as the answer lives.
    ///
    /// # Errors
    /// For a revoked serial, or one that has `limit` connections.
    pub(super) fn register(
        self: &Arc<Self>,
        serial: &Serial,
        limit: usize,
    ) -> Result<Registration, NoPlace> {
        let token = CancellationToken::new();
        let mut open = self.lock();
        open.next_id += 1;
        let id = open.next_id;
        let connections = open.by_serial.entry(serial.clone()).or_default();
        if connections.len() >= limit {
            return Err(NoPlace::TooMany);
        }
        connections.insert(id, token.clone());
        drop(open);
        let registration =
            Registration { registry: Arc::clone(self), serial: serial.clone(), id, token };
        // After registering, so that a revocation either finds the connection or is found here.
        if self.is_revoked(serial) { Err(NoPlace::Revoked) } else { Ok(registration) }
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for ConnectionRegistry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ConnectionRegistry({} open)", self.total_connections())
    }
}

/// Why a connection was not registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoPlace {
    Revoked,
    TooMany,
}

/// The place of one open connection in the registry.
pub(super) struct Registration {
    registry: Arc<ConnectionRegistry>,
    serial: Serial,
    id: u64,
    token: CancellationToken,
}

impl Registration {
    /// Ends when the connection is to be closed.
    pub(super) async fn closed(&self) {
        self.token.cancelled().await;
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut open = self.registry.lock();
        if let Some(connections) = open.by_serial.get_mut(&self.serial) {
            connections.remove(&self.id);
            if connections.is_empty() {
                open.by_serial.remove(&self.serial);
            }
        }
    }
}
