//! The apply path in this process: a mirror that switches as often as a test likes.

use std::{path::PathBuf, sync::Arc};

use filetree::{
    area::{Area, Place, Target},
    fs::Fs,
    plan::View,
    switch::SwitchOptions,
};
use protocol::{
    digest::Digest,
    generation::{Epoch, Generation, Version},
    manifest::{Entry, EntryKind, Manifest},
    path::TreePath,
};

const LATER: i64 = 1_600_000_000_000_000_000;

/// A directory in memory, where there is such: no power is lost here, and other writers' syncs are
/// not waited for.
pub(crate) fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// A published tree in which every file holds the number of its generation and filling.
pub(crate) struct Mirror {
    place: Place,
    files: u64,
    filling: usize,
    have: Arc<Manifest>,
    number: u64,
}

impl Mirror {
    pub(crate) fn new(root: PathBuf, files: u64, filling: usize) -> Self {
        let place = Place {
            publish: root.join("pub"),
            work: root.join("work"),
            name: "tree".into(),
            path: TreePath::parse(b"tree").unwrap(),
        };
        Self { place, files, filling, have: Arc::new(Manifest::empty()), number: 0 }
    }

    /// The name of a file.
    pub(crate) fn name(n: u64) -> String {
        format!("f{n:03}")
    }

    /// The content of every file of a generation.
    pub(crate) fn content(number: u64, n: u64, filling: usize) -> Vec<u8> {
        let line = format!("generation {number:08} of file {n:03}\n");
        line.as_bytes().iter().copied().cycle().take(line.len() + filling).collect()
    }

    /// Switches to the next generation.
    pub(crate) fn switch(&mut self) {
        self.number += 1;
        let now = i64::try_from(
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs(),
        )
        .unwrap();
        let contents: Vec<Vec<u8>> =
            (0..self.files).map(|n| Self::content(self.number, n, self.filling)).collect();
        let entries = contents.iter().zip(0..).map(|(content, n)| Entry {
            path: TreePath::parse(Self::name(n).as_bytes()).unwrap(),
            mode: 0o644,
            // Readers may go by time: each generation has its own.
            mtime: LATER + self.number as i64 * 1_000_000_000,
            kind: EntryKind::File {
                size: content.len() as u64,
                digest: Digest::of(content),
                link_group: None,
            },
        });
        let want = Arc::new(Manifest::new(entries.collect()).unwrap());
        let mut area = Area::open(&Fs::disk(), self.place.clone()).unwrap();
        let plan = area.plan(&self.have, View::AS_IS, &want, View::AS_IS).unwrap();
        for need in plan.needs() {
            let need = need.unwrap();
            let content = contents.iter().find(|content| Digest::of(content) == need.digest);
            let mut writer = area.staging().writer(&need).unwrap();
            writer.push(content.unwrap()).unwrap();
            writer.finish().unwrap();
        }
        let target = Target {
            version: Version { epoch: Epoch(1), generation: Generation(self.number) },
            manifest: want.digest(),
            note: String::new(),
        };
        let options = SwitchOptions { linger: 60, ..SwitchOptions::new(now) };
        area.switch(&plan, &target, &options).unwrap();
        self.have = want;
    }
}
