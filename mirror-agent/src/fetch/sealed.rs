//! Private trees at points that anybody may read: other names, encrypted bytes.
//!
//! What is asked for stays what it is everywhere else, a range of an object as the publisher signed
//! it. Here it becomes a range of what lies at the point, which is opened chunk by chunk as it
//! comes, and only then verified like everything else: encryption keeps others from reading, and
//! makes nothing believed.
//!
//! Keys come from the coordinator, one for each generation that something was made for, and are kept
//! in the ledger: a mirror goes on with them while the coordinator is away.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use certs::private::{Chunks, HEADER_LEN, Header, Names, Opener, Pushed, sealed_len};
use protocol::{
    client::{self, Client},
    generation::Version,
    name::TreeName,
    origin::Place,
    v1::keys::{SecretKey, TreeKey},
};

use super::{
    points::Point,
    ranges::{self, Ask, Error, Got, Patience},
};
use crate::ledger::Ledger;

/// Keys of one tree that are kept, the newest of them.
const MAX_KEYS: usize = 1_000;

/// What is known of one private tree's names and keys.
pub struct TreeKeys {
    tree: TreeName,
    client: Client,
    ledger: Arc<Ledger>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    names: Option<Names>,
    keys: Vec<TreeKey>,
}

/// Why a private tree cannot be read at a point.
#[derive(Debug, thiserror::Error)]
pub enum NoKey {
    /// The coordinator gives none.
    #[error("the coordinator gives no key of private tree {tree}")]
    Refused {
        /// Which tree.
        tree: TreeName,
        /// What it says.
        source: Box<client::Error>,
    },
    /// What it gave is none.
    #[error("the coordinator's key is of {found}, not of generation {wanted} of tree {tree}")]
    Other {
        /// Which tree.
        tree: TreeName,
        /// What was asked for.
        wanted: Version,
        /// What came.
        found: String,
    },
    /// What it gave names nothing.
    #[error("the coordinator's key of private tree {tree} names nothing")]
    Names {
        /// Which tree.
        tree: TreeName,
    },
}

impl TreeKeys {
    /// Of one tree, with what the ledger has kept.
    pub fn new(tree: &TreeName, client: Client, ledger: Arc<Ledger>) -> Self {
        let keys = ledger.tree_keys(tree).unwrap_or_else(|error| {
            tracing::warn!(%tree, error = crate::chain(&error), "keys are asked for again");
            Vec::new()
        });
        let names = keys.last().and_then(|key| Names::new(key.names.clone()).ok());
        let (tree, known) = (tree.clone(), Mutex::new(Known { names, keys }));
        Self { tree, client, ledger, known }
    }

    /// How the tree's objects are called.
    pub async fn names(&self) -> Result<Names, NoKey> {
        if let Some(names) = self.known_names() {
            return Ok(names);
        }
        self.fetch(None).await?;
        self.known_names().ok_or_else(|| NoKey::Names { tree: self.tree.clone() })
    }

    fn known_names(&self) -> Option<Names> {
        self.lock().names.clone()
    }

    /// The key of a generation, where it is known.
    fn key(&self, version: Version) -> Option<SecretKey> {
        let known = self.lock();
        known.keys.iter().rev().find(|key| key.version == version).map(|key| key.key.clone())
    }

