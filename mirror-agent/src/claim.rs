//! Whose storage it is.
//!
//! The data directory's lock keeps two processes of *one* agent apart. Two agents with data
//! directories of their own can still be given one storage, by a copied configuration or a disk that
//! was moved to another machine; each would then undo what the other did, assignment by assignment.
//! So an agent leaves a marker in the work directory that says whose it is, holds a lock beside it
//! for as long as it runs, and refuses a storage that names somebody else. Nothing but
//! `mirror-agent claim` hands a storage over.
//!
//! ```text
//! STORAGE/work/agent.json   network, name and data directory of the agent
//! STORAGE/work/agent.lock   locked while it runs
//! ```

use std::{io::Read, path::PathBuf};

use certs::identity::directory::Membership;
use filetree::fs::{self as disk, Dir, File, Fs};
use protocol::name::{IdentityName, NetworkName};
use serde::{Deserialize, Serialize};

use crate::config::Config;

const MARKER: &[u8] = b"agent.json";
const NEW_MARKER: &[u8] = b"agent.json.new";
const LOCK: &[u8] = b"agent.lock";
/// Longest marker that is read, in bytes.
const MAX_LEN: u64 = 64 << 10;

/// What a marker says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Claim {
    /// The network of the agent.
    pub network: NetworkName,
    /// The agent.
    pub agent: IdentityName,
    /// Its data directory.
    pub data: PathBuf,
}

/// A storage that is ours until this goes.
#[derive(Debug)]
pub struct Claimed {
    _lock: File,
}

/// Why a storage is not used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The work directory, or the marker in it.
    #[error("the storage cannot be used")]
    Disk(#[from] disk::Error),
    /// It is another agent's.
    #[error(
        "the storage {work} belongs to agent {} of network {} (data directory {}), and this is agent {} of network {}: two agents on one storage would undo each other's trees, so nothing was touched. Give this agent another 'storage'; or, if the other one is gone for good, hand it over with 'mirror-agent claim'",
        .theirs.agent, .theirs.network, .theirs.data.display(), .ours.agent, .ours.network, work = .work.display()
    )]
    Theirs {
        /// The work directory.
        work: PathBuf,
        /// Whose it is.
        theirs: Box<Claim>,
        /// Who we are.
        ours: Box<Claim>,
    },
    /// Another process works in it.
    #[error(
        "the storage {work} is in use by agent {} (data directory {}), which is running; stop it before agent {} (data directory {}) uses it",
        .theirs.agent, .theirs.data.display(), .ours.agent, .ours.data.display(), work = .work.display()
    )]
    InUse {
        /// The work directory.
        work: PathBuf,
        /// Who runs.
        theirs: Box<Claim>,
        /// Who we are.
        ours: Box<Claim>,
    },
    /// A marker that says nothing.
    #[error(
        "{path} should say whose storage this is and cannot be read; if no other agent uses it, 'mirror-agent claim' writes it anew",
        path = path.display()
    )]
    Damaged {
        /// The marker.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

impl Claim {
    fn of(config: &Config, membership: &Membership) -> Self {
        let (network, agent) = (membership.network.clone(), membership.name.clone());
        Self { network, agent, data: config.data.clone() }
    }

    fn is_of_same_agent(&self, other: &Self) -> bool {
        (&self.network, &self.agent) == (&other.network, &other.agent)
    }
}

/// Locks the storage for this process, and marks it where nobody has.
///
/// # Errors
/// [`Error::Theirs`] and [`Error::InUse`] name both agents; nothing was changed then.
pub fn claim(config: &Config, membership: &Membership) -> Result<Claimed, Error> {
    take(config, membership, false)
}

/// Makes the storage this agent's, whoever's it was, unless that one runs. Gives whose it was.
pub fn take_over(config: &Config, membership: &Membership) -> Result<Option<Claim>, Error> {
    let before = match read(&Fs::disk().create_root(&config.work())?) {
        Err(Error::Damaged { .. }) => None,
        other => other?,
    };
    take(config, membership, true)?;
    Ok(before)
}

fn take(config: &Config, membership: &Membership, by_force: bool) -> Result<Claimed, Error> {
    let ours = Claim::of(config, membership);
    let dir = Fs::disk().create_root(&config.work())?;
    let work = dir.path().to_owned();
    let lock = lock_file(&dir)?;
    let is_free = lock.try_lock()?;
    let found = match read(&dir) {
        Err(Error::Damaged { .. }) if by_force => None,
        other => other?,
    };
    match found {
        Some(theirs) if !by_force && !theirs.is_of_same_agent(&ours) => {
            Err(Error::Theirs { work, theirs: Box::new(theirs), ours: Box::new(ours) })
        }
        theirs if !is_free => {
            let theirs = Box::new(theirs.unwrap_or_else(|| ours.clone()));
            Err(Error::InUse { work, theirs, ours: Box::new(ours) })
        }
        Some(marked) if marked == ours => Ok(Claimed { _lock: lock }),
        _ => write(&dir, &ours).map(|()| Claimed { _lock: lock }),
    }
}

fn lock_file(work: &Dir) -> Result<File, Error> {
    match work.create_file(LOCK) {
        Ok(file) => {
            // Another agent may run as another user and has to find it locked.
            file.set_mode(0o644)?;
            Ok(file)
        }
        Err(error) if error.is_already_there() => Ok(work.open_file(LOCK)?),
        Err(error) => Err(error.into()),
    }
}

fn read(work: &Dir) -> Result<Option<Claim>, Error> {
    let file = match work.open_file(MARKER) {
        Err(error) if error.is_not_found() => return Ok(None),
        other => other?,
    };
    let mut text = Vec::new();
    let path = || file.path().to_owned();
    file.reader().take(MAX_LEN).read_to_end(&mut text).map_err(|source| disk::Error {
        op: disk::Op::OpenFile,
        path: path(),
        source,
    })?;
    let claim = serde_json::from_slice(&text);
    claim.map(Some).map_err(|source| Error::Damaged { path: path(), source })
}

fn write(work: &Dir, claim: &Claim) -> Result<(), Error> {
    let mut text = serde_json::to_vec_pretty(claim)
        .map_err(|source| Error::Damaged { path: work.path().join("agent.json"), source })?;
    text.push(b'\n');
    if work.stat(NEW_MARKER)?.is_some() {
        work.unlink(NEW_MARKER)?;
    }
    let file = work.create_file(NEW_MARKER)?;
    file.write_at(0, &text)?;
    // The next agent may run as another user and has to be able to say whose it is.
    file.set_mode(0o644)?;
    file.sync()?;
    work.rename(NEW_MARKER, work, MARKER)?;
    Ok(work.sync()?)
}
