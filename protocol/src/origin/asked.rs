//! What the path of a request means: [`super`]'s layout, read back.

use std::str::FromStr;

use super::{Object, Place};
use crate::{digest::Digest, name::TreeName, path::TreePath};

/// What lies at a path of the layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// The signed statement of the newest generation.
    Latest(TreeName),
    /// Something that its name never changes for.
    Object(Object),
    /// A file of a generation.
    Content {
        /// Whose.
        tree: TreeName,
        /// The generation's manifest.
        manifest: Digest,
        /// Which file.
        path: TreePath,
    },
}

/// It is no path of the layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there is no such thing at a publication point")]
pub struct NotInLayout;

impl Asked {
    /// Whose it is.
    pub fn tree(&self) -> &TreeName {
        match self {
            Self::Latest(tree) | Self::Content { tree, .. } => tree,
            Self::Object(object) => &object.tree,
        }
    }
}

impl FromStr for Asked {
    type Err = NotInLayout;

    fn from_str(path: &str) -> Result<Self, NotInLayout> {
        read(path).ok_or(NotInLayout)
    }
}

fn read(path: &str) -> Option<Asked> {
    match Place::parse(path) {
        Some(Place::Latest(tree)) => return Some(Asked::Latest(tree)),
        Some(Place::Object(object)) => return Some(Asked::Object(object)),
        None => {}
    }
    let (tree, rest) = path.strip_prefix("/trees/")?.split_once('/')?;
    let (manifest, path) = rest.strip_prefix("content/")?.split_once('/')?;
    let (tree, manifest) = (tree.parse().ok()?, Digest::from_hex(manifest).ok()?);
    Some(Asked::Content { tree, manifest, path: TreePath::parse_text(path).ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::origin::{self, Kind};

    #[test]
    fn what_the_layout_writes_is_read_back() {
        let tree: TreeName = "fedora".parse().unwrap();
        let name = Digest::of(b"x");
        let path = TreePath::parse(b"a b/\xff%/c").unwrap();
        let object = |kind| Asked::Object(Object { tree: tree.clone(), kind, name });
        let table = [
            (origin::latest_path(&tree), Asked::Latest(tree.clone())),
            (origin::manifest_path(&tree, &name), object(Kind::Manifest)),
            (origin::block_path(&tree, &name), object(Kind::Block)),
            (origin::pack_path(&tree, &name), object(Kind::Pack)),
            (origin::shared_path(&tree, &name), object(Kind::Object)),
            (
                origin::content_path(&tree, &name, &path),
                Asked::Content { tree: tree.clone(), manifest: name, path },
            ),
        ];
        for (text, expected) in table {
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn nothing_else_is_read() {
        let hex = Digest::of(b"x").hex();
        for path in [
            "",
            "/",
            "/healthz",
            "/trees/fedora",
            "/trees/fedora/",
            "/trees/../latest",
            "/trees/fedora/latest/",
            "/trees/fedora/state.json",
            "/signed/trees/fedora/latest",
            &format!("/trees/fedora/packs/{hex}/"),
            &format!("/trees/fedora/packs/{}", hex.to_uppercase()),
            &format!("/trees/fedora/content/{hex}/"),
            &format!("/trees/fedora/content/{hex}/../x"),
            &format!("/trees/fedora/content/{hex}/%2e%2e/x"),
            &format!("/trees/fedora/content/{hex}/a%00b"),
            &format!("/trees/fedora/content/{hex}//etc/passwd"),
            &format!("/trees/fedora/content/{hex}/%2fetc/passwd"),
        ] {
            assert_eq!(path.parse::<Asked>(), Err(NotInLayout), "{path}");
        }
    }
}
