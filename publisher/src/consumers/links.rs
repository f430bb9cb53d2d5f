//! Signed URLs: how they are written, and how they are read.
//!
//! `/PATH?expires=SECONDS&validate_token=HEX` opens one file, and any path at or below DIRECTORY with
//! `?expires=SECONDS&below=DIRECTORY&validate_token=HEX`. Other parameters mean nothing here.

use std::time::Duration;

use certs::guard::{Link, Scope};
use protocol::{
    origin::url_path,
    path::{TreePath, unescape},
};

use super::{
    config::ConsumersConfig,
    guards::{self, secrets},
};

/// Why a URL is not signed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Nobody would serve it.
    #[error("no tree of [consumers] has the path {0}; see consumers.trees in the configuration")]
    NoTree(TreePath),
    /// Nobody asks for a signature there.
    #[error(
        "the tree {0} asks for no signed URL: none of its guards has secrets; see consumers.guards in the configuration"
    )]
    NoSecrets(protocol::name::TreeName),
    /// Its secrets.
    #[error(transparent)]
    Guard(#[from] guards::Error),
    /// Longer than time can say.
    #[error("that is longer than any time that can be written")]
    TooLong,
}

/// Signs what opens a path (and what is below, for a directory) for a while: the path and query of the
/// URL. The first of its tree's guards that has secrets, alone or among others, signs.
pub(crate) fn sign(
    config: &ConsumersConfig,
    scope: Scope,
    valid: Duration,
    now: jiff::Timestamp,
) -> Result<String, Error> {
    let (Scope::File(path) | Scope::Below(path)) = &scope;
    let holds = |of: &TreePath| path == of || path.is_inside(of);
    let tree = config.trees.iter().find(|tree| holds(&tree.path));
    let tree = tree.ok_or_else(|| Error::NoTree(path.clone()))?;
    let named = |name: &String| config.guards.iter().find(|guard| guard.name == *name);
    let guards = config.guards_of(tree).unwrap_or_default().iter().filter_map(named);
    let mut parts = guards.flat_map(|guard| {
        std::iter::once(guard).chain(guard.all.iter().filter_map(named)).collect::<Vec<_>>()
    });
    let found = parts.find_map(|guard| Some((guard, guard.secrets.as_ref()?)));
    let (guard, file) = found.ok_or_else(|| Error::NoSecrets(tree.tree.clone()))?;
    let expires = now.checked_add(valid).map_err(|_| Error::TooLong)?;
    Ok(write(&secrets(guard, file)?.sign(scope, expires)))
}

fn write(link: &Link) -> String {
    let (expires, token) = (link.expires, link.signature_hex());
    match &link.scope {
        Scope::File(path) => {
            format!("/{}?expires={expires}&validate_token={token}", url_path(path))
        }
        Scope::Below(path) => {
            let path = url_path(path);
            format!("/{path}/?expires={expires}&below={path}&validate_token={token}")
        }
    }
}

/// What the query of a request for `path` says; `None` where it is no signed URL, or is two.
pub(super) fn read(query: Option<&str>, path: &TreePath) -> Option<Link> {
    let (mut expires, mut below, mut token) = (None, None, None);
    for parameter in query?.split('&') {
        let (name, value) = parameter.split_once('=')?;
        let place = match name {
            "expires" => &mut expires,
            "below" => &mut below,
            "validate_token" => &mut token,
            _ => continue,
        };
        if place.replace(value).is_some() {
            return None;
        }
    }
    let scope = match below {
        None => Scope::File(path.clone()),
        Some(text) => Scope::Below(TreePath::parse(&unescape(text)?).ok()?),
    };
    let expires = expires.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    let signature = Link::parse_signature(token?)?;
    Some(Link { scope, expires: expires.parse().ok()?, signature })
}

#[cfg(test)]
mod tests {
    use certs::guard::LinkSecrets;

    use super::*;

    #[test]
    fn what_is_written_is_read_back_and_two_of_a_kind_are_none() {
        let secrets = LinkSecrets::read(&"s".repeat(32)).unwrap();
        let path = TreePath::parse(b"a b/c&d=+\xff%2f?#").unwrap();
        for scope in [Scope::File(path.clone()), Scope::Below(path.clone())] {
            let link = secrets.sign(scope, jiff::Timestamp::from_second(1_000).unwrap());
            let text = write(&link);
            let (asked, query) = text.split_once('?').unwrap();
            let asked = unescape(asked.trim_matches('/')).unwrap();
            assert_eq!(asked, path.as_bytes(), "{text}");
            assert_eq!(read(Some(query), &path), Some(link.clone()), "{text}");
            assert_eq!(read(Some(&format!("x=1&{query}&y=")), &path), Some(link), "{text}");
            for twice in ["expires=1000", "below=a", "below=b&below=a"] {
                let both = format!("{query}&{twice}");
                assert_ne!(read(Some(&both), &path), read(Some(query), &path), "{both}");
            }
        }
        let zeros = "0".repeat(64);
        for bad in [
            format!("expires=1&validate_token={}", &zeros[1..]),
            format!("expires=-1&validate_token={zeros}"),
            format!("expires=+1&validate_token={zeros}"),
            format!("expires={}&validate_token={zeros}", "9".repeat(30)),
            format!("expires=1&below=&validate_token={zeros}"),
            format!("expires=1&below=%2e%2e/x&validate_token={zeros}"),
            format!("validate_token={zeros}"),
            "expires=1".into(),
            "&".into(),
            String::new(),
        ] {
            assert_eq!(read(Some(&bad), &path), None, "{bad}");
        }
        assert_eq!(read(None, &path), None);
    }
}
