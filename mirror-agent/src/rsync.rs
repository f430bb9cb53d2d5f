//! Direct rsync: how gaps are filled when no pack does, and how stock servers are mirrored.
//!
//! rsync is only ever a way to fill a private directory with files that are then digested; it
//! never sees a published tree but as a base to read from, and never decides what goes away.

pub mod child;
pub mod connect;
pub mod exit;
pub mod figures;
pub mod listing;
pub mod pipe;
pub mod source;
pub mod ssh;
pub mod version;
