//! In which form a tree's objects lie at points besides the publisher's own store.
//!
//! Trees for everybody lie there as they are in the own store, byte for byte. Private ones are
//! sealed ([`certs::private`]): whoever reads the point, or lists it, learns how many objects there
//! are and how long, and nothing else. Keys come from the coordinator and are kept in memory alone.

use std::{
    collections::HashMap,
    io::{self, Read},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use certs::private::{CHUNK, HEADER_LEN, Names, Opener, Sealer, TAG, sealed_len};
use protocol::{
    client::{self, Client},
    digest::{Digest, DigestWriter},
    generation::Version,
    name::TreeName,
    origin::{Object, Place},
    v1::keys::SecretKey,
};
use tokio::runtime::Handle;

/// The form of one tree.
#[derive(Debug, Clone)]
pub enum Form {
    /// As in the own store.
    Plain,
    /// Encrypted, under other names.
    Sealed(Arc<PrivateTree>),
}

/// A private tree's names and keys.
#[derive(Debug)]
pub struct PrivateTree {
    tree: TreeName,
    names: Names,
    /// How often the secret had been exchanged when this was asked for.
    secrets: u64,
    keys: Mutex<HashMap<Version, SecretKey>>,
    source: KeySource,
}

/// Where keys come from. Its calls block, and must not be made by a task of the runtime.
#[derive(Debug, Clone)]
pub struct KeySource {
    /// The coordinator.
    pub client: Client,
    /// What waits for it.
    pub runtime: Handle,
}

/// Why an object cannot be sealed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The coordinator gives no key.
    #[error("the key of private tree {tree} cannot be had; nothing of it is brought anywhere")]
    Key {
        /// Which tree.
        tree: TreeName,
        /// Why not.
        source: Box<client::Error>,
    },
    /// Its secret was exchanged meanwhile.
    #[error(
        "the keys of private tree {0} have just been exchanged; it is encrypted with the new ones soon"
    )]
    Exchanged(TreeName),
    /// Reading, or the cipher.
    #[error("{object} cannot be encrypted")]
    Seal {
        /// Which object.
        object: String,
        /// Why.
        source: io::Error,
    },
}

impl PrivateTree {
    /// Asks for the tree's names. Blocks.
    pub fn fetch(tree: &TreeName, secrets: u64, source: KeySource) -> Result<Self, Error> {
        let failed = |error| Error::Key { tree: tree.clone(), source: Box::new(error) };
        let asked = source.client.tree_key(tree, None);
        let found = source.runtime.block_on(asked).map_err(failed)?;
        let names = Names::new(found.names).map_err(|error| Error::Seal {
            object: tree.to_string(),
            source: io::Error::other(error),
        })?;
        let keys = Mutex::new([(found.version, found.key)].into());
        Ok(Self { tree: tree.clone(), names, secrets, keys, source })
    }

    /// The key of a generation. Blocks where it is not known yet.
    fn key(&self, version: Version) -> Result<SecretKey, Error> {
        let known = self.keys.lock().unwrap_or_else(PoisonError::into_inner).get(&version).cloned();
        if let Some(key) = known {
            return Ok(key);
        }
        let failed = |error| Error::Key { tree: self.tree.clone(), source: Box::new(error) };
        let asked = self.source.client.tree_key(&self.tree, Some(version));
        let found = self.source.runtime.block_on(asked).map_err(failed)?;
        if Names::new(found.names).as_ref() != Ok(&self.names) {
            return Err(Error::Exchanged(self.tree.clone()));
        }
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(keys.entry(version).or_insert(found.key).clone())
    }
}

/// The private trees whose names are known.
#[derive(Debug, Default)]
pub struct PrivateTrees(Mutex<HashMap<TreeName, Arc<PrivateTree>>>);

impl PrivateTrees {
    /// The form of a tree that is private, whose secret was exchanged so often. Blocks where its names
    /// are not known yet.
    pub fn form(&self, tree: &TreeName, secrets: u64, source: KeySource) -> Result<Form, Error> {
        let known = self.lock().get(tree).cloned();
        if let Some(known) = known.filter(|known| known.secrets == secrets) {
            return Ok(Form::Sealed(known));
        }
        let found = Arc::new(PrivateTree::fetch(tree, secrets, source)?);
        self.lock().insert(tree.clone(), Arc::clone(&found));
        Ok(Form::Sealed(found))
    }

