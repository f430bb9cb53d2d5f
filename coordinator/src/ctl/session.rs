//! Finds the identity and opens the API with it.
//!
//! A certificate lives for a limited time, and an admin's program does not run all day: so
//! whenever it is used in the second half of its certificate's life, it renews it on the way.

use std::{
    env,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;
use certs::{
    dial::{Dialer, ProxySettings},
    identity::{Identity, directory},
    live::{LiveClient, LiveIdentity, http_client},
    tls::ServerExpectation,
};
use jiff::Timestamp;
use protocol::{client::Client, v1::enroll::RenewRequest};

use super::{error::Error, print::Print};

/// Which identity is used, and how the coordinator is reached.
#[derive(Debug)]
pub(super) struct Session {
    chosen: Option<PathBuf>,
    url: Option<String>,
}

impl Session {
    /// Acts under the identity in `chosen`, or in the user's configuration directory, towards the
    /// API at `url`, or where the identity says it is.
    pub(super) fn new(chosen: Option<PathBuf>, url: Option<String>) -> Self {
        Self { chosen, url }
    }

    /// The directory of the identity.
    pub(super) fn dir(&self) -> Result<PathBuf, Error> {
        if let Some(dir) = &self.chosen {
            return Ok(dir.clone());
        }
        default_dir(|name| env::var_os(name).map(PathBuf::from)).ok_or_else(|| {
            Error::Usage(
                "neither HOME nor XDG_CONFIG_HOME is set; name the identity's directory with --identity"
                    .into(),
            )
        })
    }

    /// The API under this identity.
    pub(super) async fn api(&self, print: &mut Print) -> Result<Client, Error> {
        let dir = self.dir()?;
        certs::install_provider();
        let live = LiveIdentity::open(&dir).map_err(|error| unusable(&dir, error))?;
        let dialer = dialer()?;
        let client = LiveClient::new(&live, ServerExpectation::Coordinator, dialer.clone());
        let client = Arc::new(client.context("no connection can be prepared")?);
        let current = live.current();
        let url = self.url.as_ref().unwrap_or(&current.membership.api_url);
        let api = Client::new(url, Arc::new(move || client.get()));
        if is_in_second_half(&current, Timestamp::now()) && dir.join("identity").exists() {
            renew(&live, &api, &dialer, print).await;
        }
        let not_after = live.current().not_after;
        if not_after <= Timestamp::now() {
            print.note(&format!(
                "warning: the certificate of this identity has expired (at {not_after}), or this machine's clock is wrong"
            ));
        }
        Ok(api)
    }
}

/// Reads `https://HOST:PORT`.
pub(super) fn parse_url(text: &str) -> Result<String, String> {
    let url: reqwest::Url = text.parse().map_err(|error| format!("{error}"))?;
    let plain = url.scheme() == "https"
        && url.has_host()
        && url.path() == "/"
        && url.query().is_none()
        && url.username().is_empty()
        && url.password().is_none();
    if plain { Ok(text.to_owned()) } else { Err("write https://HOST:PORT".into()) }
}

/// The API under an identity that is not in place yet.
pub(super) fn api_of(identity: &Identity) -> anyhow::Result<Client> {
    let client = http_client(identity, &ServerExpectation::Coordinator, &dialer()?)?;
    Ok(Client::new(&identity.membership.api_url, Arc::new(move || client.clone())))
}

/// How this machine reaches others.
pub(super) fn dialer() -> anyhow::Result<Dialer> {
    let proxy = ProxySettings::from_env().context("a proxy in the environment is not valid")?;
    Ok(Dialer { proxy, ..Dialer::default() })
}

/// A failed renewal is told and tried again next time: the certificate is still good.
async fn renew(live: &LiveIdentity, api: &Client, dialer: &Dialer, print: &mut Print) {
    let ask = |request: RenewRequest| async move {
        match api.renew(&request).await {
            Ok(response) => Ok(response),
            Err(error) if live.has_ended() => match live.renew_late(&request, dialer).await {
                Ok(response) => Ok(response),
                // The verb itself tells that it has expired.
                Err(late) => Err(anyhow::Error::from(late).context(error)),
            },
            Err(error) => Err(error.into()),
        }
    };
    let check = |identity: Arc<Identity>| {
        let (dialer, url) = (dialer.clone(), api.base().to_owned());
        async move {
            let client = http_client(&identity, &ServerExpectation::Coordinator, &dialer)?;
            Client::new(&url, Arc::new(move || client.clone())).whoami().await?;
            Ok::<_, anyhow::Error>(())
        }
    };
    // Whatever is wrong with the connection, the verb itself will tell.
    if let Err(error) = live.renew_once(&ask, &check).await
        && !matches!(error, certs::live::Error::Refused(_))
    {
        let error = anyhow::Error::from(error);
        print.note(&format!("warning: the certificate was not renewed: {error:#}"));
    }
}

fn is_in_second_half(identity: &Identity, now: Timestamp) -> bool {
    let life = identity.not_after.duration_since(identity.not_before);
    now.duration_since(identity.not_before) > life / 2
}

fn unusable(dir: &Path, source: directory::Error) -> Error {
    match source {
        directory::Error::NotEnrolled { data } => Error::NotLoggedIn(data),
        source => Error::Identity { dir: dir.into(), source: Box::new(source) },
    }
}

fn default_dir(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    let set = |name: &str| variable(name).filter(|dir| dir.is_absolute());
    let config = set("XDG_CONFIG_HOME").or_else(|| set("HOME").map(|home| home.join(".config")))?;
    Some(config.join("mirrornet"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_identity_is_in_the_users_configuration_directory() {
        let dir = |xdg: Option<&str>, home: Option<&str>| {
            let of = |name: &str| match name {
                "XDG_CONFIG_HOME" => xdg.map(PathBuf::from),
                _ => home.map(PathBuf::from),
            };
            default_dir(of).map(|dir| dir.display().to_string())
        };
        assert_eq!(dir(Some("/x"), Some("/home/a")).as_deref(), Some("/x/mirrornet"));
        assert_eq!(dir(None, Some("/home/a")).as_deref(), Some("/home/a/.config/mirrornet"));
        assert_eq!(dir(Some(""), Some("/home/a")).as_deref(), Some("/home/a/.config/mirrornet"));
        assert_eq!(dir(None, None), None);
    }
}
