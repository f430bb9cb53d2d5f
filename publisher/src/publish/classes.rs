//! Which files sites keep together.
//!
//! A group of small files is one frame, made against old versions of all of them. A site whose
//! filter leaves out one of them holds neither that file nor its old version, and can do nothing
//! with the frame. So a pack never mixes files that some site tells apart: a file's *class* is the
//! set of filters that keep it. Sites are many and classes few; the classes with the most bytes
//! stand alone, and the rest share one.

use std::collections::HashMap;

use protocol::{
    filter::{Filter, Level},
    manifest::Manifest,
    path::TreePath,
};
use tracing::warn;

/// Most classes of a pack.
const MAX_CLASSES: usize = 8;

/// The classes of one pack.
pub(super) struct Classes {
    filters: Vec<Filter>,
    numbers: HashMap<u32, u8>,
}

impl Classes {
    /// The classes that these filters make of what `manifest` holds.
    pub(super) fn of(filters: &[Vec<Level>], manifest: &Manifest) -> Self {
        let mut classes = Self { filters: Vec::new(), numbers: HashMap::new() };
        for levels in filters.iter().take(u32::BITS as usize) {
            match Filter::build(levels) {
                Ok(filter) => classes.filters.push(filter),
                // The coordinator checked it; a newer one may know rules that we do not.
                Err(error) => {
                    warn!(%error, "a site's filter is not understood; its packs may not fit")
                }
            }
        }
        if classes.filters.len() > 1 || classes.filters.iter().any(|filter| !filter.is_all()) {
            classes.number(manifest);
        }
        classes
    }

    /// The class of a path, below [`MAX_CLASSES`].
    pub(super) fn of_path(&self, path: &TreePath) -> u8 {
        if self.numbers.is_empty() {
            return 0;
        }
        let shared = MAX_CLASSES as u8 - 1;
        self.numbers.get(&self.kept_by(path)).copied().unwrap_or(shared)
    }

    fn number(&mut self, manifest: &Manifest) {
        let mut bytes: HashMap<u32, u64> = HashMap::new();
        for entry in manifest.entries().iter().filter(|entry| entry.is_file()) {
            *bytes.entry(self.kept_by(&entry.path)).or_default() += entry.size();
        }
        let mut largest: Vec<(u64, u32)> =
            bytes.into_iter().map(|(kept_by, bytes)| (bytes, kept_by)).collect();
        largest.sort_unstable_by(|a, b| b.cmp(a));
        largest.truncate(MAX_CLASSES - 1);
        self.numbers = largest.into_iter().map(|(_, kept_by)| kept_by).zip(0u8..).collect();
    }

    /// One bit for each filter that keeps the path.
    fn kept_by(&self, path: &TreePath) -> u32 {
        let bits = self.filters.iter().enumerate();
        bits.fold(0, |bits, (n, filter)| bits | u32::from(filter.keeps(path, false)) << n)
    }
}

#[cfg(test)]
mod tests {
    use protocol::{
        digest::Digest,
        filter::Origin,
        manifest::{Entry, EntryKind},
    };

    use super::*;

    fn path(text: &str) -> TreePath {
        TreePath::parse(text.as_bytes()).unwrap()
    }

    fn manifest(files: &[&str]) -> Manifest {
        let file = |text: &&str| Entry {
            path: path(text),
            mode: 0o644,
            mtime: 0,
            kind: EntryKind::File { size: 10, digest: Digest::of(b""), link_group: None },
        };
        Manifest::new(files.iter().map(file).collect()).unwrap()
    }

    fn filter(rules: &[&str]) -> Vec<Level> {
        vec![Level::rules(
            Origin::Assignment,
            "a",
            rules.iter().map(ToString::to_string).collect::<Vec<_>>(),
        )]
    }

    #[test]
    fn what_a_site_leaves_out_stands_apart() {
        let tree = manifest(&["a.c", "b.c", "c.md"]);
        let classes = Classes::of(&[filter(&[]), filter(&["- *.md"])], &tree);
        assert_eq!(classes.of_path(&path("a.c")), classes.of_path(&path("new.c")));
        assert_ne!(classes.of_path(&path("a.c")), classes.of_path(&path("c.md")));
    }

    #[test]
    fn sites_that_keep_everything_make_one_class() {
        let tree = manifest(&["a.c", "c.md"]);
        let classes = Classes::of(&[filter(&[])], &tree);
        assert_eq!(classes.of_path(&path("a.c")), classes.of_path(&path("c.md")));
    }

    #[test]
    fn there_are_never_more_classes_than_a_pack_may_have() {
        let names: Vec<String> = (0..20).map(|n| format!("f{n:02}")).collect();
        let tree = manifest(&names.iter().map(String::as_str).collect::<Vec<_>>());
        let filters: Vec<_> = names.iter().map(|name| filter(&[&format!("- {name}")])).collect();
        let classes = Classes::of(&filters, &tree);
        let all = names.iter().map(|name| classes.of_path(&path(name)));
        assert!(all.clone().all(|class| usize::from(class) < MAX_CLASSES));
        assert_eq!(all.collect::<std::collections::HashSet<_>>().len(), MAX_CLASSES);
    }
}
