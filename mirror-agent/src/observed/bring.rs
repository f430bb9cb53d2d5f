//! Bringing what differs: fetched into a stage, looked at twice, digested, and moved into staging.

use std::path::{Path, PathBuf};

use protocol::{
    digest::{Digest, DigestWriter},
    manifest::StoredManifest,
    transfer::{NoDelta, Way},
};
use tokio::task::block_in_place;

use super::{
    Error, Look, TRIES,
    differences::{Differing, observe},
    pause,
};
use crate::{
    apply::{self, Site},
    gather::{Arrived, stage_dir},
    report::Came,
    rsync::{
        child::Passed,
        listing::{Listed, Listing},
        source::{Asked, BATCH_FILES},
    },
};

impl Look<'_> {
    /// Fetches these files into a stage, and makes sure that they did not change meanwhile.
    pub(super) async fn bring(
        &self,
        site: &Site,
        differing: &Differing<'_>,
        bases: &[PathBuf],
        work: &Path,
    ) -> Result<(), Error> {
        let start = std::time::Instant::now();
        let &Differing { files, bytes, .. } = differing;
        self.run.progress().phase("fetch", "bytes", bytes);
        self.run.not_taken(Way::Pack, NoDelta::StockUpstream, files, "");
        let stage = stage_dir(work).map_err(|source| self.failed(source))?;
        let own = site.is_published()?.then(|| site.live.clone());
        let all: Vec<PathBuf> = own.into_iter().chain(bases.iter().cloned()).collect();
        let (total, result) = self.fetch(differing, &all, &stage, work).await;
        let came = Came {
            files: if result.is_ok() { files } else { 0 },
            content_bytes: if result.is_ok() { bytes } else { 0 },
            received_bytes: total.received,
            sent_bytes: total.sent,
            ..Came::default()
        };
        self.run.add_figures(total.figures);
        self.run.add_way(Way::Rsync, &self.upstream.host, came.since(start));
        result?;
        let second = self.list(work).await?;
        block_in_place(|| {
            for listed in differing.each() {
                let listed = listed?;
                if second.get(&listed.path)?.as_ref() != Some(&listed) {
                    return Err(Error::Unsettled { tree: self.tree().clone(), path: listed.path });
                }
            }
            Ok(())
        })
    }

    /// Asks for so many files after the other; of what breaks off, for those that it was about, again.
    async fn fetch(
        &self,
        differing: &Differing<'_>,
        bases: &[PathBuf],
        stage: &Path,
        work: &Path,
    ) -> (Passed, Result<(), Error>) {
        let mut total = Passed::default();
        let mut compress = self.content.compress;
        let mut tries = 1;
        let asked = |listed: Listed| Asked { size: listed.size(), path: listed.path };
        let mut files = differing.each().map(|listed| listed.map(asked));
        loop {
            let next = || files.by_ref().take(BATCH_FILES).collect::<Result<Vec<Asked>, _>>();
            let batch = match block_in_place(next) {
                Ok(batch) if batch.is_empty() => return (total, Ok(())),
                Ok(batch) => batch,
                Err(error) => return (total, Err(error.into())),
            };
            loop {
                let fetched = self.content.fetch_batch(&batch, bases, stage, work, &mut compress);
                let (passed, result) = fetched.await;
                total += passed;
                self.run.progress().add(passed.received);
                match result {
                    Ok(()) => break,
                    Err(error) if error.is_transient() && tries < TRIES => {
                        pause(tries).await;
                        tries += 1;
                    }
                    Err(error) => return (total, Err(self.failed(error))),
                }
            }
        }
    }

    /// Digests what came; gives, and keeps, the generation that this makes of a listing.
    pub(super) fn digest(
        &self,
        listing: &Listing,
        held: &StoredManifest,
        differing: &Differing<'_>,
        work: &Path,
    ) -> Result<StoredManifest, Error> {
        let mut arrived = None;
        if differing.files > 0 {
            self.run.progress().phase("digest", "bytes", differing.bytes);
            let stage = stage_dir(work).map_err(|source| self.failed(source))?;
            arrived = Some(Arrived::open(&self.home, &stage)?);
        }
        let mut buffer = vec![0; 256 << 10];
        let digest = |listed: &Listed| match &arrived {
            Some(arrived) => self.digest_of(listed, arrived, &mut buffer),
            None => {
                let (tree, path) = (self.tree().clone(), listed.path.clone());
                Err(Error::NotBrought { tree, path })
            }
        };
        self.agent.manifests.put_each(observe(listing, held, digest))
    }

    fn digest_of(
        &self,
        listed: &Listed,
        arrived: &Arrived,
        buffer: &mut [u8],
    ) -> Result<Digest, Error> {
        let path = &listed.path;
        let read = |source| Error::Read { path: path.clone(), source };
        let missing = || Error::NotBrought { tree: self.tree().clone(), path: path.clone() };
        let parent = arrived.dir().open_parent(path).map_err(|_| missing())?;
        let file = parent
            .open_file(path.name())
            .map_err(|error| if error.is_not_found() { missing() } else { read(error) })?;
        let mut digest = DigestWriter::new();
        let mut at = 0;
        loop {
            let len = file.read_at(at, buffer).map_err(read)?;
            if len == 0 {
                break;
            }
            digest.update(&buffer[..len]);
            at += len as u64;
            self.run.progress().add(len as u64);
        }
        if at != listed.size() {
            let (tree, path) = (self.tree().clone(), path.clone());
            return Err(Error::Unsettled { tree, path });
        }
        Ok(digest.finish())
    }

    /// Moves what came into staging.
    pub(super) fn stage(
        &self,
        site: &Site,
        plan: &filetree::plan::Plan,
        work: &Path,
    ) -> Result<(), Error> {
        let staging = site.area().staging();
        let stage = stage_dir(work).map_err(|source| self.failed(source))?;
        let arrived = Arrived::open(&self.home, &stage)?;
        for need in plan.needs() {
            let need = need?;
            if staging.has(&need).map_err(apply::Error::from)? {
                continue;
            }
            let content = apply::PlanStage::new(staging, std::slice::from_ref(&need));
            arrived.take(&content, &need)?;
        }
        Ok(staging.seal().map_err(apply::Error::from)?)
    }
}
