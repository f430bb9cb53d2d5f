//! The guards, with their files as they are now: what an admin takes back is refused a few seconds
//! later, without a restart.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use certs::guard::{Authorities, Denied, Entitlement, Shown, Unusable};
use jiff::Timestamp;

use super::config::{ConsumedTree, ConsumersConfig, GuardConfig};
use crate::error_chain;

/// After what time files are looked at again.
const LOOK: Duration = Duration::from_secs(2);
/// Longest file of a guard, in bytes.
const MAX_FILE: u64 = 64 << 20;

/// Why a guard cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("guard {guard}: {path} cannot be read", path = path.display())]
    Read {
        /// Which guard.
        guard: String,
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// What it holds is of no use.
    #[error("guard {guard}")]
    Unusable {
        /// Which guard.
        guard: String,
        /// Why.
        source: Unusable,
    },
}

/// All guards of a publisher.
pub(super) struct Guards(HashMap<String, Guard>);

struct Guard {
    config: GuardConfig,
    now: Mutex<Now>,
}

struct Now {
    authorities: Authorities,
    files: Vec<Option<SystemTime>>,
    looked: Instant,
}

impl Guards {
    /// Reads the files of every guard.
    pub(super) fn open(config: &ConsumersConfig) -> Result<Self, Error> {
        let guard = |config: &GuardConfig| {
            let now = Mutex::new(Now {
                authorities: read(config)?,
                files: changed(config),
                looked: Instant::now(),
            });
            Ok((config.name.clone(), Guard { config: config.clone(), now }))
        };
        config.guards.iter().map(guard).collect::<Result<_, _>>().map(Self)
    }

    /// Whether whoever has shown this may read `path` of a tree. The first guard that lets it
    /// decides; the last one that does not says why.
    pub(super) fn check(
        &self,
        tree: &ConsumedTree,
        shown: Option<&Shown>,
        path: &str,
        now: Timestamp,
    ) -> Result<(), Denied> {
        let Some(names) = &tree.guards else { return Ok(()) };
        let mut denied = Denied::None;
        let Some(shown) = shown else { return Err(denied) };
        for guard in names.iter().filter_map(|name| self.0.get(name)) {
            match guard.check(shown, path, now) {
                Ok(()) => return Ok(()),
                Err(error) => denied = error,
            }
        }
        Err(denied)
    }
}

impl Guard {
    fn check(&self, shown: &Shown, path: &str, now: Timestamp) -> Result<(), Denied> {
        self.authorities().check(shown, now)?;
        if !self.config.entitlement {
            return Ok(());
        }
        let strip = self.config.strip.trim_matches('/');
        let stripped = path.trim_start_matches('/').strip_prefix(strip);
        // A prefix ends where a component does.
        let named = stripped.filter(|rest| strip.is_empty() || rest.starts_with('/'));
        let entitlement = Entitlement::read(shown.certificate())?;
        match named {
            Some(named) if entitlement.opens(named) => Ok(()),
            _ => Err(certs::guard::NotEntitled::OtherPath.into()),
        }
    }

    fn authorities(&self) -> Authorities {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        if now.looked.elapsed() >= LOOK {
            now.looked = Instant::now();
            let files = changed(&self.config);
            if files != now.files {
                match read(&self.config) {
                    Ok(authorities) => {
                        tracing::info!(guard = self.config.name, "its files were read anew");
                        (now.authorities, now.files) = (authorities, files);
                    }
                    // Half of a file that is being written: what was known goes on, and is tried again.
                    Err(error) => {
                        let error = error_chain(&error);
                        tracing::warn!(guard = self.config.name, error, "the last ones go on");
                    }
                }
            }
        }
        now.authorities.clone()
    }
}

fn read(config: &GuardConfig) -> Result<Authorities, Error> {
    let text =
        |path: &Path| -> Result<String, Error> {
            use std::io::Read as _;

            let mut text = String::new();
            let file = std::fs::File::open(path).map(|file| file.take(MAX_FILE));
            file.and_then(|mut file| file.read_to_string(&mut text)).map_err(|source| {
                Error::Read { guard: config.name.clone(), path: path.to_owned(), source }
            })?;
            Ok(text)
        };
    let (bundle, lists) =
        (text(&config.authorities)?, config.revoked.as_deref().map(text).transpose()?);
    Authorities::from_pem(&bundle, lists.as_deref())
        .map_err(|source| Error::Unusable { guard: config.name.clone(), source })
}

fn changed(config: &GuardConfig) -> Vec<Option<SystemTime>> {
    let files = [Some(&config.authorities), config.revoked.as_ref()];
    let time = |path: &PathBuf| std::fs::metadata(path).and_then(|meta| meta.modified()).ok();
    files.into_iter().flatten().map(time).collect()
}
