//! What the tests of crashes, kills and errors do to a tree: updates of every kind.

use std::{
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
};

use protocol::manifest::Manifest;

use super::{model::*, *};
use crate::{
    plan::Need,
    scan::{ScanOptions, ScanRecord},
    switch::{KnownBad, SwitchReport},
};

/// Why an update failed.
pub(super) type Failed = Box<dyn std::error::Error + Send + Sync>;

/// One kind of update of one tree.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scenario {
    pub(super) name: &'static str,
    /// Generations that are there before.
    pub(super) before: u64,
    pub(super) mode: WantedMode,
    /// How the generations before it came, where it was another way.
    mode_before: Option<WantedMode>,
    /// Seconds between generations: long makes retired trees reusable.
    apart: i64,
    /// What other programs put into the published tree before the update.
    pub(super) local: &'static [(&'static str, &'static str)],
    /// Whether the tree was put there by another program, so that the update adopts it.
    pub(super) adopted: bool,
    /// After how many contents a batch is made durable; 0 leaves it to staging.
    pub(super) batch: usize,
    /// Few enough files to try every crash.
    pub(super) small: bool,
}

const PLAIN: Scenario = Scenario {
    name: "",
    before: 0,
    mode: WantedMode::Auto,
    mode_before: None,
    apart: 3600,
    local: &[],
    adopted: false,
    batch: 0,
    small: false,
};

/// Published behind a symbolic link.
const LINKED: Scenario = Scenario { mode: WantedMode::Symlink, ..PLAIN };

/// A file that belongs nowhere, and one that the filter excludes.
const STRAY: (&str, &str) = ("stray", "stray");
const EXCLUDED: (&str, &str) = ("deep/mine.local", "mine");

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario { name: "first", ..PLAIN },
    Scenario { name: "twin", before: 1, ..PLAIN },
    Scenario { name: "reused", before: 4, ..PLAIN },
    Scenario { name: "lingering", before: 4, apart: 1, ..PLAIN },
    Scenario { name: "in-place", before: 2, mode: WantedMode::InPlace, ..PLAIN },
    Scenario { name: "first-in-place", mode: WantedMode::InPlace, ..PLAIN },
    Scenario { name: "batches", before: 1, batch: 2, ..PLAIN },
    Scenario { name: "sweep", before: 4, local: &[STRAY, EXCLUDED], ..PLAIN },
    Scenario {
        name: "sweep-in-place",
        before: 2,
        mode: WantedMode::InPlace,
        local: &[STRAY, EXCLUDED, ("only-in-2/stray", "deep stray")],
        ..PLAIN
    },
    Scenario {
        name: "protected",
        before: 2,
        local: &[("deep/er/PROTECTED", ""), ("deep/er/own", "own")],
        ..PLAIN
    },
    Scenario { name: "adopted", before: 1, adopted: true, local: &[STRAY], ..PLAIN },
    Scenario {
        name: "adopted-in-place",
        before: 1,
        mode: WantedMode::InPlace,
        adopted: true,
        local: &[STRAY, EXCLUDED],
        ..PLAIN
    },
    Scenario { name: "linked-first", ..LINKED },
    Scenario { name: "linked-twin", before: 1, ..LINKED },
    Scenario { name: "linked-reused", before: 4, ..LINKED },
    Scenario { name: "linked-sweep", before: 4, local: &[STRAY, EXCLUDED], ..LINKED },
    Scenario { name: "linked-adopted", before: 1, adopted: true, local: &[STRAY], ..LINKED },
    Scenario { name: "to-a-link", before: 3, mode_before: Some(WantedMode::Auto), ..LINKED },
    Scenario { name: "from-a-link", before: 3, mode_before: Some(WantedMode::Symlink), ..PLAIN },
    Scenario { name: "small-linked", before: 3, small: true, ..LINKED },
    Scenario {
        name: "small-to-a-link",
        before: 2,
        mode_before: Some(WantedMode::Auto),
        small: true,
        ..LINKED
    },
    Scenario { name: "small-first", small: true, ..PLAIN },
    Scenario { name: "small-twin", before: 1, small: true, ..PLAIN },
    Scenario { name: "small-reused", before: 4, small: true, ..PLAIN },
    Scenario { name: "small-in-place", before: 2, mode: WantedMode::InPlace, small: true, ..PLAIN },
];

