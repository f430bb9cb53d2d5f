//! The coordinator at work: database, keys, and the picture that everybody looks at.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use certs::{
    authority::Authority, identity::Serial, revocation::RevokedSerials, signing::SigningKey,
    tls::ConnectionRegistry,
};
use jiff::{SignedDuration, Timestamp};
use protocol::{
    generation::Revision,
    name::{IdentityName, NetworkName},
    role::Role,
    v1::events::Event,
};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::{
    Error, Picture,
    events::{self, Telling},
    late::LateAsks,
};
use crate::{
    db::{Database, Topic, Transaction},
    journal::{Journal, Revocation},
};

/// Gives the time.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Longest time for which a picture counts where other replicas write too.
const MAX_AGE: Duration = Duration::from_secs(1);

/// What a coordinator is made of.
pub struct Parts {
    /// Where everything is stored.
    pub database: Database,
    /// Certifies.
    pub authority: Authority,
    /// Signs heads.
    pub head_key: SigningKey,
    /// Signs roots, where the key is kept here.
    pub root_key: Option<SigningKey>,
    /// The open connections.
    pub registry: Arc<ConnectionRegistry>,
    /// The API as others reach it: `https://HOST:PORT`.
    pub api_url: String,
    /// The enroll port as others reach it: `https://HOST:PORT`.
    pub enroll_url: String,
    /// How long the certificates live that it makes.
    pub certificate_life: SignedDuration,
    /// How long after its end a certificate may be renewed; zero for never.
    pub late_renewal: SignedDuration,
    /// How long the heads count that it signs.
    pub head_life: SignedDuration,
    /// Who is told of what.
    pub telling: Telling,
    /// Gives the time.
    pub clock: Clock,
    /// Where revocations are kept beside the database.
    pub journal: Journal,
    /// Ends every wait when the coordinator stops.
    pub stopping: CancellationToken,
}

/// A coordinator at work.
pub struct App {
    pub(super) parts: Parts,
    picture: watch::Sender<Arc<Picture>>,
    looked: Mutex<Instant>,
    loading: tokio::sync::Mutex<()>,
    seen: Mutex<HashMap<(Role, IdentityName), Timestamp>>,
    seen_stored: Mutex<Timestamp>,
    /// When this replica began to listen.
    began: Timestamp,
    /// Something is to be told.
    told: Notify,
    /// Serials whose first use, or whose use after their time, was noted by this replica.
    noted: Mutex<HashSet<String>>,
    pub(super) late_asks: LateAsks,
}

/// A change under way: the one writer's place, with the picture as it is in the database.
pub struct Write {
    /// The transaction.
    pub tx: Transaction,
    /// Everything as it was before.
    pub before: Picture,
    /// The time of the change.
    pub now: Timestamp,
    /// Events that were stored with it.
    pub told: Vec<Event>,
}

impl App {
    /// Reads the picture and is ready.
    pub async fn start(parts: Parts) -> Result<Arc<Self>, Error> {
        let mut tx = parts.database.read().await?;
        let picture = Arc::new(Picture::load(&mut tx, None, (parts.clock)()).await?);
        tx.commit().await?;
        let app = Self {
            picture: watch::Sender::new(Arc::clone(&picture)),
            looked: Mutex::new(Instant::now()),
            loading: tokio::sync::Mutex::new(()),
            seen: Mutex::new(HashMap::new()),
            seen_stored: Mutex::new(Timestamp::UNIX_EPOCH),
            began: (parts.clock)(),
            told: Notify::new(),
            noted: Mutex::default(),
            late_asks: LateAsks::default(),
            parts,
        };
        app.close_revoked(&picture);
        Ok(Arc::new(app))
    }

    /// The network.
    pub fn network(&self) -> &NetworkName {
        self.parts.authority.network()
    }

    /// The network's authority.
    pub fn authority(&self) -> &Authority {
        &self.parts.authority
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        (self.parts.clock)()
    }

    /// Everything, as of the newest revision that is known here.
    pub fn picture(&self) -> Arc<Picture> {
        Arc::clone(&self.picture.borrow())
    }

    /// Is told of every new picture.
    pub fn pictures(&self) -> watch::Receiver<Arc<Picture>> {
        self.picture.subscribe()
    }

    /// How many polls wait for a new picture.
    pub fn pictures_watched(&self) -> usize {
        self.picture.receiver_count()
    }

    /// Ends when the coordinator stops.
    pub fn stopping(&self) -> &CancellationToken {
        &self.parts.stopping
    }

    /// How many connections are open.
    pub fn open_connections(&self) -> usize {
        self.parts.registry.total_connections()
    }

    /// Whether what is known of certificates may be relied on: another replica may have revoked
    /// one, so a picture that could not be renewed for a second counts no longer.
    pub fn is_fresh(&self) -> bool {
        !self.parts.database.is_shared() || lock(&self.looked).elapsed() < MAX_AGE
    }

