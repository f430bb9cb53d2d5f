//! The fence around this program: it writes where it has to, and nowhere else.
//!
//! An agent is told by others what to do to files, as a user who may do much. Whatever goes wrong
//! in that, the kernel lets it change nothing outside of its storage and its data. What it starts,
//! rsync and an admin's own commands, inherits the fence.

use std::{path::PathBuf, sync::OnceLock};

use filetree::{
    confine::{self, Confinement, keep_writes_below},
    fs::Fs,
};

use crate::config::Config;

static FENCE: OnceLock<Confinement> = OnceLock::new();

/// Directories that this configuration lets the agent write below.
pub fn writable(config: &Config) -> Vec<PathBuf> {
    let own = [config.storage.clone(), config.publish(), config.work(), config.data.clone()];
    own.into_iter().chain(config.writable.iter().cloned()).collect()
}

/// Makes the directories of the storage where they are missing, so that the fence has a gate there.
pub fn prepare(config: &Config) {
    for dir in [config.publish(), config.work()] {
        // Whatever is wrong with it is said where it is used.
        drop(Fs::disk().create_root(&dir));
    }
}

/// Closes the fence around this process, which has to have one thread; for good.
///
/// # Errors
/// When it is required and the kernel cannot.
pub fn close(config: &Config) -> Result<Confinement, confine::Error> {
    let confinement = keep_writes_below(&writable(config), config.confine)?;
    Ok(*FENCE.get_or_init(|| confinement))
}

/// The fence around this process; absent in a program that only has an agent inside.
pub fn closed() -> Option<Confinement> {
    FENCE.get().copied()
}
