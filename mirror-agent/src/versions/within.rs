//! Manifests of versions as parts of the tree's, and parts of the tree's as manifests of versions.
//!
//! Nothing here is held in memory beside the manifests themselves, which lie on the disk.

use std::{collections::BTreeMap, fmt::Debug, ops::Deref, sync::Arc};

use protocol::{
    digest::Digest,
    manifest::{
        self, Chosen, Each, Entries, Entry, EntryKind, Positions, StoredManifest, write_blocks,
    },
    path::TreePath,
};

use super::Shown;

/// A version's manifest as it lies in the tree: below its name, which comes first.
#[derive(Debug, Clone)]
pub struct Within<M> {
    top: Entry,
    manifest: M,
}

/// A version's manifest below its name, where nothing else is known of the version.
pub fn within<M>(manifest: M, name: &TreePath) -> Within<M> {
    Within::of(&Shown { name: name.clone(), mode: 0o755, mtime: 0 }, manifest)
}

impl<M> Within<M> {
    fn of(Shown { name, mode, mtime }: &Shown, manifest: M) -> Self {
        let (path, mode, mtime) = (name.clone(), *mode, *mtime);
        Self { top: Entry { path, mode, mtime, kind: EntryKind::Dir }, manifest }
    }

    /// As the tree names it; `None` where its path is too long to be one.
    fn named(&self, entry: Entry) -> Option<Entry> {
        let path = self.top.path.child(entry.path.as_bytes()).ok()?;
        Some(Entry { path, ..entry })
    }
}

impl<M: Deref<Target: Entries> + Debug + Send + Sync> Entries for Within<M> {
    fn count(&self) -> u64 {
        1 + self.manifest.count()
    }

    fn each(&self) -> Each<'_> {
        let inside = self.manifest.each().filter_map(|entry| match entry {
            Ok(entry) => self.named(entry).map(Ok),
            Err(error) => Some(Err(error)),
        });
        Box::new(std::iter::once(Ok(self.top.clone())).chain(inside))
    }

    fn locate(&self, path: &TreePath) -> Result<Option<(u64, Entry)>, manifest::Error> {
        if *path == self.top.path {
            return Ok(Some((0, self.top.clone())));
        }
        let Some(inside) = path.below(&self.top.path) else { return Ok(None) };
        let found = self.manifest.locate(&inside)?;
        Ok(found.and_then(|(at, entry)| Some((at + 1, self.named(entry)?))))
    }

    fn numbered(&self, number: u64) -> Result<Option<Entry>, manifest::Error> {
        match number.checked_sub(1) {
            None => Ok(Some(self.top.clone())),
            Some(number) => Ok(self.manifest.numbered(number)?.and_then(|entry| self.named(entry))),
        }
    }

    fn chosen<'a>(&'a self, positions: Positions<'a>) -> Chosen<'a> {
        let mut positions = positions.peekable();
        let top = positions.next_if_eq(&0).map(|_| Ok((0, self.top.clone())));
        let inside = self.manifest.chosen(Box::new(positions.map(|position| position - 1)));
        let named = inside.filter_map(|found| match found {
            Ok((at, entry)) => self.named(entry).map(|entry| Ok((at + 1, entry))),
            Err(error) => Some(Err(error)),
        });
        Box::new(top.into_iter().chain(named))
    }
}

/// Versions with their manifests, which together are one: each below its own name.
#[derive(Debug, Clone, Default)]
pub struct Union {
    parts: BTreeMap<TreePath, Within<Arc<StoredManifest>>>,
}

impl Union {
    /// Replaces or adds one version.
    pub fn insert(&mut self, shown: &Shown, manifest: StoredManifest) {
        self.parts.insert(shown.name.clone(), Within::of(shown, Arc::new(manifest)));
    }

    /// The digests of the versions' manifests.
    pub fn digests(&self) -> impl Iterator<Item = Digest> {
        self.parts.values().map(|part| part.manifest.digest())
    }

    /// The digest of all of it. Reads all of it.
    pub fn digest(&self) -> Result<Digest, manifest::Error> {
        Ok(write_blocks(self.each(), |_| Ok(()))?.digest())
    }

    /// The version that has a path.
    fn part(&self, path: &TreePath) -> Option<&Within<Arc<StoredManifest>>> {
        let (name, part) = self.parts.range(..=path).next_back()?;
        (name == path || path.is_inside(name)).then_some(part)
    }
}

/// Finding is cheap; positions cost a look at every version.
impl Entries for Union {
    fn count(&self) -> u64 {
        self.parts.values().map(Entries::count).sum()
    }

    fn each(&self) -> Each<'_> {
        Box::new(self.parts.values().flat_map(Entries::each))
    }

    fn find(&self, path: &TreePath) -> Result<Option<Entry>, manifest::Error> {
        self.part(path).map_or(Ok(None), |part| part.find(path))
    }

    fn locate(&self, path: &TreePath) -> Result<Option<(u64, Entry)>, manifest::Error> {
        let Some(part) = self.part(path) else { return Ok(None) };
        let before = self.parts.range(..&part.top.path).map(|(_, part)| part.count());
        let before: u64 = before.sum();
        Ok(part.locate(path)?.map(|(at, entry)| (before + at, entry)))
    }

    fn numbered(&self, number: u64) -> Result<Option<Entry>, manifest::Error> {
        let mut number = number;
        for part in self.parts.values() {
            match number.checked_sub(part.count()) {
                Some(beyond) => number = beyond,
                None => return part.numbered(number),
            }
        }
        Ok(None)
    }

    fn chosen<'a>(&'a self, positions: Positions<'a>) -> Chosen<'a> {
        Box::new(positions.filter_map(|position| {
            let found = self.numbered(position).transpose()?;
            Some(found.map(|entry| (position, entry)))
        }))
    }
}

