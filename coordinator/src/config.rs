//! The coordinator's configuration file, environment and flags.

use std::path::{Path, PathBuf};

use certs::authority;
use jiff::SignedDuration;
use protocol::{
    config::{self, Loaded, Sources},
    units::Span,
};
use serde::{Deserialize, Serialize};

use crate::{
    journal,
    webhooks::{self, EventsConfig, WebhookConfig},
};

/// The file that `init` leaves in the data directory.
pub const FILE: &str = "coordinator.toml";

/// Longest configuration file, in bytes.
const MAX_LEN: u64 = 1 << 20;

const CERTIFICATE_LIFE: Span = Span::from_secs(authority::LIFE.as_secs().unsigned_abs());
/// Less than this, and half a life would not do for a renewal that has to be tried twice.
const SHORTEST_LIFE: Span = Span::from_secs(5);
/// A machine that was away for a month comes back by itself.
const LATE_RENEWAL: Span = Span::from_secs(30 * 24 * 3600);
/// More than this, and a disk that was thrown away would be an identity for too long.
const LONGEST_LATE_RENEWAL: Span = Span::from_secs(90 * 24 * 3600);
/// More than this, and a stolen certificate would be good for too long.
const LONGEST_LIFE: Span = Span::from_secs(90 * 24 * 3600);

/// Long enough for a night without the coordinator, and short enough that an old word does not count
/// for long.
const HEAD_LIFE: Span = Span::from_secs(24 * 3600);
/// Less than this, and a head would end while it is on its way.
const SHORTEST_HEAD_LIFE: Span = Span::from_secs(5);
/// More than this, and who keeps an agent from the coordinator could keep it at what is old for too
/// long.
const LONGEST_HEAD_LIFE: Span = Span::from_secs(7 * 24 * 3600);

/// What a coordinator can be told. Every key is also a variable and a flag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct Config {
    /// Where keys, certificates and the embedded database are; 0700.
    pub data: PathBuf,
    /// `ADDRESS:PORT` of the API (mutual TLS); port 0 takes a free one.
    pub listen: String,
    /// `ADDRESS:PORT` of the enroll port (server-authenticated TLS).
    pub enroll_listen: String,
    /// Names and addresses under which others reach this coordinator, the main one first; those
    /// given to `init` where none are named.
    pub hostnames: Vec<String>,
    /// The API's address as others see it, where it is not that of `hostnames` and `listen`.
    pub api_url: Option<String>,
    /// The same of the enroll port.
    pub enroll_url: Option<String>,
    /// How long a certificate lives; programs renew theirs at half of it.
    pub certificate_life: Span,
    /// How long after its end a certificate may still be renewed by its holder, at the enroll port;
    /// `0s` for never.
    pub renew_after_expiry: Span,
    /// How long what agents are told counts without the coordinator.
    pub head_life: Span,
    /// Where revocations are kept beside the database, for a restore; `revocations` in the data
    /// directory where it is absent.
    pub revocations: Option<PathBuf>,
    /// What is told of, and for how long.
    pub events: EventsConfig,
    /// Web servers that events are sent to.
    pub webhooks: Vec<WebhookConfig>,
    /// The database.
    pub database: DatabaseConfig,
    /// How the log is written.
    pub log_format: LogFormat,
    /// What the log holds: `info`, or as in `info,sqlx=debug`.
    pub log: String,
}

/// Which database.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct DatabaseConfig {
    /// `postgres://…`; SQLite in the data directory where it is absent.
    pub url: Option<String>,
}

/// How the log is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object for each line.
    Json,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data: "/var/lib/mirrornet/coordinator".into(),
            listen: "0.0.0.0:8443".into(),
            enroll_listen: "0.0.0.0:8444".into(),
            hostnames: Vec::new(),
            api_url: None,
            enroll_url: None,
            certificate_life: CERTIFICATE_LIFE,
            renew_after_expiry: LATE_RENEWAL,
            head_life: HEAD_LIFE,
            revocations: None,
            events: EventsConfig::default(),
            webhooks: Vec::new(),
            database: DatabaseConfig::default(),
            log_format: LogFormat::Text,
            log: "info".into(),
        }
    }
}

impl Config {
    /// Where revocations are kept beside the database.
    pub fn journal(&self) -> PathBuf {
        self.revocations.clone().unwrap_or_else(|| self.data.join(journal::FILE))
    }

    /// How long after its end a certificate may be renewed.
    pub fn late_renewal(&self) -> SignedDuration {
        SignedDuration::try_from(self.renew_after_expiry.duration()).unwrap_or(SignedDuration::ZERO)
    }

    /// How long a head counts.
    pub fn head_life(&self) -> SignedDuration {
        SignedDuration::try_from(self.head_life.duration()).unwrap_or(SignedDuration::ZERO)
    }