    /// Asks for the key of a generation, of the current one where none is named.
    async fn fetch(&self, version: Option<Version>) -> Result<(), NoKey> {
        let tree = &self.tree;
        let asked = self.client.tree_key(tree, version).await;
        let refused = |error| NoKey::Refused { tree: tree.clone(), source: Box::new(error) };
        let found = asked.map_err(refused)?;
        if let Some(wanted) = version
            && (found.version, &found.tree) != (wanted, tree)
        {
            let found = format!("{}@{}", found.tree, found.version);
            return Err(NoKey::Other { tree: tree.clone(), wanted, found });
        }
        let names = Names::new(found.names.clone());
        let names = names.map_err(|_| NoKey::Names { tree: tree.clone() })?;
        let mut known = self.lock();
        if known.names.as_ref() != Some(&names) {
            // Another secret: what was kept opens nothing any more.
            known.keys.clear();
            known.names = Some(names);
        }
        known.keys.retain(|key| key.version != found.version);
        known.keys.push(found);
        known.keys.sort_by_key(|key| key.version);
        let surplus = known.keys.len().saturating_sub(MAX_KEYS);
        known.keys.drain(..surplus);
        if let Err(error) = self.ledger.set_tree_keys(tree, &known.keys) {
            tracing::warn!(%tree, error = crate::chain(&error), "a key is not kept on the disk");
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for TreeKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TreeKeys").field("tree", &self.tree).finish_non_exhaustive()
    }
}

/// A point at which a tree is sealed, for one run.
#[derive(Debug)]
pub struct Sealed {
    keys: Arc<TreeKeys>,
    naming: Naming,
    /// Headers of objects that came, by path: what follows needs no second one.
    headers: Mutex<HashMap<String, Header>>,
    /// Whether the coordinator was asked in this run if the tree has another secret by now.
    asked_anew: AtomicBool,
}

/// By which names a point is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naming {
    /// Those that tell nothing.
    Public,
    /// The tree's own: the publisher is asked, and redirects.
    Own,
}

impl Sealed {
    /// What is sealed with a tree's keys.
    pub fn new(keys: Arc<TreeKeys>, naming: Naming) -> Self {
        let (headers, asked_anew) = (Mutex::default(), AtomicBool::new(false));
        Self { keys, naming, headers, asked_anew }
    }

    fn header(&self, path: &str) -> Option<Header> {
        self.headers.lock().unwrap_or_else(PoisonError::into_inner).get(path).copied()
    }

    fn set_header(&self, path: &str, header: Option<Header>) {
        let mut headers = self.headers.lock().unwrap_or_else(PoisonError::into_inner);
        match header {
            Some(header) => drop(headers.insert(path.to_owned(), header)),
            None => drop(headers.remove(path)),
        }
    }
}

/// Like [`ranges::get`], where what is asked for is sealed.
///
/// Where it is missing or does not open, the tree may have another secret by now: then the coordinator
/// is asked for the key anew, once in a run, and what is asked for is tried again by other names.
pub(super) async fn get(
    point: &Point,
    sealed: &Sealed,
    ask: &Ask,
    patience: Patience,
    got: &mut Got,
    mut sink: impl FnMut(&[u8]) -> std::io::Result<()>,
) -> Result<(), Error> {
    let (received, names) = (got.received, sealed.keys.known_names());
    let failed = match get_once(point, sealed, ask, patience, got, &mut sink).await {
        Err(error @ (Error::Missing { .. } | Error::Wrong { .. })) if got.received == received => {
            error
        }
        other => return other,
    };
    if sealed.keys.known_names() == names
        && !sealed.asked_anew.swap(true, Ordering::Relaxed)
        && let Err(error) = sealed.keys.fetch(None).await
    {
        let error = crate::chain(&error);
        tracing::debug!(error, "whether the tree has other keys by now is not known");
    }
    if names.is_none() || sealed.keys.known_names() == names {
        return Err(failed);
    }
    tracing::info!(tree = %sealed.keys.tree, "the tree has other keys by now; they are followed");
    get_once(point, sealed, ask, patience, got, sink).await
}

