//! Directories of versions at a stock rsync daemon: one test for each rule of what PulpDist did, or
//! should have done. The numbers are those of docs/reference/pulpdist.md.
//!
//! Every version has content of its own and times that are set, so that nothing passes by chance.

mod consolidation;
mod imported;
mod latest;
mod links;
mod listing;
mod protected;
mod published;
mod rehearsal;
mod removal;
mod status;
mod upstream;

pub(crate) use upstream::Versions;
