//! Secrets of private trees.

use jiff::Timestamp;
use protocol::{name::TreeName, v1::keys::SecretKey};

use super::{Error, Transaction, execute, row, to_micros};

impl Transaction {
    /// The secret of a tree, once it has one.
    pub async fn tree_secret(&mut self, tree: &TreeName) -> Result<Option<SecretKey>, Error> {
        let sql = "SELECT secret FROM tree_secrets WHERE tree = $1";
        let found = row!(self, (String,), sql, tree.as_str())?;
        let read = |(text,): (String,)| {
            SecretKey::from_hex(&text).map_err(|error| Error::corrupt("tree's secret", error))
        };
        found.map(read).transpose()
    }

    /// Gives a tree another secret; the one before is gone.
    pub async fn replace_tree_secret(
        &mut self,
        tree: &TreeName,
        secret: &SecretKey,
        now: Timestamp,
    ) -> Result<(), Error> {
        let replace = "INSERT INTO tree_secrets (tree, made, secret) VALUES ($1, $2, $3)
                       ON CONFLICT (tree) DO UPDATE SET made = $2, secret = $3";
        execute!(self, replace, tree.as_str(), to_micros(now), secret.hex()).map(drop)
    }

    /// Gives a tree a secret, unless it has one.
    pub async fn add_tree_secret(
        &mut self,
        tree: &TreeName,
        secret: &SecretKey,
        now: Timestamp,
    ) -> Result<(), Error> {
        let insert = "INSERT INTO tree_secrets (tree, made, secret) VALUES ($1, $2, $3)
                      ON CONFLICT (tree) DO NOTHING";
        execute!(self, insert, tree.as_str(), to_micros(now), secret.hex()).map(drop)
    }
}
