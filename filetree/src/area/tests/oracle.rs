//! What must hold after a crash, a kill or an error: judged by looking at the disk, not by asking
//! the code that is tested.

use std::{collections::BTreeMap, os::unix::ffi::OsStrExt, path::Path};

use protocol::manifest::EntryKind;

use super::{model::*, scenario::Scenario, *};
use crate::fs::memory::Seen;

/// Everything below a directory, by path.
pub(super) type Listing = BTreeMap<Vec<u8>, Seen>;

/// Three retired trees are kept beyond their linger, and one more that a crash left and the next
/// switch collects.
const MOST_TREES: u64 = 4;

const LIVE: &[u8] = b"pub/linux";

/// Judges what one scenario left.
pub(super) struct Oracle {
    scenario: Scenario,
    old: Listing,
    new: Listing,
}

impl Oracle {
    pub(super) fn new(scenario: Scenario) -> Self {
        let expected = |number| {
            let mut expected = expected(&scenario.generation(number));
            expected.retain(|path, _| !scenario.is_shielded(path));
            expected
        };
        Self { scenario, old: expected(scenario.before), new: expected(scenario.after()) }
    }

    /// What is wrong with a volume at any moment, if anything is; `reported` says whether success
    /// was reported before.
    pub(super) fn violation(&self, volume: &Listing, reported: bool) -> Option<String> {
        let Some(mut now) = self.published(volume) else {
            let lost = self.scenario.before > 0 || reported;
            return lost.then(|| "nothing is published any more".to_owned());
        };
        if let Some(lost) = self.lost_local(volume) {
            return Some(lost);
        }
        self.forgive_times(&mut now);
        if reported && let Some(wrong) = self.is_not_new(&now) {
            return Some(format!("success was reported, and {wrong}"));
        }
        if self.scenario.mode == WantedMode::InPlace {
            return self.torn(&now);
        }
        let new = self.is_not_new(&now)?;
        if self.scenario.before == 0 && self.scenario.mode != WantedMode::InPlace {
            return Some(format!("the first generation is there in part: {new}"));
        }
        let old = difference(&now, &self.old)?;
        Some(format!("a mix: not the old generation ({old}), nor the new ({new})"))
    }

    /// What is wrong with a volume after recovery and a further update that said it succeeded.
    pub(super) fn unfinished(&self, volume: &Listing) -> Option<String> {
        let Some(now) = self.published(volume) else { return Some("nothing is published".into()) };
        if let Some(wrong) = self.is_not_new(&now) {
            return Some(format!("the update did not come to its end: {wrong}"));
        }
        for (path, content) in self.scenario.local {
            let name = path.rsplit('/').next().unwrap_or_default().as_bytes();
            let there = copies(volume, name, content.as_bytes());
            if there != 1 {
                return Some(format!("local {path} is there {there} times"));
            }
            let excluded = path.ends_with(".local");
            let live = live(volume);
            if excluded && !volume.contains_key(&[&live, &b"/"[..], path.as_bytes()].concat()) {
                return Some(format!("excluded {path} is not in its place"));
            }
        }
        let is_tree = |path: &&Vec<u8>| {
            let places = [&b"work/fedora/standby-"[..], b"pub/.mirrornet/trees/linux/standby-"];
            let number = places.iter().find_map(|place| path.strip_prefix(*place));
            number.is_some_and(|number| number.iter().all(u8::is_ascii_digit))
                && **path != live(volume)
        };
        let trees = volume.keys().filter(is_tree).count() as u64;
        if trees > MOST_TREES.max(self.scenario.after()) {
            return Some(format!("{trees} trees were left in the work directory"));
        }
        let staged = |path: &Vec<u8>| {
            path.strip_prefix(b"work/fedora/staging/")
                .is_some_and(|name| !name.starts_with(b"batches"))
        };
        let is_linked = self.scenario.mode == WantedMode::Symlink;
        if is_linked != (live(volume) != LIVE) {
            return Some("a link was to be made or taken away".to_owned());
        }
        if !is_linked
            && let Some(left) = volume.keys().find(|path| path.starts_with(b"pub/.mirrornet"))
        {
            return Some(format!("{} was left", String::from_utf8_lossy(left)));
        }
        let left = volume.keys().find(|path| staged(path))?;
        Some(format!("{} was not collected", String::from_utf8_lossy(left)))
    }

    /// What keeps a published tree from being the new generation. What lay there when it was
    /// adopted may stay: it is held until somebody decides.
    fn is_not_new(&self, now: &Listing) -> Option<String> {
        if !self.scenario.adopted {
            return difference(now, &self.new);
        }
        let mut now = now.clone();
        now.retain(|path, what| self.new.contains_key(path) || self.old.get(path) != Some(what));
        difference(&now, &self.new)
    }

    /// Local content on its way changes the times of the directories that it leaves or comes to;
    /// they are put right in the end.
    fn forgive_times(&self, now: &mut Listing) {
        for (local, _) in self.scenario.local {
            for above in path(local).ancestors() {
                if let (Some(Seen::Dir(_, time)), Some(Seen::Dir(_, wanted))) =
                    (now.get_mut(above.as_bytes()), self.new.get(above.as_bytes()))
                {
                    *time = *wanted;
                }
            }
        }
    }

