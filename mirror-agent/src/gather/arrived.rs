//! Contents by direct rsync: what it left in its directory is verified and moved into staging.

use std::{
    io,
    path::{Path, PathBuf},
    time::Instant,
};

use filetree::{fs::Dir, plan::Need};
use protocol::transfer::{NoDelta, Way};
use tokio::task::block_in_place;

use super::{Error, Failures, Gather, Pending, sums};
use crate::{
    apply::{self, PlanStage},
    report::Came,
    rsync::{
        child::Error as RsyncError,
        source::{Asked, fresh_dir},
    },
};

impl Gather<'_> {
    pub(super) async fn by_rsync(&self, batch: &[Pending]) -> Result<Failures, Error> {
        let start = Instant::now();
        let source = match self.sources.rsync {
            Ok(source) => source,
            Err(reason) => {
                let failed = (reason, String::new());
                return Ok(batch.iter().map(|i| (i.need.digest, failed.clone())).collect());
            }
        };
        let work = self.site.scratch()?;
        let stage_dir = stage_dir(&work).map_err(|error| Error::Stage(io::Error::other(error)))?;
        let asked = |item: &Pending| Asked { path: item.need.path.clone(), size: item.need.size };
        let files: Vec<Asked> = batch.iter().map(asked).collect();
        let bases: Vec<PathBuf> =
            self.site.is_published()?.then(|| self.site.live.clone()).into_iter().collect();
        let (passed, result) = source.fetch(&files, &bases, &stage_dir, &work).await;
        self.run.progress().add(passed.received);
        let (reason, detail) = match &result {
            Ok(()) => (NoDelta::RsyncFailed, "rsync did not bring it".to_owned()),
            Err(error @ RsyncError::Missing { .. }) => (NoDelta::NoRsync, error.to_string()),
            Err(error) => (NoDelta::RsyncFailed, crate::chain(error)),
        };
        let arrived = Arrived::open(self.site.area().work_dir(), &stage_dir)?;
        let mut failures = Failures::new();
        for item in batch {
            match block_in_place(|| arrived.take(&self.stage, &item.need))? {
                Taken::Yes => {}
                Taken::Missing => {
                    failures.insert(item.need.digest, (reason, detail.clone()));
                }
                Taken::Wrong(detail) => {
                    failures.insert(item.need.digest, (NoDelta::SourceMoved, detail));
                }
            }
        }
        let done = batch.iter().filter(|item| !failures.contains_key(&item.need.digest));
        let came = Came {
            received_bytes: passed.received,
            sent_bytes: passed.sent,
            ..sums(done.map(|item| item.need.size))
        };
        self.run.add_figures(passed.figures);
        self.run.add_way(Way::Rsync, &source.host, came.since(start));
        std::fs::remove_dir_all(&stage_dir).ok();
        Ok(failures)
    }
}

/// Where rsync works: kept over an interrupted run, so that it resumes.
pub fn stage_dir(work: &Path) -> Result<PathBuf, RsyncError> {
    let path = work.join("rsync");
    if path.is_dir() { Ok(path) } else { fresh_dir(work, "rsync") }
}

/// What rsync left in its directory.
pub struct Arrived(Dir);

/// What became of one file.
pub enum Taken {
    /// It is staged.
    Yes,
    /// It did not come.
    Missing,
    /// It is something else.
    Wrong(String),
}

impl Arrived {
    /// Opens the directory in an assignment's work directory, without following links.
    pub fn open(work: &Dir, stage_dir: &Path) -> Result<Self, Error> {
        let mut dir = work.open_child(b"partial").map_err(apply::Error::from)?;
        if let Some(name) = stage_dir.file_name() {
            use std::os::unix::ffi::OsStrExt;
            dir = dir.open_child(name.as_bytes()).map_err(apply::Error::from)?;
        }
        Ok(Self(dir))
    }

    /// The directory.
    pub fn dir(&self) -> &Dir {
        &self.0
    }

    /// Verifies a file and moves it into staging.
    pub fn take(&self, stage: &PlanStage<'_>, need: &Need) -> Result<Taken, Error> {
        let Ok(parent) = self.0.open_parent(&need.path) else { return Ok(Taken::Missing) };
        let name = need.path.name();
        match parent.stat(name) {
            Ok(Some(meta)) if meta.kind == filetree::fs::Kind::File => {}
            _ => return Ok(Taken::Missing),
        }
        use filetree::staging::Error as Staging;
        match stage.staging().take(need, &parent, name) {
            Ok(_) => Ok(Taken::Yes),
            Err(error @ (Staging::Mismatch { .. } | Staging::Length { .. })) => {
                Ok(Taken::Wrong(error.to_string()))
            }
            Err(error) => Err(error.into()),
        }
    }
}
