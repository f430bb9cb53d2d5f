//! A site with one assignment, and trees written down as lists.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::Arc,
};

use protocol::{
    digest::Digest,
    generation::{Epoch, Generation, Version},
    manifest::{Entry, EntryKind, LinkGroup, Manifest},
    path::TreePath,
};

use super::super::*;
use crate::{
    fs::Fs,
    scan::{ScanOptions, ScanRecord, scan},
    switch::{SwitchOptions, SwitchReport, WantedMode},
};

/// The modification time of everything, unless a test says otherwise.
pub(crate) const LATER: i64 = 1_600_000_000_123_456_789;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
    File(String, u32, i64),
    /// Content, and the first path of its link group.
    Linked(String, String),
    Symlink(String),
    Dir(u32),
}

impl Node {
    pub(crate) fn file(content: &str) -> Self {
        Self::File(content.into(), 0o644, LATER)
    }

    fn content(&self) -> Option<&str> {
        match self {
            Self::File(content, ..) | Self::Linked(content, _) => Some(content),
            _ => None,
        }
    }
}

pub(crate) type Spec = BTreeMap<Vec<u8>, Node>;

pub(crate) fn path(text: &str) -> TreePath {
    TreePath::parse(text.as_bytes()).unwrap()
}

/// `name` is a file, `name/` a directory, and content that begins with `-> ` a symlink.
pub(crate) fn tree(list: &[(&str, &str)]) -> Spec {
    let node = |name: &str, content: &str| match content.strip_prefix("-> ") {
        Some(target) => Node::Symlink(target.into()),
        None if name.ends_with('/') => Node::Dir(0o755),
        None => Node::file(content),
    };
    list.iter()
        .map(|(name, content)| (name.trim_end_matches('/').into(), node(name, content)))
        .collect()
}

pub(crate) fn manifest(spec: &Spec) -> Arc<Manifest> {
    let mut entries = BTreeMap::new();
    for (name, node) in spec {
        let path = TreePath::parse(name).unwrap();
        for above in path.ancestors() {
            let dir =
                Entry { path: above.clone(), mode: 0o755, mtime: LATER, kind: EntryKind::Dir };
            entries.entry(above).or_insert(dir);
        }
        let file = |content: &str, link_group| EntryKind::File {
            size: content.len() as u64,
            digest: Digest::of(content.as_bytes()),
            link_group,
        };
        let (mode, mtime, kind) = match node {
            Node::File(content, mode, mtime) => (*mode, *mtime, file(content, None)),
            Node::Linked(content, first) => {
                let first = TreePath::parse(first.as_bytes()).unwrap();
                (0o644, LATER, file(content, Some(LinkGroup::of_first(&first))))
            }
            Node::Symlink(target) => {
                (0, LATER, EntryKind::Symlink { target: target.as_bytes().into() })
            }
            Node::Dir(mode) => (*mode, LATER, EntryKind::Dir),
        };
        entries.insert(path.clone(), Entry { path, mode, mtime, kind });
    }
    Arc::new(Manifest::new(entries.into_values().collect()).unwrap())
}

pub(crate) fn target(generation: u64, manifest: &Manifest) -> Target {
    Target {
        version: Version { epoch: Epoch(1), generation: Generation(generation) },
        manifest: manifest.digest(),
        note: String::new(),
    }
}

pub(crate) struct Site {
    temp: tempfile::TempDir,
    pub(crate) fs: Fs,
    pub(crate) have: Arc<Manifest>,
    pub(crate) generation: u64,
    pub(crate) now: i64,
    pub(crate) mode: WantedMode,
    /// Contents that had to come from elsewhere.
    pub(crate) fetched: usize,
    pub(crate) keep: fn(&TreePath, bool) -> bool,
}

impl Site {
    pub(crate) fn new() -> Self {
        Self::new_in(&std::env::temp_dir())
    }

    pub(crate) fn new_in(dir: &Path) -> Self {
        Self {
            temp: tempfile::tempdir_in(dir).unwrap(),
            fs: Fs::disk(),
            have: Arc::new(Manifest::empty()),
            generation: 0,
            now: 1_700_000_000,
            mode: WantedMode::Auto,
            fetched: 0,
            keep: crate::scan::keep_all,
        }
    }

    pub(crate) fn root(&self) -> &Path {
        self.temp.path()
    }

    pub(crate) fn live(&self) -> PathBuf {
        self.root().join("pub/linux")
    }

