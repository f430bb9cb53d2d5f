//! Which servers outside of the network this site asks: its own admin's word, which nobody else's
//! can widen.

use std::sync::Arc;

use certs::dial::{Network, Reach};
use protocol::point::BaseUrl;
use reqwest::Url;
use serde::{Deserialize, Serialize};

/// Most redirects that one request follows.
pub const MAX_REDIRECTS: usize = 3;

/// What an admin of a site sets about publication points (`[points]` in mirror-agent.toml).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct PointsConfig {
    /// Hosts that may be asked: `cdn.example.org`, or `*.example.org` for all names below it. Every
    /// host that the definitions name, where the list is empty.
    pub hosts: Vec<String>,
    /// Hosts to which a point may redirect, in the same form; none by default.
    pub redirects: Vec<String>,
    /// Whether `http://` points are asked. What comes is verified all the same; who listens on the
    /// way sees what this site mirrors.
    pub plain_http: bool,
    /// Networks that are no public ones and may be asked nevertheless.
    pub private: Vec<Network>,
    /// A file of certificates (PEM) of further authorities that points may be certified by.
    pub roots: Option<std::path::PathBuf>,
}

impl PointsConfig {
    /// Which addresses points may have.
    pub fn reach(&self) -> Reach {
        Reach { private: self.private.clone(), plain_http: self.plain_http }
    }
}

/// Why a point is not asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Not among the hosts.
    #[error("its host is not among points.hosts in this agent's configuration")]
    Host,
    /// `http://`.
    #[error("it is not https, and points.plain-http is not set in this agent's configuration")]
    Plain,
    /// An address that is not public.
    #[error(
        "its address is not a public one, and points.private in this agent's configuration does not allow it"
    )]
    Private,
}

/// Decides which points are asked, and whither their answers may lead.
#[derive(Debug, Clone, Default)]
pub struct Allowed(Option<Arc<PointsConfig>>);

impl Allowed {
    /// Follows nothing: for the publisher, which is known by its certificate.
    pub fn none() -> Self {
        Self(None)
    }

    /// As an admin of the site configured.
    pub fn new(config: &PointsConfig) -> Self {
        Self(Some(Arc::new(config.clone())))
    }

    /// Whether a point may be asked.
    pub fn check(&self, url: &BaseUrl) -> Result<(), Refused> {
        let Some(config) = &self.0 else { return Err(Refused::Host) };
        if !config.hosts.is_empty() && !names(&config.hosts, url.host()) {
            return Err(Refused::Host);
        }
        if !url.is_https() && !config.plain_http {
            return Err(Refused::Plain);
        }
        if !config.reach().admits_host(url.host()) {
            return Err(Refused::Private);
        }
        Ok(())
    }

    /// Where a redirect of `from` to `location` leads, if it may be followed.
    pub fn follow(&self, from: &Url, location: &str) -> Option<Url> {
        let config = self.0.as_ref()?;
        let to = from.join(location).ok()?;
        let scheme = match to.scheme() {
            "https" => true,
            // Never from an encrypted connection to one that is not.
            "http" => config.plain_http && from.scheme() == "http",
            _ => false,
        };
        let host = to.host_str()?;
        let allowed = scheme
            && names(&config.redirects, host)
            && config.reach().admits_host(host)
            && to.username().is_empty()
            && to.password().is_none();
        allowed.then_some(to)
    }
}

/// Whether a list of hosts has this one, as itself or below a `*.`.
fn names(hosts: &[String], host: &str) -> bool {
    hosts.iter().any(|pattern| match pattern.strip_prefix("*.") {
        Some(domain) => {
            host.strip_suffix(domain).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
        }
        None => pattern == host,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(set: impl FnOnce(&mut PointsConfig)) -> Allowed {
        let mut config = PointsConfig::default();
        set(&mut config);
        Allowed::new(&config)
    }

    fn check(allowed: &Allowed, url: &str) -> Result<(), Refused> {
        allowed.check(&url.parse().unwrap())
    }

    #[test]
    fn a_point_is_asked_where_this_sites_admin_lets_it() {
        let plain = allowed(|_| {});
        assert_eq!(check(&plain, "https://cdn.example.org/x"), Ok(()));
        assert_eq!(check(&plain, "http://cdn.example.org"), Err(Refused::Plain));
        for inner in ["https://127.0.0.1", "https://[::1]", "https://169.254.169.254"] {
            assert_eq!(check(&plain, inner), Err(Refused::Private), "{inner}");
        }
        let listed = allowed(|c| c.hosts = vec!["cdn.example.org".into(), "*.cdn.net".into()]);
        assert_eq!(check(&listed, "https://cdn.example.org"), Ok(()));
        assert_eq!(check(&listed, "https://a.b.cdn.net"), Ok(()));
        for other in ["https://example.org", "https://cdn.net", "https://evilcdn.net"] {
            assert_eq!(check(&listed, other), Err(Refused::Host), "{other}");
        }
        let inner = allowed(|c| c.private = vec!["10.0.0.0/8".parse().unwrap()]);
        assert_eq!(check(&inner, "https://10.1.2.3"), Ok(()));
        assert_eq!(check(&inner, "https://192.168.1.1"), Err(Refused::Private));
    }

    #[test]
    fn a_redirect_is_followed_only_to_a_host_that_is_named() {
        let allowed = allowed(|c| c.redirects = vec!["*.s3.example".into(), "127.0.0.1".into()]);
        let from = Url::parse("https://cdn.example.org/trees/t/packs/00").unwrap();
        let follow = |to: &str| allowed.follow(&from, to).map(|url| url.to_string());
        assert_eq!(follow("https://b.s3.example/k").as_deref(), Some("https://b.s3.example/k"));
        assert_eq!(follow("//b.s3.example/k").as_deref(), Some("https://b.s3.example/k"));
        let refused = [
            "https://evil.example/k",
            "http://b.s3.example/k",
            "file:///etc/passwd",
            "ftp://b.s3.example/",
            "https://user@b.s3.example/",
            "https://127.0.0.1/",
            "https://cdn.example.org/other",
            "/other",
            "",
            "::",
        ];
        for to in refused {
            assert_eq!(follow(to), None, "{to}");
        }
        assert_eq!(Allowed::none().follow(&from, "https://b.s3.example/k"), None);
    }
}