    /// Whether other replicas may write to the database, too.
    pub fn has_replicas(&self) -> bool {
        self.parts.database.is_shared()
    }

    /// Looks whether the database has something newer.
    pub async fn refresh(&self) -> Result<Arc<Picture>, Error> {
        let _one_at_a_time = self.loading.lock().await;
        self.look().await
    }

    /// Makes sure that the picture holds `revision`. Of many who wait, the first one looks for all.
    async fn catch_up(&self, revision: Revision) -> Result<(), Error> {
        let _one_at_a_time = self.loading.lock().await;
        if self.picture.borrow().revision < revision {
            self.look().await?;
        }
        Ok(())
    }

    async fn look(&self) -> Result<Arc<Picture>, Error> {
        let began = Instant::now();
        let known = self.picture();
        let mut tx = self.parts.database.read().await?;
        let loaded = Picture::load(&mut tx, Some(&known), self.now()).await?;
        tx.commit().await?;
        *lock(&self.looked) = began;
        if (loaded.revision, loaded.restore_epoch) == (known.revision, known.restore_epoch) {
            return Ok(known);
        }
        let picture = Arc::new(loaded);
        if !Arc::ptr_eq(&picture.fleet, &known.fleet) {
            self.close_revoked(&picture);
        }
        self.picture.send_replace(Arc::clone(&picture));
        Ok(picture)
    }

    /// Becomes the one writer.
    pub async fn write(&self) -> Result<Write, Error> {
        let mut tx = self.parts.database.write().await?;
        let now = self.now();
        let before = Picture::load(&mut tx, Some(&self.picture()), now).await?;
        Ok(Write { tx, before, now, told: Vec::new() })
    }

    /// Stores a change that concerns `topics` and tells everybody whom it concerns.
    pub async fn commit(&self, mut write: Write, topics: &[Topic]) -> Result<Revision, Error> {
        let revision = write.tx.next_revision(topics).await?;
        write.tx.commit().await?;
        self.log_told(&write.told);
        // It is stored, so it is done; a picture that could not be renewed now is renewed soon.
        if let Err(error) = self.catch_up(revision).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "the picture is late");
        }
        Ok(revision)
    }

    /// Stores something that changes nobody's orders.
    pub async fn commit_quietly(&self, write: Write) -> Result<(), Error> {
        write.tx.commit().await?;
        self.log_told(&write.told);
        Ok(())
    }

    /// Notes a revocation beside the database, durably. One that cannot be noted is made all the same:
    /// it counts now, and the log says that a restore would forget it.
    pub(super) fn note_revocation(&self, revocation: &Revocation) {
        // A few milliseconds, seldom: not worth another thread.
        if let Err(error) = self.parts.journal.append(revocation) {
            let Revocation { role, name, .. } = revocation;
            let error = &error as &dyn std::error::Error;
            tracing::error!(error, "the revocation of {role}/{name} is not in the journal");
        }
    }

    /// When this replica began to listen.
    pub(super) fn began(&self) -> Timestamp {
        self.began
    }

    /// Waits until something is told here.
    pub async fn something_told(&self) {
        self.told.notified().await;
    }

    fn log_told(&self, told: &[Event]) {
        told.iter().for_each(events::log);
        if !told.is_empty() {
            self.told.notify_waiters();
        }
    }

    /// Notes that an identity was heard of. Stored from time to time, not with every request.
    pub fn note_seen(&self, role: Role, name: &IdentityName) {
        lock(&self.seen).insert((role, name.clone()), self.now());
    }

    /// When an identity was last heard of, as far as it is not stored yet.
    pub fn seen(&self, role: Role, name: &IdentityName) -> Option<Timestamp> {
        lock(&self.seen).get(&(role, name.clone())).copied()
    }

    /// Whether this is the first note of a serial here.
    pub(super) fn is_first_use(&self, serial: &str) -> bool {
        lock(&self.noted).insert(serial.to_owned())
    }

    /// Stores who was heard of since the last call: one commit for all of them.
    pub async fn store_seen(&self) -> Result<(), Error> {
        let stored = *lock(&self.seen_stored);
        let news: Vec<_> = lock(&self.seen)
            .iter()
            .filter(|(_, at)| **at > stored)
            .map(|(identity, at)| (identity.clone(), *at))
            .collect();
        let Some(newest) = news.iter().map(|(_, at)| *at).max() else { return Ok(()) };
        let mut tx = self.parts.database.write().await?;
        for ((role, name), at) in &news {
            tx.set_last_seen(*role, name, *at).await?;
        }
        tx.commit().await?;
        *lock(&self.seen_stored) = newest;
        Ok(())
    }

    fn close_revoked(&self, picture: &Picture) {
        let revoked: RevokedSerials = picture
            .fleet
            .revoked()
            .filter_map(|(serial, at)| Some((serial.parse::<Serial>().ok()?, at)))
            .collect();
        let closed = self.parts.registry.set_revoked(revoked);
        if closed > 0 {
            tracing::info!(connections = closed, "closed the connections of revoked certificates");
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