    /// How long a certificate lives.
    pub fn life(&self) -> SignedDuration {
        SignedDuration::try_from(self.certificate_life.duration()).unwrap_or(authority::LIFE)
    }
}

/// Reads the configuration: from `file`, or else from the one that `init` left in the data
/// directory, with the environment and the flags over it.
///
/// # Errors
/// At the first key that does not exist or value that does not fit, named with its place.
pub fn load(
    file: Option<&Path>,
    environment: Vec<(String, String)>,
    flags: Vec<(&'static str, toml::Value)>,
) -> Result<Loaded<Config>, Error> {
    let loaded = load_layers(file, environment, flags)?;
    loaded.config.events.check()?;
    WebhookConfig::check_all(&loaded.config.webhooks)?;
    let life = loaded.config.certificate_life;
    if !(SHORTEST_LIFE..=LONGEST_LIFE).contains(&life) {
        return Err(Error::Life { life });
    }
    let late = loaded.config.renew_after_expiry;
    if late > LONGEST_LATE_RENEWAL {
        return Err(Error::LateRenewal { late });
    }
    let head = loaded.config.head_life;
    if !(SHORTEST_HEAD_LIFE..=LONGEST_HEAD_LIFE).contains(&head) {
        return Err(Error::HeadLife { head });
    }
    Ok(loaded)
}

fn load_layers(
    file: Option<&Path>,
    environment: Vec<(String, String)>,
    flags: Vec<(&'static str, toml::Value)>,
) -> Result<Loaded<Config>, Error> {
    if let Some(path) = file {
        let text = read(path)?;
        let file = Some((path.display().to_string(), text));
        return with_hostnames(config::load(Sources { file, environment, flags })?);
    }
    let sources = |file| Sources { file, environment: environment.clone(), flags: flags.clone() };
    // Where the data directory is may itself be a variable or a flag.
    let first: Loaded<Config> = config::load(sources(None))?;
    let left = first.config.data.join(FILE);
    if !left.exists() {
        return Ok(first);
    }
    let text = read(&left)?;
    Ok(config::load(sources(Some((left.display().to_string(), text))))?)
}

/// Reads the environment and the flags only.
pub fn load_without_file(
    environment: Vec<(String, String)>,
    flags: Vec<(&'static str, toml::Value)>,
) -> Result<Loaded<Config>, Error> {
    Ok(config::load(Sources { file: None, environment, flags })?)
}

/// A file of the admin's own need not repeat what `init` was told.
fn with_hostnames(mut loaded: Loaded<Config>) -> Result<Loaded<Config>, Error> {
    let left = loaded.config.data.join(FILE);
    if loaded.config.hostnames.is_empty() && left.exists() {
        let file = Some((left.display().to_string(), read(&left)?));
        let made: Loaded<Config> = config::load(Sources { file, ..Sources::default() })?;
        let of_hostnames = |setting: &&config::Setting| setting.key == "hostnames";
        if let Some(setting) = made.values.iter().find(of_hostnames) {
            loaded.values.retain(|setting| setting.key != "hostnames");
            loaded.values.push(setting.clone());
        }
        loaded.config.hostnames = made.config.hostnames;
    }
    Ok(loaded)
}

fn read(path: &Path) -> Result<String, Error> {
    use std::io::Read as _;
    let failed = |source| Error::Read { path: path.into(), source };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(MAX_LEN + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > MAX_LEN {
        return Err(Error::TooLong { path: path.into() });
    }
    Ok(text)
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read the configuration file {path}", path = path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is no configuration.
    #[error("{path} is longer than {MAX_LEN} bytes, so it is no configuration file", path = path.display())]
    TooLong {
        /// Which file.
        path: PathBuf,
    },
    /// Certificates that would live too short or too long.
    #[error("certificate-life = \"{life}\" is not between {SHORTEST_LIFE} and {LONGEST_LIFE}")]
    Life {
        /// What was asked for.
        life: Span,
    },
    /// Certificates that could be renewed for too long.
    #[error("renew-after-expiry = \"{late}\" is more than {LONGEST_LATE_RENEWAL}")]
    LateRenewal {
        /// What was asked for.
        late: Span,
    },
    /// Heads that would count too short or too long.
    #[error("head-life = \"{head}\" is not between {SHORTEST_HEAD_LIFE} and {LONGEST_HEAD_LIFE}")]
    HeadLife {
        /// What was asked for.
        head: Span,
    },
    /// Events or webhooks that cannot be.
    #[error(transparent)]
    Webhooks(#[from] webhooks::Invalid),
    /// A key or a value is wrong.
    #[error(transparent)]
    Content(#[from] config::Error),
}
