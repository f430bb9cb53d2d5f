//! What an admin sets about consumers (`[consumers]` in publisher.toml).

use std::{collections::BTreeSet, path::PathBuf};

use protocol::{name::TreeName, path::TreePath};
use serde::{Deserialize, Serialize};

/// What consumers who are no agents are served, and to whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ConsumersConfig {
    /// `ADDRESS:PORT` for HTTPS. Port 0 takes a free one.
    pub listen: String,
    /// The certificate chain that consumers are shown, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM, mode 0600.
    pub key: PathBuf,
    /// SHA-256 (64 hex digits) of the client certificates of proxies that are believed about the
    /// certificates of those who ask them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub proxies: Vec<String>,
    /// Guards of trees that name none of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_guards: Option<Vec<String>>,
    /// Which trees are named to whoever asks what there is.
    #[serde(default)]
    pub listing: Listing,
    /// Who may read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub guards: Vec<GuardConfig>,
    /// What is served.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trees: Vec<ConsumedTree>,
}

/// Which trees are named at `/`.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Listing {
    /// None.
    #[default]
    None,
    /// Those that whoever asks may read.
    Open,
    /// All.
    All,
}

/// What opens something: a certificate, a signed URL, or several of these together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct GuardConfig {
    /// Its name.
    pub name: String,
    /// A file with the authorities that make such certificates, PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorities: Option<PathBuf>,
    /// A file with the secrets that sign URLs, one on each line, mode 0600. The first signs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secrets: Option<PathBuf>,
    /// Names of other guards, of which each has to let a consumer in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub all: Vec<String>,
    /// A file with the revocation lists of these authorities, PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<PathBuf>,
    /// Whether the certificate also has to name the path that is asked for, or one above it.
    #[serde(default)]
    pub entitlement: bool,
    /// Beginning of paths that certificates do not name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub strip: String,
}

/// A tree that is served to consumers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ConsumedTree {
    /// Which tree.
    pub tree: TreeName,
    /// Where its files are, as a path without a slash at the beginning.
    pub path: TreePath,
    /// Names of the guards of which one has to let a consumer in; nobody is, where there is none.
    /// Without the key the default guards decide; where there are none, the tree is for everybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guards: Option<Vec<String>>,
    /// Whether it is for everybody, whatever the default guards are.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub open: bool,
}

/// A value that cannot be meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not `ADDRESS:PORT`.
    #[error("consumers.listen = {0:?} is not an address and a port, such as 0.0.0.0:443")]
    Listen(String),
    /// Not absolute.
    #[error("consumers.{key} = {path:?} is not an absolute path")]
    Relative {
        /// Which key.
        key: &'static str,
        /// Its value.
        path: PathBuf,
    },
    /// Not a digest.
    #[error(
        "consumers.proxies has {0:?}; write the SHA-256 of the proxy's certificate in 64 hex digits (openssl x509 -fingerprint -sha256, without colons, in lower case)"
    )]
    Proxy(String),
    /// Twice the same.
    #[error("consumers.guards has two named {0:?}; each needs a name of its own")]
    Twice(String),
    /// Not exactly one way to be let in.
    #[error(
        "consumers.guards: {0:?} needs exactly one of authorities (certificates), secrets (signed URLs) and all (other guards together)"
    )]
    NoWay(String),
    /// Settings of certificates where there are none.
    #[error(
        "consumers.guards: {0:?} has revoked, entitlement or strip, which belong to authorities"
    )]
    NoCertificates(String),
    /// A guard of nothing, or of guards of guards.
    #[error(
        "consumers.guards: {guard:?} names {part:?} in all, which is not there or has an all of its own"
    )]
    NoPart {
        /// Which guard.
        guard: String,
        /// What it names.
        part: String,
    },
    /// A default of nothing.
    #[error("consumers.default-guards names the guard {0:?}, which is not there")]
    NoDefault(String),
    /// Both.
    #[error("consumers.trees: the tree {0} has guards and is open; leave one of the two out")]
    OpenAndGuarded(TreeName),
    /// A name of nothing.
    #[error("consumers.trees: the tree {tree} names the guard {guard:?}, which is not there")]
    NoGuard {
        /// Whose.
        tree: TreeName,
        /// Which.
        guard: String,
    },
    /// One inside the other.
    #[error(
        "consumers.trees has the paths {first} and {second}, of which one lies in the other or is the same; each tree needs a path of its own"
    )]
    Nested {
        /// One.
        first: TreePath,
        /// The other.
        second: TreePath,
    },
}