pub(super) fn scenario(name: &str) -> Scenario {
    *SCENARIOS.iter().find(|scenario| scenario.name == name).unwrap()
}

impl Scenario {
    /// Every generation changes contents, attributes and kinds, adds, removes and moves.
    pub(super) fn generation(&self, number: u64) -> Spec {
        if number == 0 {
            return tree(&[]);
        }
        let turn = number.is_multiple_of(2);
        let mode = if turn { 0o600 } else { 0o644 };
        let constant = Node::File("constant".into(), mode, LATER);
        if self.small {
            let mut spec = tree(&[
                ("same", "same"),
                ("changing", &format!("content {number}")),
                (if turn { "d/old" } else { "d/new" }, "moved"),
                if turn { ("kind", "a file") } else { ("kind/with", "content") },
            ]);
            spec.insert(b"attributes".to_vec(), constant);
            return spec;
        }
        let mut spec = tree(&[
            ("same", "same"),
            ("changing", &format!("content {number}")),
            ("deep/er/file", &format!("deep {}", number / 2)),
            ("deep/same", "same too"),
            (if turn { "old-name" } else { "new-name" }, "moved"),
            (&format!("only-in-{number}/x"), "x"),
            ("repodata/repomd.xml", &format!("index {number}")),
        ]);
        let kinds: &[(&str, &str)] = if turn {
            &[("kind", "a file"), ("other", "-> same")]
        } else {
            &[("kind/with", "content"), ("kind/and", "more"), ("other/in", "side")]
        };
        spec.extend(tree(kinds));
        spec.insert(b"attributes".to_vec(), constant);
        spec
    }

    /// The number of the generation that the update leads to.
    pub(super) fn after(&self) -> u64 {
        self.before + 1
    }

    /// Brings `root` to where the update begins.
    pub(super) fn prepare(&self, fs: &Fs, root: &Path) {
        if self.adopted {
            put_tree(fs, root, &self.generation(self.before));
        } else {
            for number in 1..=self.before {
                let mode = self.mode_before.unwrap_or(self.mode);
                Scenario { mode, ..*self }.update(fs, root, number, None).unwrap();
            }
        }
        for (path, content) in self.local {
            put_local(fs, root, path, content);
        }
    }

    /// One update, as an agent does it; also says how many contents had to be fetched.
    pub(super) fn update(
        &self,
        fs: &Fs,
        root: &Path,
        number: u64,
        bad: Option<KnownBad>,
    ) -> Result<(SwitchReport, usize), Failed> {
        self.update_counting(fs, root, number, bad, &|_| {})
    }

