//! What `coordinator.toml` says of events and webhooks.

use std::{collections::BTreeSet, path::PathBuf};

use protocol::{units::Span, v1::events::EventKind};
use serde::{Deserialize, Serialize};

/// Shortest secret, in bytes: less could be guessed.
const SHORTEST: usize = 16;
/// Most secrets of one webhook: an old and a new one.
const MOST: usize = 4;
/// Less than this, and a connected agent would be called silent between two polls.
const SHORTEST_SILENCE: Span = Span::from_secs(180);
/// Most webhooks.
const MOST_WEBHOOKS: usize = 32;

/// `[events]` of `coordinator.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct EventsConfig {
    /// After what time an agent or a publisher that was not heard of is silent.
    pub silent_after: Span,
    /// How long events are kept.
    pub keep: Span,
}

impl Default for EventsConfig {
    fn default() -> Self {
        Self { silent_after: Span::from_secs(3_600), keep: Span::from_secs(30 * 24 * 3_600) }
    }
}

/// One of the tables `[[webhooks]]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct WebhookConfig {
    /// Its name, for logs; what waits for it is kept under this name.
    pub name: String,
    /// Where events are sent.
    pub url: String,
    /// A file of mode 0600 with one secret on each line: text, or `whsec_` and base64.
    pub secret_file: PathBuf,
    /// Kinds of event; those that need attention where none are named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<EventKind>,
    /// Whether `http://` is allowed to another machine.
    #[serde(default)]
    pub plain_http: bool,
    /// A PEM file of further authorities that certify the receiver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roots: Option<PathBuf>,
}

/// What of it cannot be followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// A name that is none, or is there twice.
    #[error(
        "webhooks: the name {name:?} is empty, longer than 64 letters, or there twice; each webhook needs one of its own"
    )]
    Name {
        /// Which name.
        name: String,
    },
    /// An address that is not accepted.
    #[error(
        "webhooks: the url of {name} is not https://HOST/…; http:// is for this machine itself, or with plain-http = true"
    )]
    Url {
        /// Which webhook.
        name: String,
    },
    /// A kind that there is not.
    #[error("webhooks: {name} names a kind of event that there is not; there are {}", EventKind::ALL.map(EventKind::as_str).join(", "))]
    Kind {
        /// Which webhook.
        name: String,
    },
    /// A path that depends on where the program was started.
    #[error("webhooks: a path of {name} is not absolute: {path:?}")]
    Relative {
        /// Which webhook.
        name: String,
        /// The path.
        path: PathBuf,
    },
    /// Too many.
    #[error("webhooks: there are more than {MOST_WEBHOOKS}")]
    TooMany,
    /// A silence that would be noticed all the time.
    #[error("events.silent-after = \"{span}\" is less than {SHORTEST_SILENCE}")]
    Silence {
        /// What was asked for.
        span: Span,
    },
}

impl EventsConfig {
    /// Checks what the types cannot.
    pub fn check(&self) -> Result<(), Invalid> {
        match self.silent_after {
            span if span < SHORTEST_SILENCE => Err(Invalid::Silence { span }),
            _ => Ok(()),
        }
    }
}

