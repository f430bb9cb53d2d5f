//! A tree's secret, and what is drawn from it for whom.
//!
//! The coordinator keeps the secret and gives nobody but what was drawn from it: the key for names,
//! and keys of single generations. Whoever lost the right to a tree opens what it could have read
//! before, and nothing that was made later.

use protocol::{
    digest::{Digest, derive_key},
    generation::{Epoch, Generation, Version},
    name::{InvalidName, TreeName},
    origin::{Object, Place},
    v1::keys::{SecretKey, TreeKey},
};

use crate::{NoRandomness, random};

/// Digits of an alias.
const ALIAS_LEN: usize = 40;

/// A new tree's secret.
pub fn new_secret() -> Result<SecretKey, NoRandomness> {
    random().map(SecretKey::from_bytes)
}

/// What somebody is given who may read `tree` at `version`.
pub fn tree_key(secret: &SecretKey, tree: &TreeName, version: Version) -> TreeKey {
    TreeKey {
        tree: tree.clone(),
        version,
        names: drawn("mirrornet v1 private names", secret, tree.as_str().as_bytes()),
        key: generation_key(secret, tree, version),
    }
}

/// The key of what is made for one generation.
pub fn generation_key(secret: &SecretKey, tree: &TreeName, version: Version) -> SecretKey {
    let (epoch, generation) = (version.epoch.0.to_be_bytes(), version.generation.0.to_be_bytes());
    let bound = [&epoch[..], &generation, tree.as_str().as_bytes()].concat();
    drawn("mirrornet v1 private generation", secret, &bound)
}

fn drawn(purpose: &'static str, secret: &SecretKey, bound: &[u8]) -> SecretKey {
    SecretKey::from_bytes(derive_key(purpose, &[&secret.as_bytes()[..], bound].concat()))
}

/// How the objects of one private tree are called where anybody may read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    key: SecretKey,
    alias: TreeName,
}

impl Names {
    /// By the key that a [`TreeKey`] carries.
    ///
    /// # Errors
    /// None that can be met: the digits of an alias are a name like any other.
    pub fn new(key: SecretKey) -> Result<Self, InvalidName> {
        let alias = digest(&key, "alias", b"").hex()[..ALIAS_LEN].parse()?;
        Ok(Self { key, alias })
    }

    /// Stands for the tree's name.
    pub fn alias(&self) -> &TreeName {
        &self.alias
    }

    /// An object under its public name.
    pub fn object(&self, object: &Object) -> Object {
        let name = digest(&self.key, object.kind.dir(), object.name.as_bytes());
        Object { tree: self.alias.clone(), kind: object.kind, name }
    }

    /// Whatever a point may have, under its public name.
    pub fn place(&self, place: &Place) -> Place {
        match place {
            Place::Latest(_) => Place::Latest(self.alias.clone()),
            Place::Object(object) => Place::Object(self.object(object)),
        }
    }

    /// The key of the tree's pointer, which belongs to no generation: it says which is the newest.
    pub fn pointer(&self) -> (Version, SecretKey) {
        let key = derive_key("mirrornet v1 private pointer", self.key.as_bytes());
        let none = Version { epoch: Epoch(0), generation: Generation(0) };
        (none, SecretKey::from_bytes(key))
    }

    /// The key that opens what is at `place` under a header of `version`, where it is of no
    /// generation.
    pub fn own_key(&self, place: &Place, version: Version) -> Option<SecretKey> {
        let (none, key) = self.pointer();
        (matches!(place, Place::Latest(_)) && version == none).then_some(key)
    }

    pub(super) fn salt(&self, bytes: &Digest) -> Digest {
        digest(&self.key, "salt", bytes.as_bytes())
    }
}

fn digest(key: &SecretKey, what: &str, bytes: &[u8]) -> Digest {
    Digest::keyed(key.as_bytes(), &[what.as_bytes(), &[0], bytes].concat())
}
