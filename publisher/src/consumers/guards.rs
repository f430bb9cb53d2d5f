//! The guards, with their files as they are now: what an admin takes back is refused a few seconds
//! later, without a restart.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use certs::{
    guard::{
        Authorities, BadLink, BadSecrets, Denied, Entitlement, Link, LinkSecrets, Shown, Unusable,
    },
    keyfile,
};
use jiff::Timestamp;
use protocol::path::TreePath;

use super::config::{ConsumersConfig, GuardConfig};
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
    /// The file of secrets.
    #[error("guard {guard}: its secrets cannot be read")]
    SecretsFile {
        /// Which guard.
        guard: String,
        /// Why not.
        source: keyfile::Error,
    },
    /// What it holds is of no use.
    #[error("guard {guard}: {path} cannot be used", path = path.display())]
    Secrets {
        /// Which guard.
        guard: String,
        /// Which file.
        path: PathBuf,
        /// Why.
        source: BadSecrets,
    },
}

/// Who asks: all that a guard may judge.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Asker<'a> {
    /// The certificate.
    pub(super) shown: Option<&'a Shown>,
    /// What a signed URL says of itself.
    pub(super) link: Option<&'a Link>,
}

/// All guards of a publisher.
pub(super) struct Guards(HashMap<String, Guard>);

struct Guard {
    config: GuardConfig,
    now: Mutex<Now>,
}

struct Now {
    rule: Rule,
    files: Vec<Option<SystemTime>>,
    looked: Instant,
}

/// What lets consumers in.
#[derive(Clone)]
enum Rule {
    Certificates(Authorities),
    Links(LinkSecrets),
    /// Each of the guards that are named.
    All,
}

impl Guards {
    /// Reads the files of every guard.
    pub(super) fn open(config: &ConsumersConfig) -> Result<Self, Error> {
        let guard = |config: &GuardConfig| {
            let (files, looked) = (changed(config), Instant::now());
            let now = Mutex::new(Now { rule: read(config)?, files, looked });
            Ok((config.name.clone(), Guard { config: config.clone(), now }))
        };
        config.guards.iter().map(guard).collect::<Result<_, _>>().map(Self)
    }

    /// Whether one of the named guards lets whoever asks read `path`. The first that does decides;
    /// the last one that does not says why. Where none is named, nobody is let in.
    pub(super) fn check(
        &self,
        names: &[String],
        asker: Asker<'_>,
        path: &TreePath,
        now: Timestamp,
    ) -> Result<(), Denied> {
        let mut denied = Denied::None;
        for guard in names.iter().filter_map(|name| self.0.get(name)) {
            match self.pass(guard, asker, path, now) {
                Ok(()) => return Ok(()),
                Err(error) => denied = error,
            }
        }
        Err(denied)
    }

    fn pass(
        &self,
        guard: &Guard,
        asker: Asker<'_>,
        path: &TreePath,
        now: Timestamp,
    ) -> Result<(), Denied> {
        match guard.rule() {
            Rule::Certificates(authorities) => guard.certificate(&authorities, asker, path, now),
            Rule::Links(secrets) => {
                let link = asker.link.ok_or(BadLink::Signature)?;
                Ok(secrets.check(link, path, now)?)
            }
            // A name that leads nowhere is no reason to let anybody in.
            Rule::All => guard.config.all.iter().try_for_each(|name| {
                let part = self.0.get(name).filter(|part| part.config.all.is_empty());
                part.ok_or(Denied::None).and_then(|part| self.pass(part, asker, path, now))
            }),
        }
    }
}

impl Guard {
    fn certificate(
        &self,
        authorities: &Authorities,
        asker: Asker<'_>,
        path: &TreePath,
        now: Timestamp,
    ) -> Result<(), Denied> {
        let shown = asker.shown.ok_or(Denied::None)?;
        authorities.check(shown, now)?;
        if !self.config.entitlement {
            return Ok(());
        }
        // As it is matched, so it is served: the one decoded path.
        let path = String::from_utf8_lossy(path.as_bytes());
        let strip = self.config.strip.trim_matches('/');
        // A prefix ends where a component does.
        let stripped = path.strip_prefix(strip);
        let named = stripped.filter(|rest| strip.is_empty() || rest.starts_with('/'));
        let entitlement = Entitlement::read(shown.certificate())?;
        match named {
            Some(named) if entitlement.opens(named) => Ok(()),
            _ => Err(certs::guard::NotEntitled::OtherPath.into()),
        }
    }

    fn rule(&self) -> Rule {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        if now.looked.elapsed() >= LOOK {
            now.looked = Instant::now();
            let files = changed(&self.config);
            if files != now.files {
                match read(&self.config) {
                    Ok(rule) => {
                        tracing::info!(guard = self.config.name, "its files were read anew");
                        (now.rule, now.files) = (rule, files);
                    }
                    // Half of a file that is being written: what was known goes on, and is tried again.
                    Err(error) => {
                        let error = error_chain(&error);
                        tracing::warn!(guard = self.config.name, error, "the last ones go on");
                    }
                }
            }
        }
        now.rule.clone()
    }
}

/// The secrets of a guard by signed URLs, from its file.
pub(super) fn secrets(config: &GuardConfig, path: &Path) -> Result<LinkSecrets, Error> {
    let guard = || config.name.clone();
    let text =
        keyfile::read_text(path).map_err(|source| Error::SecretsFile { guard: guard(), source })?;
    LinkSecrets::read(&text).map_err(|source| Error::Secrets {
        guard: guard(),
        path: path.to_owned(),
        source,
    })
}

fn read(config: &GuardConfig) -> Result<Rule, Error> {
    use std::io::Read as _;

    if let Some(path) = &config.secrets {
        return secrets(config, path).map(Rule::Links);
    }
    let Some(authorities) = &config.authorities else { return Ok(Rule::All) };
    let text = |path: &Path| {
        let mut text = String::new();
        let file = std::fs::File::open(path).map(|file| file.take(MAX_FILE));
        let read = file.and_then(|mut file| file.read_to_string(&mut text));
        let guard = config.name.clone();
        read.map_err(|source| Error::Read { guard, path: path.to_owned(), source })?;
        Ok(text)
    };
    let bundle = text(authorities)?;
    let lists = config.revoked.as_deref().map(text).transpose()?;
    Authorities::from_pem(&bundle, lists.as_deref())
        .map(Rule::Certificates)
        .map_err(|source| Error::Unusable { guard: config.name.clone(), source })
}

fn changed(config: &GuardConfig) -> Vec<Option<SystemTime>> {
    let files = [&config.authorities, &config.revoked, &config.secrets];
    let time = |path: &PathBuf| std::fs::metadata(path).and_then(|meta| meta.modified()).ok();
    files.into_iter().flatten().map(time).collect()
}