async fn get_once(
    point: &Point,
    sealed: &Sealed,
    ask: &Ask,
    patience: Patience,
    got: &mut Got,
    mut sink: impl FnMut(&[u8]) -> std::io::Result<()>,
) -> Result<(), Error> {
    let url = || format!("{}{}", point.base, ask.path);
    let no_key = |source| Error::Key { url: url(), source: Box::new(source) };
    // Only objects lie at such a point, and the pointer.
    let place = Place::parse(&ask.path).ok_or_else(|| Error::Missing { url: url() })?;
    let names = sealed.keys.names().await.map_err(no_key)?;
    let path = match sealed.naming {
        Naming::Public => names.place(&place).path(),
        Naming::Own => place.path(),
    };
    let key = |version| names.own_key(&place, version).or_else(|| sealed.keys.key(version));
    if ask.range.is_empty() {
        return Ok(());
    }
    if ask.total.is_none() && !ask.up_to {
        return Err(Error::Wrong { url: url(), what: "its length is not known" });
    }
    let mut asked_for = None;
    loop {
        let mut header = sealed.header(&path).filter(|_| !ask.up_to);
        let total = ask.total.filter(|_| !ask.up_to);
        let chunks = Chunks::of(&ask.range, total.unwrap_or(ask.range.end));
        if total.is_some() && header.is_none() && chunks.first > 0 {
            header = Some(fetch_header(point, &path, ask, patience).await?);
            sealed.set_header(&path, header);
        }
        let (mut opener, range) = match total {
            None => {
                // All of it, whose end shows itself.
                (Opener::whole(&place, ask.range.end), 0..sealed_len(ask.range.end))
            }
            Some(total) => {
                let start = if header.is_some() { chunks.sealed.start } else { 0 };
                let opener = Opener::part(&place, header, ask.range.clone(), total);
                (opener, start..chunks.sealed.end)
            }
        };
        let outer = Ask {
            path: path.clone(),
            range,
            total: total.map(sealed_len),
            etag: ask.etag.clone(),
            up_to: total.is_none(),
            optional: ask.optional,
        };
        let mut came = Got::default();
        let mut missing = None;
        let received = &mut got.received;
        let mut counted = |piece: &[u8]| {
            sink(piece)?;
            *received += piece.len() as u64;
            Ok(())
        };
        let result = ranges::get_plain(point, &outer, patience, &mut came, |piece| {
            match opener.push(piece, &key, &mut counted)? {
                Pushed::Taken => Ok(()),
                Pushed::NeedsKey(version) => {
                    missing = Some(version);
                    // Given up here, and asked for again with the key.
                    Err(ranges::not_signed())
                }
            }
        });
        let result = result.await;
        got.etag = came.etag;
        if let Some(version) = missing {
            if asked_for.replace(version) == Some(version) {
                return Err(Error::Wrong {
                    url: url(),
                    what: "it names a key that does not open it",
                });
            }
            sealed.keys.fetch(Some(version)).await.map_err(no_key)?;
            if sealed.keys.names().await.map_err(no_key)? != names {
                // It lies there under former keys, which nobody gives out any longer.
                return Err(Error::Missing { url: url() });
            }
            continue;
        }
        if !ask.up_to {
            // What did not open must not be tried with the same header again.
            sealed.set_header(&path, opener.header().filter(|_| !is_wrong(&result)));
        }
        result?;
        let ended = opener.finish(&mut counted);
        return ended.map_err(|_| Error::Wrong { url: url(), what: "it is damaged" });
    }
}

fn is_wrong(result: &Result<(), Error>) -> bool {
    matches!(result, Err(Error::Wrong { .. } | Error::Long { .. }))
}

/// The header of an object of which only a later part is wanted.
async fn fetch_header(
    point: &Point,
    path: &str,
    ask: &Ask,
    patience: Patience,
) -> Result<Header, Error> {
    let mut bytes = Vec::with_capacity(HEADER_LEN);
    let mut outer = Ask::part(path.to_owned(), 0..HEADER_LEN as u64);
    outer.total = ask.total.map(sealed_len);
    ranges::get_plain(point, &outer, patience, &mut Got::default(), |piece| {
        bytes.extend_from_slice(piece);
        Ok(())
    })
    .await?;
    let url = || format!("{}{}", point.base, ask.path);
    Header::parse(&bytes)
        .map_err(|_| Error::Wrong { url: url(), what: "it is not encrypted as it should be" })
}
