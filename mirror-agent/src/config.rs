//! The agent's configuration: `mirror-agent.toml`, the environment and flags.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
};

use certs::dial::{AddressFamily, Dialer, NoProxy, ProxySettings, ProxyUrl};
use filetree::{area::TrashLimits, confine::Confine};
use protocol::{
    config::{self, Loaded, Sources},
    spec::Rate,
    units::{ByteSize, Span},
};
use serde::{Deserialize, Serialize};

use crate::{
    fetch::allowed::PointsConfig,
    hooks::{self, HooksConfig},
    relay::RelayConfig,
};

/// Everything that an admin of a site sets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct Config {
    /// Identity, ledger and control socket.
    pub data: PathBuf,
    /// The one directory below which the agent writes.
    pub storage: PathBuf,
    /// Where trees are published; `STORAGE/pub` by default, same file system as `work`.
    pub publish: Option<PathBuf>,
    /// Where all work is done; `STORAGE/work` by default.
    pub work: Option<PathBuf>,
    /// `http://HOST:PORT` of a CONNECT proxy; `HTTPS_PROXY` and `NO_PROXY` where it is not set.
    pub proxy: Option<String>,
    /// The local address that connections come from.
    pub bind: Option<IpAddr>,
    /// `any`, `inet` or `inet6`.
    pub address_family: AddressFamily,
    /// Which publication points outside of the network are asked.
    pub points: PointsConfig,
    /// What this site has run around the runs.
    pub hooks: HooksConfig,
    /// `ADDRESS:PORT` where the status page, `/status`, `/metrics`, `/healthz` and `/readyz` are
    /// answered by plain HTTP; nowhere by default.
    pub monitor: Option<String>,
    /// Whether other sites are served with what this agent holds and fetches.
    pub relay: RelayConfig,
    /// How long what left a published tree can be brought back; `0s` keeps nothing of it.
    pub trash_keep: Span,
    /// Most bytes that the trash of one assignment keeps of what its upstream removed.
    pub trash_max: ByteSize,
    /// How published files are read again, to see whether they are as they should be.
    pub scrub: ScrubConfig,
    /// Runs at a time.
    pub parallel: usize,
    /// The rsync program: a name that is looked up in PATH, or a path.
    pub rsync: PathBuf,
    /// The `mirror-agent` program that rsync calls back; the running one by default.
    pub program: Option<PathBuf>,
    /// Whether the kernel keeps the agent and its rsync to their directories: `auto`, `required` or
    /// `off`.
    pub confine: Confine,
    /// Further directories that the agent, and what it starts, may write below.
    pub writable: Vec<PathBuf>,
}

/// How published files are read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct ScrubConfig {
    /// Every file is read once in this time; `0s` reads nothing by itself.
    pub every: Span,
    /// Bytes read per second.
    pub rate: Rate,
}