    /// The same of a tree of which no order says how often its secret was exchanged.
    pub fn any_form(&self, tree: &TreeName, source: KeySource) -> Result<Form, Error> {
        match self.known(tree) {
            Some(known) => Ok(known),
            None => self.form(tree, 0, source),
        }
    }

    /// The same, where its names are known.
    pub fn known(&self, tree: &TreeName) -> Option<Form> {
        self.lock().get(tree).map(|known| Form::Sealed(Arc::clone(known)))
    }

    /// It is private no longer.
    pub fn forget(&self, tree: &TreeName) {
        self.lock().remove(tree);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TreeName, Arc<PrivateTree>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Form {
    /// The name that the tree has at points.
    pub fn tree(&self, tree: &TreeName) -> TreeName {
        match self {
            Self::Plain => tree.clone(),
            Self::Sealed(private) => private.names.alias().clone(),
        }
    }

    /// The name that stands there for the tree's own, where it is private.
    pub fn alias(&self) -> Option<&TreeName> {
        match self {
            Self::Plain => None,
            Self::Sealed(private) => Some(private.names.alias()),
        }
    }

    /// The name that an object has at points.
    pub fn object(&self, object: &Object) -> Object {
        match self {
            Self::Plain => object.clone(),
            Self::Sealed(private) => private.names.object(object),
        }
    }

    /// What lies at a point of an object that `open` reads, is `length` bytes long and has that
    /// digest, as it is stored in the own store: a reader of it, its length and its digest. A private
    /// one is sealed for the generation `since`. Blocks.
    pub fn dressed<R: Read + Send + 'static>(
        &self,
        object: &Object,
        since: Version,
        open: &dyn Fn() -> io::Result<R>,
        (length, digest): (u64, Digest),
    ) -> Result<(Box<dyn Read + Send>, u64, Digest), Error> {
        let failed = |source| Error::Seal { object: object.to_string(), source };
        let Self::Sealed(private) = self else {
            return Ok((Box::new(open().map_err(failed)?), length, digest));
        };
        let key = private.key(since)?;
        let place = Place::Object(object.clone());
        let seal = || Sealer::new(open()?, &place, &private.names, (since, &key), &digest);
        let sealed = seal().and_then(digest_of).map_err(failed)?;
        Ok((Box::new(seal().map_err(failed)?), sealed_len(length), sealed))
    }

    /// The pointer as it lies at points.
    pub fn pointer(&self, tree: &TreeName, pointer: &[u8]) -> Result<Vec<u8>, Error> {
        let Self::Sealed(private) = self else { return Ok(pointer.to_vec()) };
        let (version, key) = private.names.pointer();
        let (place, digest) = (Place::Latest(tree.clone()), Digest::of(pointer));
        let failed = |source| Error::Seal { object: place.path(), source };
        let sealer = Sealer::new(pointer, &place, &private.names, (version, &key), &digest);
        let mut sealed = Vec::new();
        sealer.map_err(failed)?.read_to_end(&mut sealed).map_err(failed)?;
        Ok(sealed)
    }

    /// What a pointer that lies at a point says; `None` where it is none of this form.
    pub fn read_pointer(&self, tree: &TreeName, stored: &[u8]) -> Option<Vec<u8>> {
        let Self::Sealed(private) = self else { return Some(stored.to_vec()) };
        let place = Place::Latest(tree.clone());
        let mut opener = Opener::whole(&place, stored.len() as u64);
        let mut pointer = Vec::new();
        let key = |version| private.names.own_key(&place, version);
        let out = &mut |bytes: &[u8]| {
            pointer.extend_from_slice(bytes);
            Ok(())
        };
        opener.push(stored, &key, out).ok()?;
        opener.finish(out).ok()?;
        Some(pointer)
    }
}

fn digest_of(mut reader: impl Read) -> io::Result<Digest> {
    let mut digest = DigestWriter::new();
    let mut buffer = vec![0; 4 * (CHUNK + TAG) + HEADER_LEN];
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok(digest.finish()),
            read => digest.update(&buffer[..read]),
        }
    }
}
