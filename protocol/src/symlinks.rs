//! Which symbolic links a tree may have.
//!
//! A link is a path that somebody else wrote down, and whoever serves or copies a tree may follow it. So
//! by default a tree has only links that lead to a place within it, whatever lies there.

use serde::{Deserialize, Serialize};

use crate::path::TreePath;

/// Which symbolic links are carried. Others are left out and reported.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Symlinks {
    /// Those that are relative and stay within the tree.
    #[default]
    Inside,
    /// Those that are relative.
    Relative,
    /// All.
    All,
}

impl Symlinks {
    /// Whether a link at `link` may lead to `target`.
    ///
    /// `..` may stand at the beginning of a target alone: behind a name it goes up from wherever that
    /// name leads, which may be another link.
    pub fn allows(self, link: &TreePath, target: &[u8]) -> bool {
        match self {
            Self::All => true,
            Self::Relative => !target.starts_with(b"/"),
            Self::Inside => stays_inside(link, target),
        }
    }

    /// Why a link that is not allowed is left out.
    pub const fn why(self) -> &'static str {
        match self {
            Self::All => "a symbolic link",
            Self::Relative => {
                "a symbolic link to an absolute path (the tree's `symlinks` is \"relative\")"
            }
            Self::Inside => {
                "a symbolic link that may lead out of the tree (its `symlinks` is \"inside\")"
            }
        }
    }
}

fn stays_inside(link: &TreePath, target: &[u8]) -> bool {
    // Directories between the tree's root and the link: so often it may go up.
    let mut above = link.components().count().saturating_sub(1);
    let mut went_down = false;
    if target.starts_with(b"/") {
        return false;
    }
    for name in target.split(|byte| *byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." if went_down || above == 0 => return false,
            b".." => above -= 1,
            _ => went_down = true,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(policy: Symlinks, link: &str, target: &str) -> bool {
        policy.allows(&TreePath::parse(link.as_bytes()).unwrap(), target.as_bytes())
    }

    #[test]
    fn inside_means_relative_and_never_above_the_root_of_the_tree() {
        for (link, target) in [
            ("l", "f"),
            ("l", "."),
            ("l", "./d//f"),
            ("d/l", "../f"),
            ("d/l", ".."),
            ("a/b/l", "../../c/d"),
            ("l", "not-there"),
            ("l", "..."),
            ("l", "..f/g"),
        ] {
            assert!(allowed(Symlinks::Inside, link, target), "{link} -> {target}");
        }
        for (link, target) in [
            ("l", "/etc/passwd"),
            ("l", "/"),
            ("l", ".."),
            ("l", "../f"),
            ("d/l", "../../f"),
            ("d/l", "./../.././f"),
            ("a/b/l", "../../../c"),
            // Wherever `d` leads, this goes up from there.
            ("a/l", "d/../f"),
            ("a/l", "d/.."),
            ("a/l", "../d/../f"),
        ] {
            assert!(!allowed(Symlinks::Inside, link, target), "{link} -> {target}");
        }
    }

    #[test]
    fn relative_and_all_allow_more() {
        assert!(allowed(Symlinks::Relative, "l", "../../f"));
        assert!(!allowed(Symlinks::Relative, "l", "/f"));
        assert!(allowed(Symlinks::All, "l", "/f"));
    }

    proptest::proptest! {
        /// Against a walk through real components, without any link on the way.
        #[test]
        fn what_is_inside_never_leaves(
            link in "[a-c](/[a-c]){0,4}",
            target in "(/?(\\.\\.|\\.|[a-c]|)){1,8}",
        ) {
            let mut depth = link.split('/').count() as i64 - 1;
            let mut lowest = if target.starts_with('/') { -1 } else { depth };
            for name in target.split('/') {
                depth += match name { "" | "." => 0, ".." => -1, _ => 1 };
                lowest = lowest.min(depth);
            }
            let inside = allowed(Symlinks::Inside, &link, &target);
            proptest::prop_assert!(!inside || lowest >= 0, "{} -> {}", link, target);
        }
    }
}
