//! What is served: the announced generations of each tree that are kept.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, PoisonError, RwLock},
};

use protocol::{digest::Digest, generation::Generation, manifest::BlockList, name::TreeName};

/// One generation that is served.
#[derive(Debug, Clone)]
pub struct Served {
    /// Its number.
    pub generation: Generation,
    /// Its manifest.
    pub manifest: Digest,
    /// The manifest's blocks.
    pub list: Arc<BlockList>,
    /// Whether its private tree shares content with the source.
    pub shared: bool,
}

/// One tree as it is served.
#[derive(Debug, Clone, Default)]
pub struct ServedTree {
    /// Generations with content, oldest first.
    pub generations: Vec<Served>,
    /// The tree's limit, as rsync's rules.
    pub limit: Vec<String>,
    /// Shared objects that packs to announced generations refer to.
    pub objects: HashSet<Digest>,
    /// Generations that were pointed to without the coordinator, which is to be told of them.
    pub untold: u64,
}

/// Every tree as it is served; replaced tree by tree.
#[derive(Debug, Default)]
pub struct Catalog(RwLock<HashMap<TreeName, Arc<ServedTree>>>);

impl Catalog {
    /// One tree.
    pub fn tree(&self, tree: &TreeName) -> Option<Arc<ServedTree>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(tree).cloned()
    }

    /// All trees, by name.
    pub fn trees(&self) -> BTreeMap<TreeName, Arc<ServedTree>> {
        let trees = self.0.read().unwrap_or_else(PoisonError::into_inner);
        trees.iter().map(|(name, tree)| (name.clone(), Arc::clone(tree))).collect()
    }

    /// Serves a tree from now on as given.
    pub fn set(&self, tree: TreeName, served: ServedTree) {
        let mut trees = self.0.write().unwrap_or_else(PoisonError::into_inner);
        trees.insert(tree, Arc::new(served));
    }

    /// Serves a tree no longer.
    pub fn remove(&self, tree: &TreeName) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(tree);
    }
}

impl ServedTree {
    /// The generation with this manifest, the newest if there are several.
    pub fn with_manifest(&self, manifest: &Digest) -> Option<&Served> {
        self.generations.iter().rev().find(|served| served.manifest == *manifest)
    }
}