impl WebhookConfig {
    /// Checks all webhooks.
    pub fn check_all(all: &[Self]) -> Result<(), Invalid> {
        if all.len() > MOST_WEBHOOKS {
            return Err(Invalid::TooMany);
        }
        let mut names = BTreeSet::new();
        for one in all {
            one.check()?;
            if !names.insert(&one.name) {
                return Err(Invalid::Name { name: one.name.clone() });
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<(), Invalid> {
        let name = self.name.clone();
        if name.is_empty() || name.len() > 64 || name.chars().any(char::is_control) {
            return Err(Invalid::Name { name });
        }
        let url = reqwest::Url::parse(&self.url).ok().filter(|url| url.has_host());
        let is_plain_allowed = self.plain_http || self.is_local();
        match url.as_ref().map(reqwest::Url::scheme) {
            Some("https") => {}
            Some("http") if is_plain_allowed => {}
            _ => return Err(Invalid::Url { name }),
        }
        if self.events.contains(&EventKind::Other) {
            return Err(Invalid::Kind { name });
        }
        let paths = [Some(&self.secret_file), self.roots.as_ref()];
        match paths.into_iter().flatten().find(|path| !path.is_absolute()) {
            Some(path) => Err(Invalid::Relative { name, path: path.clone() }),
            None => Ok(()),
        }
    }

    /// Whether the receiver is on this machine.
    pub(super) fn is_local(&self) -> bool {
        let url = reqwest::Url::parse(&self.url).ok();
        let host = url.as_ref().and_then(reqwest::Url::host_str).unwrap_or_default();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let loopback = bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
        loopback || bare == "localhost"
    }

    /// The kinds that it wants.
    pub(super) fn kinds(&self) -> BTreeSet<EventKind> {
        match self.events.is_empty() {
            true => EventKind::ALL.into_iter().filter(|kind| kind.needs_attention()).collect(),
            false => self.events.iter().copied().collect(),
        }
    }
}

/// The secrets of a file, the newest first; each is tried by the receiver.
pub(super) fn secrets(text: &str) -> Result<Vec<Vec<u8>>, &'static str> {
    let mut secrets = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let secret = match line.strip_prefix("whsec_") {
            Some(coded) => data_encoding::BASE64
                .decode(coded.as_bytes())
                .map_err(|_| "holds a whsec_ that is not base64")?,
            None => line.as_bytes().to_vec(),
        };
        if secret.len() < SHORTEST {
            return Err(
                "holds a secret of less than 16 bytes; make one with: openssl rand -hex 32",
            );
        }
        secrets.push(secret);
    }
    match secrets.len() {
        0 => Err("is empty; make a secret with: openssl rand -hex 32"),
        1..=MOST => Ok(secrets),
        _ => Err("holds more than four secrets"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn webhook(text: &str) -> Result<(), Invalid> {
        let text = format!("name = \"ops\"\nsecret-file = \"/etc/mirrornet/ops\"\n{text}\n");
        WebhookConfig::check_all(&[toml::from_str(&text).unwrap()])
    }

    #[test]
    fn an_address_is_https_or_on_this_machine_unless_said_otherwise() {
        for good in [
            "url = \"https://hooks.example.org/x\"",
            "url = \"http://127.0.0.1:8080/\"",
            "url = \"http://[::1]:8080/\"",
            "url = \"http://chat.intern/\"\nplain-http = true",
        ] {
            assert_eq!(webhook(good), Ok(()), "{good}");
        }
        for bad in [
            "url = \"http://chat.intern/\"",
            "url = \"http://127.0.0.1.example.org/\"",
            "url = \"file:///etc/passwd\"",
            "url = \"hooks.example.org\"",
        ] {
            assert!(matches!(webhook(bad), Err(Invalid::Url { .. })), "{bad}");
        }
    }

    #[test]
    fn without_kinds_a_webhook_is_told_what_needs_attention_and_its_end() {
        let text = "name = \"a\"\nurl = \"https://a/\"\nsecret-file = \"/a\"";
        let config: WebhookConfig = toml::from_str(text).unwrap();
        let kinds = config.kinds();
        assert!(kinds.contains(&EventKind::RunFailed) && kinds.contains(&EventKind::RunRecovered));
        assert!(!kinds.contains(&EventKind::RunFinished));
        let config: WebhookConfig =
            toml::from_str(&format!("{text}\nevents = [\"run-finished\"]")).unwrap();
        assert_eq!(config.kinds(), [EventKind::RunFinished].into());
        let unknown: WebhookConfig =
            toml::from_str(&format!("{text}\nevents = [\"run-failde\"]")).unwrap();
        assert!(matches!(WebhookConfig::check_all(&[unknown]), Err(Invalid::Kind { .. })));
        let twice = WebhookConfig::check_all(&[config.clone(), config]);
        assert!(matches!(twice, Err(Invalid::Name { .. })));
    }

    #[test]
    fn a_secret_is_long_enough_and_there_may_be_an_old_one_beside_it() {
        assert_eq!(
            secrets("0123456789abcdef\n\nwhsec_MDEyMzQ1Njc4OWFiY2RlZg==\n").unwrap().len(),
            2
        );
        assert!(secrets("\n").is_err() && secrets("short").is_err() && secrets("whsec_!").is_err());
    }
}