    /// The published tree without what is another program's.
    fn published(&self, volume: &Listing) -> Option<Listing> {
        let live = live(volume);
        if !matches!(volume.get(&live), Some(Seen::Dir(..))) {
            return None;
        }
        let prefix = [&live, &b"/"[..]].concat();
        let below =
            volume.range(prefix.clone()..).take_while(|(path, _)| path.starts_with(&prefix));
        let ours = below.filter_map(|(path, seen)| {
            let path = &path[prefix.len()..];
            let ours = !self.scenario.is_local(path) && !self.scenario.is_shielded(path);
            ours.then(|| (path.to_vec(), seen.clone()))
        });
        Some(ours.collect())
    }

    fn lost_local(&self, volume: &Listing) -> Option<String> {
        let lost = |(path, content): &&(&str, &str)| {
            let name = path.rsplit('/').next().unwrap_or_default().as_bytes();
            copies(volume, name, content.as_bytes()) == 0
        };
        if let Some((path, _)) = self.scenario.local.iter().find(lost) {
            return Some(format!("local {path} is lost"));
        }
        let held = self
            .old
            .iter()
            .filter(|(path, _)| self.scenario.adopted && !self.new.contains_key(*path));
        for (path, what) in held {
            let name = path.rsplit(|&b| b == b'/').next().unwrap_or_default();
            if let Seen::File(bytes, ..) = what
                && copies(volume, name, bytes) == 0
            {
                return Some(format!("{} was there before and is lost", show(path, what)));
            }
        }
        None
    }

    /// In place every file is whole, and what both generations have is never gone.
    fn torn(&self, now: &Listing) -> Option<String> {
        let is_file = |seen: &&Seen| !matches!(seen, Seen::Dir(..));
        for (path, what) in now.iter().filter(|(_, what)| is_file(what)) {
            if ![self.old.get(path), self.new.get(path)].contains(&Some(what)) {
                return Some(format!("{} is neither old nor new", show(path, what)));
            }
        }
        let stays = |(path, what): &(&Vec<u8>, &Seen)| {
            self.scenario.before > 0 && is_file(what) && self.new.get(*path) == Some(*what)
        };
        let gone = self.old.iter().filter(stays).find(|(path, _)| !now.contains_key(*path));
        gone.map(|(path, what)| format!("{} is gone, and should not change", show(path, what)))
    }
}

/// Where a reader finds the published tree: at its path, or where the link there leads.
fn live(volume: &Listing) -> Vec<u8> {
    match volume.get(LIVE) {
        Some(Seen::Symlink(target)) => [b"pub/", target.as_slice()].concat(),
        _ => LIVE.to_vec(),
    }
}

/// What a tree looks like when it is exactly this.
fn expected(spec: &Spec) -> Listing {
    let manifest = manifest(spec);
    let seen = manifest.entries().iter().map(|entry| {
        let seen = match (&entry.kind, spec.get(entry.path.as_bytes())) {
            (EntryKind::Symlink { target }, _) => Seen::Symlink(target.to_vec()),
            (_, Some(Node::File(content, ..) | Node::Linked(content, _))) => {
                Seen::File(content.clone().into_bytes(), entry.mode, entry.mtime)
            }
            _ => Seen::Dir(entry.mode, entry.mtime),
        };
        (entry.path.as_bytes().to_vec(), seen)
    });
    seen.collect()
}

/// The first difference between two trees, in words; attributes of directories count.
fn difference(now: &Listing, wanted: &Listing) -> Option<String> {
    let wrong = now.iter().find(|(path, what)| wanted.get(*path) != Some(*what));
    if let Some((path, what)) = wrong {
        return Some(match wanted.get(path) {
            None => format!("{} should not be there", show(path, what)),
            Some(wanted) => format!("{} should be {wanted:?}", show(path, what)),
        });
    }
    let missing = wanted.iter().find(|(path, _)| !now.contains_key(*path));
    missing.map(|(path, what)| format!("{} is missing", show(path, what)))
}

fn show(path: &[u8], what: &Seen) -> String {
    format!("{} ({what:?})", String::from_utf8_lossy(path))
}

fn copies(volume: &Listing, name: &[u8], content: &[u8]) -> usize {
    let is_copy = |(path, seen): &(&Vec<u8>, &Seen)| {
        path.rsplit(|&b| b == b'/').next() == Some(name)
            && matches!(seen, Seen::File(bytes, ..) if bytes == content)
    };
    volume.iter().filter(is_copy).count()
}

/// Lists a directory of a real disk.
pub(super) fn list(root: &Path) -> Listing {
    use std::os::unix::fs::MetadataExt;
    let mut listing = Listing::new();
    for entry in walkdir::WalkDir::new(root).min_depth(1) {
        let entry = entry.unwrap();
        let path = entry.path().strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec();
        let meta = entry.metadata().unwrap();
        let mtime = meta.mtime() * 1_000_000_000 + meta.mtime_nsec();
        let mode = meta.mode() & 0o7777;
        let seen = if meta.is_dir() {
            Seen::Dir(mode, mtime)
        } else if meta.is_symlink() {
            Seen::Symlink(std::fs::read_link(entry.path()).unwrap().as_os_str().as_bytes().into())
        } else {
            Seen::File(std::fs::read(entry.path()).unwrap(), mode, mtime)
        };
        listing.insert(path, seen);
    }
    listing
}
