//! Where in the tree the operations of a block are, in few paths: so that whoever keeps a part of
//! the tree can tell blocks that do not concern it from those that may.

use crate::path::TreePath;

/// Most paths of a block.
pub(super) const MAX_PATHS: usize = 16;

/// Few paths such that each of `paths` is one of them or inside of one: as deep as so few can be.
/// None where even the topmost directories are too many.
pub(super) fn cover(paths: &[TreePath]) -> Vec<TreePath> {
    let mut cover = Vec::new();
    for depth in 1.. {
        let mut heads: Vec<&[u8]> = Vec::new();
        for head in paths.iter().map(|path| head(path, depth)) {
            // In path order, equal ones are neighbors.
            if heads.last() != Some(&head) {
                heads.push(head);
            }
            if heads.len() > MAX_PATHS {
                return cover;
            }
        }
        let deeper: Vec<TreePath> = heads.into_iter().filter_map(parsed).collect();
        let is_last = deeper == cover;
        cover = deeper;
        if is_last {
            break;
        }
    }
    cover
}

/// The first `depth` components of a path.
fn head(path: &TreePath, depth: usize) -> &[u8] {
    let bytes = path.as_bytes();
    let mut ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'/');
    ends.nth(depth - 1).map_or(bytes, |(end, _)| &bytes[..end])
}

/// A beginning of a path is a path.
fn parsed(head: &[u8]) -> Option<TreePath> {
    TreePath::parse(head).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covered(paths: &[&str]) -> Vec<String> {
        let paths: Vec<_> =
            paths.iter().map(|path| TreePath::parse(path.as_bytes()).unwrap()).collect();
        cover(&paths).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_cover_is_as_deep_as_few_paths_can_be() {
        assert_eq!(covered(&["a/b/c", "a/b/d"]), ["a/b/c", "a/b/d"]);
        let many: Vec<String> = (0..100).map(|n| format!("pool/m/f{n:03}")).collect();
        let mut many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(covered(&many), ["pool/m"]);
        many.push("top");
        assert_eq!(covered(&many), ["pool/m", "top"]);
        let flat: Vec<String> = (0..17).map(|n| format!("{n}/f")).collect();
        let flat: Vec<&str> = flat.iter().map(String::as_str).collect();
        assert!(covered(&flat).is_empty());
        assert_eq!(covered(&flat[..16]).len(), 16);
        assert!(covered(&[]).is_empty());
    }
}
