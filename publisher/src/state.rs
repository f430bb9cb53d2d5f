//! What all parts of a running publisher share.

use std::{path::PathBuf, sync::Arc};

use certs::live::LiveIdentity;
use filetree::fs::{Dir, Fs};
use jiff::Timestamp;
use protocol::{client::Client, name::TreeName};

use crate::{
    catalog::Catalog, config::Config, generate::Places, hub::Hub, orders::OrderKeeper,
    points::PrivateTrees, view::Views,
};

/// The clock; tests bring their own.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// What all parts of a running publisher share.
pub(crate) struct State {
    pub(crate) config: Config,
    pub(crate) fs: Fs,
    pub(crate) places: Places,
    pub(crate) views: Views,
    pub(crate) identity: Arc<LiveIdentity>,
    pub(crate) client: Client,
    pub(crate) orders: OrderKeeper,
    /// The agent on this host.
    pub(crate) hub: Arc<Hub>,
    pub(crate) catalog: Catalog,
    /// Names and keys of private trees.
    pub(crate) private: PrivateTrees,
    pub(crate) clock: Clock,
    /// Who compresses now, over all trees.
    pub(crate) turns: filetree::pack::write::Turns,
    /// The rsync program, if there is one that can be run.
    pub(crate) rsync: Option<Rsync>,
}

/// An rsync program.
#[derive(Debug, Clone)]
pub(crate) struct Rsync {
    pub(crate) program: PathBuf,
    pub(crate) version: String,
}

impl State {
    pub(crate) fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// The directory of one tree in the data directory.
    pub(crate) fn tree_dir(&self, tree: &TreeName) -> std::io::Result<Dir> {
        self.places.origin.tree(tree)
    }
}

/// An error with its causes, in one line; a refused certificate is explained first.
pub(crate) fn error_chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        // Some libraries repeat their source in their own text.
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    match certs::tls::refusal(error) {
        Some(refusal) => format!("{refusal}: {text}"),
        None => text,
    }
}