impl Default for ScrubConfig {
    fn default() -> Self {
        let every = Span::from_secs(30 * 24 * 3_600);
        Self { every, rate: Rate(Some(ByteSize(20 << 20))) }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data: "/var/lib/mirrornet/agent".into(),
            storage: "/srv/mirror".into(),
            publish: None,
            work: None,
            proxy: None,
            bind: None,
            address_family: AddressFamily::default(),
            points: PointsConfig::default(),
            hooks: HooksConfig::default(),
            monitor: None,
            relay: RelayConfig::default(),
            trash_keep: Span::from_secs(7 * 24 * 3_600),
            trash_max: ByteSize(20 << 30),
            scrub: ScrubConfig::default(),
            parallel: 2,
            rsync: "rsync".into(),
            program: None,
            confine: Confine::default(),
            writable: Vec::new(),
        }
    }
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file named on the command line cannot be read.
    #[error("the configuration file {path} cannot be read", path = path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A layer is not accepted.
    #[error(transparent)]
    Layer(#[from] config::Error),
    /// A path that is not absolute.
    #[error("{key} = {path:?} is not an absolute path")]
    Relative {
        /// The key.
        key: &'static str,
        /// Its value.
        path: PathBuf,
    },
    /// Work would be served, or trees would be taken for work.
    #[error("'publish' ({publish}) and 'work' ({work}) must not contain each other", publish = publish.display(), work = work.display())]
    Nested {
        /// Where trees are published.
        publish: PathBuf,
        /// Where work is done.
        work: PathBuf,
    },
    /// Commands that cannot be run.
    #[error(transparent)]
    Hooks(#[from] hooks::Invalid),
    /// A proxy that is none.
    #[error("the proxy cannot be used")]
    Proxy(#[from] certs::dial::InvalidProxy),
}

impl Config {
    /// Where trees are published.
    pub fn publish(&self) -> PathBuf {
        self.publish.clone().unwrap_or_else(|| self.storage.join("pub"))
    }

    /// Where all work is done.
    pub fn work(&self) -> PathBuf {
        self.work.clone().unwrap_or_else(|| self.storage.join("work"))
    }

    /// What the trash of each assignment keeps.
    pub fn trash(&self) -> TrashLimits {
        let keep = i64::try_from(self.trash_keep.duration().as_secs()).unwrap_or(i64::MAX);
        TrashLimits { keep, removed_bytes: self.trash_max.0 }
    }

    /// How connections are opened.
    pub fn dialer(&self) -> Result<Dialer, Error> {
        let proxy = match &self.proxy {
            Some(url) => ProxySettings::new(Some(url.parse::<ProxyUrl>()?), NoProxy::default()),
            None => ProxySettings::from_env()?,
        };
        Ok(Dialer { proxy, bind: self.bind, family: self.address_family })
    }

    /// Checks what a single key's type cannot.
    pub fn check(&self) -> Result<(), Error> {
        let paths = [
            ("data", Some(&self.data)),
            ("storage", Some(&self.storage)),
            ("publish", self.publish.as_ref()),
            ("work", self.work.as_ref()),
            ("points.roots", self.points.roots.as_ref()),
        ];
        for (key, path) in paths {
            if let Some(path) = path.filter(|path| !path.is_absolute()) {
                return Err(Error::Relative { key, path: path.clone() });
            }
        }
        if let Some(path) = self.writable.iter().find(|path| !path.is_absolute()) {
            return Err(Error::Relative { key: "writable", path: path.clone() });
        }
        let (publish, work) = (self.publish(), self.work());
        if publish.starts_with(&work) || work.starts_with(&publish) {
            return Err(Error::Nested { publish, work });
        }
        self.hooks.check()?;
        self.dialer().map(drop)
    }
}

/// Reads file, environment and flags.
///
/// Without a named file, `mirror-agent.toml` in the data directory is read where there is one.
pub fn load(
    file: Option<&Path>,
    environment: Vec<(String, String)>,
    flags: Vec<(&'static str, toml::Value)>,
) -> Result<Loaded<Config>, Error> {
    let named = file.map(Path::to_owned);
    let path = named.clone().or_else(|| {
        let data = flags.iter().find(|(key, _)| *key == "data").and_then(|(_, v)| v.as_str());
        Some(Path::new(data?).join(FILE)).filter(|path| path.exists())
    });
    let file = match path {
        Some(path) => {
            let text = std::fs::read_to_string(&path)
                .map_err(|source| Error::Read { path: path.clone(), source })?;
            Some((path.display().to_string(), text))
        }
        None => None,
    };
    let loaded: Loaded<Config> = config::load(Sources { file, environment, flags })?;
    loaded.config.check()?;
    Ok(loaded)
}

/// Name of the configuration file in a data directory.
pub const FILE: &str = "mirror-agent.toml";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_is_an_error_that_names_it_and_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("agent.toml");
        std::fs::write(&file, "storrage = \"/x\"\n").unwrap();
        let error = load(Some(&file), vec![], vec![]).unwrap_err();
        let said = crate::chain(&error);
        assert!(said.contains("storrage") && said.contains("agent.toml"), "{said}");
    }

    #[test]
    fn work_is_never_inside_what_is_published() {
        let config = Config {
            publish: Some("/srv/mirror".into()),
            work: Some("/srv/mirror/work".into()),
            ..Config::default()
        };
        assert!(matches!(config.check(), Err(Error::Nested { .. })));
        assert!(Config::default().check().is_ok());
        let config = Config { storage: "relative".into(), ..Config::default() };
        assert!(matches!(config.check(), Err(Error::Relative { key: "storage", .. })));
    }

    #[test]
    fn the_data_directory_may_hold_the_configuration() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), "storage = \"/elsewhere\"\n").unwrap();
        let data = dir.path().to_str().unwrap().to_owned();
        let loaded = load(None, vec![], vec![("data", data.into())]).unwrap();
        assert_eq!(loaded.config.storage, Path::new("/elsewhere"));
        assert_eq!(loaded.config.work(), Path::new("/elsewhere/work"));
    }
}