    /// [`Self::update`] that tells how many contents are durably staged whenever that grows.
    pub(super) fn update_counting(
        &self,
        fs: &Fs,
        root: &Path,
        number: u64,
        bad: Option<KnownBad>,
        sealed: &dyn Fn(usize),
    ) -> Result<(SwitchReport, usize), Failed> {
        let keep = is_kept;
        let mut area = Area::open(fs, place(root))?;
        let want = manifest(&self.generation(number));
        // The agent's ledger says which manifest was applied; here the number does.
        let applied = area.applied().map(|target| target.version.generation.0);
        let (have, view) = match applied {
            Some(applied) => {
                (manifest(&self.generation(applied)), View { keep: &keep, ..View::AS_IS })
            }
            None if area.is_published()? => {
                let view = View { keep: &keep, ..View::AS_IS };
                let scan = ScanOptions::new(i64::MAX);
                let adopted = area.adopt(&want, view, &ScanRecord::empty(), &scan)?;
                (Arc::new(adopted.have), View::AS_IS)
            }
            None => (Arc::new(Manifest::empty()), View::AS_IS),
        };
        let options = SwitchOptions {
            keep: &keep,
            mode: self.mode,
            bad,
            ..SwitchOptions::new(1_700_000_000 + number as i64 * self.apart)
        };
        let want_view = View { keep: &keep, ..View::AS_IS };
        let plan = area.plan(&have, view, &want, want_view)?;
        area.check_room(&plan)?;
        let spec = self.generation(number);
        let fetched = AtomicUsize::new(0);
        let fetch = |area: &Area, needs: &[Need]| -> Result<(), Error> {
            for chunk in needs.chunks(if self.batch == 0 { usize::MAX } else { self.batch }) {
                fetched.fetch_add(stage(area, chunk, &spec)?, Ordering::Relaxed);
                if self.batch > 0 {
                    area.staging().seal()?;
                    sealed(fetched.load(Ordering::Relaxed));
                }
            }
            Ok(())
        };
        fetch(&area, &plan.all_needs())?;
        loop {
            match area.switch(&plan, &target(number, &want), &options) {
                Err(Error::Missing(needs)) => fetch(&area, &needs)?,
                other => return Ok((other?, fetched.into_inner())),
            }
        }
    }

    /// Whether a path of the published tree is another program's.
    pub(super) fn is_local(&self, path: &[u8]) -> bool {
        self.local.iter().any(|(local, _)| local.as_bytes() == path)
    }

    /// Whether a PROTECTED file shields a path.
    pub(super) fn is_shielded(&self, path: &[u8]) -> bool {
        self.local.iter().filter_map(|(local, _)| local.strip_suffix("PROTECTED")).any(|dir| {
            path.starts_with(dir.as_bytes())
                || dir.strip_suffix('/').map(str::as_bytes) == Some(path)
        })
    }
}

pub(super) fn is_kept(path: &TreePath, _: bool) -> bool {
    !path.as_bytes().ends_with(b".local")
}

/// Makes the published tree as another mirror program would have left it.
fn put_tree(fs: &Fs, root: &Path, spec: &Spec) {
    let live = fs.create_root(&root.join("pub/linux")).unwrap();
    fs.create_root(&root.join("work")).unwrap();
    let want = manifest(spec);
    for entry in want.entries() {
        let parent = live.open_parent(&entry.path).unwrap();
        match (&entry.kind, spec.get(entry.path.as_bytes())) {
            (protocol::manifest::EntryKind::Symlink { target }, _) => {
                parent.symlink(entry.path.name(), target).unwrap();
                parent.set_mtime_of(entry.path.name(), entry.mtime).unwrap();
            }
            (_, Some(Node::File(content, ..))) => {
                let file = parent.create_file(entry.path.name()).unwrap();
                file.write_at(0, content.as_bytes()).unwrap();
                file.set_mode(entry.mode).unwrap();
                file.set_mtime(entry.mtime).unwrap();
            }
            _ => parent.make_dir(entry.path.name()).unwrap().set_mode(entry.mode).unwrap(),
        }
    }
    for entry in want.entries().iter().rev().filter(|entry| entry.is_dir()) {
        live.open_dir(&entry.path).unwrap().set_mtime(entry.mtime).unwrap();
    }
    live.sync_fs().unwrap();
}

/// Puts a file into the published tree, as an admin would; durably, and without a trace in the
/// times of the directory.
fn put_local(fs: &Fs, root: &Path, at: &str, content: &str) {
    let live = fs.open_root(&root.join("pub/linux")).unwrap();
    let at = path(at);
    let parent = live.open_parent(&at).unwrap();
    let time = parent.meta().unwrap().mtime;
    let file = parent.create_file(at.name()).unwrap();
    file.write_at(0, content.as_bytes()).unwrap();
    file.set_mode(0o644).unwrap();
    parent.set_mtime(time).unwrap();
    parent.sync_fs().unwrap();
}
