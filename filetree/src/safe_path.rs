//! Names that are safe to hand to the kernel, and links that stay where they belong.
//!
//! A [`TreePath`] cannot leave its tree by its text; this module adds what one directory
//! operation needs (a single component) and what a symlink's target may say.

use protocol::path::TreePath;

/// The name of a directory's marker file: a directory that holds one is never touched.
pub const PROTECTED: &[u8] = b"PROTECTED";

/// The name that work files use inside a published path that is a mount point; no manifest may
/// use it.
pub const WORK_DIR: &[u8] = b".mirrornet";

/// Whether `name` is one component: not empty, not `.` or `..`, no `/`, no NUL, <= 255 bytes.
pub fn is_component(name: &[u8]) -> bool {
    !name.is_empty()
        && name.len() <= TreePath::MAX_COMPONENT
        && name != b"."
        && name != b".."
        && !name.iter().any(|b| matches!(b, b'/' | 0))
}

/// Whether a path uses the name that is reserved for our own work.
pub fn is_reserved(path: &TreePath) -> bool {
    path.components().next() == Some(WORK_DIR)
}

/// Whether a symlink at `path` with this target, read as text, stays inside the tree: relative,
/// and never climbing above the root on its way.
pub fn link_stays_inside(path: &TreePath, target: &[u8]) -> bool {
    if target.is_empty() || target[0] == b'/' {
        return false;
    }
    let mut depth = path.components().count() - 1;
    for component in target.split(|&b| b == b'/') {
        match component {
            b"" | b"." => {}
            b".." if depth == 0 => return false,
            b".." => depth -= 1,
            _ => depth += 1,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_single_components_are_names() {
        for name in [&b"a"[..], b"...", b"\xff", b"a\nb", b"-rf", &[b'a'; 255]] {
            assert!(is_component(name), "{name:?}");
        }
        for name in [&b""[..], b".", b"..", b"a/b", b"/", b"a\0", &[b'a'; 256]] {
            assert!(!is_component(name), "{name:?}");
        }
    }

    #[test]
    fn links_that_climb_out_are_told_from_links_that_stay() {
        let at = |text: &str| TreePath::parse(text.as_bytes()).unwrap();
        for (path, target) in [("a", "b"), ("d/a", "../b"), ("d/e/a", "../../x/y"), ("a", "./b")] {
            assert!(link_stays_inside(&at(path), target.as_bytes()), "{path} -> {target}");
        }
        for (path, target) in
            [("a", "../b"), ("a", "/etc"), ("a", ""), ("d/a", "../../b"), ("d/a", "x/../../../b")]
        {
            assert!(!link_stays_inside(&at(path), target.as_bytes()), "{path} -> {target}");
        }
    }
}