/// The entries of a tree's manifest that are one version, as seen from there.
pub fn part<'m>(
    manifest: &'m StoredManifest,
    name: &'m TreePath,
) -> Result<impl Iterator<Item = Result<Entry, manifest::Error>> + 'm, manifest::Error> {
    let count = manifest.count();
    let first = manifest.locate(name)?.map_or(count, |(position, _)| position + 1);
    let found = manifest.chosen(Box::new(first..count));
    Ok(found.map_while(|found| match found {
        Ok((_, entry)) => {
            let path = entry.path.below(name)?;
            Some(Ok(Entry { path, ..entry }))
        }
        Err(error) => Some(Err(error)),
    }))
}

#[cfg(test)]
mod tests {
    use protocol::manifest::Manifest;

    use super::*;

    fn path(text: &str) -> TreePath {
        TreePath::parse(text.as_bytes()).unwrap()
    }

    fn entry(text: &str) -> Entry {
        let kind = match text.rsplit('/').next().is_some_and(|name| name.starts_with('f')) {
            true => {
                EntryKind::File { size: 1, digest: Digest::of(text.as_bytes()), link_group: None }
            }
            false => EntryKind::Dir,
        };
        Entry { path: path(text), mode: 0o755, mtime: 0, kind }
    }

    fn manifest(texts: &[&str]) -> Manifest {
        Manifest::new(texts.iter().map(|text| entry(text)).collect()).unwrap()
    }

    fn shown(name: &str) -> Shown {
        Shown { name: path(name), mode: 0o755, mtime: 0 }
    }

    /// All ways of asking say the same as a manifest in memory.
    fn assert_same(found: &dyn Entries, expected: &Manifest) {
        assert_eq!(found.count(), expected.count());
        let each: Result<Vec<Entry>, _> = found.each().collect();
        let paths = |entries: &[Entry]| -> Vec<_> {
            entries.iter().map(|entry| entry.path.to_string()).collect()
        };
        assert_eq!(paths(&each.unwrap()), paths(expected.entries()));
        for (number, entry) in (0..).zip(expected.entries()) {
            let found_entry = found.find(&entry.path).unwrap().unwrap();
            assert_eq!(found_entry.path, entry.path);
            let (position, _) = found.locate(&entry.path).unwrap().unwrap();
            assert_eq!(position, number);
            assert_eq!(found.numbered(number).unwrap().unwrap().path, entry.path);
        }
        for other in ["0", "a/g", "ab", "b/d/fz", "z"] {
            assert_eq!(found.find(&path(other)).unwrap(), None, "{other}");
            assert_eq!(found.locate(&path(other)).unwrap(), None, "{other}");
        }
        for first in 0..=expected.count() {
            let some = || Box::new((first..expected.count() + 2).step_by(2));
            let asked = |entries: &dyn Entries| -> Vec<_> {
                let found = entries.chosen(some()).map(|found| found.unwrap());
                found.map(|(at, entry)| (at, entry.path)).collect()
            };
            assert_eq!(asked(found), asked(expected));
        }
        assert_eq!(found.numbered(expected.count()).unwrap(), None);
    }

    #[test]
    fn versions_make_one_manifest_and_come_out_of_it_again() {
        let (one, two) = (manifest(&["d", "d/f1", "f"]), manifest(&["f2"]));
        let mut union = Union::default();
        union.insert(&shown("b"), (&one).into());
        union.insert(&shown("a"), (&two).into());
        union.insert(&shown("a.empty"), StoredManifest::empty());
        let expected = manifest(&["a", "a/f2", "a.empty", "b", "b/d", "b/d/f1", "b/f"]);
        assert_same(&union, &expected);
        let whole = StoredManifest::from(
            Manifest::new(union.each().map(Result::unwrap).collect()).unwrap(),
        );
        assert_eq!(union.digest().unwrap(), whole.digest());
        for (name, inside) in
            [("a", &two), ("b", &one), ("a.empty", &manifest(&[])), ("c", &manifest(&[]))]
        {
            let name = path(name);
            let found: Result<Vec<Entry>, _> = part(&whole, &name).unwrap().collect();
            assert_eq!(found.unwrap(), inside.entries(), "{name}");
        }
    }

    #[test]
    fn a_version_is_seen_below_its_name_and_what_is_too_long_there_is_left_out() {
        let one = manifest(&["d", "d/f1", "f"]);
        assert_same(&within(&one, &path("b")), &manifest(&["b", "b/d", "b/d/f1", "b/f"]));
        // The longest path there is, and the directories above it.
        let longest = vec!["d".repeat(255); 16].join("/");
        let mut dirs: Vec<TreePath> = path(&longest).ancestors().collect();
        dirs.reverse();
        dirs.sort();
        dirs.push(path(&longest));
        let dir = |path| Entry { path, mode: 0o755, mtime: 0, kind: EntryKind::Dir };
        let deep = Manifest::new(dirs.into_iter().map(dir).collect()).unwrap();
        let name = path("b");
        let seen = within(&deep, &name);
        assert_eq!(seen.each().count() as u64, deep.count());
        assert_eq!(seen.numbered(deep.count()).unwrap(), None);
    }
}
