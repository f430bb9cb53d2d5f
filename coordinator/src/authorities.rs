//! The authorities in the data directory, and the replacement of the network's root.
//!
//! ```text
//! DATA/ca             issues
//! DATA/ca-next        its root is trusted already; it will issue
//! DATA/ca-previous    its root is still trusted; it issued
//! ```
//! At most one of the last two is there. Each step is one rename, so an interruption leaves a state from
//! which the step can be repeated. A coordinator reads this at its start, so each step takes effect
//! with a restart; with several replicas the directories are the same in each data directory.

use std::path::{Path, PathBuf};

use certs::{
    authority::{self, Authority, OwnAuthority},
    keyfile,
};
use jiff::Timestamp;
use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::{
    app::{
        picture::Fleet,
        rotation::{Progress, is_needed},
    },
    config::Config,
    db::{self, Database},
    init::AUTHORITY,
};

/// Beside the authority that issues.
pub(crate) const NEXT: &str = "ca-next";
/// Beside the authority that issues.
pub(crate) const PREVIOUS: &str = "ca-previous";

/// Opens the authority that issues, trusting also the one that will or did.
pub fn open(data: &Path) -> Result<Authority, authority::Error> {
    let mut authority = Authority::open(&data.join(AUTHORITY))?;
    for other in [NEXT, PREVIOUS] {
        if data.join(other).exists() {
            authority = authority.also_trusting(Authority::open(&data.join(other))?);
        }
    }
    Ok(authority)
}

/// Where the replacement of the root stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// One root.
    One,
    /// The next root travels along with certificates of the present one.
    Spreading,
    /// The next root issues, and certificates of the one before are still about.
    Replacing,
}

fn phase(data: &Path) -> Result<Phase, Error> {
    if data.join(PREVIOUS).exists() {
        return Ok(Phase::Replacing);
    }
    if !data.join(NEXT).exists() {
        return Ok(Phase::One);
    }
    // An interrupted switch has exchanged the two and not renamed the old one yet.
    let made = |name: &str| Authority::open(&data.join(name)).map(|authority| authority.made());
    if made(NEXT)? < made(AUTHORITY)? {
        rename(data, NEXT, PREVIOUS, RenameFlags::NOREPLACE)?;
        return Ok(Phase::Replacing);
    }
    Ok(Phase::Spreading)
}

/// Makes the next root, or takes one of the operator's own; it is trusted from the next start on.
pub fn rotate(data: &Path, own: Option<OwnAuthority<'_>>, now: Timestamp) -> Result<(), Error> {
    keyfile::check_dir(data)?;
    if phase(data)? != Phase::One {
        return Err(Error::Under);
    }
    let network = Authority::open(&data.join(AUTHORITY))?.network().clone();
    let dir = data.join(NEXT);
    match own {
        Some(own) => Authority::create_below(&dir, &own, &network, now)?,
        None => Authority::create(&dir, &network, now)?,
    };
    Ok(())
}

/// Lets the next root issue, from the next start on.
///
/// # Errors
/// [`Error::TooFew`] while an agent, publisher or admin is not known to trust it, unless `force`.
pub async fn switch(config: &Config, force: bool) -> Result<(), Error> {
    let data = &config.data;
    keyfile::check_dir(data)?;
    match phase(data)? {
        Phase::One => return Err(Error::NotUnder),
        Phase::Replacing => return Ok(()),
        Phase::Spreading => {}
    }
    let progress = progress(config).await?;
    check(&progress.without_bundle, force)?;
    rename(data, NEXT, AUTHORITY, RenameFlags::EXCHANGE)?;
    rename(data, NEXT, PREVIOUS, RenameFlags::NOREPLACE)
}