    pub(crate) fn place(&self) -> Place {
        place(self.root())
    }

    pub(crate) fn open(&self) -> Area {
        Area::open(&self.fs, self.place()).unwrap()
    }

    pub(crate) fn view(&self) -> View<'_> {
        View { keep: &self.keep, ..View::AS_IS }
    }

    /// Brings the site to the next generation.
    pub(crate) fn sync(&mut self, spec: Spec) -> SwitchReport {
        self.sync_as(spec, self.generation + 1)
    }

    pub(crate) fn sync_as(&mut self, spec: Spec, generation: u64) -> SwitchReport {
        let want = manifest(&spec);
        let mut area = self.open();
        let options =
            SwitchOptions { mode: self.mode, keep: &self.keep, ..SwitchOptions::new(self.now) };
        let (report, fetched) =
            run(&mut area, &self.have, &spec, generation, &options, self.view()).unwrap();
        self.fetched += fetched;
        self.have = want;
        self.generation = generation;
        report
    }

    /// Everything that is published is what the current generation says, and nothing else.
    pub(crate) fn check(&self) {
        assert_same(&self.read(), &self.have);
    }

    pub(crate) fn read(&self) -> Manifest {
        read(&self.live())
    }

    pub(crate) fn standbys(&self) -> usize {
        let names = std::fs::read_dir(self.root().join("work/fedora")).unwrap();
        let is_tree = |name: &str| name.starts_with("standby-") && !name.ends_with(".missed");
        names.filter(|e| is_tree(&e.as_ref().unwrap().file_name().to_string_lossy())).count()
    }
}

pub(crate) fn place(root: &Path) -> Place {
    Place {
        publish: root.join("pub"),
        work: root.join("work"),
        name: "fedora".into(),
        path: path("linux"),
    }
}

pub(crate) fn read(root: &Path) -> Manifest {
    read_on(&Fs::disk(), root)
}

pub(crate) fn read_on(fs: &Fs, root: &Path) -> Manifest {
    let dir = fs.open_root(root).unwrap();
    scan(&dir, &ScanRecord::empty(), &ScanOptions::new(i64::MAX)).unwrap().manifest
}

/// Plans, stages what is missing and switches, as an agent does; also says how many contents had
/// to be fetched.
pub(crate) fn run(
    area: &mut Area,
    have: &Manifest,
    spec: &Spec,
    generation: u64,
    options: &SwitchOptions<'_>,
    view: View<'_>,
) -> Result<(SwitchReport, usize), Error> {
    let want = manifest(spec);
    let plan = area.plan(have, view, &want, view)?;
    area.check_room(&plan)?;
    let mut fetched = stage(area, &plan.all_needs(), spec)?;
    loop {
        match area.switch(&plan, &target(generation, &want), options) {
            Err(Error::Missing(needs)) => fetched += stage(area, &needs, spec)?,
            other => return Ok((other?, fetched)),
        }
    }
}

pub(crate) fn stage(area: &Area, needs: &[crate::plan::Need], spec: &Spec) -> Result<usize, Error> {
    let contents: HashMap<Digest, &str> = match needs {
        [] => HashMap::new(),
        _ => spec
            .values()
            .filter_map(Node::content)
            .map(|content| (Digest::of(content.as_bytes()), content))
            .collect(),
    };
    let mut fetched = 0;
    for need in needs {
        if area.staging().has(need)? {
            continue;
        }
        let mut writer = area.staging().writer(need)?;
        writer.push(contents[&need.digest].as_bytes())?;
        writer.finish()?;
        fetched += 1;
    }
    Ok(fetched)
}

/// Compares two trees entry by entry, link groups apart: files with equal keys share inodes here.
pub(crate) fn assert_same(actual: &Manifest, expected: &Manifest) {
    let plain = |manifest: &Manifest| -> Vec<Entry> {
        let mut entries = manifest.entries().to_vec();
        for entry in &mut entries {
            if let EntryKind::File { link_group, .. } = &mut entry.kind {
                *link_group = None;
            }
        }
        entries
    };
    let (actual, expected) = (plain(actual), plain(expected));
    let wrong: Vec<_> = actual.iter().filter(|entry| !expected.contains(entry)).collect();
    let lacking: Vec<_> = expected.iter().filter(|entry| !actual.contains(entry)).collect();
    assert!(wrong.is_empty() && lacking.is_empty(), "there: {wrong:#?}\nwanted: {lacking:#?}");
}
