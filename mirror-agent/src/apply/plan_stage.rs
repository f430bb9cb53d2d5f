//! Staging, as the ways of fetching see it.

use std::{collections::HashMap, io};

use filetree::{
    fs as disk,
    plan::Need,
    staging::{self, StagedWriter, Staging},
};
use protocol::digest::Digest;

use crate::stage::{Content, Stage, StageWriter};

/// Staging as the ways of fetching see it: for exactly the contents that a plan needs.
pub struct PlanStage<'a> {
    staging: &'a Staging,
    needs: HashMap<Digest, &'a Need>,
}

impl<'a> PlanStage<'a> {
    /// Takes these contents and no others.
    pub fn new(staging: &'a Staging, needs: &'a [Need]) -> Self {
        Self { staging, needs: needs.iter().map(|need| (need.digest, need)).collect() }
    }

    /// The need of a content.
    pub fn need(&self, digest: &Digest) -> Option<&'a Need> {
        self.needs.get(digest).copied()
    }

    /// Begins a content.
    pub fn begin(&self, digest: &Digest) -> io::Result<Option<StagedWriter<'a>>> {
        self.need(digest).map(|need| self.staging.writer(need)).transpose().map_err(to_io)
    }

    /// Staging itself.
    pub fn staging(&self) -> &'a Staging {
        self.staging
    }
}

impl Stage for PlanStage<'_> {
    fn writer<'s>(&'s self, content: &Content) -> io::Result<Box<dyn StageWriter + 's>> {
        let writer = self.begin(&content.digest)?;
        writer.map_or_else(
            || Err(io::Error::other(format!("{} is not needed", content.path))),
            |writer| Ok(Box::new(writer) as Box<dyn StageWriter>),
        )
    }

    fn take(&self, content: &Content, dir: &disk::Dir, name: &[u8]) -> io::Result<()> {
        let unwanted = || io::Error::other(format!("{} is not needed", content.path));
        let need = self.need(&content.digest).ok_or_else(unwanted)?;
        self.staging.take(need, dir, name).map(drop).map_err(to_io)
    }
}

impl StageWriter for StagedWriter<'_> {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.push(bytes).map_err(to_io)
    }

    fn finish(self: Box<Self>) -> io::Result<()> {
        StagedWriter::finish(*self).map(drop).map_err(to_io)
    }
}

/// Wrong content is told from a disk that does not work.
pub fn to_io(error: staging::Error) -> io::Error {
    match error {
        staging::Error::Fs(error) => io::Error::new(error.source.kind(), error),
        wrong => io::Error::new(io::ErrorKind::InvalidData, wrong),
    }
}
