//! What a publisher asks the agent on its own host whose published trees it publishes further.
//!
//! A tree that one site brings from a stock rsync server reaches further sites by pack when a
//! publisher stands beside that site's agent (a *hub*). The agent knows what it published, and
//! when: the publisher need not wait until the tree has settled, nor read what the agent has
//! digested. Both talk over the agent's control socket, one line of JSON each way.

use serde::{Deserialize, Serialize};

use crate::{
    digest::Digest,
    manifest::{self, Block, BlockList, Manifest, StoredManifest},
    spec::AssignmentName,
};

/// Longest answer that is read, in bytes: a manifest of two million entries.
pub const MAX_ANSWER: u64 = 256 << 20;
/// Longest wait for news that is granted, in seconds.
pub const MAX_WAIT_SECONDS: u64 = 60;

/// A question, as it stands on the control socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "do")]
pub enum Question {
    /// What is published: answered by [`Published`].
    Published {
        /// The state that is known already: nothing is answered until there is another, or the
        /// wait is over.
        known: Option<Digest>,
        /// Longest wait, in seconds.
        wait: u64,
    },
    /// The manifest of what is published of one assignment: answered by [`Vouched`].
    Vouched {
        /// Which assignment.
        assignment: AssignmentName,
    },
}

/// What an agent has published, durably and verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Published {
    /// Names this state: it differs from that of every other.
    pub state: Digest,
    /// The trees.
    pub trees: Vec<PublishedTree>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PublishedTree {
    /// Which assignment.
    pub assignment: AssignmentName,
    /// The directory, as an absolute path; trees at paths that are not text are left out.
    pub root: String,
    /// The manifest of the generation that lies there.
    pub manifest: Digest,
    /// A run of it is under way: the directory may be about to change.
    pub busy: bool,
}

impl Published {
    /// Names the state of these trees.
    pub fn of(trees: Vec<PublishedTree>) -> Self {
        let text = serde_json::to_vec(&trees).unwrap_or_default();
        Self { state: Digest::of(&text), trees }
    }
}

/// A manifest with every block of it, in base64.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Vouched {
    list: String,
    blocks: Vec<String>,
}

/// An answer that holds no manifest.
#[derive(Debug, thiserror::Error)]
pub enum NotVouched {
    /// Not base64.
    #[error("the manifest is not written in base64")]
    Base64(#[from] data_encoding::DecodeError),
    /// The parts make no manifest.
    #[error(transparent)]
    Manifest(#[from] manifest::Error),
}

impl Vouched {
    /// The JSON of a manifest taken apart, one piece after the other: whoever tells it holds one block
    /// at a time. Ends after the first error.
    pub fn pieces(
        manifest: &StoredManifest,
    ) -> impl Iterator<Item = Result<String, manifest::Error>> {
        let list = data_encoding::BASE64.encode(&manifest.list().encode());
        let begin = format!(r#"{{"list":"{list}","blocks":["#);
        let blocks = manifest.each_block().enumerate().map(|(number, block)| {
            let separator = if number == 0 { "" } else { "," };
            let block = data_encoding::BASE64.encode(block?.bytes());
            Ok(format!(r#"{separator}"{block}""#))
        });
        std::iter::once(Ok(begin)).chain(blocks).chain(std::iter::once(Ok("]}".to_owned())))
    }

    /// Puts it together again.
    pub fn manifest(&self) -> Result<Manifest, NotVouched> {
        let decode = |text: &String| data_encoding::BASE64.decode(text.as_bytes());
        let list = BlockList::parse(&decode(&self.list)?)?;
        let mut blocks = Vec::with_capacity(self.blocks.len());
        for text in &self.blocks {
            blocks.push(Block::parse(decode(text)?)?);
        }
        Ok(Manifest::from_blocks(&list, &blocks)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        manifest::{Entry, EntryKind},
        path::TreePath,
    };

    #[test]
    fn a_manifest_survives_the_way_over_the_socket_and_damage_does_not() {
        let entry = |name: String| Entry {
            path: TreePath::parse(name.as_bytes()).unwrap(),
            mode: 0o644,
            mtime: 7,
            kind: EntryKind::File { size: 3, digest: Digest::of(b"abc"), link_group: None },
        };
        let entries = (0..20_000).map(|n| entry(format!("f{n:05}"))).collect();
        let manifest = Manifest::new(entries).unwrap();
        let blocks = manifest.blocks();
        let stored = StoredManifest::from(&manifest);
        let pieces: Vec<String> = Vouched::pieces(&stored).collect::<Result<_, _>>().unwrap();
        // What is held at a time is a block and no more: the rest is what stands around all blocks.
        assert!(blocks.len() > 2);
        assert_eq!(pieces.len(), blocks.len() + 2);
        let read: Vouched = serde_json::from_str(&pieces.concat()).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), pieces.concat());
        assert_eq!(read.manifest().unwrap(), manifest);
        let mut swapped = read.clone();
        swapped.blocks.swap(0, 1);
        assert!(swapped.manifest().is_err());
        let mut damaged = read;
        damaged.list.push('!');
        assert!(damaged.manifest().is_err());
    }

    #[test]
    fn an_empty_manifest_is_told_as_well() {
        let empty = StoredManifest::empty();
        let text: String = Vouched::pieces(&empty).collect::<Result<_, _>>().unwrap();
        let read: Vouched = serde_json::from_str(&text).unwrap();
        assert_eq!(read.manifest().unwrap(), Manifest::empty());
    }

    #[test]
    fn a_block_that_cannot_be_read_ends_what_is_told() {
        #[derive(Debug)]
        struct Lost;
        impl manifest::BlockSource for Lost {
            fn read(&self, block: &manifest::BlockRef) -> Result<Vec<u8>, manifest::Error> {
                Err(manifest::Error::Unreadable(block.digest.to_string()))
            }
        }
        let entry = Entry {
            path: TreePath::parse(b"f").unwrap(),
            mode: 0o644,
            mtime: 7,
            kind: EntryKind::File { size: 3, digest: Digest::of(b"abc"), link_group: None },
        };
        let list = Manifest::new(vec![entry]).unwrap().list();
        let lost = StoredManifest::new(list, std::sync::Arc::new(Lost));
        let told: Result<String, _> = Vouched::pieces(&lost).collect();
        assert!(matches!(told, Err(manifest::Error::Unreadable(_))));
    }

    #[test]
    fn every_change_of_what_is_published_is_another_state() {
        let tree = |manifest: &[u8], busy| PublishedTree {
            assignment: "fedora@lisbon".parse().unwrap(),
            root: "/srv/mirror/pub/fedora".into(),
            manifest: Digest::of(manifest),
            busy,
        };
        let states =
            [vec![], vec![tree(b"a", false)], vec![tree(b"b", false)], vec![tree(b"a", true)]]
                .map(|trees| Published::of(trees).state);
        for (at, state) in states.iter().enumerate() {
            assert!(!states[..at].contains(state));
        }
    }
}