/// Forgets the root that was, from the next start on; its keys are removed.
///
/// # Errors
/// [`Error::TooFew`] while an agent, publisher or admin may still show a certificate of it, unless `force`.
pub async fn finish(config: &Config, force: bool) -> Result<(), Error> {
    let data = &config.data;
    keyfile::check_dir(data)?;
    if phase(data)? != Phase::Replacing {
        return Err(Error::NotSwitched);
    }
    let progress = progress(config).await?;
    check(&progress.of_another_issuer, force)?;
    // First out of sight, in one step; then its files.
    let gone = data.join("ca-gone");
    let failed = |source| Error::Rename { path: gone.clone(), source };
    if gone.exists() {
        std::fs::remove_dir_all(&gone).map_err(failed)?;
    }
    rename(data, PREVIOUS, "ca-gone", RenameFlags::NOREPLACE)?;
    std::fs::remove_dir_all(&gone).map_err(failed)
}

/// What `coordinator ca status` prints.
pub async fn status(config: &Config) -> Result<String, Error> {
    keyfile::check_dir(&config.data)?;
    let phase = phase(&config.data)?;
    let progress = progress(config).await?;
    let missing = |names: &[String]| match names {
        [] => String::new(),
        names => format!("\nNot yet: {}", names.join(", ")),
    };
    Ok(match phase {
        Phase::One => {
            "One root is trusted, and issues. `coordinator ca rotate` replaces it.".into()
        }
        Phase::Spreading => format!(
            "The next root is trusted beside the one that issues: {progress}.{}\nWhen all agents, publishers and admins hold both: coordinator ca switch, and restart.",
            missing(&progress.without_bundle)
        ),
        Phase::Replacing => format!(
            "The next root issues, and the one before is still trusted: {progress}.{}\nWhen no agent, publisher or admin is left with a certificate of the old one: coordinator ca finish, and restart.",
            missing(&progress.of_another_issuer)
        ),
    })
}

async fn progress(config: &Config) -> Result<Progress, Error> {
    let authority = open(&config.data)?;
    let database = match &config.database.url {
        Some(url) => Database::connect_postgres(url).await?,
        None => Database::open_sqlite(&config.data).await?,
    };
    let mut tx = database.read().await?;
    let fleet = Fleet::new(tx.identities().await?, tx.certificates(Timestamp::now()).await?);
    tx.commit().await?;
    database.close().await;
    Ok(Progress::of(&fleet, &authority.bundle_id(), &authority.issuer_id()))
}

fn check(missing: &[String], force: bool) -> Result<(), Error> {
    let needed: Vec<String> = missing.iter().filter(|who| is_needed(who)).cloned().collect();
    if force || needed.is_empty() { Ok(()) } else { Err(Error::TooFew { missing: needed }) }
}

fn rename(data: &Path, from: &str, to: &str, flags: RenameFlags) -> Result<(), Error> {
    let (from, to) = (data.join(from), data.join(to));
    renameat_with(CWD, &from, CWD, &to, flags)
        .map_err(|error| Error::Rename { path: from, source: error.into() })?;
    Ok(keyfile::sync_dir(data)?)
}

/// Why a step was not taken.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An authority.
    #[error(transparent)]
    Authority(#[from] authority::Error),
    /// The data directory.
    #[error(transparent)]
    KeyFile(#[from] keyfile::Error),
    /// The database.
    #[error(transparent)]
    Database(#[from] db::Error),
    /// It was begun already.
    #[error("a root is being replaced already; `coordinator ca status` says what comes next")]
    Under,
    /// It was not begun.
    #[error("no root is being replaced; begin with `coordinator ca rotate`")]
    NotUnder,
    /// There is no root to forget.
    #[error("no root has been replaced yet; `coordinator ca status` says what comes next")]
    NotSwitched,
    /// Somebody would be cut off.
    #[error(
        "{} would be cut off and would have to enroll again: {}; wait until they have renewed their certificates, revoke those that are gone, or use --force",
        missing.len(), missing.join(", ")
    )]
    TooFew {
        /// Who, as `ROLE/NAME`.
        missing: Vec<String>,
    },
    /// A directory that cannot be renamed or removed.
    #[error("cannot rename or remove {path}", path = path.display())]
    Rename {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}
