//! Who is given the key of a private tree.
//!
//! The same who may read the tree at its publisher, decided at the same moment by the same picture:
//! an agent with a live grant and an assignment that is carried out. It is given the key of a
//! generation only once that is announced, so that whoever loses the right opens nothing that comes
//! later. The publisher of the tree is given any: it makes what is to be opened.

use certs::private;
use protocol::{
    generation::{Epoch, Generation, Version},
    name::TreeName,
    role::Role,
    v1::{
        definitions::ApplyResult,
        keys::{SecretKey, TreeKey},
    },
};

use super::{
    App, Error, Picture, Refusal,
    admission::Caller,
    effective,
    picture::{PUBLISH, SECRET},
};
use crate::db::Topic;

impl App {
    /// The key of a tree for one generation; for the current one where none is named.
    pub async fn tree_key(
        &self,
        caller: &Caller,
        tree: &TreeName,
        wanted: Option<Version>,
    ) -> Result<TreeKey, Error> {
        let mut picture = self.picture();
        check_reader(&picture, caller, tree, self.now())?;
        if wanted > current(&picture, tree) && caller.role != Role::Publisher {
            // Announced at another replica, perhaps.
            picture = self.refresh().await?;
            check_reader(&picture, caller, tree, self.now())?;
        }
        let current = current(&picture, tree);
        let version = match (wanted, current) {
            (Some(wanted), _) if caller.role == Role::Publisher => wanted,
            (None, None) if caller.role == Role::Publisher => {
                Version { epoch: Epoch::FIRST, generation: Generation(1) }
            }
            (Some(wanted), Some(current)) if wanted <= current => wanted,
            (None, Some(current)) => current,
            (Some(wanted), _) => {
                let message = format!("there is no generation {wanted} of tree {tree} yet");
                return Err(Refusal::NotFound(message).into());
            }
            (None, None) => {
                let message = format!("there is no generation of tree {tree} yet");
                return Err(Refusal::NotFound(message).into());
            }
        };
        let secret = self.secret_of(tree, caller).await?;
        Ok(private::tree_key(&secret, tree, version))
    }

    /// Draws all keys of a private tree from another secret from now on. Its publisher brings
    /// everything to points anew, under other names; agents that may read it are given the new keys.
    pub async fn rotate_tree_secret(
        &self,
        caller: &Caller,
        tree: &TreeName,
    ) -> Result<ApplyResult, Error> {
        let unavailable = |error: certs::NoRandomness| Refusal::Unavailable(error.to_string());
        let new = private::new_secret().map_err(unavailable)?;
        let mut write = self.write().await?;
        let found = effective::tree(&write.before.wanted.definitions, tree);
        let found = found.ok_or_else(|| Refusal::NotFound(format!("there is no tree {tree}")))?;
        let Some(publisher) = found.publisher().filter(|_| found.private).cloned() else {
            let message = format!("tree {tree} is not private: it has no secret to exchange");
            return Err(Refusal::Conflict(message).into());
        };
        write.tx.replace_tree_secret(tree, &new, write.now).await?;
        write.tx.add_request(SECRET, tree.as_str()).await?;
        // The publisher comes to it at once.
        write.tx.add_request(PUBLISH, tree.as_str()).await?;
        let (now, by) = (write.now, caller.to_string());
        write.tx.audit(now, &by, "rotate-tree-secret", tree.as_str(), "").await?;
        let topics = [Topic::Definitions, Topic::Publisher(publisher)];
        let revision = self.commit(write, &topics).await?;
        Ok(ApplyResult { revision, dry_run: false, changes: vec![], warnings: vec![] })
    }

    async fn secret_of(&self, tree: &TreeName, caller: &Caller) -> Result<SecretKey, Error> {
        let mut tx = self.parts.database.read().await?;
        if let Some(secret) = tx.tree_secret(tree).await? {
            return Ok(secret);
        }
        drop(tx);
        let unavailable = |error: certs::NoRandomness| Refusal::Unavailable(error.to_string());
        let new = private::new_secret().map_err(unavailable)?;
        let mut write = self.write().await?;
        // Another one may have been first: what is stored then counts.
        if let Some(secret) = write.tx.tree_secret(tree).await? {
            return Ok(secret);
        }
        write.tx.add_tree_secret(tree, &new, write.now).await?;
        write
            .tx
            .audit(write.now, &caller.to_string(), "make-tree-secret", tree.as_str(), "")
            .await?;
        self.commit_quietly(write).await?;
        Ok(new)
    }
}

fn current(picture: &Picture, tree: &TreeName) -> Option<Version> {
    picture.contents.tree(tree).current().map(|current| current.version)
}

/// Whether the caller may have a key of the tree at all. The same for a tree that is not there, or
/// not private: nobody learns of others' trees.
fn check_reader(
    picture: &Picture,
    caller: &Caller,
    tree: &TreeName,
    now: jiff::Timestamp,
) -> Result<(), Refusal> {
    let merged = effective::tree(&picture.wanted.definitions, tree).filter(|tree| tree.private);
    let may = match caller.role {
        Role::Publisher => merged.is_some_and(|it| it.publisher() == Some(&caller.name)),
        Role::Agent => {
            let mut held = picture.assignments_of(&caller.name).iter();
            merged.is_some()
                && held.any(|name| {
                    let order = || picture.effective(name, now).map(|merged| merged.order);
                    name.tree == *tree && order().is_some_and(|order| order.stopped.is_none())
                })
        }
        _ => false,
    };
    if may {
        return Ok(());
    }
    Err(Refusal::Forbidden(format!(
        "{caller} is given no key of a private tree {tree}: it is for the tree's publisher, and for \
         agents of sites with a live grant and an assignment of it"
    )))
}
