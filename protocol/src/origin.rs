//! Where things lie at a publication point: the paths below its base URL, and the rsync modules of
//! a publisher.
//!
//! ```text
//! /trees/T/latest                     signed statement of the newest generation (JSON envelope)
//! /trees/T/manifests/HEX              block list of a manifest, one zstd frame
//! /trees/T/blocks/HEX                 one block of a manifest, one zstd frame
//! /trees/T/packs/HEX                  a pack
//! /trees/T/objects/HEX                frames that several packs share
//! /trees/T/content/HEX/PATH           a file of the generation whose manifest is HEX (origin only)
//! ```
//!
//! Below `/signed`, a publisher answers for manifests, blocks, packs and objects with a redirect to a
//! bucket that is not public, by a URL that holds for a short while.
//!
//! Of a private tree, points besides the origin have the same under other names and encrypted: see
//! `certs::private`. Their paths have the same form.
//!
//! `HEX` is a digest's 64 digits: of the canonical bytes (before compression) for manifests and
//! blocks, of the stored bytes for packs and what they share. Only `latest` ever changes. A pack, manifest or block is
//! served as it is stored; the lengths to unpack to are in the statement and in the block list.
//! The rsync module `T@N` has the content of generation N.

pub mod asked;
#[cfg(feature = "serve")]
pub mod file;

use std::fmt;

use crate::{
    digest::Digest,
    generation::{Generation, TreeAt},
    name::TreeName,
    path::TreePath,
};

/// Comes before the path of an object whose bucket's URL is asked for.
pub const SIGNED: &str = "/signed";

/// What an object of a publication point is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A manifest's block list, compressed.
    Manifest,
    /// A block of manifests, compressed.
    Block,
    /// A pack.
    Pack,
    /// Frames that several packs share: a pack of one file.
    Object,
}

impl Kind {
    /// All kinds, in the order in which they are published.
    pub const ALL: [Self; 4] = [Self::Object, Self::Pack, Self::Block, Self::Manifest];

    /// The directory of the kind below its tree, also in URLs.
    pub const fn dir(self) -> &'static str {
        match self {
            Self::Manifest => "manifests",
            Self::Block => "blocks",
            Self::Pack => "packs",
            Self::Object => "objects",
        }
    }

    /// Whether an object's name is the digest of its stored bytes, not of what they unpack to.
    pub const fn is_named_as_stored(self) -> bool {
        matches!(self, Self::Pack | Self::Object)
    }
}

/// Names one object of a publication point.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Object {
    /// The tree that it belongs to.
    pub tree: TreeName,
    /// What it is.
    pub kind: Kind,
    /// Its name (see the [module](self) for what the digest is of).
    pub name: Digest,
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "trees/{}/{}/{}", self.tree, self.kind.dir(), self.name.hex())
    }
}

/// What every publication point may have, by its path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The pointer to the newest generation of a tree.
    Latest(TreeName),
    /// An object.
    Object(Object),
}

impl Place {
    /// Reads a path below a point's base URL; `None` for anything else.
    pub fn parse(path: &str) -> Option<Self> {
        let (tree, rest) = path.strip_prefix("/trees/")?.split_once('/')?;
        let tree: TreeName = tree.parse().ok()?;
        if rest == "latest" {
            return Some(Self::Latest(tree));
        }
        let (kind, name) = rest.split_once('/')?;
        let kind = Kind::ALL.into_iter().find(|known| known.dir() == kind)?;
        let name = Digest::from_hex(name).ok()?;
        Some(Self::Object(Object { tree, kind, name }))
    }

    /// The path below a point's base URL.
    pub fn path(&self) -> String {
        match self {
            Self::Latest(tree) => latest_path(tree),
            Self::Object(object) => format!("/{object}"),
        }
    }
}

/// Path of the pointer to the newest generation.
pub fn latest_path(tree: &TreeName) -> String {
    format!("/trees/{tree}/latest")
}

/// Path of a manifest's block list.
pub fn manifest_path(tree: &TreeName, manifest: &Digest) -> String {
    format!("/trees/{tree}/manifests/{}", manifest.hex())
}

/// Path of one block of a manifest.
pub fn block_path(tree: &TreeName, block: &Digest) -> String {
    format!("/trees/{tree}/blocks/{}", block.hex())
}

/// Path of a pack.
pub fn pack_path(tree: &TreeName, pack: &Digest) -> String {
    format!("/trees/{tree}/packs/{}", pack.hex())
}

/// Path of an object that has frames of several packs.
pub fn shared_path(tree: &TreeName, object: &Digest) -> String {
    format!("/trees/{tree}/objects/{}", object.hex())
}

/// Path of the whole content of a file in one generation.
pub fn content_path(tree: &TreeName, manifest: &Digest, path: &TreePath) -> String {
    format!("/trees/{tree}/content/{}/{}", manifest.hex(), url_path(path))
}

/// Name of the rsync module that has one generation of a tree.
pub fn rsync_module(tree: &TreeName, generation: Generation) -> String {
    TreeAt { tree: tree.clone(), generation }.to_string()
}

/// A path as it stands in a URL: every byte but letters, digits, `-`, `.`, `_`, `~` and `/` as
/// `%XX`.
pub fn url_path(path: &TreePath) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~' | b'/');
    path.as_bytes().iter().fold(String::with_capacity(path.as_bytes().len()), |mut out, &b| {
        if plain(b) {
            out.push(char::from(b));
        } else {
            out.push('%');
            out.push_str(&data_encoding::HEXUPPER.encode(&[b]));
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_from_its_path_and_nothing_else_is_one() {
        let (tree, name) = ("fedora".parse().unwrap(), Digest::of(b"x"));
        let paths = [
            latest_path(&tree),
            manifest_path(&tree, &name),
            block_path(&tree, &name),
            pack_path(&tree, &name),
            shared_path(&tree, &name),
        ];
        for path in paths {
            assert_eq!(Place::parse(&path).unwrap().path(), path);
        }
        let content = content_path(&tree, &name, &TreePath::parse(b"f").unwrap());
        let others =
            [content.as_str(), "/trees/fedora", "/trees/fedora/packs/00", "/trees/../latest"];
        for path in others {
            assert_eq!(Place::parse(path), None, "{path}");
        }
    }

    #[test]
    fn a_path_of_any_bytes_stands_in_a_url_and_comes_back() {
        let tree = "fedora".parse().unwrap();
        let manifest = Digest::of(b"m");
        let path = TreePath::parse(b"a b/100%/\xff\n\xc3\xa9?#~").unwrap();
        let url = content_path(&tree, &manifest, &path);
        let prefix = format!("/trees/fedora/content/{}/", manifest.hex());
        assert_eq!(url, format!("{prefix}a%20b/100%25/%FF%0A%C3%A9%3F%23~"));
        assert_eq!(TreePath::parse_text(&url[prefix.len()..]), Ok(path));
    }
}