impl ConsumersConfig {
    /// Checks what the types cannot say.
    pub fn check(&self) -> Result<(), Error> {
        if self.listen.parse::<std::net::SocketAddr>().is_err() {
            return Err(Error::Listen(self.listen.clone()));
        }
        let of_guards = self.guards.iter().flat_map(|guard| {
            let authorities = guard.authorities.iter().map(|path| ("guards.authorities", path));
            let revoked = guard.revoked.iter().map(|path| ("guards.revoked", path));
            let secrets = guard.secrets.iter().map(|path| ("guards.secrets", path));
            authorities.chain(revoked).chain(secrets)
        });
        let own = [("certificate", &self.certificate), ("key", &self.key)];
        if let Some((key, path)) = of_guards.chain(own).find(|(_, path)| !path.is_absolute()) {
            return Err(Error::Relative { key, path: path.clone() });
        }
        let is_digest = |text: &&String| {
            let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
            text.len() == 64 && text.bytes().all(hex)
        };
        if let Some(proxy) = self.proxies.iter().find(|proxy| !is_digest(proxy)) {
            return Err(Error::Proxy(proxy.clone()));
        }
        let mut names = BTreeSet::new();
        if let Some(guard) = self.guards.iter().find(|guard| !names.insert(guard.name.as_str())) {
            return Err(Error::Twice(guard.name.clone()));
        }
        for guard in &self.guards {
            self.check_guard(guard)?;
        }
        let mut defaults = self.default_guards.iter().flatten();
        if let Some(guard) = defaults.find(|guard| !names.contains(guard.as_str())) {
            return Err(Error::NoDefault(guard.clone()));
        }
        for (at, tree) in self.trees.iter().enumerate() {
            if tree.open && tree.guards.is_some() {
                return Err(Error::OpenAndGuarded(tree.tree.clone()));
            }
            let mut guards = tree.guards.iter().flatten();
            if let Some(guard) = guards.find(|guard| !names.contains(guard.as_str())) {
                return Err(Error::NoGuard { tree: tree.tree.clone(), guard: guard.clone() });
            }
            let meets = |other: &&ConsumedTree| {
                let (one, other) = (&tree.path, &other.path);
                one == other || one.is_inside(other) || other.is_inside(one)
            };
            if let Some(other) = self.trees[..at].iter().find(meets) {
                let (first, second) = (other.path.clone(), tree.path.clone());
                return Err(Error::Nested { first, second });
            }
        }
        Ok(())
    }

    fn check_guard(&self, guard: &GuardConfig) -> Result<(), Error> {
        let ways = [guard.authorities.is_some(), guard.secrets.is_some(), !guard.all.is_empty()];
        if ways.into_iter().filter(|way| *way).count() != 1 {
            return Err(Error::NoWay(guard.name.clone()));
        }
        let of_certificates =
            guard.revoked.is_some() || guard.entitlement || !guard.strip.is_empty();
        if of_certificates && guard.authorities.is_none() {
            return Err(Error::NoCertificates(guard.name.clone()));
        }
        let is_part =
            |name: &&String| self.guards.iter().any(|it| it.name == **name && it.all.is_empty());
        match guard.all.iter().find(|name| !is_part(name)) {
            None => Ok(()),
            Some(part) => Err(Error::NoPart { guard: guard.name.clone(), part: part.clone() }),
        }
    }

    /// The guards that decide about a tree; `None` where it is for everybody.
    pub fn guards_of<'a>(&'a self, tree: &'a ConsumedTree) -> Option<&'a [String]> {
        if tree.open {
            return None;
        }
        tree.guards.as_deref().or(self.default_guards.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> ConsumersConfig {
        let base = "listen = \"0.0.0.0:443\"\ncertificate = \"/c\"\nkey = \"/k\"\n";
        toml::from_str(&format!("{base}{text}")).unwrap()
    }

    #[test]
    fn what_cannot_be_meant_is_named() {
        let guard = "[[guards]]\nname = \"a\"\nauthorities = \"/a\"\n";
        let tree = |path: &str| format!("[[trees]]\ntree = \"t\"\npath = \"{path}\"\n");
        read(&format!("{guard}{}guards = [\"a\"]\n{}", tree("x/y"), tree("x/yz"))).check().unwrap();
        let table = [
            (format!("{guard}{guard}"), "two named"),
            (format!("{}guards = [\"b\"]\n", tree("x")), "which is not there"),
            (format!("{}{}", tree("x"), tree("x/y")), "x and x/y"),
            (format!("{}{}", tree("x"), tree("x")), "x and x"),
            ("proxies = [\"AB\"]".into(), "SHA-256"),
            (guard.replace("\"/a\"", "\"a\""), "guards.authorities"),
            ("[[guards]]\nname = \"a\"\n".into(), "exactly one"),
            (format!("{guard}secrets = \"/s\"\n"), "exactly one"),
            ("[[guards]]\nname = \"a\"\nsecrets = \"s\"\n".into(), "guards.secrets"),
            (
                "[[guards]]\nname = \"a\"\nsecrets = \"/s\"\nentitlement = true\n".into(),
                "belong to authorities",
            ),
            (format!("{guard}[[guards]]\nname = \"b\"\nall = [\"a\", \"c\"]\n"), "\"c\" in all"),
            (format!("{guard}[[guards]]\nname = \"b\"\nall = [\"a\", \"b\"]\n"), "\"b\" in all"),
            ("default-guards = [\"b\"]\n".into(), "default-guards"),
            (format!("{guard}{}guards = [\"a\"]\nopen = true\n", tree("x")), "is open"),
        ];
        for (text, wanted) in table {
            let error = read(&text).check().unwrap_err().to_string();
            assert!(error.contains(wanted), "{error}");
        }
    }
}
